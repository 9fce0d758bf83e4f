"""Who runs the custom nodes of a session, and why no kernel does where none does."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .builtin import is_built_in
from .libraries import Library
from .model import Model, Node
from .selection import Plan

__all__ = ["NodeRun", "Runners"]

_RENAMED = "or nothing needs its results: ONNX Runtime renames nodes where it resolves a condition"


@dataclass(frozen=True)
class NodeRun:
    """Who runs one custom node of a session.

    ``runner`` is ``"kernel"``, ``"function body"``, ``"library"`` for an operator that something else
    registered, or ``"left out"`` for a node whose results ONNX Runtime doesn't need; ``kernel`` names the
    function, or the library's file; ``provider`` is the execution provider, several joined by ``+`` where the
    nodes of a body are on several; ``reason`` says why no kernel of ours runs it.
    """

    node: str
    op: str
    runner: str
    provider: str
    kernel: str = ""
    reason: str = ""

    def __str__(self) -> str:
        who = f"{self.runner} {self.kernel}".rstrip()
        where = f" on {self.provider}" if self.provider else ""
        why = f" ({self.reason})" if self.reason else ""
        return f"{self.node} [{self.op}]: {who}{where}{why}"


@dataclass(frozen=True)
class Runners:
    """What is known of who runs what in a session.

    kernels: provider and name of the kernels that were made, by domain, operator and node. plan: which were
    registered, and why others were not. libraries: those of C++ that the session has, by domain. assigned:
    the providers that built-in nodes are on.
    """

    model: Model
    plan: Plan
    libraries: Mapping[str, Library]
    kernels: Mapping[tuple[str, str, str], set[tuple[str, str]]]
    assigned: Sequence[str]

    def explain(self) -> Iterator[NodeRun]:
        """Say of each custom node who runs it."""
        return (self._explain(node) for node in self.model.nodes if self._is_custom(node))

    def _renamed(self, op: tuple[str, str]) -> set[tuple[str, str]]:
        """Return provider and name of an operator's kernels whose nodes' names are not the file's."""
        names = {node.name for node in self.model.nodes if node.op == op}
        made = (
            (name, kernels) for (domain, kind, name), kernels in self.kernels.items() if (domain, kind) == op
        )
        return {kernel for name, kernels in made if name not in names for kernel in kernels}

    def _is_custom(self, node: Node) -> bool:
        if node.in_function is not None:  # the nodes of a body are what that body runs
            return False
        named = (*self.kernels, *((*op, "") for op in self.plan.reasons))
        built_in = is_built_in(node.op, self.model.opsets.get(node.domain))
        return not built_in or any(node.op == (d, op) for d, op, _ in named)

    def _explain(self, node: Node) -> NodeRun:
        op = f"{node.domain}::{node.op_type}"
        made = self.kernels.get((*node.op, node.name), set())
        renamed = set() if made else self._renamed(node.op)
        if made or renamed:
            where, names = ("+".join(sorted(set(column))) for column in zip(*made | renamed, strict=True))
            return NodeRun(node.name, op, "kernel", where, names, _RENAMED if renamed else "")
        if any(name == node.op for name, _ in self.plan.overloads):  # it wins over whatever else there is
            return NodeRun(node.name, op, "left out", "", reason="nothing needs its results")
        reason = self.plan.reasons.get(node.op, "")
        where = "+".join(self.assigned)
        library = self.libraries.get(node.domain)
        if library is not None and node.op_type in library.operators:
            return NodeRun(node.name, op, "library", where, library.path, reason)
        if node.op in self.model.functions:
            reason = reason or "no kernel is registered for it"
            return NodeRun(node.name, op, "function body", where, reason=reason)
        return NodeRun(node.name, op, "library", where, reason=reason)
