"""What one export has seen and written so far."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch.export import ExportedProgram

from ort_ops.errors import ExportError

from .calls import Call
from .canonical import Named
from .symbolic import Whole
from .torchscript import Writing

__all__ = ["Record"]


@dataclass
class Record:
    """The calls of one export: those seen while the model ran, and what ``symbolic`` wrote for each.

    ``parameters`` has the model's parameters and buffers by every name; ``program`` is the captured program
    that is being translated, for the values of its constants; ``writing`` what the TorchScript exporter's
    calls of ``symbolic`` are noted in while it runs; ``capturing`` says that torch.export.export runs; of the
    ``computed`` calls, made outside of any capture, the one of the number ``spoilt`` gives something else.
    """

    calls: list[Call] = field(default_factory=list)
    written: dict[int, Whole | str] = field(default_factory=dict)
    parameters: Mapping[str, Named] = field(default_factory=dict)
    program: ExportedProgram | None = None
    writing: Writing | None = None
    exporting: bool = False
    capturing: bool = False
    spoilt: int | None = None
    computed: int = 0
    refused: ExportError | None = None
    """Why the model can't be captured; torch, which is exporting, would try again in another way."""

    def note(self, call: Call, whole: Whole | str) -> None:
        """Note that ``symbolic`` has been run for a call, and how its node stands for it."""
        self.written[call.number] = whole
