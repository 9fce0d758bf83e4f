"""A node that puts elements in the wrong order: it shows only where another node reads them.

What it gives has the right numbers. It is found by trial: with them in the order of one of the model's
tensors the node that looks guilty computes what the model does.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ort_ops.errors import ParityError

from .counterparts import Counterpart, Counterparts, same
from .exact import ExactFile
from .graphs import reads
from .sample import Sample
from .step import Step
from .walks import results_of

__all__ = ["Trials"]

Array = NDArray[Any]


class Trials:
    """Tries other orders of what a suspect depends on.

    tolerance: to which share of its size a tensor has to match.
    """

    def __init__(self, file: ExactFile, sample: Sample, counterparts: Counterparts, tolerance: float) -> None:
        self._file, self._feed = file, sample.feed
        self._expected = dict(zip(file.outputs, sample.model, strict=False))
        self._counterparts, self._tolerance = counterparts, tolerance

    def misordered(self, suspect: int, matched: Mapping[str, Counterpart]) -> list[int]:
        """Return the place of the node that gives a suspect numbers in a wrong order, and those between."""
        places = self._unproven(suspect, self._proven(matched))
        others = self._others({name for place in places for name in results_of(self._file.nodes[place])})
        for number, place in enumerate(places):
            for name in results_of(self._file.nodes[place]):
                if any(self._settles(suspect, name, other) for other in others.get(name, ())):
                    return places[number:]
        return []

    def _proven(self, matched: Mapping[str, Counterpart]) -> set[str]:
        """Return the results that are the model's in shape and order, and new, of nodes that read such.

        What a node only hands on says nothing of whether that is what should be done with it, and what is put
        right again, not who put it wrong.
        """
        first: dict[int, str] = {}
        for name, counterpart in matched.items():
            if counterpart.exact is not None:
                first.setdefault(counterpart.exact, name)
        new = set(first.values())
        return {
            name
            for node in self._file.nodes
            for name in new & set(node.output)
            if new.issuperset(matched.keys() & set(reads(node)))
        }

    def _unproven(self, suspect: int, proven: set[str]) -> list[int]:
        """Return the places of the nodes that a suspect depends on, with nothing proven between."""
        needed = set(reads(self._file.nodes[suspect])) - proven
        found = []
        for place in reversed(range(suspect)):
            node = self._file.nodes[place]
            if needed & set(results_of(node)):
                found.append(place)
                needed |= set(reads(node)) - proven
        return found[::-1]

    def _others(self, names: set[str]) -> dict[str, list[Array]]:
        """Return for some results of the file what in the model has their numbers in other orders."""
        found: dict[str, list[Array]] = {}

        def look(step: Step) -> None:
            for name, value in _arrays(step):
                if name in names:
                    found[name] = list(self._counterparts.reordered(value, self._tolerance))

        if names:
            self._file.run(self._feed, after=look)
        return found

    def _settles(self, suspect: int, name: str, other: Array) -> bool:
        """Tell whether a suspect gives what is right once a result that it depends on is another."""
        right: list[bool] = []

        def after(step: Step) -> Sequence[Any] | None:
            if step.node is self._file.nodes[suspect]:
                right.extend(self._is_right(*pair) for pair in _arrays(step))
            if name not in step.node.output:
                return None
            pairs = zip(step.node.output, step.outputs, strict=False)
            return [other if each == name else value for each, value in pairs]

        try:
            self._file.run(self._feed, after=after)
        except ParityError:  # some node doesn't take that shape
            return False
        return any(right)

    def _is_right(self, name: str, value: Array) -> bool:
        if name in self._expected:
            return same(value, self._expected[name], self._tolerance)
        return self._counterparts.find(value, self._tolerance) is not None


def _arrays(step: Step) -> list[tuple[str, Array]]:
    pairs = zip(step.node.output, step.outputs, strict=False)
    return [(name, value) for name, value in pairs if name and isinstance(value, np.ndarray)]
