"""A model and its file, made ready to be compared."""

import contextlib
import functools
import os
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import onnx
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from onnx_ir.passes import common as passes
from torch import nn
from torch.autograd import Function
from torch.nn.modules.batchnorm import _BatchNorm

from ort_ops.errors import ParityError
from ort_ops.functions import checked_functions, find_function
from ort_ops.model import read_model
from ort_ops.recorded import is_named
from ort_ops.selection import Prefer

from .called import names_of_calls, noting_calls
from .exact import ExactFile, put_in_order
from .folded import Constant
from .given import Given, given_samples, left_at_default
from .graphs import read_tensor
from .joined import joinable
from .original import ExactModel, check_mode, lifted, own_dtype, run_model
from .tensors import to_numpy
from .uses import tell_uses_apart
from .weights import match_weights

__all__ = ["File", "Subject"]

File: TypeAlias = str | os.PathLike[str] | onnx.ModelProto | torch.onnx.ONNXProgram

_NARROW = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


class Subject:
    """A model and its file, and what both are given.

    ``source`` is what a session is made from, ``options`` what ``ort_ops.InferenceSession`` is given besides.
    ``content`` is the file, ``exact_file`` the same in float64, ``given`` the samples; ``weights`` has the
    names of what the model holds, ``changed`` those in the file that are the model's but for some elements;
    ``defaults`` the parameters of forward that inputs made up leave at something.

    In float64 a custom node without a function body is also computed by the Function that the model calls for
    it, whether that is among ``functions`` or not: the model is run once to see which. A session is given
    those alone: it runs what it would run for the caller.

    inputs, count, ranges, dims: as ``check`` is given them, ``count`` as its seeds.
    """

    def __init__(
        self,
        model: nn.Module,
        file: File,
        inputs: Any = None,
        *,
        count: int = 1,
        ranges: Mapping[str, tuple[float, float]] | None = None,
        dims: Mapping[str, int] | None = None,
        functions: Iterable[type] | None = None,
        trust: Iterable[str] = (),
        prefer: Prefer = "kernel",
    ) -> None:
        check_mode(model)
        trust = tuple(trust)
        self.model = model
        self.source, self.content = _open(file)
        put_in_order(self.content.graph)
        # Constants that are nodes are looked at as others are.
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(self.content)
        if functions is None and isinstance(file, torch.onnx.ONNXProgram):  # ours knows them
            functions = getattr(file, "functions", ())
        own = checked_functions(functions)
        self.options: dict[str, Any] = {"functions": own, "trust": trust, "prefer": prefer}
        # Buffers that are not saved are the model's own, too.
        named = {**dict(model.named_buffers()), **model.state_dict()}
        self.weights = frozenset(named)
        state = {name: to_numpy(each) for name, each in named.items() if isinstance(each, torch.Tensor)}
        either = tell_uses_apart(self.content.graph, state.values())
        initializers = self.content.graph.initializers
        weights = ((name, read_tensor(v.const_value)) for name, v in initializers.items() if v.const_value)
        parameters, self.changed = match_weights(weights, state)
        self._unnamed = parameters - state.keys()
        self._made_up = inputs is None
        self.given = given_samples(model, self.content, inputs, count, ranges, dims)
        self.defaults = left_at_default(model, self.given[0]) if inputs is None else {}
        self.exact_file = ExactFile(
            self.content,
            functions=self._functions(),
            trust=trust,
            prefer=prefer,
            parameters=parameters,
            either=either,
        )

    @property
    def empty(self) -> frozenset[str]:
        """Return the outputs of which the file says that they have no elements, whatever is given."""
        sizes = ((each.name or "", each.shape or ()) for each in self.content.graph.outputs)
        return frozenset(name for name, shape in sizes if any(size == 0 for size in shape))

    def run(self, given: Given) -> list[Any]:
        """Run the model as it is; raises ParityError for one that fails on inputs made up for it."""
        try:
            return run_model(self.model, given.arguments)
        except Exception as error:
            if not self._made_up:
                raise
            shapes = ", ".join(f"{name} {array.shape}" for name, array in given.feed.items())
            raise ParityError(
                f"the model fails on inputs made up from what the file says of them, {shapes}: "
                f"{type(error).__name__}: {error}; expected the model that the file is of, or, where it "
                "takes others only, inputs, ranges or sizes of dimensions"
            ) from error

    def exact_model(self) -> ExactModel:
        """Return the model in float64, which takes twice what the model does."""
        return ExactModel(self.model, self._constants())

    def _functions(self) -> list[type]:
        """Return the Functions that compute nodes in float64, with casts in them lifted as in the model."""
        found = [*self._called(), *self.options["functions"]]
        for name in names_of_calls(self.content):
            with contextlib.suppress(ValueError):  # one that no package of those to be trusted has
                found.append(find_function(name, found, self.options["trust"]))
        dtype = own_dtype(self.model, self.given[0].arguments)
        is_function = {each: isinstance(each, type) and issubclass(each, Function) for each in found}
        return [lifted(each, dtype) if is_function[each] else each for each in dict.fromkeys(found)]

    def _called(self) -> set[type[Function]]:
        """Return the Functions that the file names and the caller doesn't, as far as the model calls them."""
        named = self.options["functions"]
        missing = {
            name
            for name in names_of_calls(self.content, with_body=False)
            if not any(is_named(f, name) for f in named)
        }
        called: set[type[Function]] = set()
        for one in self.given:
            if all(any(is_named(function, name) for function in called) for name in missing):
                break
            with noting_calls(missing, called):
                self.run(one)
        return called

    def _constants(self) -> dict[str, Constant]:
        """Return what in the file may be computed from weights."""
        file = self.exact_file
        read, unread = file.constants()
        changed = {each.initializer for each in self.changed}
        found = {}
        normalises = any(isinstance(module, _BatchNorm) for module in self.model.modules())
        joins = joinable(self.content.graph) if normalises else set()
        for name in (*read, *unread, *changed):
            pair = file.written(name), file.weight(name)
            load = functools.partial(_itself, pair)
            found[name] = Constant(pair[0].dtype.name, pair[0].shape, load, joinable=name in joins)
        initializers = self.content.graph.initializers
        simple = initializers.keys() - file.parameters - found.keys()
        weights = self._unnamed | (joins & file.parameters)
        for name in sorted(simple | (weights - changed)):  # large ones, too, read when one is asked for
            tensor = initializers[name].const_value
            if tensor is None or tensor.dtype not in _NARROW:
                continue
            load = functools.partial(_read_weight, file, name)
            dtype = tensor.dtype.numpy().name
            shape = tuple(size for size in tensor.shape if isinstance(size, int))
            found[name] = Constant(dtype, shape, load, is_weight=name not in simple, joinable=name in joins)
        return found


def _itself(pair: tuple[NDArray[Any], NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
    return pair


def _read_weight(file: ExactFile, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    return file.written(name), file.weight(name)


def _open(file: Any) -> tuple[str | bytes, ir.Model]:
    """Return what a session is made from, and the model."""
    if isinstance(file, str | os.PathLike):
        read_model(file)  # refuses in one line what is no model
        return os.fspath(file), ir.load(file)
    if isinstance(file, torch.onnx.ONNXProgram):
        file = file.model_proto
    if not isinstance(file, onnx.ModelProto):
        kind = type(file).__name__
        raise ParityError(f"the file is a {kind}; expected a path, a ModelProto or an ONNXProgram")
    return file.SerializeToString(), ir.from_proto(file)
