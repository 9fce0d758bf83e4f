"""A file walked in float64 beside its model."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import NodeProto
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes

from ort_ops.recorded import CALL, FUNCTION

from .called import names_of_calls, noting_results
from .counterparts import Counterpart, Counterparts, same
from .evaluated import Evaluated
from .exact import ExactFile
from .graphs import places_before, reads, standard
from .original import ExactModel
from .report import Row
from .sample import Sample
from .step import Step
from .subject import Subject
from .tensors import to_numpy
from .trials import Trials
from .verdict import Verdict
from .walks import Walk, judged_share, made_of_sizes, node_row, results_of
from .weights import is_uniform

__all__ = ["walk_export"]

Array = NDArray[Any]

_IN_PART = frozenset(
    "Abs Ceil Clip Floor Gather MaxPool Max Min ReduceMax ReduceMin Relu Round Sign Slice Split TopK".split()  # noqa: SIM905
)
_BIASED = ("Add", "Div", "Mul", "Sub")
_CLEARLY = 100  # times what tensors may differ by: a wrong output that does tells what is before it apart
_REGION = 16  # nodes that are named besides the guilty one, at most


def walk_export(
    subject: Subject,
    model: ExactModel,
    evaluated: Evaluated,
    sample: Sample,
    outputs: Sequence[Row],
    memory: int,
) -> Walk:
    """Match the file's tensors with the model's, and blame the first node that leads to none that matches.

    model: the subject's in float64. outputs: what was found of the file's at the sample. memory: bytes of
    results that are held at a time.
    """
    file = subject.exact_file
    wrong = {row.output for row in outputs if row.verdict is Verdict.EXPORT_WRONG}
    weights = list(model.parameters())
    counterparts = Counterparts(memory, weights)
    # What a file puts in another order is one, too. One of zeros or of ones looks like much else.
    counterparts.see("weight", (), [each for each in weights if not is_uniform(each)])
    inputs = [leaf for leaf in pytree.tree_leaves(sample.given.arguments) if isinstance(leaf, Tensor)]
    counterparts.see("input", (), inputs)
    calls = _Calls(subject.content, memory)
    with noting_results(calls.names, calls.note):
        model.run(sample.given.arguments, seen=counterparts.see)
    tolerance = _share(outputs)
    found, told = _matched(file, sample, counterparts, calls.of_nodes(file.nodes), tolerance)
    matched = {name: counterpart for name, counterpart in found.items() if name not in wrong}
    rows = []
    for node in file.nodes:
        there = [matched[name].operation for name in node.output if name in matched]
        verdict = Verdict.EQUAL if there else Verdict.CANNOT_SAY
        rows.append(node_row("export", node, verdict, counterpart=next(iter(there), "")))
    share = judged_share(file, {row.node for row in rows if row.verdict is Verdict.EQUAL})
    # A weight that is wrong is none that the model has, but for its name.
    altered = {each.initializer for each in evaluated.changed}
    altered |= subject.weights - file.parameters
    suspects = _suspects(file, set(matched), wrong, told, altered)
    narrow = {
        s.node for row in outputs if (s := evaluated.narrowed.get(row.output)) and s.reason == row.reason
    }
    narrow |= {sample.chance[name] for name in wrong if name in sample.chance}
    if narrow:  # its result is the model's in float64, which stores nothing in 16 bits and draws alike
        suspects = [place for place, node in enumerate(file.nodes) if node.name in narrow]
    if not suspects:
        return Walk(None, rows, share, outputs=outputs)
    if not narrow:
        trials = Trials(file, sample, counterparts, wrong, tolerance)
        suspects = (trials.earlier(suspects, matched) or trials.exchanged(suspects)) + suspects
        del trials, counterparts  # which hold as much memory as there may be
        suspects = _past_steps(file, model, sample, suspects, memory, tolerance)
    first = suspects[0]
    rows[first] = replace(rows[first], verdict=Verdict.EXPORT_WRONG, counterpart="")
    return Walk(file.nodes[first].name, rows, share, _region(file, suspects), outputs)


@dataclass(frozen=True)
class _Told:
    """The results of a file that hold fractions, and those that may be tables: fractions, or of two axes."""

    fractions: set[str] = field(default_factory=set)
    tables: set[str] = field(default_factory=set)


class _Calls:
    """What the model's calls return of the Functions that the file names, as long as memory lasts."""

    def __init__(self, content: ir.Model, memory: int) -> None:
        self.names = names_of_calls(content)
        self._left = memory
        self._results: dict[str, list[list[Array]]] = {}

    def note(self, name: str, returned: Any) -> None:
        """Note what a call returns."""
        results = [leaf for leaf in pytree.tree_leaves(returned) if isinstance(leaf, Tensor)]
        self._left -= sum(each.nbytes for each in results)
        if self._left >= 0:
            with _disable_current_modes():  # which would see the copies
                arrays = [to_numpy(each.clone()) for each in results]
            self._results.setdefault(name, []).append(arrays)

    def of_nodes(self, nodes: Sequence[NodeProto]) -> dict[str, Array]:
        """Return what the calls returned for which nodes stand, by the name of each result of these.

        Nothing of a Function whose calls are more, or fewer, than the nodes that stand for them.
        """
        standing: dict[str, list[NodeProto]] = {}
        for node in nodes:
            noted = {each.key: each.value for each in node.metadata_props}
            if {FUNCTION, CALL} <= noted.keys():
                standing.setdefault(noted[FUNCTION], []).append(node)
        pairs = (
            zip(each.output, results, strict=False)
            for name, some in standing.items()
            if len(some) == len(self._results.get(name, ())) and self._left >= 0
            for each, results in zip(some, self._results[name], strict=True)
        )
        return {name: result for each in pairs for name, result in each}


