"""PyTorch to ONNX with custom operators kept: an ``autograd.Function`` becomes the nodes of its ``symbolic``.

``export`` takes the arguments of ``torch.onnx.export``; ``keep_functions`` does the same around code that
calls that by itself; ``as_node`` keeps operators of torch.library.
"""

from ort_ops.errors import ExportError

from .bodies import BodyMaker
from .exporter import export, keep_functions
from .keeping import Kept
from .node import as_node
from .program import Program
from .report import CallReport, Moved
from .stand_in import StandIn

__all__ = [
    "BodyMaker",
    "CallReport",
    "ExportError",
    "Kept",
    "Moved",
    "Program",
    "StandIn",
    "as_node",
    "export",
    "keep_functions",
]
