"""The last touch on a file: each custom node tied to its call, domains, versions, names, what is too much."""

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import onnx_ir as ir
import torch
from onnx import defs, helper

from ort_ops.errors import ExportError, RegistrationError
from ort_ops.functions import refuse_ambiguous
from ort_ops.model import Model, Node
from ort_ops.namesakes import refuse_namesakes
from ort_ops.recorded import FUNCTION, REASON, Input, RecordedCall, UnrecordableError, function_name, record

from .bodies import BodyFound, give_bodies
from .calls import ELEMENT_TYPES, Call
from .canonical import canonicalize
from .nodes import nodes_of
from .options import Options
from .record import Record
from .report import CallReport, Moved, refuse_bare
from .shapes import infer_types
from .symbolic import MARK, MISSING, Whole

__all__ = ["finish"]


_NOTE = "pkg.torch.onnx.fx_node"
_UNREAD = "nothing reads its results"
_STANDARD = "symbolic writes an operator of ONNX itself, which needs none"
_KEY = re.compile(r"(?<=, )call\w+(?=\), kwargs)")  # of a call, as ort_ops::call is given it


def finish(
    model: ir.Model, seen: Record, options: Options, custom_opsets: Mapping[str, int]
) -> tuple[tuple[CallReport, ...], tuple[Moved, ...]]:
    """Bring a model that an exporter wrote into its final form, in place.

    Raises ExportError where a result is used that ``symbolic`` gave no value for, where a node is left that
    was to become plain operators, and where ONNX Runtime would take a node for one of its own.
    """
    _drop_unused(model.graph, {call.number: call.name for call in seen.calls})
    moved = () if options.default_domain == "keep" else _move(model, options.default_domain)
    _rename_domains(model, options.domains)
    _name_after_operator(model)
    _name_nodes(model.graph)
    marked = _take_marks(model)
    for call in seen.calls:
        call.found.clear()
    _number_calls(model, seen.calls)
    wholes_of = _wholes(seen)
    calls = [(call, wholes_of[call.number], marked.get(call.number, [])) for call in seen.calls]
    unnamed = _unnamed(seen)
    recorded = [_record(call, nodes, unnamed.get(call.number, whole)) for call, whole, nodes in calls]
    reasons = _why_none(calls, recorded)
    bodies: dict[int, BodyFound] = {}
    wholes = [(call, whole, nodes) for call, whole, nodes in calls if isinstance(whole, Whole) and nodes]
    if options.functions != "keep":
        inline = options.functions == "inline"
        if any(
            value is not None and value.shape is None for *_, ns in wholes for n in ns for value in n.inputs
        ):
            infer_types(model, wholes)  # the older exporter writes none
        bodies = give_bodies(model, wholes, options.bodies, inline=inline, overloads=options.overloads)
        _name_nodes(model.graph)  # those that came in the place of others
        for call, whole, _ in calls:
            why = whole if isinstance(whole, str) else _STANDARD if whole.standard else _UNREAD
            bodies.setdefault(call.number, BodyFound(reason=why))
    if options.canonical:
        canonicalize(model, seen.parameters, wholes)
    _set_versions(model, custom_opsets)
    reports = tuple(
        _report(call, nodes, reasons.get(call.number, ""), bodies.get(call.number, BodyFound()))
        for call, _, nodes in calls
    )
    numbers = {call.number for call in seen.calls}
    nodes = [node for number, nodes in marked.items() if number not in numbers for node in nodes]
    refuse_bare(reports, {f"{n.domain}::{n.op_type}": n.name or "" for n in nodes}, options.functions)
    _refuse_namesakes(model)
    return reports, moved


def _report(call: Call, nodes: Sequence[ir.Node], reason: str, found: BodyFound) -> CallReport:
    names = () if found.body == "inlined" else tuple(node.name or "" for node in nodes)
    return CallReport(call.name, names, reason, found.body, found.reason)


def _wholes(seen: Record) -> dict[int, Whole | str]:
    """Return for the number of each call how a node stands for it, or why none does."""
    return {call.number: seen.written.get(call.number, _UNREAD) for call in seen.calls}


def _unnamed(seen: Record) -> dict[int, str]:
    """Return for the number of a call why its Function can't be told by a name, where it can't."""
    names = Counter(function_name(function) for function in {call.function for call in seen.calls})
    return {
        call.number: f"the model calls several Functions of the name {call.name}"
        for call in seen.calls
        if names[function_name(call.function)] > 1
    }