def _matched(
    file: ExactFile,
    sample: Sample,
    counterparts: Counterparts,
    of_calls: Mapping[str, Array],
    tolerance: float,
) -> tuple[dict[str, Counterpart], _Told]:
    """Return the counterparts of the file's results, in its order, and what is told of the results.

    of_calls: what calls return for which nodes stand: no other tensor is a counterpart of theirs.
    """
    found: dict[str, Counterpart] = {}
    told = _Told()
    expected = dict(zip(file.outputs, sample.model, strict=False))

    def match(step: Step) -> None:
        if standard(step.node) == "Concat" and step.node.output[0] in expected:
            found.update(_right_parts(step, expected[step.node.output[0]], tolerance))
        for name, value in zip(step.node.output, step.outputs, strict=False):
            if name and isinstance(value, np.ndarray):
                counterpart = counterparts.find(value, tolerance)
                another = name in of_calls and not same(value, of_calls[name], tolerance)
                if counterpart is not None and not another:
                    found[name] = counterpart
                if value.dtype.kind == "f" and not _is_whole(value):
                    told.fractions.add(name)
                if (value.dtype.kind == "f" or value.ndim > 1) and not is_uniform(value):
                    told.tables.add(name)
            elif isinstance(value, list) and any(getattr(e, "dtype", None) == np.float64 for e in value):
                told.fractions.add(name)

    file.run(sample.feed, after=match)
    return found, told


def _is_whole(value: Array) -> bool:
    """Tell whether there are whole numbers alone, of which many fractions may be made to one."""
    return bool((value == np.round(value)).all())


def _right_parts(step: Step, expected: Array, tolerance: float) -> dict[str, Counterpart]:
    """Return the parts of an output that are right in it, as the last state of one layer of several."""
    axis, begin = step.attribute("axis", 0), 0
    found = {}
    for name, value in zip(step.node.input, step.inputs, strict=True):
        whole = step.outputs[0].shape == expected.shape and isinstance(value, np.ndarray)
        if whole and value.ndim == expected.ndim:
            part = np.arange(begin, begin + value.shape[axis])
            begin += value.shape[axis]
            if same(value, np.take(expected, part, axis), tolerance):
                found[name] = Counterpart("a part of an output", None)
    return found


def _share(outputs: Sequence[Row]) -> float:
    """Return to which share of its size a tensor has to match: what is no difference at the outputs.

    Where all that is wrong there is little more than that, it is what the wrong ones may differ by.
    """
    shares, wrong, tolerated = [1e-12], 0.0, [np.inf]
    for row in outputs:
        size = max((abs(float(v)) for v in (row.expected, row.got) if v is not None), default=0.0)
        if row.dtype != "float64" or not size:
            continue
        if row.verdict is Verdict.EQUAL:
            shares.append(min(row.tolerance / size, 1e-6))
        elif row.verdict is Verdict.EXPORT_WRONG:
            wrong = max(wrong, row.max_abs / size)
            tolerated.append(row.tolerance / size)
    share = max(shares)
    return min(share, *tolerated) if 0.0 < wrong < _CLEARLY * share else share


