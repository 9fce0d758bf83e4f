"""A file evaluated in float64, node by node.

The steps are onnx's own reference evaluator's. Weights are widened when a node reads them and dropped again,
values when nothing reads them any more. What can't be had in float64 is computed as the file has it, and that
is noted.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import NodeProto

from ort_ops.errors import ParityError
from ort_ops.selection import Prefer

from .attributes import float_attributes
from .constants import NOTHING_KNOWN, Known
from .custom import custom_ops
from .evaluator import (
    WideEvaluator,
    drawing,
    is_narrow,
    is_simple,
    never_run,
    read_constant,
    widened,
)
from .graphs import (
    all_values,
    input_names,
    last_uses,
    name_nodes,
    places_before,
    precisions,
    read_tensor,
    reads,
    without_weights,
)
from .narrow import Narrow, compute_narrow, loses_digits, moved, narrowed
from .step import Elementwise, Step

__all__ = ["ExactFile", "Paused", "put_in_order"]

Values = Mapping[str, NDArray[Any]]
_After = Callable[[Step], Sequence[Any] | None]


@dataclass(frozen=True)
class Paused:
    """An evaluation that goes on from a node: its place, and the values that it and later ones read."""

    place: int
    values: Values


class ExactFile:
    """A model file that can be evaluated in float64.

    model: the path, or a model in memory, whose nodes are then put in order.
    functions, trust, prefer: who may compute custom nodes, as for ``ort_ops.InferenceSession``.
    parameters: names of initializers that are weights of the model bit by bit. Other small constants are
        taken for what was meant by them (see ``constants``); weights are what they are.
    either: names of small constants that may be a weight or not.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | ir.Model,
        *,
        functions: Iterable[type] | None = None,
        trust: Iterable[str] = (),
        prefer: Prefer = "kernel",
        parameters: Iterable[str] = (),
        either: Iterable[str] = (),
    ) -> None:
        self.model = ir.load(model) if isinstance(model, str | os.PathLike) else model
        put_in_order(self.model.graph)
        name_nodes(self.model.graph)
        self.notes: dict[str, Narrow] = {}
        self.parameters = set(parameters)
        self._either = sorted(either)
        graph = self.model.graph
        self.inputs = input_names(graph)
        self.outputs = [value.name or "" for value in graph.outputs]
        self.types = {value.name: value.dtype for value in all_values(graph)}
        self.precisions = precisions(graph)
        bare = without_weights(self.model)
        self._evaluator = WideEvaluator(bare, custom_ops(bare, functions, trust, prefer))
        self.nodes: list[NodeProto] = [operator.onnx_node for operator in self._evaluator.rt_nodes_]
        self._forwards = {
            tuple(operator.onnx_node.output): operator
            for operator in self._evaluator.rt_nodes_
            if hasattr(operator, "by_forward")
        }
        self._known = Known()
        self._settled: set[str] = set()
        self._attributes = dict(float_attributes(self._evaluator))
        self._last_use = last_uses(self.nodes, self.outputs)
        for operator in self._evaluator.rt_nodes_:
            if hasattr(operator, "by_kernel"):
                reason = (
                    f"{operator.by_kernel} computed it, of which a fault is not told from one of the file"
                )
                self._note(operator.onnx_node, reason)

    def know(self, numbers: Iterable[float], but: Iterable[str] = ()) -> None:
        """Read constants and attributes that are one of these numbers, rounded, as that number.

        but: names of constants that somebody was given as they were read before.
        """
        self._settled.update(but)
        self._known.add(numbers)
        for name, attribute in self._attributes.items():
            attribute.set(self.weight(name))

    def weight(self, name: str) -> NDArray[Any]:
        """Return an initializer as it is computed with: widened, or what was meant by a small constant."""
        return self._as_read(name, self.written(name))

    def _as_read(self, name: str, written: NDArray[Any]) -> NDArray[Any]:
        known = NOTHING_KNOWN if name in self._settled else self._known
        return widened(written) if name in self.parameters else read_constant(written, known)

    def constants(self) -> tuple[list[str], list[str]]:
        """Return the constants that are no weights: those read otherwise than written, and those not read.

        Floating-point attributes are among them, as ``"node.attribute"``.
        """
        read, unread = [], []
        for name in (*self.model.graph.initializers, *self._attributes):
            if name in self.parameters:
                continue
            written = self.written(name)
            if not is_narrow(written):
                continue
            if not np.array_equal(self._as_read(name, written), widened(written), equal_nan=True):
                read.append(name)
            elif not is_simple(written, self._known):
                unread.append(name)
        return read, unread

    def alternatives(self) -> dict[str, NDArray[Any]]:
        """Return constants that may as well be read otherwise: a weight as a number, or the reverse."""
        found = {}
        for name in self._either:
            written = self.written(name)
            if not is_narrow(written):
                continue
            wide, number = widened(written), read_constant(written, self._known)
            if not np.array_equal(wide, number, equal_nan=True):
                found[name] = number if name in self.parameters else wide
        return found

    def as_written(self) -> dict[str, NDArray[Any]]:
        """Return the constants that are read otherwise than they are written, as they are written."""
        return {name: widened(self.written(name)) for name in self.constants()[0]}

    def written(self, name: str) -> NDArray[Any]:
        """Return an initializer or an attribute as the file has it."""
        if name in self._attributes:
            return self._attributes[name].written
        tensor = self.model.graph.initializers[name].const_value
        if tensor is None:
            raise ParityError(f"initializer {name!r} has no value")
        return read_tensor(tensor)

    def draws(self, node: NodeProto) -> bool:
        """Tell whether a node, or one inside of it, draws without a seed."""
        operators = (each for each in self._evaluator.rt_nodes_ if drawing(each))
        return any(node.output == each.onnx_node.output for each in operators)

    @property
    def operators(self) -> Sequence[Any]:
        """Return what computes each of ``nodes``, in their order."""
        operators: Sequence[Any] = self._evaluator.rt_nodes_
        return operators

    def notes_before(self, output: str) -> list[Narrow]:
        """Return what is noted of the nodes that an output depends on."""
        names = (self.nodes[place].name for place in sorted(places_before(self.nodes, [output])))
        return [self.notes[name] for name in names if name in self.notes]

    def never_run(self) -> list[tuple[NodeProto, str]]:
        """Return the branches and the bodies of loops that were not run so far, each with its node.

        Of a node that is noted it isn't known.
        """
        known = [each for each in self._evaluator.rt_nodes_ if each.onnx_node.name not in self.notes]
        return [(each.onnx_node, name) for each in known for name in never_run(each)]

    def run(
        self,
        feed: Values,
        *,
        replaced: Values | None = None,
        after: _After | None = None,
        start: Paused | None = None,
    ) -> dict[str, Any]:
        """Evaluate the file; returns its outputs by name, floating-point ones in float64.

        feed: the inputs by name, of any floating-point dtype.
        replaced: initializers and attributes to be used instead of the file's own.
        after: called after each node; may return other outputs, with which the evaluation goes on.
        start: where ``pause`` stopped, to go on from there.

        Raises ParityError where a node can be evaluated neither in float64 nor as the file has it.
        """
        place, values = (start.place, dict(start.values)) if start else (0, self._given(feed))
        (outputs,) = self._finish([values], place, replaced or {}, [after])
        return outputs

    def run_beside(
        self, feeds: Sequence[Values], afters: Sequence[_After], *, replaced: Values | None = None
    ) -> list[dict[str, Any]]:
        """Evaluate the file several times at once: each node in all of them, so that weights are read once.

        feeds, afters: for each evaluation what ``run`` is given; ``afters`` are called in their order.
        """
        return self._finish([self._given(feed) for feed in feeds], 0, replaced or {}, afters)

    def _finish(
        self, values: Sequence[dict[str, Any]], place: int, replaced: Values, afters: Sequence[_After | None]
    ) -> list[dict[str, Any]]:
        with contextlib.ExitStack() as stack:
            for name in replaced:
                if name in self._attributes:
                    stack.enter_context(self._attributes[name].replaced(replaced[name]))
            self._advance(values, range(place, len(self.nodes)), replaced, afters)
        initializers = self.model.graph.initializers
        for name in self.outputs:
            if name in initializers and any(name not in each for each in values):
                weight = replaced[name] if name in replaced else self.weight(name)
                for each in values:
                    each.setdefault(name, weight)
        return [{name: each[name] for name in self.outputs} for each in values]

    def pause(self, feed: Values, names: Iterable[str]) -> Paused:
        """Evaluate the file up to the first node that reads or gives one of these, which runs then change."""
        changed = set(names)
        uses = (
            i for i, node in enumerate(self.nodes) if not changed.isdisjoint((*reads(node), *node.output))
        )
        place = next(uses, len(self.nodes))
        values = self._given(feed)
        self._advance([values], range(place), {}, [None])
        return Paused(place, values)

    def _given(self, feed: Values) -> dict[str, Any]:
        values: dict[str, Any] = {"": None}
        for name in self.inputs:
            if name not in feed:
                raise ParityError(f"input {name!r} is missing; the file takes {self.inputs}")
            values[name] = widened(np.asarray(feed[name]))
        return values

    def _advance(
        self,
        values: Sequence[dict[str, Any]],
        places: range,
        replaced: Values,
        afters: Sequence[_After | None],
    ) -> None:
        """Evaluate some nodes, from and into ``values``, from which what is read no more is dropped."""
        initializers = self.model.graph.initializers
        for place in places:
            operator, node = self._evaluator.rt_nodes_[place], self.nodes[place]
            for name in reads(node):
                if name in initializers and name not in values[0]:
                    weight = replaced[name] if name in replaced else self.weight(name)
                    for each in values:
                        each[name] = weight
            weights: dict[str, dict[Elementwise, NDArray[Any]]] = {
                name: {} for name in node.input if name in initializers
            }
            for each, after in zip(values, afters, strict=True):
                try:
                    inputs = [each[name] for name in node.input]
                except KeyError as error:
                    where = f"node {node.name!r} ({node.op_type})"
                    raise ParityError(f"{where} reads {error.args[0]!r}, which no node gave") from error
                compute = functools.partial(self._compute, operator, each)
                outputs = compute(inputs)
                if not replaced and after is None:
                    self._note_loss(node, inputs, outputs, compute)
                if after is not None:
                    outputs = after(Step(node, inputs, outputs, compute, weights)) or outputs
                each.update(zip(node.output, outputs, strict=False))
                each[""] = None
                for name in self._last_use[place]:
                    each.pop(name, None)

    def _compute(self, operator: Any, values: Mapping[str, Any], inputs: Sequence[Any]) -> Sequence[Any]:
        node = operator.onnx_node
        context = {"context": {k: v for k, v in values.items() if k}} if operator.need_context() else {}
        try:
            with np.errstate(all="ignore"):
                outputs = operator.run(*inputs, **context)
        except Exception as error:
            outputs = self._compute_narrow(node, inputs, error)
        narrow = [output for output in outputs if is_narrow(output)]
        if narrow:
            self._note(node, f"its result is {narrow[0].dtype}")
        return [widened(np.asarray(o)) if isinstance(o, np.ndarray | np.generic) else o for o in outputs]

    def by_forward(self, step: Step) -> Sequence[Any] | None:
        """Return what the Function that a node stands for gives in the file's own types, as PyTorch does.

        None for a node that no forward computes, and where forward's types aren't NumPy's (bfloat16).
        """
        operator = self._forwards.get(tuple(step.node.output))
        if operator is None:
            return None
        pairs = zip(step.node.input, step.inputs, strict=True)
        inputs = [narrowed(value, self.precisions.get(name)) for name, value in pairs]
        if not all(np.asarray(value).dtype.isbuiltin == 1 for value in inputs):
            return None
        with np.errstate(all="ignore"):
            try:
                results: Sequence[Any] = operator.run(*inputs)
            except TypeError:  # of what it gives
                return None
        return [widened(np.asarray(result)) for result in results]

    def _note_loss(
        self,
        node: NodeProto,
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        compute: Callable[[Sequence[Any]], Sequence[Any]],
    ) -> None:
        """Note a node that gives float32's digits for more, which it is enough to see once.

        For other numbers, too: x * 3 / 3 is x, with the digits that it has.
        """
        if node.name not in self.notes and loses_digits(inputs, outputs):
            others = moved(inputs)
            if loses_digits(others, compute(others)):
                self._note(node, "its result has no more digits than float32 has")

    def _compute_narrow(self, node: NodeProto, inputs: Sequence[Any], error: Exception) -> Sequence[Any]:
        outputs, reason = compute_narrow(self.model, self.precisions, node, inputs, error)
        if reason is not None:
            self._note(node, reason)
        return outputs

    def _note(self, node: NodeProto, reason: str) -> None:
        self.notes.setdefault(
            node.name, Narrow(node.name, f"{node.domain or 'ai.onnx'}::{node.op_type}", reason)
        )


def put_in_order(graph: ir.Graph) -> None:
    """Have each node after those that it reads from, as ONNX has it; ONNX Runtime takes them in any order."""
    for node in ir.traversal.RecursiveGraphIterator(graph):
        for value in node.inputs:
            if value is not None and value.graph is None and value.producer() is None:
                raise ParityError(
                    f"node {node.name!r} ({node.op_type}) reads {value.name!r}, which nothing gives"
                )
    try:
        graph.sort()
    except ValueError as error:
        raise ParityError(f"the nodes of the file depend on each other: {error}") from error
