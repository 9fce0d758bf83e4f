"""Outputs of a file that its inputs don't settle: what is drawn, and an order that is left open."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto

from .compare import identical
from .evaluator import drawing, reseed
from .exact import ExactFile
from .graphs import standard
from .step import Step

__all__ = ["by_chance", "by_open_order"]

Values = Mapping[str, Any]


def by_chance(file: ExactFile, feed: Values, usual: Values) -> dict[str, str]:
    """Return the outputs that are another each time the file is run, and a node that they owe that to.

    usual: the outputs of a run on what is fed.
    """
    found: dict[str, str] = {}
    for operator in file.operators:
        random = drawing(operator)
        if not random:
            continue
        for each in random:
            reseed(each, 1)
        try:
            other = file.run(feed)
        finally:
            for each in random:
                reseed(each, 0)
        found = {**dict.fromkeys(_differing(usual, other), operator.onnx_node.name), **found}
    return found


def by_open_order(file: ExactFile, feed: Values, usual: Values) -> dict[str, str]:
    """Return the outputs that depend on the order of a TopK that doesn't sort, and that node.

    usual: the outputs of a run on what is fed.
    """
    found: dict[str, str] = {}
    for node in file.nodes:
        if standard(node) == "TopK" and any(each.name == "sorted" and not each.i for each in node.attribute):
            other = file.run(feed, after=_reversed_at(node))
            found = {**dict.fromkeys(_differing(usual, other), node.name), **found}
    return found


def _reversed_at(node: NodeProto) -> Callable[[Step], Sequence[Any]]:
    """Return what is to be called after each node: it turns the order of one's results."""

    def after(step: Step) -> Sequence[Any]:
        if step.node.output != node.output:
            return step.outputs
        axis = step.attribute("axis", -1)
        return [np.flip(each, axis) for each in step.outputs]

    return after


def _differing(usual: Values, other: Values) -> list[str]:
    return [
        name
        for name, value in usual.items()
        if isinstance(value, np.ndarray) and not identical(value, other[name])
    ]
