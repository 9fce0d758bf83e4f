"""Who runs the operators of a model that aren't ONNX Runtime's own."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ort_ops.builtin import is_built_in
from ort_ops.errors import BundleError, RegistrationError
from ort_ops.libraries import Library, open_libraries
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
    try:
        opened = open_libraries(list(libraries.values()), model.opsets)
    except RegistrationError as error:
        raise BundleError(str(error)) from error
    names = {os.fspath(path): name for name, path in libraries.items()}
    counts = Counter(node.op for node in model.nodes if node.in_function is None)
    for (domain, op), nodes in sorted(counts.items()):
        if is_built_in((domain, op), model.opsets.get(domain)):
            continue
        owner = opened.domains.get(domain, Library("", frozenset()))
        if op in owner.operators:
            by = names[owner.path]
        elif (domain, op) in model.functions:
            by = "function body"
        else:  # a library that isn't on our header doesn't say what is in it
            by = " or ".join(names[path] for path in opened.silent) or PYTHON
        yield Needs(f"{domain}::{op}", nodes, by)
