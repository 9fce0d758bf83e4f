"""Who runs each custom node of a model in a session made here, and why no kernel does where none does.

A custom node is one whose operator this ONNX Runtime doesn't have itself, or that gets a kernel of ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from . import builtin
from .dtypes import ANY
from .errors import RegistrationError
from .libraries import Libraries
from .model import Model, Node
from .providers import asked_providers, session_providers
from .registry import Op, Overload
from .selection import Plan, Prefer, plan_for
from .unrunnable import taken_types, why_no_kernel

__all__ = ["Fate", "Runner", "fates", "has_body"]

Runner = Literal["kernel", "function body", "library", "nobody", "not needed"]


@dataclass(frozen=True)
class Fate:
    """Who runs a node; see ``CustomNodes``, which has these for several nodes."""

    runner: Runner
    kernel: str = ""
    provider: str = ""
    reason: str = ""
    libraries: tuple[str, ...] = ()


_Functions = tuple[Mapping[tuple[str, str], Sequence[Op]], Mapping[tuple[str, str], str]]
_Providers = Sequence[str | tuple[str, dict[str, Any]]] | None


def fates(
    model: Model, providers: _Providers, prefer: Prefer, functions: _Functions, libraries: Libraries
) -> list[tuple[Node, Fate]]:
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


def _fate(model: Model, node: Node, plan: Plan, providers: Sequence[str], libraries: Libraries) -> Fate:
    """Say who runs a node if it is run at all."""
    owner = libraries.domains.get(node.domain)
    if owner is not None and node.op_type in owner.operators:
        return Fate("library", owner.path, reason=plan.reasons.get(node.op, ""), libraries=(owner.path,))
    fitting = [overload for _, overload in plan.overloads if overload.accepts(node.input_types, node.outputs)]
    for provider in providers:  # the first that has a kernel for a node gets it
        if here := [overload for overload in fitting if overload.provider == provider]:
            return _kernel(node, here, provider)
    reason = plan.reasons.get(node.op) or why_no_kernel(model, node, plan)
    if has_body(model, node):
        return Fate("function body", reason=reason + _which_body(model, node))
    if libraries.silent and not builtin.is_built_in(node.op, model.opsets.get(node.domain)):
        where = " or ".join(libraries.silent)
        return Fate(
            "library", where, reason="if it is in there, which isn't said", libraries=libraries.silent
        )
    return Fate("nobody", reason=reason + _why_no_body(model, node))


def _kernel(node: Node, overloads: Sequence[Overload], provider: str) -> Fate:
    """Say which kernel runs a node: the first that fits, one of them where the file leaves types open."""
    whatever = [_takes_whatever(overload, node) for overload in overloads]
    if whatever[0]:
        return Fate("kernel", overloads[0].op.kernel.where, provider)
    kernels = dict.fromkeys(overload.op.kernel.where for overload in overloads)
    condition = f"if its inputs are {taken_types(overloads)}: the file doesn't state their types"
    return Fate("kernel", " or ".join(kernels), provider, "" if any(whatever) else condition)


def _takes_whatever(overload: Overload, node: Node) -> bool:
    """Tell whether an overload that fits does so whatever the types are that the file doesn't state."""
    declared = overload.signature.inputs
    unknown = (index for index, given in enumerate(node.input_types) if given is None)
    return all(declared[min(index, len(declared) - 1)] == ANY for index in unknown)


def has_body(model: Model, node: Node) -> bool:
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


def _is_custom(model: Model, node: Node, fate: Fate) -> bool:
    taken = fate.runner in ("kernel", "library")
    return taken or not builtin.is_built_in(node.op, model.opsets.get(node.domain))


def _bodies_run(custom: Sequence[tuple[Node, Fate]]) -> set[tuple[str, str]]:
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


def _not_needed(node: Node) -> Fate:
    inside = "::".join(node.in_function or ())
    return Fate("not needed", reason=f"the function body of {inside} is not run")
