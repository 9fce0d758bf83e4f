"""The exporter's table of translations, made once: making it is most of the time of a small export.

torch.onnx.export reads some five hundred functions of onnxscript's source anew at each call.
"""

import contextlib
import copy
import sys
from collections.abc import Iterator
from typing import Any

from torch.onnx._internal.exporter._registration import ONNXRegistry

from .node import translations

__all__ = ["translations_kept"]

_made: dict[Any, ONNXRegistry] = {}


@contextlib.contextmanager
def translations_kept() -> Iterator[None]:
    """Have each export start from a copy of the table that the first one made, until the end."""
    own = ONNXRegistry.__dict__["from_torchlib"]

    def from_torchlib(cls: type[ONNXRegistry], *arguments: Any, **keywords: Any) -> ONNXRegistry:
        # torchvision's operators are in the table once it has been imported.
        key = (arguments, tuple(keywords.items()), "torchvision" in sys.modules)
        if key not in _made:
            _made[key] = own.__get__(None, cls)(*arguments, **keywords)
        registry = copy.copy(_made[key])
        # An operator of as_node has that translation alone: torch 2.9 prefers its own where it has one.
        nodes = {key for operator in translations() for key in (operator, operator.name())}
        registry.functions = {
            target: list(found) for target, found in registry.functions.items() if target not in nodes
        }
        return registry

    ONNXRegistry.from_torchlib = classmethod(from_torchlib)  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        ONNXRegistry.from_torchlib = own  # type: ignore[method-assign]
