"""A node that is wrong though something that comes of it is right: it shows only where another node reads it.

One puts the right numbers in the wrong order. Of another the fault cancels, as that of a norm does before
what normalises again, on one way of several. It is found by trial: with one of the model's tensors for what
it gives, the node that looks guilty, or one after it, computes what the model does.
"""

import contextlib
import itertools
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from ort_ops.errors import ParityError

from .counterparts import Counterpart, Counterparts, same
from .exact import ExactFile
from .graphs import reads, standard
from .sample import Sample
from .step import Step
from .walks import made_of_sizes, results_of

__all__ = ["Trials"]

Array = NDArray[Any]

_TRIALS = 32  # at most: each takes a run of the file


@dataclass(frozen=True)
class _Trial:
    """A result of the file, and what is tried for it.

    apart: how far that is off, as a share; 0 for the same numbers in another order.
    """

    name: str
    value: Array
    apart: float = 0.0

    def put(self, step: Step) -> list[Any]:
        """Return a node's results with this in the place of the one of its name."""
        pairs = zip(step.node.output, step.outputs, strict=False)
        return [self.value if each == self.name else value for each, value in pairs]


class Trials:
    """Tries other tensors for what a suspect depends on.

    wrong: the outputs that are. tolerance: to which share of its size a tensor has to match.
    """

    def __init__(
        self,
        file: ExactFile,
        sample: Sample,
        counterparts: Counterparts,
        wrong: Container[str],
        tolerance: float,
    ) -> None:
        self._file, self._feed = file, sample.feed
        self._expected = dict(zip(file.outputs, sample.model, strict=False))
        self._wrong = {name for name in self._expected if name in wrong}
        self._counterparts, self._tolerance = counterparts, tolerance

    def earlier(self, suspects: Sequence[int], matched: Mapping[str, Counterpart]) -> list[int]:
        """Return the place of the node that gives the first suspect what is wrong, and those between.

        Of several that would put it right it is that after which most is as in the model, and then the first.
        Other numbers have to put the whole file right: among many tensors one may well do for a node.
        """
        proven = self._proven(matched)
        places = self._unproven(suspects[0], proven)
        if not places:
            return []
        results = {name: number for number, place in enumerate(places) for name in self._results(place)}
        unproven = results.keys() - proven
        taken = {each.exact for each in matched.values() if each.exact is not None}
        unsure = {name for name, each in matched.items() if not each.certain}
        trials = (
            (self._met(trial, suspects), results[trial.name])
            for trial in self._trials(unproven, taken, unsure)
        )
        met, number = max(trials, key=lambda found: (found[0], -found[1]), default=(0, 0))
        return self._products(places[:number], places[number], matched) + places[number:] if met else []

    def exchanged(self, suspects: Sequence[int]) -> list[int]:
        """Return the place of a node before the first suspect that gives two results in each other's place.

        Where both are read by nobody else it may be that one that takes them so.
        """
        nodes, needed = self._file.nodes, set(reads(self._file.nodes[suspects[0]]))
        tried = 0
        for place in reversed(range(suspects[0])):
            results = self._results(place)
            if not needed & set(results):
                continue
            needed |= set(reads(nodes[place]))
            for pair in itertools.combinations(results, 2) if standard(nodes[place]) == "Split" else ():
                readers = {i for i, node in enumerate(nodes) if set(pair) & set(reads(node))}
                tried += 1
                if readers - {suspects[0]} and tried <= _TRIALS and self._is_right_with(*pair):
                    return [place]
        return []

    def _is_right_with(self, one: str, other: str) -> bool:
        """Tell whether the wrong outputs are right once a node gives two of its results exchanged."""
        right: set[str] = set()

        def exchange(step: Step) -> list[Any]:
            names, outputs = list(step.node.output), list(step.outputs)
            if one in names and other in names:
                first, second = names.index(one), names.index(other)
                outputs[first], outputs[second] = outputs[second], outputs[first]
            return outputs

        def judge(name: str, value: Array) -> None:
            if self._is_right(name, value):
                right.add(name)

        self._run(exchange, judge)
        return self._wrong <= right

    def _is_right(self, name: str, value: Array) -> bool:
        """Tell whether an output is what the model gives."""
        return name in self._expected and same(value, self._expected[name], self._tolerance)

    def _products(self, places: Sequence[int], guilty: int, matched: Mapping[str, Counterpart]) -> list[int]:
        """Return the places before a sum with a weight that have no counterpart, as a layer's product."""
        node, found = self._file.nodes[guilty], list[int]()
        read = set(reads(node))
        if standard(node) != "Add" or not read & self._file.model.graph.initializers.keys():
            return []
        for place in reversed(places):
            results = set(self._results(place))
            if results & read and not results & matched.keys():
                found.append(place)
                read |= set(reads(self._file.nodes[place]))
        return found[::-1]

    def _results(self, place: int) -> list[str]:
        return results_of(self._file.nodes[place])

    def _proven(self, matched: Mapping[str, Counterpart]) -> set[str]:
        """Return the results that are the model's in shape and order, and new, of nodes that read such.

        What a node only hands on says nothing of whether that is what should be done with it, and what is put
        right again, not who put it wrong. Of two that are one of the model's and don't come of each other one
        may be meant for another.
        """
        alike: dict[int | None, list[str]] = {}
        for name, counterpart in matched.items():
            if counterpart.certain:
                alike.setdefault(counterpart.exact, []).append(name)
        new = {names[0] for names in alike.values() if len(names) == 1 or self._come_of(*names)}
        # Of what is made of sizes and constants one number everywhere is nothing odd, nor is a step of which
        # something comes that is certain.
        new |= matched.keys() & made_of_sizes(self._file)
        steps = {name for name, each in matched.items() if each.step}
        for node in self._file.nodes:
            if any(name in matched and matched[name].certain for name in node.output):
                new |= steps & set(node.input)
        return {
            name
            for node in self._file.nodes
            for name in new & set(node.output)
            if new.issuperset(matched.keys() & set(reads(node)))
        }

    def _come_of(self, first: str, *others: str) -> bool:
        """Tell whether some results of the file are made of one."""
        reached = {first}
        for node in self._file.nodes:
            if reached & set(reads(node)):
                reached.update(node.output)
        return reached.issuperset(others)

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

    def _trials(self, names: Container[str], taken: Container[int], unsure: Container[str]) -> list[_Trial]:
        """Return what is to be tried for some results of the file: what in the model may be meant by them.

        taken: the numbers of the model's results that the file has, which aren't tried but for the results
        that are ``unsure``: they may be meant for what is one of these, too.
        """
        found: list[_Trial] = []

        def look(step: Step) -> None:
            for name, value in _arrays(step.node, step.outputs):
                if name not in names:
                    continue
                orders = self._counterparts.reordered(value, self._tolerance)
                found.extend(_Trial(name, other) for other in orders)
                others = self._counterparts.others(value, () if name in unsure else taken)
                found.extend(_Trial(name, other, apart) for apart, other in others if not self._is_end(other))

        self._file.run(self._feed, after=look)
        return sorted(found, key=lambda trial: trial.apart)[:_TRIALS]

    def _is_end(self, value: Array) -> bool:
        """Tell whether a tensor is what a wrong output should be, which in an earlier place says nothing."""
        return any(same(value, self._expected[name], self._tolerance) for name in self._wrong)

    def _met(self, trial: _Trial, suspects: Iterable[int]) -> int:
        """Return how many results of the model the file has with a trial.

        0 where no suspect is right then, or, with other numbers, not all of the file.
        """
        suspected = {each for place in suspects for each in self._results(place)}
        right: set[str] = set()

        def judge(name: str, value: Array) -> None:
            inner = name in suspected and name not in self._expected
            if self._is_right(name, value) or (inner and self._counterparts.find(value, self._tolerance)):
                right.add(name)

        self._run(trial.put, judge)
        if not right & suspected or (trial.apart and not self._wrong <= right):
            return 0
        met: set[int] = set()

        def count(name: str, value: Array) -> None:
            found = self._counterparts.find(value, self._tolerance)
            if found is not None and found.exact is not None:
                met.add(found.exact)

        self._run(trial.put, count)
        return 1 + len(met)

    def _run(self, change: Callable[[Step], list[Any]], seen: Callable[[str, Array], None]) -> None:
        """Evaluate the file with results changed, as far as it can be; ``seen`` is given each."""

        def after(step: Step) -> Sequence[Any]:
            outputs = change(step)
            for name, value in _arrays(step.node, outputs):
                seen(name, value)
            return outputs

        with contextlib.suppress(ParityError):  # some node doesn't take that shape
            self._file.run(self._feed, after=after)


def _arrays(node: NodeProto, outputs: Sequence[Any]) -> list[tuple[str, Array]]:
    pairs = zip(node.output, outputs, strict=False)
    return [(name, value) for name, value in pairs if name and isinstance(value, np.ndarray)]
