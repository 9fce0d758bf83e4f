"""LSTM, GRU and RNN in torch's float64: onnx's reference evaluator leaves out lengths and most attributes.

What they compute is in ONNX's Operators.md. Activations are known in whichever case they are
written, as ONNX Runtime has it.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from onnx.reference.op_run import OpRun
from torch import Tensor
from torch.nn import functional

__all__ = ["RECURRENT"]

_Activation = Callable[[Tensor], Tensor]
_States = tuple[Tensor, ...]

_PLAIN: dict[str, _Activation] = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)),
    "softsign": functional.softsign,
    "tanh": torch.tanh,
}
_WITH_NUMBERS: dict[str, tuple[Callable[..., Tensor], tuple[float | None, ...]]] = {
    "affine": (lambda x, alpha, beta: alpha * x + beta, (None, None)),
    "elu": (functional.elu, (1.0,)),
    "hardsigmoid": (lambda x, alpha, beta: (alpha * x + beta).clamp(0, 1), (0.2, 0.5)),
    "leakyrelu": (functional.leaky_relu, (0.01,)),
    "scaledtanh": (lambda x, alpha, beta: alpha * torch.tanh(beta * x), (None, None)),
    "thresholdedrelu": (lambda x, alpha: torch.where(x > alpha, x, 0.0), (1.0,)),
}
"""Activations with an alpha, or an alpha and a beta, and what ONNX's operator of the name has for these."""


def _activations(names: Sequence[str], *given: Sequence[float] | None) -> list[_Activation]:
    """Return activations by their names; those that take an alpha or a beta take the next one given."""
    rest = [iter(numbers or ()) for numbers in given]
    found: list[_Activation] = []
    for name in map(str.lower, names):
        if name in _PLAIN:
            found.append(_PLAIN[name])
            continue
        if name not in _WITH_NUMBERS:
            raise NotImplementedError(f"there is no activation {name!r}")
        function, defaults = _WITH_NUMBERS[name]
        numbers = [next(each, default) for each, default in zip(rest, defaults, strict=False)]
        if None in numbers:
            raise NotImplementedError(
                f"activation {name!r} without its alpha and beta is nothing that ONNX defines"
            )
        found.append(functools.partial(_with_numbers, function, numbers))
    return found


def _with_numbers(function: Callable[..., Tensor], numbers: Sequence[float | None], x: Tensor) -> Tensor:
    return function(x, *numbers)


@dataclass(frozen=True)
class _Way:
    """What one direction is computed with; ``states`` (batch, hidden) are the first ones."""

    weight: Tensor  # (gates·hidden, inputs)
    recurrence: Tensor  # (gates·hidden, hidden)
    bias: Tensor  # (2·gates·hidden): the input's, then the recurrence's
    peepholes: Tensor  # (3·hidden)
    states: _States
    activations: Sequence[_Activation]
    attributes: Mapping[str, Any]

    def recurred(self, h: Tensor, rows: slice = slice(None)) -> Tensor:
        """Return what the state (batch, hidden) adds to some of the gates."""
        return functional.linear(h, self.recurrence[rows], self.bias[len(self.weight) :][rows])

    def activated(self, place: int, total: Tensor) -> Tensor:
        """Return an activation of what is added up for a gate, which is clipped before."""
        clip = self.attributes.get("clip")
        return self.activations[place](total if clip is None else total.clamp(-clip, clip))


