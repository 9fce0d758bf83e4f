"""What an export gives: torch's ONNXProgram, with what became of each call of a Function."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import onnx_ir as ir
import torch
from torch.autograd import Function
from torch.export import ExportedProgram

from ort_ops.session import InferenceSession, SessionArguments

from .report import CallReport, Moved
from .size import MAX_FILE, nbytes

__all__ = ["Program"]


class Program(torch.onnx.ONNXProgram):
    """A ``torch.onnx.ONNXProgram`` whose custom nodes are known by the calls that they stand for.

    ``calls`` has a report for each call of a Function that was kept, in the order in which the model makes
    them; ``moved`` the operators that were taken out of ONNX's default domain, since ONNX doesn't know them.
    ``functions`` are the Functions of these calls. The TorchScript exporter gives one, too;
    ``exported_program`` is None then.
    """

    def __init__(
        self,
        model: ir.Model,
        exported_program: ExportedProgram | None,
        calls: Sequence[CallReport] = (),
        moved: Sequence[Moved] = (),
        functions: Sequence[type[Function]] = (),
    ) -> None:
        super().__init__(model, exported_program)
        self.calls = tuple(calls)
        self.moved = tuple(moved)
        self.functions = tuple(functions)

    @property
    def fits_in_one_file(self) -> bool:
        """Tell whether its weights do; else they are written beside it."""
        return nbytes(self.model) <= MAX_FILE

    def save(self, destination: str | os.PathLike[str], **options: Any) -> None:
        """Write the file, in one step: a reader never sees half of it, and a failure leaves what was there.

        The options are those of ``torch.onnx.ONNXProgram.save``.
        """
        place = Path(destination)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.") as folder:
            super().save(Path(folder, place.name), **options)
            written = sorted(Path(folder).iterdir(), key=lambda path: path.name == place.name)
            for path in written:  # the weights beside it first
                os.replace(path, place.parent / path.name)

    def session(
        self,
        providers: Sequence[str | tuple[str, dict[str, Any]]] | None = None,
        *,
        sess_options: Any = None,
        **arguments: Unpack[SessionArguments],
    ) -> InferenceSession:
        """Return a session that runs the model, its custom nodes by the Functions that they stand for.

        A kernel that is registered for an operator comes first. The arguments are those of
        ``ort_ops.InferenceSession``; ``functions`` are the program's own if not given. A node that doesn't
        stand for a whole call needs a kernel of its own; ``calls`` says why, and so does the error where it
        has none.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "model.onnx")
            source: str | bytes = path
            if not self.fits_in_one_file:
                ir.save(self.model, path, external_data="model.onnx.data")
            else:
                source = self.model_proto.SerializeToString()
            given: SessionArguments = {"functions": self.functions, **arguments}
            return InferenceSession(source, sess_options, providers, **given)
