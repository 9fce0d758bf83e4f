"""What a file stores in 16 bits that the model doesn't: casts are lifted on both sides, which hides it."""

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .graphs import standard
from .modes import HigherOrderOperator, Mode, nothing_compiled
from .tensors import to_numpy
from .weights import print_of

__all__ = ["Stored", "Watched"]

_TYPES = {ir.DataType.FLOAT16: torch.float16, ir.DataType.BFLOAT16: torch.bfloat16}
_SEEN = frozenset({"aten", "prim", "prims"})  # namespaces of which each operation is seen


class Stored(NamedTuple):
    """A result of a node, in 16 bits that no operation of the model stores."""

    node: str
    kind: str

    @property
    def reason(self) -> str:
        """Say it of an output that depends on it."""
        return f"node {self.node} stores {self.kind}, which no operation of the model does"


class Watched:
    """A model's own run, watched for what it stores in 16 bits, where its file has something in these.

    rounded: constants of the file that are weights of the model in 16 bits, by name. ``cast`` has the names
    of those that the model casts itself.
    """

    def __init__(self, file: ir.Model, model: nn.Module, rounded: Mapping[str, NDArray[Any]]) -> None:
        self._file, self._graph = file, file.graph
        self._stored = {each.dtype for each in (*model.parameters(), *model.buffers())}
        self._stored |= {_TYPES[value.dtype] for value in file.graph.inputs if value.dtype in _TYPES}
        self._sought = {print_of(array): name for name, array in rounded.items()}
        self.cast: set[str] = set()

    @contextlib.contextmanager
    def watching(self) -> Iterator[bool]:
        """Watch what is run until the end; gives whether there is anything to be watched for."""
        needed = bool(self._sought) or any(kind not in self._stored for kind in self._kinds())
        with contextlib.ExitStack() as stack:
            if needed:
                stack.enter_context(nothing_compiled())
                stack.enter_context(_Watch(self._note, self._stored))
            yield needed

    def _kinds(self) -> Iterator[torch.dtype]:
        for node in self._graph:
            types = [value.dtype for value in node.outputs if value.dtype is not None]
            yield from (_TYPES[each] for each in types if each in _TYPES)
            yield from self._casts(node)

    def _casts(self, node: ir.Node) -> Iterator[torch.dtype]:
        """Give the 16-bit types that a node casts to, by itself, in its body or in graphs inside of it."""
        to = node.attributes.get("to") if standard(node) == "Cast" else None
        if to is not None and to.type is ir.AttributeType.INT and to.as_int() in _TYPES:
            yield _TYPES[ir.DataType(to.as_int())]
        body = self._file.functions.get(node.op_identifier())
        graphs = [] if body is None else [body.graph]
        for attribute in node.attributes.values():
            if attribute.type is ir.AttributeType.GRAPH:
                graphs.append(attribute.as_graph())
            elif attribute.type is ir.AttributeType.GRAPHS:
                graphs += attribute.as_graphs()
        for inner in itertools.chain.from_iterable(graphs):
            yield from self._casts(inner)

    def _note(self, tensor: Tensor) -> None:
        self._stored.add(tensor.dtype)
        if any(size == tensor.numel() for _, size, *_ in self._sought):
            name = self._sought.get(print_of(to_numpy(tensor)))
            self.cast |= {name} if name is not None else set()

    def strange_outputs(self, precisions: Mapping[str, ir.DataType]) -> dict[str, Stored]:
        """Return the outputs that depend on a result in 16 bits that no run had, and which one that is.

        precisions: of the file's values by name. Constants are none of these results.
        """
        found: dict[str, Stored] = {}
        given = {value.name or "" for value in self._graph.inputs if not value.is_initializer()}
        for node in self._graph:
            read = {value.name or "" for value in node.inputs if value is not None}
            if not read & given:
                continue
            reached = [found[name] for name in sorted(read & found.keys())]
            for value in node.outputs:
                name = value.name or ""
                given.add(name)
                dtype = _TYPES.get(precisions.get(name, ir.DataType.UNDEFINED))
                dtypes = [*([] if dtype is None else [dtype]), *self._casts(node)]
                dtype = next((each for each in dtypes if each not in self._stored), None)
                if dtype is not None:
                    found[name] = Stored(node.name or "", str(dtype).removeprefix("torch."))
                elif reached:
                    found[name] = reached[0]
        names = [value.name or "" for value in self._graph.outputs]
        return {name: found[name] for name in names if name in found}


class _Watch(Mode):
    """Tell of each result in 16 bits; what operations store that aren't torch's own isn't known."""

    def __init__(self, note: Any, stored: set[torch.dtype]) -> None:
        super().__init__()
        self._note, self._stored = note, stored

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if isinstance(func, HigherOrderOperator):
            return self.inside(func, args, kwargs or {})
        result = func(*args, **(kwargs or {}))
        if getattr(func, "namespace", "") not in _SEEN:
            self._stored.update(_TYPES.values())
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.dtype in _TYPES.values():
                self._note(leaf)
        return result