class _Recurrent(OpRun):
    """A layer that goes along sequences, in one direction or both."""

    op_domain = ""
    usual: tuple[str, ...]
    """The activations of one direction where the node names none."""
    states = 1

    def step(self, way: _Way, x: Tensor, states: _States) -> _States:
        """Return the states after a step; x (batch, gates·hidden) is what its input adds up to."""
        raise NotImplementedError

    def _run(self, x: Any, *inputs: Any, **attributes: Any) -> tuple[Any, ...]:
        """Return Y (steps, directions, batch, hidden) and the last states (directions, batch, hidden).

        x is (steps, batch, inputs). With ``layout`` 1 the batch is the first axis of all of these.
        """
        swapped = bool(attributes.get("layout"))
        x = _tensor(x, swapped)
        lengths = inputs[3] if len(inputs) > 3 else None
        ends = torch.full((x.shape[1],), len(x)) if lengths is None else _tensor(lengths).long()
        runs = [
            self._along(way, x, ends, backward=attributes["direction"] == "reverse" or place == 1)
            for place, way in enumerate(self._ways(x.shape[1], inputs, swapped, attributes))
        ]
        y, *last = (torch.stack(each, -3) for each in zip(*runs, strict=True))
        if swapped:
            y, last = y.movedim(2, 0), [each.transpose(0, 1) for each in last]
        return tuple(each.contiguous().numpy() for each in (y, *last)[: len(self.onnx_node.output)])

    def _ways(
        self, batch: int, inputs: Sequence[Any], swapped: bool, attributes: Mapping[str, Any]
    ) -> list[_Way]:
        """Return what each direction is computed with; what is absent is 0."""
        absent = [None] * (5 + self.states - len(inputs))
        given: list[Any] = [*inputs, *absent]
        weight, recurrence, bias = _tensor(given[0]), _tensor(given[1]), given[2]
        count, rows, hidden = len(weight), weight.shape[1], recurrence.shape[2]
        biases, peepholes = _or_zeros(bias, (count, 2 * rows)), _or_zeros(given[-1], (count, 3 * hidden))
        first = [_or_zeros(state, (count, batch, hidden), swapped) for state in given[4:-1]]
        names = attributes.get("activations") or self.usual * count
        found = _activations(names, attributes.get("activation_alpha"), attributes.get("activation_beta"))
        each = len(self.usual)
        return [
            _Way(
                weight[place],
                recurrence[place],
                biases[place],
                peepholes[place],
                tuple(state[place] for state in first),
                found[each * place : each * (place + 1)],
                attributes,
            )
            for place in range(count)
        ]

    def _along(self, way: _Way, x: Tensor, ends: Tensor, backward: bool) -> _States:
        """Return the results of all steps, 0 behind each sequence's end, and the states at its last step."""
        steps = torch.arange(len(x))[:, None]  # (steps, 1), beside ends (batch)
        there = steps < ends
        order = torch.where(there, ends - 1 - steps, steps) if backward else steps.expand(there.shape)
        batch = torch.arange(len(ends))
        added = functional.linear(x[order, batch], way.weight, way.bias[: len(way.weight)])
        states, results = way.states, [way.states[0]]
        for step, going_on in zip(added, there[..., None], strict=True):
            after = self.step(way, step, states)
            states = tuple(torch.where(going_on, new, old) for new, old in zip(after, states, strict=True))
            results.append(torch.where(going_on, states[0], 0.0))
        return torch.stack(results)[1:][order, batch], *states


class RNN(_Recurrent):
    """A state that is an activation of the input and of itself."""

    usual = ("Tanh",)

    def step(self, way: _Way, x: Tensor, states: _States) -> _States:
        """Return the state after a step."""
        return (way.activated(0, x + way.recurred(states[0])),)


class GRU(_Recurrent):
    """A state that is mixed with a new one; gates say how much of it is, and of what the new one is made."""

    usual = ("Sigmoid", "Tanh")

    def step(self, way: _Way, x: Tensor, states: _States) -> _States:
        """Return the state after a step."""
        (h,) = states
        gates = slice(0, 2 * h.shape[-1])
        new = slice(2 * h.shape[-1], None)
        z, r = way.activated(0, x[:, gates] + way.recurred(h, gates)).chunk(2, -1)
        if way.attributes.get("linear_before_reset"):
            made = way.activated(1, x[:, new] + r * way.recurred(h, new))
        else:
            made = way.activated(1, x[:, new] + way.recurred(r * h, new))
        return ((1 - z) * made + z * h,)


class LSTM(_Recurrent):
    """A state, and a cell beside it that gates let in, out and forget."""

    usual = ("Sigmoid", "Tanh", "Tanh")
    states = 2

    def step(self, way: _Way, x: Tensor, states: _States) -> _States:
        """Return the state and the cell after a step."""
        h, cell = states
        i, o, f, made = (x + way.recurred(h)).chunk(4, -1)
        seen_by_i, seen_by_o, seen_by_f = way.peepholes.chunk(3)
        i = way.activated(0, i + seen_by_i * cell)
        f = 1 - i if way.attributes.get("input_forget") else way.activated(0, f + seen_by_f * cell)
        cell = f * cell + i * way.activated(1, made)
        o = way.activated(0, o + seen_by_o * cell)
        return o * way.activations[2](cell), cell


def _tensor(array: Any, swapped: bool = False) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.transpose(0, 1) if swapped else tensor


def _or_zeros(array: Any, shape: tuple[int, ...], swapped: bool = False) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64) if array is None else _tensor(array, swapped)


RECURRENT: tuple[type[OpRun], ...] = (RNN, GRU, LSTM)
"""Implementations for ``ReferenceEvaluator``'s ``new_ops``."""
