"""What is in a model file, and who would run each of its custom nodes here; no session is made.

A custom node is one whose operator this ONNX Runtime doesn't have itself, or that gets a kernel of ours.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import onnxruntime

from .dtypes import type_name
from .errors import ModelError
from .fates import Fate, Runner, fates
from .functions import function_ops
from .libraries import open_libraries
from .model import UNREAD, UNREADABLE, Node, Value, read_model
from .providers import session_providers
from .selection import Prefer

__all__ = ["CustomNodes", "Inspection", "Runner", "inspect_model"]


@dataclass(frozen=True)
class CustomNodes:
    """Those custom nodes of one operator that have the same runner, for the same reason.

    ``nodes`` are their names, ``count`` is how many they are. ``dtypes`` are the element types of their
    inputs, ``"?"`` among them where the file doesn't state one. ``inside`` is the operator,
    ``"domain::NAME"``, in whose function body they stand, "" for the graph.

    ``runner`` is ``"kernel"``: the Python function ``kernel`` on the execution provider ``provider``;
    ``"function body"``: the one in the file; ``"library"``: the one whose path is ``kernel``, or one of
    ``libraries`` where none of them says what is in it; ``"nobody"``: a session can't be made; or
    ``"not needed"``: they stand in a function body that isn't run. ``reason`` says why no kernel runs them,
    or on what condition one does.
    """

    domain: str
    op_type: str
    count: int
    nodes: tuple[str, ...]
    dtypes: tuple[str, ...]
    inside: str
    runner: Runner
    kernel: str
    provider: str
    reason: str
    libraries: tuple[str, ...] = ()

    @property
    def op(self) -> str:
        """Return ``"domain::NAME"``."""
        return f"{self.domain}::{self.op_type}"


@dataclass(frozen=True)
class Inspection:
    """What is in a model file, and who would run its custom nodes on ``providers``.

    ``opsets`` are versions by domain (ONNX's own is ``"ai.onnx"``); ``node_count`` counts the nodes of the
    graph and of those inside it, not of function bodies; ``functions`` are the operators
    (``"domain::NAME"``) that the file has a function body for.
    """

    ir_version: int
    opsets: Mapping[str, int]
    providers: tuple[str, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    dtypes: tuple[str, ...]
    node_count: int
    functions: tuple[str, ...]
    custom: tuple[CustomNodes, ...]

    @property
    def runnable(self) -> bool:
        """Tell whether every custom node has somebody to run it; the session may fail for other reasons."""
        return all(nodes.runner != "nobody" for nodes in self.custom)

    @property
    def dynamic_dims(self) -> Mapping[str, tuple[str, ...]]:
        """Return where each symbolic dimension stands, ``{"batch": ("x[0]", "y[0]")}``; "" has no name."""
        found: dict[str, list[str]] = {}
        for value in (*self.inputs, *self.outputs):
            for axis, dim in enumerate(value.shape or ()):
                if not isinstance(dim, int):
                    found.setdefault(dim or "", []).append(f"{value.name}[{axis}]")
        return {symbol: tuple(places) for symbol, places in found.items()}

    def to_json(self) -> str:
        """Return all of it; keys are only ever added.

        ``runnable``, ``onnxruntime`` (its version), ``ir_version``, ``opsets`` ({domain: version}),
        ``providers``, ``inputs`` and ``outputs`` (each ``name``, ``kind``, ``dtype``, and ``shape``: sizes,
        symbols, null for a dimension that has neither, null for an unknown rank), ``dynamic_dims``
        ({symbol: places}), ``dtypes``, ``node_count``, ``functions``, and ``custom``, whose keys are the
        fields of ``CustomNodes``.
        """
        whole = {
            "runnable": self.runnable,
            "onnxruntime": onnxruntime.__version__,
            "ir_version": self.ir_version,
            "opsets": dict(self.opsets),
            "providers": self.providers,
            "inputs": [_describe(value) for value in self.inputs],
            "outputs": [_describe(value) for value in self.outputs],
            "dynamic_dims": dict(self.dynamic_dims),
            "dtypes": self.dtypes,
            "node_count": self.node_count,
            "functions": self.functions,
            "custom": [asdict(nodes) for nodes in self.custom],
        }
        return json.dumps(whole, indent=2)


def _describe(value: Value) -> dict[str, Any]:
    dtype = type_name(value.element_type)
    return {"name": value.name, "kind": value.kind, "dtype": dtype, "shape": value.shape}


def inspect_model(
    source: str | os.PathLike[str] | bytes,
    providers: Sequence[str | tuple[str, dict[str, Any]]] | None = None,
    *,
    prefer: Prefer = "kernel",
    functions: Iterable[type] | None = None,
    trust: Iterable[str] = (),
    libraries: Sequence[str | os.PathLike[str]] = (),
) -> Inspection:
    """Read a model and say who would run its custom nodes in an ``ort_ops.InferenceSession`` made here.

    The arguments are those of ``InferenceSession``, and the kernels those that are registered now; libraries:
    of custom operators, which are loaded. Raises ModelError for what is no ONNX model, OSError for a file
    that can't be read, ProviderError for a provider that isn't there, RegistrationError for a library that
    doesn't load.
    """
    model = read_model(source)
    if model == UNREAD:
        raise ModelError(f"the model {UNREADABLE}")
    names = session_providers(providers)
    functions_of = function_ops(model, functions, trust)
    found = fates(model, providers, prefer, functions_of, open_libraries(libraries, model.opsets))
    return Inspection(
        ir_version=model.ir_version,
        opsets={domain or "ai.onnx": version for domain, version in model.opsets.items()},
        providers=tuple(names),
        inputs=model.inputs,
        outputs=model.outputs,
        dtypes=tuple(type_name(element_type) for element_type in sorted(model.element_types)),
        node_count=sum(node.in_function is None for node in model.nodes),
        functions=tuple(f"{domain}::{name}" for domain, name in sorted(model.functions)),
        custom=tuple(_grouped(found)),
    )


def _grouped(found: Sequence[tuple[Node, Fate]]) -> Iterator[CustomNodes]:
    """Give one row for the nodes that share operator, place and fate, in the order of the file."""
    groups: dict[tuple[Any, ...], list[Node]] = {}
    for node, fate in found:
        groups.setdefault((*node.op, node.in_function, fate), []).append(node)
    for (domain, op_type, inside, fate), nodes in groups.items():
        types = {element_type for node in nodes for element_type in node.input_types if element_type != 0}
        yield CustomNodes(
            domain,
            op_type,
            len(nodes),
            tuple(node.name for node in nodes),
            tuple(sorted(type_name(element_type) for element_type in types)),
            "::".join(inside or ()),
            **asdict(fate),
        )