def _suspects(
    file: ExactFile, matched: set[str], wrong: set[str], told: _Told, altered: set[str]
) -> list[int]:
    """Return the places of nodes on the way to a wrong output of which nothing comes that matches.

    The guilty one is first: nothing that it is given is a suspect's. What is made of sizes and constants is
    none, unless it is made of a weight, or of a table that matches: the model has one like it.
    """
    useful, needed = _useful(file, matched, wrong, told.fractions), places_before(file.nodes, wrong)
    sizes = made_of_sizes(file)
    weights = {name for name in file.parameters if not is_uniform(file.written(name))} | altered
    known = weights | (matched & sizes & told.tables)
    unmatched = sorted(needed - useful)
    places = [
        place
        for place in unmatched
        if not sizes.issuperset(results_of(file.nodes[place])) or known & set(reads(file.nodes[place]))
    ]
    places = places or unmatched  # of a file that computes nothing of what it is given
    bad = {name for place in places for name in file.nodes[place].output}
    return sorted(places, key=lambda place: (bool(bad & set(reads(file.nodes[place]))), place))


def _useful(file: ExactFile, matched: set[str], wrong: set[str], fractions: set[str]) -> set[int]:
    """Return the places of the nodes for which what comes of them and matches vouches.

    All of a node's results that are read have to be vouched for, unless they are parts of what it reads, and
    none is an output that is wrong; then that is, too. An integer or boolean says nothing of the fractions
    that it was made of: many give the same. Nor does a part, or what is rounded or cut off, of what all else
    reads: what such nodes read is vouched for by all its readers only.
    """
    readers: dict[str, set[int]] = {}
    for place, node in enumerate(file.nodes):
        for name in reads(node):
            readers.setdefault(name, set()).add(place)
    vouched, in_part = set(matched), set[str]()
    found: set[int] = set()
    for place in reversed(range(len(file.nodes))):
        node = file.nodes[place]
        results = set(results_of(node))
        ours = {each for each in results & (vouched | in_part) if each in vouched or readers[each] <= found}
        whole = results & (readers.keys() | set(file.outputs)) <= ours
        in_parts = _gives_part(node) and not results & wrong
        if ours and (whole or in_parts):
            found.add(place)
        if ours and whole:
            read = set(reads(node)) if ours & fractions else set(reads(node)) - fractions
            partly = read if not ours <= vouched else {node.input[0]} if in_parts else set()
            in_part |= partly
            vouched |= read - partly
    return found


def _gives_part(node: NodeProto) -> bool:
    """Tell whether a node gives a part of its first input, or what many others give, too."""
    lists = {each.name: each.ints for each in node.attribute if each.name in ("strides", "kernel_shape")}
    pairs = zip(lists.get("strides", ()), lists.get("kernel_shape", ()), strict=False)
    return standard(node) in _IN_PART or any(stride > size for stride, size in pairs)


def _past_steps(
    file: ExactFile, model: ExactModel, sample: Sample, suspects: list[int], memory: int, tolerance: float
) -> list[int]:
    """Return the suspects from the first that isn't as a step of what the model computes in one.

    A linear layer is one operation there, and a product and a sum in a file: of these the sum is wrong if the
    product is as it should be. It has to read what may be a weight, an array and no number, or it would be
    blamed for a bias that is missing.
    """
    names = {name for place in suspects for name in results_of(file.nodes[place])}
    steps, are_steps = Counterparts(memory), set[str]()
    model.run(sample.given.arguments, seen=steps.see_before_bias)

    def look(step: Step) -> None:
        for name, value in zip(step.node.output, step.outputs, strict=False):
            if name in names and isinstance(value, np.ndarray) and steps.find(value, tolerance):
                are_steps.add(name)

    file.run(sample.feed, after=look)
    initializers = file.model.graph.initializers
    numbers = {name for name, each in initializers.items() if each.const_value and not each.const_value.shape}
    right, weights = set[str](), made_of_sizes(file) - numbers
    for number, place in enumerate(suspects):
        node = file.nodes[place]
        results, read = results_of(node), set(reads(node))
        if are_steps.issuperset(results):
            right.update(results)
        elif right & read:
            biased = standard(node) in _BIASED and read & weights and not names & read - right
            return suspects[number:] if biased else suspects
        elif not right:
            break
    return suspects


def _region(file: ExactFile, suspects: Sequence[int]) -> tuple[str, ...]:
    """Return the guilty node and those that come of it."""
    reached = set(file.nodes[suspects[0]].output)
    names = [file.nodes[suspects[0]].name]
    for place in sorted(suspects[1:]):
        node = file.nodes[place]
        if reached & set(reads(node)):
            reached.update(node.output)
            names.append(node.name)
    return tuple(itertools.islice(names, _REGION))
