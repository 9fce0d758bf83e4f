"""Libraries of custom operators, on ``ort_ops/op.hpp``, that a SessionOptions was given.

Such a library notes in the options whose the operators of its domains are, since ONNX Runtime takes a domain
from one library only.
"""

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnxruntime

from .errors import RegistrationError

__all__ = [
    "Libraries",
    "Library",
    "config_entry",
    "get_cmake_dir",
    "get_include",
    "libraries_in",
    "open_libraries",
    "refuse_one_path",
    "register_library",
]

_HERE = Path(__file__).parent / "native"


@dataclass(frozen=True)
class Library:
    """Who has the operators of a domain in a session, and which: ``path`` is the file."""

    path: str
    operators: frozenset[str]


@dataclass(frozen=True)
class Libraries:
    """Libraries that were loaded: ``domains`` says whose each domain is, ``silent`` who doesn't say it."""

    domains: Mapping[str, Library] = field(default_factory=dict)
    silent: tuple[str, ...] = ()


def open_libraries(paths: Sequence[str | os.PathLike[str]], domains: Iterable[str]) -> Libraries:
    """Load libraries, and say what they have in these domains; a library that isn't on our header is silent.

    Raises RegistrationError for a file that is no library, or whose domain another has.
    """
    refuse_one_path(paths)
    options, asked = onnxruntime.SessionOptions(), set(domains)
    found: dict[str, Library] = {}
    silent, said = [], 0
    for path in (os.fspath(each) for each in paths):
        register_library(options, path)
        there = libraries_in(options, asked - set(found))
        found |= {domain: Library(path, library.operators) for domain, library in there.items()}
        # It said what it has, be it of other domains.
        if config_entry(options, f"ort_ops.library{said + 1}"):
            said += 1
        else:
            silent.append(path)
    return Libraries(found, tuple(silent))


def register_library(options: onnxruntime.SessionOptions, path: str | os.PathLike[str]) -> None:
    """Register a library; raises RegistrationError for a file that is none, or whose domain another has."""
    try:
        options.register_custom_ops_library(os.fspath(path))
    except Exception as error:
        raise RegistrationError(
            f"{os.fspath(path)} is no library of custom operators that loads here: {error}"
        ) from error


def refuse_one_path(libraries: object) -> None:
    """Raise TypeError for a path where a list of them belongs: its letters would be taken for paths."""
    if isinstance(libraries, str | os.PathLike):
        raise TypeError(f"libraries={os.fspath(libraries)!r}; expected a list: [{os.fspath(libraries)!r}]")


def libraries_in(options: onnxruntime.SessionOptions | None, domains: Iterable[str]) -> Mapping[str, Library]:
    """Return the libraries that were registered with these options, by domain."""
    found = {}
    for domain in set(domains):
        path = config_entry(options, f"ort_ops.domain.{domain}")
        operators = _operators(options, domain)
        if path and operators:
            found[domain] = Library(path, operators)
    return found


def _operators(options: onnxruntime.SessionOptions | None, domain: str) -> frozenset[str]:
    """Return the operators of a domain, which are in as many entries as they need."""
    keys = (f"ort_ops.operators{count or ''}.{domain}" for count in itertools.count())
    texts = itertools.takewhile(bool, (config_entry(options, key) for key in keys))
    return frozenset(name for text in texts for name in text.split(","))


def get_include() -> str:
    """Return the directory for a compiler to find ``<ort_ops/op.hpp>`` in: operators in C++17."""
    return str(_HERE / "include")


def get_cmake_dir() -> str:
    """Return the directory of the CMake package: ``cmake -Dort_ops_DIR=...``, ``find_package(ort_ops)``."""
    return str(_HERE / "cmake")


def config_entry(options: onnxruntime.SessionOptions | None, key: str) -> str:
    """Return an entry of a session's options, blank where there is none."""
    try:
        return str(options.get_session_config_entry(key)) if options is not None else ""
    except RuntimeError:  # it isn't set
        return ""
