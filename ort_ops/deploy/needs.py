"""Who runs the operators of a model that aren't ONNX Runtime's own."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ort_ops.builtin import is_built_in
from ort_ops.errors import BundleError, RegistrationError
from ort_ops.fates import has_body
from ort_ops.libraries import Libraries, Library, open_libraries
from ort_ops.model import Model, Node

__all__ = ["PYTHON", "Needs", "find_needs"]

PYTHON = "Python kernel"


@dataclass(frozen=True)
class Needs:
    """What is needed to run the nodes of one operator that isn't ONNX Runtime's own.

    by: ``"function body"``, in whose place a Python kernel that is registered may run; the path of a library
        in the bundle; or ``"Python kernel"``, which isn't in the bundle: a program that opens it has to
        register it.
    """

    op: str
    nodes: int
    by: str


def find_needs(model: Model, libraries: Mapping[str, Path]) -> list[Needs]:
    """Return the operators that ONNX Runtime lacks, with who runs each; libraries by path in the bundle."""
    try:
        opened = open_libraries(list(libraries.values()), model.opsets)
    except RegistrationError as error:
        raise BundleError(str(error)) from error
    names = {os.fspath(path): name for name, path in libraries.items()}
    counts = Counter(
        (f"{node.domain}::{node.op_type}", _who(model, node, opened, names))
        for node in model.nodes
        if node.in_function is None and not is_built_in(node.op, model.opsets.get(node.domain))
    )
    return [Needs(op, nodes, by) for (op, by), nodes in sorted(counts.items())]


def _who(model: Model, node: Node, opened: Libraries, names: Mapping[str, str]) -> str:
    """Say who runs a node; names: of the libraries in the bundle, by their paths."""
    owner = opened.domains.get(node.domain, Library("", frozenset()))
    if node.op_type in owner.operators:
        return names[owner.path]
    if has_body(model, node):
        return "function body"
    # A library that isn't on our header doesn't say what is in it.
    return " or ".join(names[path] for path in opened.silent) or PYTHON
