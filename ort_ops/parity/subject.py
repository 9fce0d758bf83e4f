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
from .graphs import input_names, read_tensor
from .inputs import make_inputs
from .joined import joinable
from .original import ExactModel, as_arrays, check_mode, lifted, own_dtype, run_model
from .sample import Given, Sample, bind, fits, take_sample
from .storage import Stored, Watched
from .tensors import to_numpy
from .uses import tell_uses_apart
from .weights import ChangedWeight, match_weights

__all__ = ["File", "Subject"]

File: TypeAlias = str | os.PathLike[str] | onnx.ModelProto | torch.onnx.ONNXProgram

_NARROW = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


class Subject:
    """A model, its file, and both as they are evaluated in float64.

    ``source`` is what a session is made from, ``options`` what ``ort_ops.InferenceSession`` is given besides;
    ``weights`` has the names of what the model holds, ``notes`` its operations that could not be computed in
    float64.

    In float64 a custom node without a function body is also computed by the Function that the model calls for
    it, whether that is among ``functions`` or not. A session is given those alone: it runs what it would run
    for the caller.
    """

    def __init__(
        self,
        model: nn.Module,
        file: File,
        functions: Iterable[type] | None,
        trust: Iterable[str],
        prefer: Prefer,
    ) -> None:
        check_mode(model)
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
        initializers = self.content.graph.initializers
        either = tell_uses_apart(self.content.graph, state.values())
        weights = ((name, read_tensor(v.const_value)) for name, v in initializers.items() if v.const_value)
        parameters, self._changed = match_weights(weights, state)
        self._called: set[type[Function]] = set()
        self._parameters, self._either = parameters, either
        self._exact_model: ExactModel | None = None
        self.notes: dict[str, str] = {}
        self._taken: set[str] = set()
        rounded = {each.initializer for each in self._changed if each.rounded}
        arrays = {
            name: read_tensor(v.const_value)
            for name, v in initializers.items()
            if v.const_value and name in rounded
        }
        self._watched = Watched(self.content, model, arrays)
        self._unnamed = parameters - state.keys()
        self._made_up = False
        self._arguments: Any = ()

    @functools.cached_property
    def exact_file(self) -> ExactFile:
        """Return the file in float64; made when it is first asked for, after ``given``."""
        return ExactFile(
            self.content,
            functions=self._functions(),
            trust=self.options["trust"],
            prefer=self.options["prefer"],
            parameters=self._parameters,
            either=self._either,
        )

    def _functions(self) -> list[type]:
        """Return the Functions that compute nodes in float64, with casts in them lifted as in the model."""
        found = [*self._called, *self.options["functions"]]
        for name in names_of_calls(self.content):
            with contextlib.suppress(ValueError):  # one that no package of those to be trusted has
                found.append(find_function(name, found, self.options["trust"]))
        dtype = own_dtype(self.model, self._arguments)
        is_function = {each: isinstance(each, type) and issubclass(each, Function) for each in found}
        return [lifted(each, dtype) if is_function[each] else each for each in dict.fromkeys(found)]

    @property
    def exact_model(self) -> ExactModel:
        """Return the model in float64, made when it is first asked for."""
        if self._exact_model is None:
            self._exact_model = ExactModel(self.model, self.notes, self._constants(), self._taken)
        return self._exact_model

    @property
    def changed(self) -> list[ChangedWeight]:
        """Return the weights in the file that are the model's but for some elements.

        One that the model computes itself, from others or by a cast, is none of them once the model was run,
        unless it bears the weight's own name: the model may well compute its transpose.
        """
        own = {each.initializer for each in self._changed if each.initializer == each.parameter}
        known = (self._taken - own) | self._watched.cast
        return [each for each in self._changed if each.initializer not in known]

    @property
    def computed(self) -> frozenset[str]:
        """Return the constants in the file that the model computes itself, once it was run."""
        return frozenset(self._taken)

    @property
    def narrowed(self) -> dict[str, Stored]:
        """Return the outputs that depend on what the file alone stores in 16 bits, and where it does.

        It is known once the model was run.
        """
        return self._watched.strange_outputs(self.exact_file.precisions)

    def _constants(self) -> dict[str, Constant]:
        """Return what in the file may be computed from weights."""
        file = self.exact_file
        read, unread = file.constants()
        changed = {each.initializer for each in self._changed}
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

    def release(self) -> None:
        """Let go of the model in float64, which takes twice what the model does."""
        self._exact_model = None

    def given(
        self,
        inputs: Any,
        count: int,
        ranges: Mapping[str, tuple[float, float]] | None,
        dims: Mapping[str, int] | None,
    ) -> list[Given]:
        """Return these inputs, or ``count`` that are made up; ParityError for ranges of what isn't."""
        self._made_up = inputs is None
        if inputs is not None and (ranges or dims):
            raise ParityError("ranges and dims are for inputs made up; expected them or inputs, not both")
        if inputs is None:
            inputs = [self._made(number, ranges, dims) for number in range(count)]
        each = inputs if isinstance(inputs, list) else [inputs]
        if not each:
            raise ParityError("no inputs were given; expected one sample at least")
        names = input_names(self.content.graph)
        bound = [bind(self.model, names, one) for one in each]
        for one in bound:
            self._check_inputs(one)
        self._arguments = bound[0].arguments
        self._note_calls(bound)
        return bound

    def _note_calls(self, given: Iterable[Given]) -> None:
        """Find the Functions that the file names and the caller doesn't, as far as the model calls them."""
        named = self.options["functions"]
        missing = {
            name
            for name in names_of_calls(self.content, with_body=False)
            if not any(is_named(f, name) for f in named)
        }
        for one in given:
            if all(any(is_named(function, name) for function in self._called) for name in missing):
                return
            with noting_calls(missing, self._called):
                self._run(one)

    def _check_inputs(self, given: Given) -> None:
        """Refuse inputs of another dtype or of other sizes than the file says."""
        for value in self.content.graph.inputs:
            array = given.feed.get(value.name or "")
            if array is None:
                continue
            dtype = None if value.dtype is None else value.dtype.numpy()
            if dtype is not None and array.dtype != dtype and array.dtype.kind not in "OUS":
                raise ParityError(f"input {value.name!r} is {array.dtype}; the file takes {dtype}")
            if value.shape is None:
                continue
            pairs = zip(value.shape, array.shape, strict=False)
            fits = len(value.shape) == array.ndim and all(
                not isinstance(dim, int) or dim == size for dim, size in pairs
            )
            if not fits:
                raise ParityError(
                    f"input {value.name!r} is of shape {array.shape}; the file takes {value.shape}"
                )

    def sample(self, given: Given) -> Sample:
        """Run the model and the file on inputs; raises ParityError for a model that fails on made-up ones."""
        with self._watched.watching() as needed:
            if needed:
                self._run(given)
        return take_sample(as_arrays(self._run(given)), self.exact_model, self.exact_file, given)

    def _run(self, given: Given) -> list[Any]:
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

    def _made(
        self, number: int, ranges: Mapping[str, tuple[float, float]] | None, dims: Mapping[str, int] | None
    ) -> Any:
        """Return inputs in the file's order, or by its names where forward doesn't take them one by one."""
        made = make_inputs(self.content, sample=number, ranges=ranges, dims=dims)
        ordered = tuple(made.values())
        if fits(self.model, ordered):
            return ordered
        with contextlib.suppress(ParityError):
            bind(self.model, list(made), made)
            return made
        return ordered


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
