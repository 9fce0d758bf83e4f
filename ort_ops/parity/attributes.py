"""Floating-point attributes of a file's nodes, which may be read as other numbers, as constants are."""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto

__all__ = ["Attribute", "float_attributes"]


@dataclass(frozen=True)
class Attribute:
    """A floating-point attribute of a node: one number, or several."""

    operator: Any
    name: str
    written: NDArray[Any]

    @contextlib.contextmanager
    def replaced(self, value: NDArray[Any]) -> Iterator[None]:
        """Have the node compute with another value."""
        own = getattr(self.operator, self.name)
        self.set(value)
        try:
            yield
        finally:
            setattr(self.operator, self.name, own)

    def set(self, value: NDArray[Any]) -> None:
        """Have the node compute with another value from now on."""
        setattr(self.operator, self.name, value.tolist())


def float_attributes(operators: Iterable[Any]) -> Iterator[tuple[str, Attribute]]:
    """Give those of the evaluator's nodes, each as ``"node.attribute"``."""
    for operator in operators:
        for attribute in operator.onnx_node.attribute:
            if not hasattr(operator, attribute.name):
                continue
            kinds = {AttributeProto.FLOAT: attribute.f, AttributeProto.FLOATS: list(attribute.floats)}
            if attribute.type in kinds:
                written = np.asarray(kinds[attribute.type], np.float32)
                key = f"{operator.onnx_node.name}.{attribute.name}"
                yield key, Attribute(operator, attribute.name, written)
