"""A node of a file that has been evaluated."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

__all__ = ["Elementwise", "Step"]

Elementwise = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True)
class Step:
    """A node that has been evaluated: what it was given and what it gave, None for what is absent.

    ``again`` evaluates it on other inputs. ``weights`` are the names of inputs that are the same in all
    evaluations beside this one, with what ``on`` has made of them.
    """

    node: NodeProto
    inputs: Sequence[Any]
    outputs: Sequence[Any]
    again: Callable[[Sequence[Any]], Sequence[Any]]
    weights: Mapping[str, dict[Elementwise, NDArray[Any]]]

    def attribute(self, name: str, default: Any) -> Any:
        """Return an attribute of the node, a text as str; the default where the node has none of the name."""
        found = next((each for each in self.node.attribute if each.name == name), None)
        if found is None:
            return default
        value = helper.get_attribute_value(found)
        return value.decode() if isinstance(value, bytes) else value

    def on(self, operation: Elementwise) -> Sequence[Any]:
        """Evaluate it on what an operation makes of its inputs in float64; of a weight it is made once."""
        given = []
        for name, value in zip(self.node.input, self.inputs, strict=False):
            if not isinstance(value, np.ndarray) or value.dtype != np.float64:
                given.append(value)
            elif (made := self.weights.get(name)) is None:
                given.append(operation(value))
            else:
                if operation not in made:
                    made[operation] = operation(value)
                given.append(made[operation])
        return self.again(given)
