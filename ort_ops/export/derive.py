"""A function body derived from a Function's forward, which is exported alone, through ordinary operators."""

import itertools
import warnings
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from onnx import FunctionProto
from torch import Tensor
from torch.utils import _pytree as pytree

from ort_ops.schema import TensorType

from .alone import Dims, Pair, write_alone
from .calls import Call
from .deciding import gives_another
from .function_proto import NoBodyError, to_function
from .own import running_own
from .quiet import programs_unsaid, quiet
from .running import sample
from .stand_in import StandIn

__all__ = ["derive"]

_DYNAMIC = 6  # a size for a dimension that may have any: torch takes 0 and 1 for constants

Group = tuple[FunctionProto, list[StandIn]]


@dataclass(frozen=True)
class _Derived:
    """A node's body; ``plain`` keeps what the node's constants make superfluous, such as a product with 1.

    ``any_size`` says that it holds for other sizes than the node's, too.
    """

    body: FunctionProto
    plain: FunctionProto
    any_size: bool


def derive(stand_ins: Sequence[StandIn], opset: int) -> tuple[list[Group], list[Group]]:
    """Return the bodies of some nodes of one operator, equal ones once, each with the nodes that it is for.

    Then the same with what one node's constant makes superfluous (a product with 1) and another's doesn't:
    these bodies may be fewer.

    The inputs of a body are ``in_0`` and so on, as many as the node with the most has, its outputs ``out_0``
    and so on.
    """
    inputs = max(len(stand_in.inputs) for stand_in in stand_ins)
    made: dict[Any, _Derived] = {}
    found = []
    for stand_in in stand_ins:
        rough, exact = _signature(stand_in, exact=False), _signature(stand_in, exact=True)
        derived = made.get(rough) or made.get(exact) or _derive_one(stand_in, inputs, opset)
        made[rough if derived.any_size else exact] = derived
        found.append((derived, stand_in))
    return _grouped((d.body, s) for d, s in found), _grouped((d.plain, s) for d, s in found)


def _grouped(found: Iterable[tuple[FunctionProto, StandIn]]) -> list[Group]:
    bodies: dict[bytes, Group] = {}
    for body, stand_in in found:
        text = body.SerializeToString(deterministic=True)
        bodies.setdefault(text, (body, []))[1].append(stand_in)
    return list(bodies.values())


def _signature(stand_in: StandIn, *, exact: bool) -> Any:
    """Return what a body depends on: with the sizes, or with ranks and sizes of 1 only."""
    types = []
    for kind in stand_in.inputs:
        shape = None if kind is None or kind.shape is None else kind.shape
        sizes = None if shape is None else tuple(d if exact or d in (0, 1) else -1 for d in shape)
        types.append((None if kind is None else kind.dtype, sizes))
    return stand_in.constants(), tuple(types)


class _Body(torch.nn.Module):
    """A call's forward as a model of the node's inputs."""

    def __init__(self, stand_in: StandIn) -> None:
        super().__init__()
        self.call, self.whole = stand_in.call, stand_in.whole
        # torch 2.9 can't decompose a program whose free sizes are those of *inputs.
        names = ", ".join(f"input_{i}" for i in range(len(_places(self.whole.tensors))))
        self.forward = eval(f"lambda {names}: compute({names})", {"compute": self._compute})

    def _compute(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        places = {place: i for i, place in enumerate(_places(self.whole.tensors))}
        tensors = [inputs[places[p]] if isinstance(p, int) else p for p in self.whole.tensors]
        tensors = [t.clone() if i in self.call.written else t for i, t in enumerate(tensors)]
        returned = self.call.compute(tensors)
        leaves = [leaf for leaf in pytree.tree_leaves(returned) if isinstance(leaf, Tensor)]
        return tuple(leaves[: self.whole.outputs])


def _places(tensors: Sequence[Any]) -> list[int]:
    """Return the node's inputs that are tensors of the call, in the order of the call."""
    return list(dict.fromkeys(place for place in tensors if isinstance(place, int)))


def _derive_one(stand_in: StandIn, inputs: int, opset: int) -> _Derived:
    """Return a node's body."""
    if stand_in.whole.sizes:
        raise NoBodyError("an argument is an integer that depends on the sizes of the inputs")
    places = _places(stand_in.whole.tensors)
    types = [stand_in.inputs[place] for place in places]
    examples = _examples(stand_in.call, stand_in.whole.tensors, types)
    names = [f"in_{place}" for place in places]
    known = frozenset(
        (i, axis)
        for i, kind in enumerate(types)
        for axis, size in enumerate((kind and kind.shape) or ())
        if isinstance(size, int)
    )

    def attempt(static: Dims) -> tuple[Pair, Dims]:
        try:
            with quiet(), programs_unsaid(), warnings.catch_warnings(), running_own():
                warnings.simplefilter("ignore")
                written, fixed = write_alone(_Body(stand_in).eval(), examples, names, opset, static)
        except Exception as error:
            raise NoBodyError(f"forward has no form in standard operators ({_reason(error)})") from error
        if another := gives_another(_Body(stand_in).eval(), written[0], examples):
            raise NoBodyError(f"what PyTorch's exporter writes of forward {another}")
        for position, axis in sorted(fixed - known):
            raise NoBodyError(
                f"what forward computes with depends on the size of dimension {axis} of input "
                f"{places[position]}, which may vary"
            )
        return written, fixed | static

    try:
        written, fixed = attempt(frozenset())
    except NoBodyError:
        if not known:
            raise
        written, fixed = attempt(known)  # what has no form for any sizes may have one for the node's
    body, plain = (to_function(each, places, inputs, opset) for each in written)
    return _Derived(body, plain, not fixed)


def _reason(error: BaseException) -> str:
    """Return the first line of what is behind an exporter's error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"


def _examples(call: Call, tensors: Sequence[Any], types: Sequence[TensorType | None]) -> tuple[Tensor, ...]:
    """Return tensors of the call's sizes, where a size may vary one that is neither 0 nor 1."""
    examples: dict[int, Tensor] = {}
    symbols: dict[Any, int] = {}
    kinds = dict(zip(_places(tensors), types, strict=True))
    for place, (shape, dtype, device) in zip(tensors, call.examples, strict=True):
        if not isinstance(place, int):
            continue
        kind = kinds[place]
        known = kind.shape if kind is not None and kind.shape is not None else (None,) * len(shape)
        sizes = []
        for dim, size in zip(known, shape, strict=True):
            if isinstance(dim, int):
                sizes.append(dim)
            elif isinstance(size, int) and size > 1:
                sizes.append(int(size))
            else:
                if dim not in symbols:
                    symbols[dim] = _free_size(size, symbols.values())
                sizes.append(symbols[dim])
        examples[place] = sample(sizes, dtype, device)
    return tuple(examples.values())


def _free_size(size: Any, taken: Collection[int]) -> int:
    """Return a size for a dimension that may have any: the model's example's, or a multiple of it.

    None that is taken, for equal sizes would become one where forward compares them.
    """
    symbolic = isinstance(size, torch.SymInt) and size.node.has_hint()
    base = int(size.node.hint) if symbolic and size.node.hint > 1 else _DYNAMIC
    return next(multiple for multiple in itertools.count(base, base) if multiple not in taken)
