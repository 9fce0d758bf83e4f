"""What of torch's state matters to a forward that is run by itself: versions, autocast, tracing, memory."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

__all__ = [
    "apart",
    "as_outside_of_operators",
    "autocast_state",
    "fresh_symbols_dropped",
    "random_numbers_as_before",
    "run_on_samples",
    "sample",
    "under_autocast",
    "untraced",
    "versions",
    "widened",
    "written_since",
]

Result = TypeVar("Result")


def versions(tensors: Sequence[Tensor]) -> list[int]:
    """Return how often each tensor has been written into; one made in inference mode doesn't count."""
    return [0 if tensor.is_inference() else tensor._version for tensor in tensors]


def written_since(before: Sequence[int], tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the tensors that have been written into since they had these versions."""
    return [t for t, then, now in zip(tensors, before, versions(tensors), strict=True) if then != now]


@contextlib.contextmanager
def as_outside_of_operators() -> Iterator[None]:
    """Have torch count what is written into a tensor, and differentiate, inside of an operator, too."""
    bindings: Any = torch._C  # not all of it is declared
    keys = (bindings.DispatchKey.ADInplaceOrView, bindings.DispatchKey.AutogradFunctionality)
    before = [bindings._dispatch_tls_is_dispatch_key_excluded(key) for key in keys]
    for key in keys:
        bindings._dispatch_tls_set_dispatch_key_excluded(key, False)
    try:
        yield
    finally:
        for key, off in zip(keys, before, strict=True):
            bindings._dispatch_tls_set_dispatch_key_excluded(key, off)


def autocast_state() -> tuple[tuple[str, bool, torch.dtype], ...]:
    """Return for each device whether autocast is on, and to which dtype."""
    return tuple(
        (device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))
        for device in ("cpu", "cuda")
    )


@contextlib.contextmanager
def under_autocast(state: Sequence[tuple[str, bool, torch.dtype]]) -> Iterator[None]:
    """Run under the autocast that was on when the state was noted, wherever it is run again."""
    with contextlib.ExitStack() as stack:
        for device, enabled, dtype in state:
            if torch.is_autocast_enabled(device) != enabled:
                stack.enter_context(torch.autocast(device, dtype, enabled))
        yield


@contextlib.contextmanager
def untraced() -> Iterator[None]:
    """Run what the TorchScript exporter must not trace."""
    bindings: Any = torch._C  # not all of it is declared
    tracing = bindings._get_tracing_state()
    if tracing is None:  # where torch forbids tracing, it forbids setting the state to what it is, too
        yield
        return
    bindings._set_tracing_state(None)
    try:
        yield
    finally:
        bindings._set_tracing_state(tracing)


@contextlib.contextmanager
def random_numbers_as_before() -> Iterator[None]:
    """Leave torch's generators as they were, those of GPUs that are in use, too."""
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if used else ()
    with torch.random.fork_rng(devices=devices):
        yield


@contextlib.contextmanager
def fresh_symbols_dropped(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Forget numbers that a forward on fake tensors invented: torch wants to see each in a result's shape.

    Gives a list for its results, whose sizes stay.
    """
    # Not the mode that torch detects: 2.9 looks into the branches of torch.cond in another one.
    mode = next((t.fake_mode for t in tensors if isinstance(t, FakeTensor)), None)
    pending = getattr(getattr(mode, "shape_env", None), "pending_fresh_unbacked_symbols", [])
    before, results = len(pending), list[Tensor]()
    try:
        yield results
    except BaseException:
        results.clear()
        raise
    finally:
        sizes: list[Any] = [
            size for result in results for size in result.shape if isinstance(size, torch.SymInt)
        ]
        seen = {symbol for size in sizes for symbol in size.node.expr.free_symbols}
        pending[before:] = [symbol for symbol in pending[before:] if symbol in seen]


def apart(results: Sequence[Tensor], tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return results of which none shares memory with another or with what was given: torch asks for that."""
    seen = {tensor.untyped_storage()._cdata for tensor in tensors}
    separate = []
    for result in results:
        storage = result.untyped_storage()._cdata
        separate.append(result.clone() if storage in seen else result)
        seen.add(storage)
    return separate


def sample(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return random fractions, or zeros and ones of a type that has none."""
    if dtype.is_floating_point or dtype.is_complex:
        made = dtype if dtype.itemsize > 1 else torch.float16  # float8 has no generator
        return torch.rand(shape, dtype=made, device=device).to(dtype)
    return torch.randint(0, 2, tuple(shape), device=device).to(dtype)


def widened(tensor: Tensor) -> Tensor:
    """Return what ``sample`` gave with larger numbers, of both signs where the type has them."""
    if tensor.dtype in (torch.bool, torch.uint8) or (
        tensor.dtype.itemsize == 1 and tensor.is_floating_point()
    ):
        return tensor
    if tensor.is_floating_point() or tensor.is_complex():
        return (tensor - 0.5) * 16
    return torch.randint(-8, 9, tuple(tensor.shape), device=tensor.device).to(tensor.dtype)


def run_on_samples(
    run: Callable[[list[Tensor]], Result], tensors: Sequence[Tensor]
) -> tuple[Result, list[Tensor]]:
    """Run what takes tensors of ``sample``: with integers that are all 0 where these are no indices in it.

    Returns the result and what it is of.
    """
    given = list(tensors)
    try:
        return run(given), given
    except Exception:
        zeros = [t if t.is_floating_point() or t.is_complex() else torch.zeros_like(t) for t in tensors]
        if all(zero is tensor for zero, tensor in zip(zeros, tensors, strict=True)):
            raise
        return run(zeros), zeros
