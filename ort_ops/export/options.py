"""What the caller of an export asks for beyond torch.onnx.export's own options."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from torch.autograd import Function

from .bodies import BodyMaker

__all__ = ["CUSTOM_DOMAIN", "Functions", "Options"]

CUSTOM_DOMAIN = "custom"
"""The domain of an operator that ``symbolic`` writes without one and that ONNX doesn't know."""

Functions: TypeAlias = Literal["keep", "attach", "inline"]


@dataclass(frozen=True)
class Options:
    """See ``ort_ops.export.export``."""

    custom_opsets: Mapping[str, int] = field(default_factory=dict)
    default_domain: str = CUSTOM_DOMAIN
    functions: Functions = "keep"
    bodies: Mapping[type[Function], BodyMaker] = field(default_factory=dict)
    overloads: bool = False
    fakes: Mapping[type[Function], Callable[..., Any]] = field(default_factory=dict)
    domains: Mapping[str, str] = field(default_factory=dict)
    canonical: bool = False