def _drop_unused(graph: ir.Graph, names: Mapping[int, str]) -> None:
    """Remove nodes of ours that nothing reads; refuse a result of a call that has no value."""
    for node in reversed(list(ir.traversal.RecursiveGraphIterator(graph))):
        ours = MARK in node.attributes or (node.domain, node.op_type) == MISSING
        if not ours or node.graph is None:
            continue
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            node.graph.remove(node, safe=True)
        elif (node.domain, node.op_type) == MISSING:
            name = names[node.attributes[MARK].as_int()]
            raise ExportError(
                f"{name}: symbolic returned None for a result that the model uses; expected a value"
            )


def _move(model: ir.Model, domain: str) -> tuple[Moved, ...]:
    """Move what ONNX's default domain doesn't have into another."""
    moved: dict[str, Moved] = {}
    functions = {(f.domain, f.name) for f in model.functions.values()}
    for node in nodes_of(model):
        unknown = node.domain in ("", "ai.onnx") and not defs.has(node.op_type)
        if unknown and (node.domain, node.op_type) not in functions:
            node.domain = domain
            moved[node.op_type] = Moved(node.op_type, domain)
    return tuple(moved.values())


def _rename_domains(model: ir.Model, domains: Mapping[str, str]) -> None:
    """Put the nodes that ``symbolic`` wrote into the domains that the caller wants instead."""
    for node in nodes_of(model):
        if MARK in node.attributes:
            node.domain = domains.get(node.domain, node.domain)


def _name_after_operator(model: ir.Model) -> None:
    """Name nodes and values that the newer exporter named after the torch operator of ours by their own."""
    names = {value.name for node in nodes_of(model) for value in node.outputs}
    counts: Counter[str] = Counter()
    for node in nodes_of(model):
        if MARK not in node.attributes or not (node.name or "").startswith("node_call"):
            continue
        node.name = f"{node.op_type}_{counts[node.op_type]}"
        counts[node.op_type] += 1
        for place, value in enumerate(node.outputs):
            wanted = node.name if len(node.outputs) == 1 else f"{node.name}_{place}"
            if wanted not in names and (value.name or "").startswith(("getitem", "call")):
                value.name = wanted
                names.add(wanted)


def _name_nodes(graph: ir.Graph) -> None:
    """Give every node a name of its own: by it a kernel finds out which call it computes."""
    seen: set[str] = set()
    for node in ir.traversal.RecursiveGraphIterator(graph):
        stem = node.name or f"node_{node.op_type}"
        name = stem
        for count in itertools.count(1):
            if name not in seen:
                break
            name = f"{stem}_{count}"
        node.name = name
        seen.add(name)


def _take_marks(model: ir.Model) -> dict[int, list[ir.Node]]:
    """Remove the marks; returns the nodes of each call."""
    marked: dict[int, list[ir.Node]] = {}
    for node in nodes_of(model):
        mark = node.attributes.pop(MARK, None)
        if mark is not None:
            marked.setdefault(mark.as_int(), []).append(node)
    return marked


def _number_calls(model: ir.Model, calls: Sequence[Call]) -> None:
    """Name calls by their place in the newer exporter's notes on nodes: equal exports are equal files."""
    places = {call.key: f"call{place}" for place, call in enumerate(calls)}
    for node in nodes_of(model):
        note = node.metadata_props.get(_NOTE)
        if note is not None:
            node.metadata_props[_NOTE] = _KEY.sub(lambda found: places.get(found[0], found[0]), note)


def _record(call: Call, nodes: Sequence[ir.Node], whole: Whole | str) -> RecordedCall | str:
    """Record in the metadata of a call's nodes what it is, or why none stands for it; returns either."""
    if isinstance(whole, Whole):
        try:
            recorded = _recorded(call, whole)
        except UnrecordableError as error:
            whole = str(error)
        else:
            metadata = recorded.metadata()
            for node in nodes:
                node.metadata_props.update(metadata)
                _set_types(node, call)
            return recorded
    for node in nodes:
        node.metadata_props.update({FUNCTION: function_name(call.function), REASON: whole})
    return whole


