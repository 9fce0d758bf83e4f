"""Floating-point attributes of a file's nodes, which may be read as other numbers, as constants are.

And the constants that nodes have inside: in the bodies of functions, and in graphs that are attributes.
"""

import contextlib
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, NodeProto, numpy_helper

from .evaluator import WideEvaluator, inside, is_narrow

__all__ = ["Attribute", "float_attributes"]


@dataclass(frozen=True)
class Attribute:
    """A floating-point attribute of a node, one number or several, or a constant."""

    values: MutableMapping[str, Any]
    name: str
    written: NDArray[Any]
    is_array: bool

    @contextlib.contextmanager
    def replaced(self, value: NDArray[Any]) -> Iterator[None]:
        """Have the node compute with another value."""
        own = self.values[self.name]
        self.set(value)
        try:
            yield
        finally:
            self.values[self.name] = own

    def set(self, value: NDArray[Any]) -> None:
        """Have the node compute with another value from now on."""
        self.values[self.name] = value if self.is_array else value.tolist()


def float_attributes(evaluator: WideEvaluator) -> Iterator[tuple[str, Attribute]]:
    """Give those of the evaluator's nodes, each as ``"node.attribute"``, and what is inside of these."""
    return _of_nodes(evaluator, "", {id(evaluator)})


def _of_nodes(evaluator: WideEvaluator, path: str, seen: set[int]) -> Iterator[tuple[str, Attribute]]:
    for operator in evaluator.rt_nodes_:
        node: NodeProto = operator.onnx_node
        key = f"{path}{node.name or next(iter(node.output), node.op_type)}"
        for attribute in node.attribute:
            written = None if attribute.ref_attr_name else _fractions(attribute)
            if written is None or not hasattr(operator, attribute.name):
                continue
            is_constant = node.op_type == "Constant" and hasattr(operator, "cst")
            if is_constant or attribute.type != AttributeProto.TENSOR:
                name = "cst" if is_constant else attribute.name
                yield f"{key}.{attribute.name}", Attribute(vars(operator), name, written, is_constant)
        for body in inside(operator):
            if id(body) not in seen:  # one for all nodes that a function has
                seen.add(id(body))
                yield from _of_constants(body, f"{key}/")
                yield from _of_nodes(body, f"{key}/", seen)


def _of_constants(evaluator: WideEvaluator, path: str) -> Iterator[tuple[str, Attribute]]:
    for tensor in getattr(evaluator.proto_, "initializer", ()):
        written = numpy_helper.to_array(tensor)
        if is_narrow(written):
            yield f"{path}{tensor.name}", Attribute(evaluator.rt_inits_, tensor.name, written, True)


def _fractions(attribute: AttributeProto) -> NDArray[Any] | None:
    """Return an attribute's value as it is written; None for other than narrow floating-point numbers."""
    if attribute.type == AttributeProto.TENSOR:
        array = numpy_helper.to_array(attribute.t)
        return array if is_narrow(array) else None
    kinds = {AttributeProto.FLOAT: attribute.f, AttributeProto.FLOATS: list(attribute.floats)}
    return np.asarray(kinds[attribute.type], np.float32) if attribute.type in kinds else None
