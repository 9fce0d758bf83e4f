"""What became of each call, and what is said where a body was asked for and none was had."""

import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ort_ops.errors import ExportError

from .bodies import Body
from .options import Functions

__all__ = ["CallReport", "Moved", "refuse_bare"]


_OPERATOR = "no body is derived from an operator of torch.library (as_node)"


@dataclass(frozen=True)
class CallReport:
    """What became of one call of a Function.

    ``nodes`` are the names of the custom nodes that ``symbolic`` wrote for it; none where it writes standard
    operators only, or where nothing reads the results. ``reason`` says why the Function's own forward can't
    run in a node's place; empty where it can. ``body`` is the function body that the nodes got: one for the
    operator (``"function"``), an ``"overload"`` of it, or plain operators instead of the node
    (``"inlined"``); ``no_body`` says why none where one was asked for.
    """

    function: str
    nodes: tuple[str, ...]
    reason: str
    body: Body = ""
    no_body: str = ""


@dataclass(frozen=True)
class Moved:
    """An operator that was taken out of ONNX's default domain, which doesn't have it."""

    op_type: str
    domain: str


def refuse_bare(calls: Sequence[CallReport], operators: Mapping[str, str], functions: Functions) -> None:
    """Warn of each Function that has nodes without a body, and say why, in the words of its first such call.

    And of each operator of ``as_node``, of which ``operators`` has the name of a node.

    Raises ExportError instead under ``"inline"``, which promises plain operators; under ``"attach"`` the file
    is right all the same, but needs something to run it.
    """
    if functions == "keep":
        return
    bare = {name: CallReport(name, (node,), _OPERATOR, no_body=_OPERATOR) for name, node in operators.items()}
    for call in calls:
        if call.nodes and not call.body:
            bare.setdefault(call.function, call)
    for call in bare.values():
        node = f"{call.function}: node {call.nodes[0]!r}"
        if functions == "inline":
            raise ExportError(
                f"{node} does not become plain operators: {call.no_body}; expected {_remedy(call)}, or "
                'functions="keep"'
            )
        runs = "a kernel" if call.reason else "a kernel or the Function itself (program.session())"
        warnings.warn(
            f"{node} has no function body: {call.no_body}; without {_remedy(call)} it is run by {runs}, "
            "and by no stock ONNX Runtime",
            stacklevel=_depth(),
        )


def _remedy(call: CallReport) -> str:
    if call.reason is _OPERATOR:
        return "a Function with a forward in standard operators instead"
    return "a forward in standard operators or a body by hand (bodies={...})"


def _depth() -> int:
    """Return how far above its caller the first frame is that is neither ours nor torch's."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _PASSED:
        level, frame = level + 1, frame.f_back
    return level


_PASSED = ("contextlib", "ort_ops", "torch")
