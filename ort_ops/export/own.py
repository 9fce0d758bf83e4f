"""A Function's own methods while others stand in their place, and what stands for ``ctx`` where they run."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torch.autograd import Function

__all__ = ["OWN", "Context", "is_running_own", "own_method", "running_own", "takes_context"]

OWN = "_ort_ops_own"
"""On what stands in the place of a Function's method for a while: the Function's own."""

_inside = threading.local()


def takes_context(function: type[Function]) -> bool:
    """Tell whether a Function's forward is of the form ``forward(ctx, ...)``."""
    return function.setup_context is Function.setup_context


def own_method(function: type[Function], name: str) -> Callable[..., Any]:
    """Return a Function's own method, whatever stands in its place."""
    method = getattr(function, name)
    own: Callable[..., Any] = getattr(method, OWN, method)
    return own


@contextlib.contextmanager
def running_own() -> Iterator[None]:
    """Mark that a Function's own forward runs: Functions that it calls in turn are a part of it."""
    depth = getattr(_inside, "depth", 0)
    _inside.depth = depth + 1
    try:
        yield
    finally:
        _inside.depth = depth


def is_running_own() -> bool:
    """Tell whether a Function's own forward runs in this thread."""
    return getattr(_inside, "depth", 0) > 0


class Context:
    """What stands for ``ctx`` where nothing is differentiated: takes whatever a forward leaves with it.

    needs_input_grad: for each argument whether it requires a gradient, as a parameter does all the same.
    """

    saved_tensors: tuple[Tensor, ...] = ()
    dirty: tuple[Tensor, ...] = ()
    needs_input_grad: tuple[bool, ...] = ()

    def save_for_backward(self, *tensors: Any) -> None:
        """Keep the tensors, for a forward that reads them back."""
        self.saved_tensors = tensors

    def save_for_forward(self, *tensors: Any) -> None:
        """Keep nothing: there is no forward-mode differentiation here."""

    def mark_dirty(self, *tensors: Any) -> None:
        """Keep the tensors: forward writes into them."""
        self.dirty = tensors

    def mark_non_differentiable(self, *tensors: Any) -> None:
        """Do nothing: nothing is differentiated."""

    def set_materialize_grads(self, value: bool) -> None:
        """Do nothing: there are no gradients."""
