"""What holds while a model is evaluated without being compiled."""

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch._ops import HigherOrderOperator
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["HigherOrderOperator", "Mode", "default_dtype", "nothing_compiled"]

_default_dtype = torch.get_default_dtype  # for which another answers while a model is evaluated


class Mode(TorchDispatchMode):
    """A mode of dispatch for which torch doesn't load Dynamo, to keep it out of what is below: a second."""

    supports_higher_order_operators = True  # torch.cond and others: see inside

    # torch has no types for these.
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()  # type: ignore[no-untyped-call]

    def inside(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run an operation that takes functions (``torch.cond``); this mode sees the operations of these."""

        def entered(leaf: Any) -> Any:
            if isinstance(leaf, Tensor) or not callable(leaf):
                return leaf

            def body(*given: Any, **named: Any) -> Any:
                with self:
                    return leaf(*given, **named)

            return body

        return func(*pytree.tree_map(entered, args), **pytree.tree_map(entered, dict(kwargs)))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Have a dtype be the one of tensors that are made without."""
    before = _default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def nothing_compiled() -> contextlib.AbstractContextManager[object]:
    """Run what is compiled as it is written; where nothing is, Dynamo isn't loaded: that takes a second."""
    loaded = "torch._dynamo" in sys.modules
    return torch.compiler.set_stance("force_eager") if loaded else contextlib.nullcontext()
