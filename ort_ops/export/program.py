"""What an export gives: torch's ONNXProgram, with what became of each call of a Function."""

from collections.abc import Sequence

import onnx_ir as ir
import torch
from torch.export import ExportedProgram

from .finish import CallReport, Moved

__all__ = ["Program"]


class Program(torch.onnx.ONNXProgram):
    """A ``torch.onnx.ONNXProgram`` whose custom nodes are known by the calls that they stand for.

    ``calls`` has a report for each call of a Function that was kept, in the order in which the model makes
    them; ``moved`` the operators that were taken out of ONNX's default domain, since ONNX doesn't know them.
    The TorchScript exporter gives one, too; ``exported_program`` is None then.
    """

    def __init__(
        self,
        model: ir.Model,
        exported_program: ExportedProgram | None,
        calls: Sequence[CallReport] = (),
        moved: Sequence[Moved] = (),
    ) -> None:
        super().__init__(model, exported_program)
        self.calls = tuple(calls)
        self.moved = tuple(moved)
