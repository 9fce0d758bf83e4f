"""Libraries of custom operators, on ``ort_ops/op.hpp``, that a SessionOptions was given.

Such a library notes in the options whose the operators of its domains are, since ONNX Runtime takes a domain
from one library only.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnxruntime

__all__ = ["Library", "get_cmake_dir", "get_include", "libraries_in"]

_HERE = Path(__file__).parent / "native"


@dataclass(frozen=True)
class Library:
    """Who has the operators of a domain in a session, and which: ``path`` is the file."""

    path: str
    operators: frozenset[str]


def libraries_in(options: onnxruntime.SessionOptions | None, domains: Iterable[str]) -> Mapping[str, Library]:
    """Return the libraries that were registered with these options, by domain."""
    found = {}
    for domain in set(domains):
        path = _entry(options, f"ort_ops.domain.{domain}")
        operators = _entry(options, f"ort_ops.operators.{domain}")
        if path and operators:
            found[domain] = Library(path, frozenset(operators.split(",")))
    return found


def get_include() -> str:
    """Return the directory for a compiler to find ``<ort_ops/op.hpp>`` in: operators in C++17."""
    return str(_HERE / "include")


def get_cmake_dir() -> str:
    """Return the directory of the CMake package: ``cmake -Dort_ops_DIR=...``, ``find_package(ort_ops)``."""
    return str(_HERE / "cmake")


def _entry(options: onnxruntime.SessionOptions | None, key: str) -> str:
    try:
        return str(options.get_session_config_entry(key)) if options is not None else ""
    except RuntimeError:  # it isn't set
        return ""
