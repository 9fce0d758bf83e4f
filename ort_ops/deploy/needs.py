"""Who runs the operators of a model that aren't ONNX Runtime's own."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnxruntime

from ort_ops.builtin import is_built_in
from ort_ops.errors import BundleError
from ort_ops.libraries import libraries_in
from ort_ops.model import Model

__all__ = ["PYTHON", "Needs", "find_needs"]

PYTHON = "Python kernel"


@dataclass(frozen=True)
class Needs:
    """What runs the nodes of one operator that isn't ONNX Runtime's own.

    by: ``"function body"``, the path of a library in the bundle, or ``"Python kernel"``, which isn't in the
        bundle: a program that opens it has to register it.
    """

    op: str
    nodes: int
    by: str


def find_needs(model: Model, libraries: Mapping[str, Path]) -> Iterator[Needs]:
    """Give each operator that isn't ONNX Runtime's own, with who runs it; libraries by path in the bundle."""
    options = onnxruntime.SessionOptions()
    owners: dict[str, tuple[str, frozenset[str]]] = {}
    for name, path in libraries.items():
        try:
            options.register_custom_ops_library(os.fspath(path))
        except Exception as error:
            raise BundleError(f"{path} is no library of custom operators that loads here: {error}") from error
        for domain, library in libraries_in(options, model.opsets).items():
            owners.setdefault(domain, (name, library.operators))
    silent = [name for name in libraries if name not in {owner for owner, _ in owners.values()}]
    counts = Counter(node.op for node in model.nodes if node.in_function is None)
    for (domain, op), nodes in sorted(counts.items()):
        if is_built_in((domain, op), model.opsets.get(domain)):
            continue
        owner, operators = owners.get(domain, ("", frozenset()))
        if op in operators:
            by = owner
        elif (domain, op) in model.functions:
            by = "function body"
        else:  # a library that isn't on our header doesn't say what is in it
            by = " or ".join(silent) or PYTHON
        yield Needs(f"{domain}::{op}", nodes, by)
