"""What is in a model file, and who would run each of its custom nodes here; no session is made.

A custom node is one whose operator this ONNX Runtime doesn't have itself, or that gets a kernel of ours.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import onnxruntime

from . import builtin
from .dtypes import ANY, type_name
from .errors import ModelError, RegistrationError
from .functions import function_ops
from .libraries import Libraries, open_libraries
from .model import UNREAD, UNREADABLE, Model, Node, Value, read_model
from .providers import asked_providers, session_providers
from .registry import Op, Overload
from .selection import Plan, Prefer, plan_for
from .unrunnable import taken_types, why_no_kernel

__all__ = ["CustomNodes", "Inspection", "Runner", "inspect_model"]

Runner = Literal["kernel", "function body", "library", "nobody", "not needed"]


@dataclass(frozen=True)
class _Fate:
    runner: Runner
    kernel: str = ""
    provider: str = ""
    reason: str = ""


@dataclass(frozen=True)
class CustomNodes:
    """Those custom nodes of one operator that have the same runner, for the same reason.

    ``nodes`` are their names, ``count`` is how many they are. ``dtypes`` are the element types of their
    inputs, ``"?"`` among them where the file doesn't state one. ``inside`` is the operator,
    ``"domain::NAME"``, in whose function body they stand, "" for the graph.

    ``runner`` is ``"kernel"``: the Python function ``kernel`` on the execution provider ``provider``;
    ``"function body"``: the one in the file; ``"library"``: the one whose path is ``kernel``; ``"nobody"``: a
    session can't be made; or ``"not needed"``: they stand in a function body that isn't run. ``reason`` says
    why no kernel runs them, or on what condition one does.
    """

    domain: str
    op_type: str
    count: int
    nodes: tuple[str, ...]
    dtypes: tuple[str, ...]
    inside: str
    runner: Runner
    kernel: str
    provider: str
    reason: str

    @property
    def op(self) -> str:
        """Return ``"domain::NAME"``."""
        return f"{self.domain}::{self.op_type}"


@dataclass(frozen=True)
class Inspection:
    """What is in a model file, and who would run its custom nodes on ``providers``.

    ``opsets`` are versions by domain (ONNX's own is ``"ai.onnx"``); ``node_count`` counts the nodes of the
    graph and of those inside it, not of function bodies; ``functions`` are the operators
    (``"domain::NAME"``) that the file has a function body for.
    """

    ir_version: int
    opsets: Mapping[str, int]
    providers: tuple[str, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    dtypes: tuple[str, ...]
    node_count: int
    functions: tuple[str, ...]
    custom: tuple[CustomNodes, ...]

    @property
    def runnable(self) -> bool:
        """Tell whether every custom node has somebody to run it; the session may fail for other reasons."""
        return all(nodes.runner != "nobody" for nodes in self.custom)

    @property
    def dynamic_dims(self) -> Mapping[str, tuple[str, ...]]:
        """Return where each symbolic dimension stands, ``{"batch": ("x[0]", "y[0]")}``; "" has no name."""
        found: dict[str, list[str]] = {}
        for value in (*self.inputs, *self.outputs):
            for axis, dim in enumerate(value.shape or ()):
                if not isinstance(dim, int):
                    found.setdefault(dim or "", []).append(f"{value.name}[{axis}]")
        return {symbol: tuple(places) for symbol, places in found.items()}

    def to_json(self) -> str:
        """Return all of it; keys are only ever added.

        ``runnable``, ``onnxruntime`` (its version), ``ir_version``, ``opsets`` ({domain: version}),
        ``providers``, ``inputs`` and ``outputs`` (each ``name``, ``kind``, ``dtype``, and ``shape``: sizes,
        symbols, null for a dimension that has neither, null for an unknown rank), ``dynamic_dims``
        ({symbol: places}), ``dtypes``, ``node_count``, ``functions``, and ``custom``, whose keys are the
        fields of ``CustomNodes``.
        """
        whole = {
            "runnable": self.runnable,
            "onnxruntime": onnxruntime.__version__,
            "ir_version": self.ir_version,
            "opsets": dict(self.opsets),
            "providers": self.providers,
            "inputs": [_describe(value) for value in self.inputs],
            "outputs": [_describe(value) for value in self.outputs],
            "dynamic_dims": dict(self.dynamic_dims),
            "dtypes": self.dtypes,
            "node_count": self.node_count,
            "functions": self.functions,
            "custom": [asdict(nodes) for nodes in self.custom],
        }
        return json.dumps(whole, indent=2)


def _describe(value: Value) -> dict[str, Any]:
    dtype = type_name(value.element_type)
    return {"name": value.name, "kind": value.kind, "dtype": dtype, "shape": value.shape}


def inspect_model(
    source: str | os.PathLike[str] | bytes,
    providers: Sequence[str | tuple[str, dict[str, Any]]] | None = None,
    *,
    prefer: Prefer = "kernel",
    functions: Iterable[type] | None = None,
    trust: Iterable[str] = (),
    libraries: Sequence[str | os.PathLike[str]] = (),
) -> Inspection:
    """Read a model and say who would run its custom nodes in an ``ort_ops.InferenceSession`` made here.

    The arguments are those of ``InferenceSession``, and the kernels those that are registered now; libraries:
    of custom operators, which are loaded. Raises ModelError for what is no ONNX model, OSError for a file
    that can't be read, ProviderError for a provider that isn't there, RegistrationError for a library that
    doesn't load.
    """
    model = read_model(source)
    if model == UNREAD:
        raise ModelError(f"the model {UNREADABLE}")
    names = session_providers(providers)
    functions_of = function_ops(model, functions, trust)
    fates = _fates(model, providers, prefer, functions_of, open_libraries(libraries, model.opsets))
    return Inspection(
        ir_version=model.ir_version,
        opsets={domain or "ai.onnx": version for domain, version in model.opsets.items()},
        providers=tuple(names),
        inputs=model.inputs,
        outputs=model.outputs,
        dtypes=tuple(type_name(element_type) for element_type in sorted(model.element_types)),
        node_count=sum(node.in_function is None for node in model.nodes),
        functions=tuple(f"{domain}::{name}" for domain, name in sorted(model.functions)),
        custom=tuple(_grouped(fates)),
    )


def _grouped(fates: Sequence[tuple[Node, _Fate]]) -> Iterator[CustomNodes]:
    """Give one row for the nodes that share operator, place and fate, in the order of the file."""
    groups: dict[tuple[Any, ...], list[Node]] = {}
    for node, fate in fates:
        groups.setdefault((*node.op, node.in_function, fate), []).append(node)
    for (domain, op_type, inside, fate), nodes in groups.items():
        types = {element_type for node in nodes for element_type in node.input_types if element_type != 0}
        yield CustomNodes(
            domain,
            op_type,
            len(nodes),
            tuple(node.name for node in nodes),
            tuple(sorted(type_name(element_type) for element_type in types)),
            "::".join(inside or ()),
            **asdict(fate),
        )


_Functions = tuple[Mapping[tuple[str, str], Op], Mapping[tuple[str, str], str]]


_Providers = Sequence[str | tuple[str, dict[str, Any]]] | None


def _fates(
    model: Model, providers: _Providers, prefer: Prefer, functions: _Functions, libraries: Libraries
) -> list[tuple[Node, _Fate]]:
    """Return every custom node with its fate; ``functions`` has the kernels for recorded calls."""
    plans = {op: _plan(model, op, providers, prefer, functions) for op in model.calls()}
    plans = {op: plan.without_libraries(libraries.domains, asked=False) for op, plan in plans.items()}
    names = session_providers(providers)
    custom = [(node, _fate(model, node, plans[node.op], names, libraries)) for node in model.nodes]
    custom = [(node, fate) for node, fate in custom if _is_custom(model, node, fate)]
    needed = _bodies_run(custom)
    return [
        (node, fate if node.in_function is None or node.in_function in needed else _not_needed(node))
        for node, fate in custom
    ]


def _plan(
    model: Model, op: tuple[str, str], providers: _Providers, prefer: Prefer, functions: _Functions
) -> Plan:
    """Return what a session registers for one operator; that it refuses to is the reason for having none."""
    alone = replace(model, nodes=tuple(node for node in model.nodes if node.op == op))
    try:
        others, refused = functions
        own = {op: others[op]} if op in others else None
        names, asked = session_providers(providers), asked_providers(providers)
        plan = plan_for(alone, names, prefer, others=own, asked=asked)
        # Why its Function isn't allowed says nothing of a kernel that is there.
        return Plan(plan.overloads, {**({} if plan.overloads else refused), **plan.reasons})
    except RegistrationError as error:
        return Plan((), {op: str(error)})


def _fate(model: Model, node: Node, plan: Plan, providers: Sequence[str], libraries: Libraries) -> _Fate:
    """Say who runs a node if it is run at all."""
    owner = libraries.domains.get(node.domain)
    if owner is not None and node.op_type in owner.operators:
        return _Fate("library", owner.path, reason=plan.reasons.get(node.op, ""))
    fitting = [overload for _, overload in plan.overloads if overload.accepts(node.input_types, node.outputs)]
    for provider in providers:  # the first that has a kernel for a node gets it
        if here := [overload for overload in fitting if overload.provider == provider]:
            return _kernel(node, here, provider)
    reason = plan.reasons.get(node.op) or why_no_kernel(model, node, plan)
    if _has_body(model, node):
        return _Fate("function body", reason=reason + _which_body(model, node))
    if libraries.silent and not builtin.is_built_in(node.op, model.opsets.get(node.domain)):
        return _Fate("library", " or ".join(libraries.silent), reason="if it is in there, which isn't said")
    return _Fate("nobody", reason=reason + _why_no_body(model, node))


def _kernel(node: Node, overloads: Sequence[Overload], provider: str) -> _Fate:
    """Say which kernel runs a node: the first that fits, one of them where the file leaves types open."""
    whatever = [_takes_whatever(overload, node) for overload in overloads]
    if whatever[0]:
        return _Fate("kernel", overloads[0].op.kernel.where, provider)
    kernels = dict.fromkeys(overload.op.kernel.where for overload in overloads)
    condition = f"if its inputs are {taken_types(overloads)}: the file doesn't state their types"
    return _Fate("kernel", " or ".join(kernels), provider, "" if any(whatever) else condition)


def _takes_whatever(overload: Overload, node: Node) -> bool:
    """Tell whether an overload that fits does so whatever the types are that the file doesn't state."""
    declared = overload.signature.inputs
    unknown = (index for index, given in enumerate(node.input_types) if given is None)
    return all(declared[min(index, len(declared) - 1)] == ANY for index in unknown)


def _has_body(model: Model, node: Node) -> bool:
    """Tell whether ONNX Runtime takes a body in the file for a node.

    It takes none in its own default domain, and wants the domain imported by the model itself, also where
    just a function uses it (seen with 1.20 to 1.32).
    """
    exact = not builtin.TELLS_OVERLOADS_APART or (*node.op, node.overload) in model.bodies
    return exact and node.op in model.functions and node.domain in model.opsets.keys() - {""}


def _which_body(model: Model, node: Node) -> str:
    """Warn of a body that is another overload's."""
    overloads = {overload for *op, overload in model.bodies if tuple(op) == node.op}
    if builtin.TELLS_OVERLOADS_APART or overloads == {node.overload}:
        return ""
    return (
        f"; WRONG ANSWERS: the node asks for the function body of overload {node.overload!r}, and ONNX "
        "Runtime before 1.27 runs the last in the file, whatever its overload"
    )


def _why_no_body(model: Model, node: Node) -> str:
    """Say why a function body of the operator doesn't help; "" where there is none."""
    if node.op not in model.functions:
        return ""
    if node.domain == "":
        return "; ONNX Runtime takes no function body in the default domain"
    if node.domain not in model.opsets:
        return f"; the function body needs an opset import of {node.domain!r}"
    return f"; there is no function body for its overload {node.overload!r}"


def _is_custom(model: Model, node: Node, fate: _Fate) -> bool:
    taken = fate.runner in ("kernel", "library")
    return taken or not builtin.is_built_in(node.op, model.opsets.get(node.domain))


def _bodies_run(custom: Sequence[tuple[Node, _Fate]]) -> set[tuple[str, str]]:
    """Return the operators whose function bodies are run, those that stand only in other bodies included."""
    needed: set[tuple[str, str]] = set()
    while True:
        more = {
            node.op
            for node, fate in custom
            if fate.runner == "function body" and (node.in_function is None or node.in_function in needed)
        }
        if more <= needed:
            return needed
        needed |= more


def _not_needed(node: Node) -> _Fate:
    inside = "::".join(node.in_function or ())
    return _Fate("not needed", reason=f"the function body of {inside} is not run")
