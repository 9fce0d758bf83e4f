"""What holds while a model is evaluated without being compiled."""

import contextlib
import sys
from collections.abc import Iterator

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Mode", "default_dtype", "nothing_compiled"]

_default_dtype = torch.get_default_dtype  # for which another answers while a model is evaluated


class Mode(TorchDispatchMode):
    """A mode of dispatch for which torch doesn't load Dynamo, to keep it out of what is below: a second."""

    supports_higher_order_operators = True  # torch.cond and others, whose operations it sees

    # torch has no types for these.
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()  # type: ignore[no-untyped-call]

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
