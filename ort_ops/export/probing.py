"""The shapes that a forward gives, found by running it at several sizes: for C++ and NumPy code."""

import contextlib
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from ort_ops.errors import ExportError

from .running import run_on_samples, sample, widened

__all__ = ["probe"]

_OUTSIDE = torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()
_UNKNOWN = 6  # the size that is tried first where nothing says which


class Runnable(Protocol):
    """What can be run on real tensors."""

    def run(self, tensors: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
        """Compute."""
        ...


def probe(
    call: Runnable, name: str, tensors: Sequence[Tensor], sizes: Sequence[Any], reason: Exception
) -> list[Tensor]:
    """Return fake results for fake tensors: forward is run on random values at several sizes.

    A size of a result is a constant, a sum of multiples of the inputs' sizes plus a constant, or, where
    neither fits or equal sizes gave different ones, unknown. Raises ExportError where forward fails on real
    tensors, too; ``reason`` is why it failed on fake ones.
    """
    symbols = _symbols([*(s for t in tensors for s in t.shape), *sizes])
    try:
        # As outside of any operator, where transforms of torch.func work.
        with torch._C._ForceDispatchKeyGuard(*_OUTSIDE):
            results, trials, seen = _run_trials(call, tensors, sizes, symbols)
    except Exception as error:
        raise ExportError(
            f"{name}: forward runs neither on fake tensors ({type(reason).__name__}: {_first_line(reason)}) "
            f"nor on random ones ({type(error).__name__}: {_first_line(error)}); "
            "pass fakes={...} with a function that gives its results' shapes"
        ) from error
    if any([len(shape) for shape in shapes] != [len(shape) for shape in seen[0]] for shapes in seen):
        raise ExportError(f"{name}: the number of results or their ranks depend on values or sizes")
    make: Any = tensors[0].new_empty if tensors else torch.empty
    return [
        make(_fit_shape([shapes[i] for shapes in seen], trials, symbols), dtype=r.dtype, device=r.device)
        for i, r in enumerate(results)
    ]


def _run_trials(
    call: Runnable, tensors: Sequence[Tensor], sizes: Sequence[Any], symbols: Mapping[Any, Any]
) -> tuple[list[Tensor], list[dict[Any, int]], list[list[tuple[int, ...]]]]:
    """Run forward at several sizes; returns its results, and the sizes with the shapes that came of them."""
    trials = _trials(symbols)
    seen: list[list[tuple[int, ...]]] = []
    with _disable_current_modes(), torch.random.fork_rng(devices=[]):
        for trial in trials:
            results = _try(call, sizes, tensors, trial)
            seen.append([tuple(r.shape) for r in results])
        for trial, wide in ((trials[0], True), *((odd, False) for odd in _odd_trials(trials[0]))):
            with contextlib.suppress(Exception):  # forward may refuse such numbers, or such sizes
                seen.append([tuple(r.shape) for r in _try(call, sizes, tensors, trial, wide=wide)])
                trials.append(trial)
    return results, trials, seen


def _try(
    call: Runnable,
    sizes: Sequence[Any],
    tensors: Sequence[Tensor],
    trial: Mapping[Any, int],
    *,
    wide: bool = False,
) -> list[Tensor]:
    """Run a call on random tensors of the sizes of a trial."""
    known = [_value(size, trial) for size in sizes]
    samples = [_sample(tensor, trial) for tensor in tensors]
    given = list(map(widened, samples)) if wide else samples
    return run_on_samples(functools.partial(_run, call, known), given)[0]


def _odd_trials(base: Mapping[Any, int]) -> Iterator[dict[Any, int]]:
    """Give sizes beside a base, and small ones: a result may be padded, or cut off."""
    for symbol, size in base.items():
        for other in dict.fromkeys((size + 1, size - 1, 2)):
            if other > 1:
                yield {**base, symbol: other}


def _run(call: Runnable, sizes: Sequence[int], tensors: Sequence[Tensor]) -> list[Tensor]:
    return call.run(tensors, sizes)


def _symbols(sizes: Sequence[Any]) -> dict[Any, Any]:
    """Return the symbols in these sizes, each with a SymInt that is just it, or None."""
    found: dict[Any, Any] = {}
    for size in sizes:
        if isinstance(size, torch.SymInt):
            for symbol in sorted(size.node.expr.free_symbols, key=str):
                found.setdefault(symbol, None)
            if size.node.expr in found:
                found[size.node.expr] = size
    return found


def _trials(symbols: Mapping[Any, Any]) -> list[dict[Any, int]]:
    """Return what is tried: a base twice, then each symbol at two and three times its base.

    Multiples, since a forward may want its sizes divisible by something.
    """
    base = {symbol: _hint(size) for symbol, size in symbols.items()}
    trials = [base, base]
    for symbol, factor in itertools.product(base, (2, 3)):
        trials.append({**base, symbol: factor * base[symbol]})
    if len(base) > 1:
        trials.append({symbol: 2 * value for symbol, value in base.items()})
    return trials


def _hint(size: Any) -> int:
    hint = size.node.hint if size is not None and size.node.has_hint() else None
    return int(hint) if hint is not None and int(hint) > 1 else _UNKNOWN


def _value(size: Any, trial: Mapping[Any, int]) -> int:
    return int(size.node.expr.subs(trial)) if isinstance(size, torch.SymInt) else int(size)


def _sample(fake: Tensor, trial: Mapping[Any, int]) -> Tensor:
    shape = [_value(size, trial) for size in fake.shape]
    return sample(shape, fake.dtype, fake.device)


def _fit_shape(
    seen: Sequence[tuple[int, ...]], trials: Sequence[Mapping[Any, int]], symbols: Mapping[Any, Any]
) -> list[Any]:
    return [_fit([shape[i] for shape in seen], trials, symbols) for i in range(len(seen[0]))]


def _fit(seen: Sequence[int], trials: Sequence[Mapping[Any, int]], symbols: Mapping[Any, Any]) -> Any:
    """Return a size of the result: an int, a SymInt made of the inputs', or a new unknown one."""
    base, first = trials[0], seen[0]
    if all(size == first for size in seen):
        return first
    slopes: dict[Any, int] = {}
    for symbol in symbols:
        doubled = next(i for i, t in enumerate(trials) if t[symbol] == 2 * base[symbol])
        slope, rest = divmod(seen[doubled] - first, base[symbol])
        if rest:
            return torch.library.get_ctx().new_dynamic_size()
        slopes[symbol] = slope
    constant = first - sum(slope * base[symbol] for symbol, slope in slopes.items())
    fits = all(
        size == constant + sum(slope * trial[symbol] for symbol, slope in slopes.items())
        for size, trial in zip(seen, trials, strict=True)
    )
    used = {symbol: slope for symbol, slope in slopes.items() if slope}
    if not fits or any(symbols[symbol] is None for symbol in used):
        return torch.library.get_ctx().new_dynamic_size()
    size: Any = constant
    for symbol, slope in used.items():
        size = size + slope * symbols[symbol]
    return size


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]
