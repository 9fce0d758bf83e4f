"""What holds while a model is evaluated without being compiled."""

import contextlib
import sys

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Mode", "nothing_compiled"]


class Mode(TorchDispatchMode):
    """A mode of dispatch for which torch doesn't load Dynamo, to keep it out of what is below: a second."""

    # torch has no types for these.
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


def nothing_compiled() -> contextlib.AbstractContextManager[object]:
    """Run what is compiled as it is written; where nothing is, Dynamo isn't loaded: that takes a second."""
    loaded = "torch._dynamo" in sys.modules
    return torch.compiler.set_stance("force_eager") if loaded else contextlib.nullcontext()
