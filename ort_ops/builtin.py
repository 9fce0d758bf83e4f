"""What this release of ONNX Runtime has itself: operators, by opset, and what it makes of function bodies."""

import functools
from collections.abc import Mapping

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as _state

__all__ = ["RELEASE", "TELLS_OVERLOADS_APART", "is_built_in", "known_since"]

RELEASE = tuple(int(number) for number in onnxruntime.__version__.split(".")[:2])
"""ONNX Runtime's release: (1, 32)."""

TELLS_OVERLOADS_APART = RELEASE >= (1, 27)
"""Whether a node gets the function body of its own overload; before 1.27 it gets the last in the file."""


@functools.cache
def _versions() -> Mapping[tuple[str, str], Mapping[int, bool]]:
    """Return, by domain and name, each version of an operator's schema and whether it is deprecated."""
    found: dict[tuple[str, str], dict[int, bool]] = {}
    for schema in _state.get_all_operator_schema():
        found.setdefault((schema.domain, schema.name), {})[schema.since_version] = schema.deprecated
    return found


def is_built_in(op: tuple[str, str], imported: int | None) -> bool:
    """Tell whether ONNX Runtime knows an operator, (domain, name), in a model that imports this opset.

    That it has a kernel for the node's element types on some provider is not said.
    """
    versions = {since: gone for since, gone in _versions().get(op, {}).items() if since <= (imported or 0)}
    return bool(versions) and not versions[max(versions)]


def known_since(op: tuple[str, str]) -> int | None:
    """Return the first opset of an operator that ONNX Runtime knows, None for one that it doesn't."""
    return min(_versions().get(op, ()), default=None)
