"""Custom operators that have the name of one of ONNX's, which ONNX Runtime takes for that one.

It looks at the name in many places, and not at the domain.
"""

import os
from collections import Counter
from collections.abc import Container, Iterable, Mapping

import onnxruntime

from .builtin import RELEASE, is_built_in, known_since
from .errors import RegistrationError
from .model import Model, Node
from .needed import NodeId, needed_nodes

__all__ = ["optimizers_to_leave_out", "refuse_namesakes", "refuse_vanished"]

# 1.20.0 ends the process, and so do 1.24 to 1.32, the newest there is; 1.20.1 and 1.23.2 did not, by chance:
# it reads on behind the inputs. A release of which nobody knows better is taken for one that does.
_FIXED_IN: tuple[int, ...] | None = None

# How many inputs it reads while a session is made, by the name; a node with fewer ends the process.
_READ: Mapping[str, int] = {
    **dict.fromkeys(("Add", "Conv", "ConvTranspose", "Div", "Gather", "Gemm", "Mul", "Sub"), 2),
    "DequantizeLinear": 2,
    "Where": 3,
}

# Which optimizers take a node away, whatever it computes, put others beside it or read inputs that it
# hasn't, by the name of the node.
_OPTIMIZERS: Mapping[str, tuple[str, ...]] = {
    "Clip": ("QDQSelectorActionTransformer",),
    "Expand": ("ExpandElimination",),
    "Identity": ("EliminateIdentity",),
    "Shape": ("ConstantFolding",),
    "Transpose": (
        *("MatmulTransposeFusion", "TransposeOptimizer", "TransposeOptimizer_CPUExecutionProvider"),
    ),
}


_RENAMES = "ConstantFolding"
"""Takes a branch's nodes out of an If whose condition it knows, and gives them other names."""


def refuse_namesakes(model: Model) -> None:
    """Raise RegistrationError for a node over which this release of ONNX Runtime may end the process."""
    fixed = _FIXED_IN is not None and RELEASE >= _FIXED_IN
    for node in () if fixed else model.nodes:
        given, read = len(node.input_types), _READ.get(node.op_type, 0)
        if given < read and _is_custom(model, node):
            raise RegistrationError(
                f"node {node.name!r} is of {node.domain}::{node.op_type} and has {given} inputs; "
                f"ONNX Runtime {onnxruntime.__version__} takes it for its own {node.op_type}, reads {read}, "
                "and may end the process: give the operator another name"
            )


def optimizers_to_leave_out(
    model: Model, asked: Iterable[str] | None, by_node: Container[tuple[str, str]]
) -> list[str] | None:
    """Return the optimizers that a session is to do without, those that are ``asked`` for among them.

    by_node: the operators of which a kernel is told by the name of a node what to compute.
    """
    there = {node.op_type for node in model.nodes if node.op_type in _OPTIMIZERS and _is_custom(model, node)}
    left_out = [each for name in sorted(there) for each in _OPTIMIZERS[name]]
    if any(node.inner and node.op in by_node for node in model.nodes):
        left_out.append(_RENAMES)
    if left_out:
        return [*(asked or ()), *left_out]
    return None if asked is None else list(asked)


def refuse_vanished(
    model: Model,
    source: str | os.PathLike[str] | bytes,
    planned: Container[tuple[str, str]],
    made: Mapping[NodeId, int],
) -> None:
    """Raise RegistrationError for a node that ONNX Runtime took for its own, and away, though it is needed.

    planned: the operators that have a kernel. made: how many kernels a session has made for nodes of a name.
    The file is read anew only where a node with such an operator's name has no kernel.
    """
    nodes = [node for node in model.nodes if node.op in planned and node.in_function is None]
    there = Counter((*node.op, node.name) for node in nodes)
    missing = [node for node in nodes if made.get((*node.op, node.name), 0) < there[*node.op, node.name]]
    missing = [node for node in missing if _is_namesake(model, node)]
    if not missing:
        return
    needed = Counter(needed_nodes(source, unknown={op for op in model.functions if op not in planned}))
    for node in missing:
        if made.get((*node.op, node.name), 0) < needed[*node.op, node.name]:
            raise RegistrationError(
                f"node {node.name!r} is of {node.domain}::{node.op_type}; ONNX Runtime "
                f"{onnxruntime.__version__} takes it for its own {node.op_type}, and has left it out though "
                "its results are needed: give the operator another name"
            )


def _is_namesake(model: Model, node: Node) -> bool:
    known = any(known_since((domain, node.op_type)) for domain in ("", "com.microsoft"))
    return known and _is_custom(model, node)


def _is_custom(model: Model, node: Node) -> bool:
    return node.domain != "" and not is_built_in(node.op, model.opsets.get(node.domain))
