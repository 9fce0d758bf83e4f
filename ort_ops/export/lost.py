"""Calls that became no nodes: an error, but for those on which nothing depends.

The TorchScript exporter drops what nothing reads, and sometimes more. So the model is run with a call's
results spoilt, and what it gives then is compared.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ort_ops.errors import ExportError

from .calls import Call
from .record import Record

__all__ = ["is_unused", "refuse_lost", "spoilt"]


def refuse_lost(calls: Sequence[Call], why: str) -> None:
    """Raise ExportError where calls were lost."""
    if calls:
        names = ", ".join(dict.fromkeys(call.name for call in calls))
        raise ExportError(f"{len(calls)} calls of {names} did not become nodes: {why}")


def is_unused(lost: list[Call], record: Record, model: Any, args: Any, keywords: Mapping[str, Any]) -> bool:
    """Tell whether as many calls of each Function as were lost don't matter to the model's output."""
    given = args if isinstance(args, tuple | list) else (args,)
    wanted, unused = Counter(call.name for call in lost), Counter[str]()
    likeliest_first = sorted(enumerate(record.calls), key=lambda each: each[1] not in lost)
    for place, call in likeliest_first:
        if call.name not in wanted:
            continue

        def spoil(spoilt: bool, place: int = place) -> None:
            record.spoilt, record.computed = place if spoilt else None, 0

        unused[call.name] += not _results_matter(lambda: model(*given, **keywords), spoil)
        if wanted <= unused:
            return True
    return False


def spoilt(tensor: Tensor) -> Tensor:
    """Return a tensor of other values."""
    if tensor.is_floating_point() or tensor.is_complex():
        return torch.full_like(tensor, float("nan"))
    return ~tensor if tensor.dtype == torch.bool else tensor + 1


def _results_matter(run: Callable[[], Any], spoil: Callable[[bool], Any]) -> bool:
    """Tell whether a model's output changes when the results of some calls are spoilt.

    ``run`` runs the model, ``spoil`` says whether the calls' results are. A model that then fails shows that
    they matter: it looks at them, or torch does, which wants a tensor back that is marked dirty.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        state = torch.get_rng_state()
        outputs = []
        for spoilt in (False, True):
            torch.set_rng_state(state)
            with contextlib.ExitStack() as undo:
                spoil(spoilt)
                undo.callback(spoil, False)
                try:
                    returned = run()
                except Exception:
                    return True
                outputs.append([leaf for leaf in pytree.tree_leaves(returned) if isinstance(leaf, Tensor)])
    return not all(_same(a, b) for a, b in zip(*outputs, strict=True))


def _same(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or not torch.equal(a.isnan(), b.isnan()):
        return False
    return torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))
