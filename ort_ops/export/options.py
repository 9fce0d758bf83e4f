"""What the caller of an export asks for beyond torch.onnx.export's own options."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from torch.autograd import Function

from ort_ops.errors import ExportError

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

    def __post_init__(self) -> None:
        """Raise ExportError for what would be taken for something else without a word."""
        if self.functions not in get_args(Functions):
            wanted = ", ".join(map(repr, get_args(Functions)))
            raise ExportError(f"functions is {self.functions!r}; expected one of {wanted}")
        for domain, version in self.custom_opsets.items():
            if domain in ("", "ai.onnx"):
                raise ExportError(
                    "custom_opsets has ONNX's own domain, whose version opset_version asks for; "
                    "expected domains of your own"
                )
            if type(version) is not int or not 0 < version < 2**31:
                raise ExportError(
                    f"custom_opsets has {version!r} for {domain!r}; expected an integer above 0"
                )
        for name, by_function in (("bodies", self.bodies), ("fakes", self.fakes)):
            for key in by_function:
                if not (isinstance(key, type) and issubclass(key, Function)):
                    raise ExportError(f"{name} has {key!r} for a key; expected an autograd.Function's class")
