"""Why nobody can run a node: what is said where ONNX Runtime refuses a model over one of its operators."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidGraph, NotImplemented

from . import builtin
from .dtypes import ANY, type_name
from .errors import NoKernelError
from .libraries import Library
from .model import Model, Node
from .registry import Overload, registered_ops
from .selection import Plan

__all__ = ["given_types", "no_kernel_error", "taken_types", "why_no_kernel"]


# Who moves over from onnxruntime catches its exceptions where a session is made.
class UnregisteredError(NoKernelError, Fail):  # type: ignore[misc] # onnxruntime has no types
    """Nobody has the operator."""


class MistypedError(NoKernelError, InvalidGraph):  # type: ignore[misc]
    """Whoever has the operator doesn't take what the node has."""


class UnimplementedError(NoKernelError, NotImplemented):  # type: ignore[misc]
    """ONNX Runtime knows the operator, and no kernel takes what the node has."""


_ERRORS: Mapping[type[Exception], type[NoKernelError]] = {
    Fail: UnregisteredError,
    InvalidGraph: MistypedError,
    NotImplemented: UnimplementedError,
}

# Some of ONNX Runtime's texts (1.20 to 1.32) name the domain, some the node.
_TEXTS = tuple(
    map(
        re.compile,
        (
            r"(?P<domain>[^\s:]*):(?P<op>[^\s:]+)\(-?\d+\) is not a registered function/op",
            r'In Node, \("(?P<node>[^"]*)", (?P<op>[^,]+), "(?P<domain>[^"]*)", -?\d+\).*'
            r"(?:No Op registered for|has (?:input|output) size)",
            r"of operator \((?P<op>.+?)\) in node \((?P<node>.*?)\) is invalid",
            r"Could not find an implementation for (?P<op>[^\s(]+)\(\d+\) node with name '(?P<node>.*?)'",
        ),
    )
)


def no_kernel_error(
    error: Exception, model: Model, plan: Plan, libraries: Mapping[str, Library]
) -> NoKernelError | None:
    """Return what is to be raised for ONNX Runtime's error over a node that nobody can run.

    It is of ONNX Runtime's type, too, and ends with its text. None where the error is about something else.
    """
    kind = _ERRORS.get(type(error))
    node = None if kind is None else _node_of(str(error), model)
    if kind is None or node is None:
        return None
    alone = replace(plan, overloads=tuple(pair for pair in plan.overloads if pair[0] == node.op))
    what = f"node {node.name!r} is of {_shown(node.op)}, and nobody can run it"
    return kind(f"{what}: {_why(model, node, alone, libraries.get(node.domain))}\n{error}")


def _node_of(text: str, model: Model) -> Node | None:
    match = next((match for each in _TEXTS if (match := each.search(text))), None)
    if match is None:
        return None
    said = match.groupdict()
    op, domain = said["op"], said.get("domain")
    nodes = [n for n in model.nodes if n.op_type == op and domain in (None, n.domain, n.domain or "ai.onnx")]
    named = [node for node in nodes if node.name == said.get("node")]
    return next(iter(named or nodes), None)  # in a body that is inlined, a node has another name


def _why(model: Model, node: Node, plan: Plan, library: Library | None) -> str:
    if not plan.overloads and node.op not in plan.reasons:
        if library is not None and node.op_type in library.operators:
            imported = model.opsets.get(node.domain)
            return (
                f"{library.path} has it, but not for {given_types(node)} and {node.outputs} outputs in the "
                f"version that the model imports, {node.domain or 'ai.onnx'} {imported}"
            )
        if builtin.known_since(node.op) is None:
            return (
                f"{_unregistered(node.op, library)}; import the module that has its kernel, or give "
                "sess_options the library that has it (sess_options.register_custom_ops_library)"
            )
    return plan.reasons.get(node.op) or why_no_kernel(model, node, plan)


def _unregistered(op: tuple[str, str], library: Library | None = None) -> str:
    """Say that an operator has no kernel, and which others have that may be meant."""
    there = {named for each in registered_ops() for named in each.names}
    there |= {(op[0], each) for each in (library.operators if library else ())}
    alike = {each: _alike(op[0], each[0]) * _alike(op[1], each[1]) for each in there}
    near = [each for each in there if alike[each] >= _ALIKE or each[1].lower() == op[1].lower()]
    first = sorted(near, key=lambda each: (-alike[each], each))[:4]
    return f"no kernel is registered for it{f' (there is {_listed(map(_shown, first))})' if near else ''}"


_ALIKE = 0.6
"""Of 1 for the same; Norm and Nrom are 0.75, so that two letters in another order are still alike."""


def _alike(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a.lower(), b.lower()).ratio()


def _shown(op: tuple[str, str]) -> str:
    return f"{op[0] or 'ai.onnx'}::{op[1]}"


def why_no_kernel(model: Model, node: Node, plan: Plan) -> str:
    """Say why no kernel of a plan for its operator runs a node, where the plan itself has no reason."""
    if plan.overloads:
        return _why_not_these(node, [overload for _, overload in plan.overloads])
    if builtin.is_built_in(node.op, model.opsets.get(node.domain)):
        return f"ONNX Runtime has no kernel for {given_types(node)} on the providers of this session"
    if (since := builtin.known_since(node.op)) is not None:
        imported = f"the model imports {node.domain or 'ai.onnx'} {model.opsets.get(node.domain)}"
        return f"ONNX Runtime has it in opset {since}, {imported}"
    return _unregistered(node.op)


def _why_not_these(node: Node, overloads: Sequence[Overload]) -> str:
    kernels = " and ".join(dict.fromkeys(overload.op.kernel.where for overload in overloads))
    outputs = max(len(overload.op.kernel.schema.outputs) for overload in overloads)
    if node.outputs > outputs:
        return (
            f"it has {node.outputs} outputs, {kernels} declares {outputs}; "
            "several are declared as -> tuple[A, B], one type each"
        )
    inputs = list(overloads[0].op.kernel.schema.inputs)
    if len(node.input_types) > len(inputs) and not any(formal.variadic for formal in inputs):
        return (
            f"it has {len(node.input_types)} inputs, {kernels} takes {_listed(f.name for f in inputs)}; "
            "a positional parameter is an input, a keyword-only one an attribute"
        )
    return f"{kernels} can't take {given_types(node)}, it takes {taken_types(overloads)}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def taken_types(overloads: Iterable[Overload]) -> str:
    """Return ``(float32, any) or (float64, any)`` for what kernels declare."""
    taken = list(dict.fromkeys(_signature(overload.signature.inputs) for overload in overloads))
    return " or ".join(taken if len(taken) <= _SHOWN else [*taken[:_SHOWN], "..."])


_SHOWN = 8
"""Of more combinations of types than this, a text says only the first."""


def _signature(element_types: Sequence[int | None]) -> str:
    return f"({', '.join('any' if each == ANY else type_name(each) for each in element_types)})"


def given_types(node: Node) -> str:
    """Return ``(float32, absent, ?)`` for what a node is given."""
    return f"({', '.join('absent' if each == 0 else type_name(each) for each in node.input_types)})"
