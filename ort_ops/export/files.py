"""Files of exporters: read, and written so that a reader never sees half of one."""

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import torch

from .program import Program
from .size import MAX_FILE

__all__ = ["read", "save", "scratch", "write"]


@contextlib.contextmanager
def scratch(model: Any, f: Any) -> Iterator[Path | io.BytesIO]:
    """Give what the TorchScript exporter is to write into: a buffer, or a path where one is too small.

    What is larger than one file may be, that exporter writes in parts beside a path; a buffer is faster.
    """
    if _weights(model) <= MAX_FILE:
        yield io.BytesIO()
        return
    beside = None if f is None or hasattr(f, "write") else Path(f).parent
    with tempfile.TemporaryDirectory(dir=beside) as folder:
        yield Path(folder, "model.onnx")


def _weights(model: Any) -> int:
    """Return the bytes of a model's parameters and buffers; 0 where it has none that it could name."""
    if not isinstance(model, torch.nn.Module):
        return 0
    return sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))


def read(written: Path | io.BytesIO) -> ir.Model:
    """Read what that exporter wrote."""
    if isinstance(written, Path):
        return ir.load(written)
    with written:
        return ir.from_proto(onnx.load_from_string(written.getvalue()))


def write(program: Program, f: str | os.PathLike[str] | Any) -> None:
    """Write the TorchScript exporter's file, with the weights beside it where they are too large for it."""
    if f is None or hasattr(f, "write"):
        ir.external_data.load_to_model(program.model)
        if f is not None:
            f.write(program.model_proto.SerializeToString())
        return
    program.save(f)
    if not program.fits_in_one_file:
        program.model = ir.load(f)  # the weights are where the file is now


def save(program: Program, f: Any, options: Mapping[str, Any]) -> None:
    """Write the newer exporter's file, as the options of torch.onnx.export say."""
    if hasattr(f, "write"):
        f.write(program.model_proto.SerializeToString())
    elif f is not None:
        program.save(
            f,
            include_initializers=options.get("export_params", True),
            keep_initializers_as_inputs=options.get("keep_initializers_as_inputs", False),
            external_data=options.get("external_data", True),
        )
