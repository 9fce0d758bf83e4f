"""A node that puts elements in the wrong order: it shows only where another node reads them.

What it gives has the right numbers. It is found by trial: with them in the order of one of the model's
tensors the node that looks guilty, or one after it, computes what the model does.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

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

    def misordered(self, suspects: Sequence[int], matched: Mapping[str, Counterpart]) -> list[int]:
        """Return the place of the node that gives the first suspect a wrong order, and those between.

        Of several that would put it right it is that after which most is as in the model.
        """
        places = self._unproven(suspects[0], self._proven(matched))
        if not places:
            return []
        results = {name: number for number, place in enumerate(places) for name in self._results(place)}
        trials = (
            (self._met(name, other, suspects), results[name])
            for name, others in self._others(results).items()
            for other in others
        )
        met, number = max(trials, key=lambda trial: trial[0], default=(0, 0))
        return places[number:] if met else []

    def _results(self, place: int) -> list[str]:
        return results_of(self._file.nodes[place])

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

    def _others(self, names: Container[str]) -> dict[str, list[Array]]:
        """Return for some results of the file what in the model has their numbers in other orders."""
        found: dict[str, list[Array]] = {}

        def look(step: Step) -> None:
            for name, value in _arrays(step.node, step.outputs):
                if name in names:
                    found[name] = list(self._counterparts.reordered(value, self._tolerance))

        self._file.run(self._feed, after=look)
        return found

    def _met(self, name: str, other: Array, suspects: Iterable[int]) -> int:
        """Return how many results of the model the file has once one of its own is another.

        0 where no suspect is right then.
        """
        met: set[int] = set()
        suspected = {each for place in suspects for each in self._results(place)}
        right: list[bool] = []

        def after(step: Step) -> Sequence[Any]:
            pairs = zip(step.node.output, step.outputs, strict=False)
            outputs = [other if each == name else value for each, value in pairs]
            for each, value in _arrays(step.node, outputs):
                found = self._counterparts.find(value, self._tolerance)
                if found is not None and found.exact is not None:
                    met.add(found.exact)
                if each in suspected:
                    right.append(self._is_right(each, value, found))
            return outputs

        try:
            self._file.run(self._feed, after=after)
        except ParityError:  # some node doesn't take that shape
            return 0
        return 1 + len(met) if any(right) else 0

    def _is_right(self, name: str, value: Array, found: Counterpart | None) -> bool:
        if name in self._expected:
            return same(value, self._expected[name], self._tolerance)
        return found is not None


def _arrays(node: NodeProto, outputs: Sequence[Any]) -> list[tuple[str, Array]]:
    pairs = zip(node.output, outputs, strict=False)
    return [(name, value) for name, value in pairs if name and isinstance(value, np.ndarray)]
