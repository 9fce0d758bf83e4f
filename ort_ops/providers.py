"""Execution providers as people write them: ``cpu``, ``cuda``, ``cuda:use_tf32=0,device_id=1``."""

from .errors import ProviderError

__all__ = ["parse_provider"]

_SHORT = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}


def parse_provider(text: str) -> tuple[str, dict[str, str]]:
    """Return ONNX Runtime's name of a provider and its options; raises ProviderError for a malformed text."""
    name, _, rest = text.partition(":")
    full = _SHORT.get(name.lower(), name)
    if not full.endswith("ExecutionProvider"):
        raise ProviderError(
            f"{text!r} names no execution provider; expected one of {', '.join(_SHORT)}, "
            "or ONNX Runtime's own name for one (...ExecutionProvider)"
        )
    options: dict[str, str] = {}
    for pair in rest.split(",") if rest else ():
        key, separator, value = pair.partition("=")
        if not separator or not key or not value:
            raise ProviderError(f"{text!r}: {pair!r} is no option; expected name=value")
        options[key] = value
    return full, options
