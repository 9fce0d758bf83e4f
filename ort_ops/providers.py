"""Execution providers: as people write them (``cuda:use_tf32=0,device_id=1``), and those a session has."""

import difflib
from collections.abc import Sequence
from typing import Any

import onnxruntime

from .errors import ProviderError

__all__ = ["CPU", "CUDA", "asked_providers", "parse_provider", "session_providers"]

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"

_SHORT = {
    "cpu": CPU,
    "cuda": CUDA,
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


def asked_providers(providers: Sequence[str | tuple[str, dict[str, Any]]] | None) -> list[str]:
    """Return the names of the execution providers that are asked for; None asks for all there are."""
    if providers is None:
        return list(onnxruntime.get_available_providers())
    if isinstance(providers, str):
        raise TypeError(f"providers={providers!r}; expected a list of names: [{providers!r}]")
    return [name if isinstance(name, str) else name[0] for name in providers]


def _meant(name: str) -> str | None:
    """Return the execution provider that a name which is none stands for; None where nothing is like it."""
    known = {each.lower(): each for each in onnxruntime.get_all_providers()}
    lower = name.lower()
    if name in known.values():
        return None  # it isn't there
    if lower in _SHORT:
        return _SHORT[lower]
    close = difflib.get_close_matches(lower, known, n=1, cutoff=0.85)
    return known.get(f"{lower}executionprovider") or (known[close[0]] if close else None)


def session_providers(providers: Sequence[str | tuple[str, dict[str, Any]]] | None) -> list[str]:
    """Return the names of the execution providers that a session would have, in its order.

    ``providers`` is as for ``InferenceSession``: names, or pairs of name and options; None means all there
    are. Raises ProviderError where one isn't there, unless the list itself names the CPU to fall back to.
    """
    cpu = _SHORT["cpu"]
    available = onnxruntime.get_available_providers()
    names = asked_providers(providers)
    missing = [name for name in names if name not in available]
    if missing and cpu not in names:
        meant = [each for name in missing if (each := _meant(name)) is not None]
        install = "install the build that has it (pip install 'ort-ops[gpu]' for CUDA)"
        raise ProviderError(
            f"{', '.join(missing)} is not in this onnxruntime, which has {', '.join(available)}; "
            + (f"expected {', '.join(meant)}?" if meant else install)
        )
    # ONNX Runtime itself puts the CPU behind the providers that are asked for.
    return [name for name in names if name in available] + ([] if cpu in names else [cpu])
