"""Sizes that the TorchScript exporter would freeze: an integer of an operator that follows from the inputs.

A trace holds the example's number, since an operator of Python's takes integers and no tensors. So the model
is run at other sizes, and what its operators are given there is compared.
"""

from collections.abc import Mapping, Sequence, Set
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from ort_ops.errors import ExportError

from .own import running_own

__all__ = ["refuse_frozen"]


def refuse_frozen(
    operators: Set[Any],
    model: Any,
    args: Any,
    keywords: Mapping[str, Any],
    names: Sequence[str] | None,
    dynamic_axes: Any,
) -> None:
    """Raise ExportError where an argument of one of these operators depends on sizes that are to vary.

    args, keywords: what the model is traced with; names: of its inputs, in order; dynamic_axes: as for
    torch.onnx.export. Where the model doesn't run at other sizes nothing can be said.
    """
    given = tuple(args) if isinstance(args, tuple | list) else (args,)
    leaves, structure = pytree.tree_flatten((given, dict(keywords)))
    larger = _larger(leaves, names or (), dynamic_axes)
    if larger is None or not operators:
        return
    try:
        calls, others = (_calls(operators, model, structure, each) for each in (leaves, larger))
    except Exception:  # it has these sizes only
        return
    for (operator, constants), (_, differing) in zip(calls, others, strict=False):
        for name, value in constants.items():
            if repr(differing.get(name)) != repr(value):  # NaN is NaN
                raise ExportError(f"{operator}: {name} depends on the inputs; a node's attribute can't")


def _larger(leaves: Sequence[Any], names: Sequence[str], dynamic_axes: Any) -> list[Any] | None:
    """Return inputs with each size that is to vary doubled, None where none is."""
    places = dict(zip(names, (i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)), strict=False))
    larger, found = list(leaves), False
    for name, axes in dict(dynamic_axes or {}).items():
        for axis in axes if name in places else ():
            # Twice what is there: an index into something stays one.
            larger[places[name]] = torch.cat([larger[places[name]]] * 2, axis)
            found = True
    return larger if found else None


def _calls(
    operators: Set[Any], model: Any, structure: pytree.TreeSpec, leaves: Sequence[Any]
) -> list[tuple[str, dict[str, Any]]]:
    args, keywords = pytree.tree_unflatten(leaves, structure)
    seen = _Constants(operators)
    with torch.no_grad(), torch.random.fork_rng(devices=[]), running_own(), seen:
        model(*args, **keywords)
    return seen.calls


class _Constants(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Notes what operators are given besides tensors."""

    def __init__(self, operators: Set[Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._operators = operators

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note the call, and make it."""
        if func in self._operators:
            formals = [formal.name for formal in func._schema.arguments]
            given = {**dict(zip(formals, args, strict=False)), **(kwargs or {})}
            constants = {
                name: value
                for name, value in given.items()
                if not any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(value))
            }
            self.calls.append((func._schema.name, constants))
        return func(*args, **(kwargs or {}))
