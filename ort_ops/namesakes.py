"""Custom operators that have the name of one of ONNX's, which ONNX Runtime takes for that one.

It looks at the name in a few places, and not at the domain.
"""

from collections.abc import Iterable, Mapping

import onnxruntime

from .builtin import RELEASE, is_built_in
from .errors import RegistrationError
from .model import Model, Node

__all__ = ["optimizers_to_leave_out", "refuse_namesakes"]

# 1.20.0 does, and 1.24 to 1.32; 1.20.1 and 1.23.2 did not, by chance: it reads on behind the inputs.
_ENDS_PROCESS = RELEASE <= (1, 32)  # the newest there is

# How many inputs it reads while a session is made, by the name; a node with fewer ends the process.
_READ: Mapping[str, int] = {
    **dict.fromkeys(("Add", "Conv", "ConvTranspose", "Div", "Gather", "Gemm", "Mul", "Sub"), 2),
    "Where": 3,
}


def refuse_namesakes(model: Model) -> None:
    """Raise RegistrationError for a node over which this release of ONNX Runtime would end the process."""
    for node in model.nodes if _ENDS_PROCESS else ():
        given, read = len(node.input_types), _READ.get(node.op_type, 0)
        if given < read and _is_custom(model, node):
            raise RegistrationError(
                f"node {node.name!r} is of {node.domain}::{node.op_type} and has {given} inputs; "
                f"ONNX Runtime {onnxruntime.__version__} takes it for its own {node.op_type}, reads {read}, "
                "and may end the process: give the operator another name"
            )


def optimizers_to_leave_out(model: Model, asked: Iterable[str] | None) -> list[str] | None:
    """Return the optimizers that a session is to do without, those that are ``asked`` for among them.

    One of ONNX Runtime's removes every node that is called Identity, whatever it computes.
    """
    if any(node.op_type == "Identity" and _is_custom(model, node) for node in model.nodes):
        return [*(asked or ()), "EliminateIdentity"]
    return None if asked is None else list(asked)


def _is_custom(model: Model, node: Node) -> bool:
    return node.domain != "" and not is_built_in(node.op, model.opsets.get(node.domain))