def _why_none(
    calls: Sequence[tuple[Call, Whole | str, Sequence[ir.Node]]], recorded: Sequence[RecordedCall | str]
) -> dict[int, str]:
    """Return for the number of a call why its Function runs none of its nodes, where it doesn't."""
    why: dict[int, str] = {}
    by_operator: dict[tuple[str, str], dict[int, RecordedCall]] = {}
    for (call, _, nodes), found in zip(calls, recorded, strict=True):
        if isinstance(found, str):
            why[call.number] = found
            continue
        for node in nodes:
            by_operator.setdefault((node.domain, node.op_type), {})[call.number] = found
    for each in by_operator.values():
        try:
            refuse_ambiguous(list(each.values()))
        except ValueError as error:
            why |= dict.fromkeys(each, str(error))
    return why


def _recorded(call: Call, whole: Whole) -> RecordedCall:
    tensors = [Input(place) if isinstance(place, int) else place for place in whole.tensors]
    positional, keywords = call.arguments(tensors, [Input(place, number=True) for place in whole.sizes])
    inputs = [0] * whole.inputs
    for place, (_, dtype, _) in zip(whole.tensors, call.examples, strict=True):
        if isinstance(place, int):
            inputs[place] = ELEMENT_TYPES[dtype]
    for place in whole.sizes:
        inputs[place] = ELEMENT_TYPES[torch.int64]
    return RecordedCall(
        function_name(call.function),
        [record(value) for value in positional],
        {name: record(value) for name, value in keywords.items()},
        inputs,
        [ELEMENT_TYPES[dtype] for dtype in call.dtypes[: whole.outputs]],
        [(device, str(dtype).removeprefix("torch.")) for device, on, dtype in call.autocast if on],
        bool(call.written),
        [
            place
            for place, requires in zip(whole.tensors, call.differentiable, strict=False)
            if requires and isinstance(place, int)
        ],
    )


def _set_types(node: ir.Node, call: Call) -> None:
    """Give the node's outputs the types that forward gives, where the exporter lost them.

    Raises ExportError where ``symbolic`` says others.
    """
    for place, (value, dtype) in enumerate(zip(node.outputs, call.dtypes, strict=False)):
        given = ir.DataType(ELEMENT_TYPES[dtype])
        if value.dtype not in (None, given):
            raise ExportError(
                f"{call.name}: symbolic says {value.dtype} of result {place}, and forward gives {given}; "
                f"leave setType out, or give it forward's (x.type().with_dtype({dtype}))"
            )
        value.dtype = given
    for value, (_, sizes) in zip(node.outputs, call.types, strict=False):
        value.shape = value.shape or ir.Shape([size if isinstance(size, int) else None for size in sizes])


def _refuse_namesakes(model: ir.Model) -> None:
    """Refuse a custom node over which ONNX Runtime would end the process, as a session of ours does."""
    nodes = [Node(n.name or "", n.domain, n.op_type, (None,) * len(n.inputs)) for n in nodes_of(model)]
    try:
        refuse_namesakes(Model(model.opset_imports, tuple(nodes), frozenset()))
    except RegistrationError as error:
        raise ExportError(str(error)) from error


def _set_versions(model: ir.Model, custom_opsets: Mapping[str, int]) -> None:
    """Import every domain that is used, in the version asked for, and state no newer IR than that takes."""
    used = {node.domain for node in nodes_of(model)} | {f.domain for f in model.functions.values()}
    for imports in (model.opset_imports, *(f.opset_imports for f in model.functions.values())):
        for domain in used - {""}:
            imports.setdefault(domain, custom_opsets.get(domain, 1))
        for domain, version in custom_opsets.items():
            if domain in imports:
                imports[domain] = version
        kept = sorted((domain, version) for domain, version in imports.items() if domain in used | {""})
        imports.clear()
        imports.update(kept)
    default = [helper.make_opsetid("", model.opset_imports.get("", 1))]
    needed = helper.find_min_ir_version_for(default, ignore_unknown=True)
    if model.functions:
        needed = max(needed, 10 if any(f.overload for f in model.functions.values()) else 8)
    model.ir_version = max(needed, _needed_by_types(model))


def _needed_by_types(model: ir.Model) -> int:
    """Return the IR version that first had the model's element types."""
    values = itertools.chain(
        model.graph.inputs,
        model.graph.initializers.values(),
        (value for node in nodes_of(model) for value in node.outputs),
    )
    types = {int(value.dtype) for value in values if value.dtype is not None}
    return max((_IR_OF_TYPE.get(element_type, 3) for element_type in types), default=3)


# float8 came with IR 9, int4 and uint4 with 10, float4 with 11: onnx/onnx, docs/IR.md and onnx.proto.
_IR_OF_TYPE = {17: 9, 18: 9, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11}
