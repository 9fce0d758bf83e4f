"""A model as a Python function: its inputs are the arguments, in their order."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state

from ort_ops.providers import CPU, CUDA
from ort_ops.session import InferenceSession, register

from .casting import cast_exactly
from .customop import CustomOp, SingleOpGraph
from .models import load_onnx, make_onnx_model

__all__ = [
    "ONNXRuntimeError",
    "ONNXRuntimeException",
    "OrtPyFunction",
    "PyOrtFunction",
    "optimize_model",
    "ort_inference",
]

ONNXRuntimeError = onnxruntime_pybind11_state.Fail
ONNXRuntimeException = onnxruntime_pybind11_state.RuntimeException

_INT64 = 7


class OrtPyFunction:
    """A model to be called like a function; the kernels that there are, are registered.

    ``path_or_model`` is a path or an onnx ModelProto; ``cpu_only`` keeps it from the GPU where the
    onnxruntime that is installed is for one. ``execution_providers``, ``extra_session_options``
    (attributes of SessionOptions) and ``default_inputs`` may be changed before the first call. Calling it
    returns an array, a tuple of them where the model has several outputs.
    """

    def __init__(
        self, path_or_model: str | os.PathLike[str] | Any = None, cpu_only: bool | None = None
    ) -> None:
        on_gpu = not cpu_only and onnxruntime.get_device() == "GPU"
        self.execution_providers = [CUDA, CPU] if on_gpu else [CPU]
        self.extra_session_options: dict[str, Any] = {}
        self.default_inputs: dict[str, Any] = {}
        self.ort_session: InferenceSession | None = None
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self._model: Any = None
        if isinstance(path_or_model, str | os.PathLike):
            self._bind(load_onnx("OrtPyFunction").load_model(path_or_model))
            self.ort_session = self._make_session(os.fspath(path_or_model))
        elif path_or_model is not None:
            self._bind(path_or_model)

    @classmethod
    def from_model(
        cls, path_or_model: str | os.PathLike[str] | Any, cpu_only: bool | None = None
    ) -> "OrtPyFunction":
        """Return the function that a model, or the file of one, computes."""
        return cls(path_or_model, cpu_only)

    @classmethod
    def from_customop(
        cls, op_type: type[CustomOp] | str, *args: Any, cpu_only: bool | None = None, **kwargs: Any
    ) -> "OrtPyFunction":
        """Return the function that one operator computes; see ``SingleOpGraph.build_graph``."""
        return cls(cpu_only=cpu_only).create_from_customop(op_type, *args, **kwargs)

    def create_from_customop(
        self, op_type: type[CustomOp] | str, *args: Any, **kwargs: Any
    ) -> "OrtPyFunction":
        """Compute one operator from now on; returns itself."""
        graph = SingleOpGraph.build_graph(op_type, *args, **kwargs)
        self._bind(make_onnx_model(graph, extra_domain=graph.node[0].domain))
        return self

    def _bind(self, model: Any) -> None:
        self._model, self.ort_session = model, None
        self.inputs, self.outputs = list(model.graph.input), list(model.graph.output)

    @property
    def onnx_model(self) -> Any:
        """The ModelProto."""
        if self._model is None:
            raise ValueError("OrtPyFunction: no model is attached; expected one from from_model(model)")
        return self._model

    @property
    def input_names(self) -> list[str]:
        """The names of the model's inputs."""
        return [info.name for info in self.onnx_model.graph.input]

    @property
    def output_names(self) -> list[str]:
        """The names of the model's outputs."""
        return [info.name for info in self.onnx_model.graph.output]

    def get_ort_session_options(self) -> onnxruntime.SessionOptions:
        """Return the options for a session: the extra ones, and every kernel registered."""
        options = onnxruntime.SessionOptions()
        for name, value in self.extra_session_options.items():
            setattr(options, name, value)
        register(options)
        return options

    def add_default_input(self, **kwargs: Any) -> None:
        """Give inputs a value, so that calls leave them out: an array, or bytes and the like as uint8."""
        for name, value in kwargs.items():
            is_array = isinstance(value, np.ndarray | np.generic)
            self.default_inputs[name] = value if is_array else cast_exactly(list(value), 2)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model on one argument an input, in order; keyword arguments are inputs by name."""
        if self.ort_session is None:
            self.ort_session = self._make_session(self.onnx_model.SerializeToString())
        outputs = self.ort_session.run(None, self._feed(args, kwargs))
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _make_session(self, model: str | bytes) -> InferenceSession:
        return InferenceSession(model, self.get_ort_session_options(), self.execution_providers)

    def _feed(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        due = [info for info in self.inputs if info.name not in self.default_inputs]
        if len(args) < len(due):  # else a keyword argument goes over a positional one
            due = [info for info in due if info.name not in kwargs]
        if len(args) != len(due):
            raise TypeError(
                f"OrtPyFunction: got {len(args)} arguments; expected {len(due)}: "
                f"{', '.join(info.name for info in due) or 'every input has its value'}"
            )
        feed = {info.name: _argument(arg, info) for info, arg in zip(due, args, strict=True)}
        return {**self.default_inputs, **feed, **kwargs}


PyOrtFunction = OrtPyFunction


def _argument(value: Any, info: Any) -> Any:
    """Return a Python number, and what is meant for int64, in the type of the input; else what is given."""
    element_type = info.type.tensor_type.elem_type
    if not isinstance(value, int | float | bool) and element_type != _INT64:
        return value
    try:
        return cast_exactly(value, element_type)
    except (TypeError, ValueError) as error:
        raise type(error)(f"OrtPyFunction: input {info.name!r}: {error}") from error


def ort_inference(
    model: str | os.PathLike[str] | Any, *args: Any, cpu_only: bool = True, **kwargs: Any
) -> Any:
    """Run a model, or the file of one, once: its inputs are ``args``, its outputs are returned."""
    return OrtPyFunction(model, cpu_only=cpu_only)(*args, **kwargs)


def optimize_model(model_or_file: str | os.PathLike[str] | Any, output_file: str | os.PathLike[str]) -> None:
    """Write a model as ONNX Runtime's basic optimizations leave it, custom nodes and all."""
    function = OrtPyFunction(cpu_only=True)
    options = function.get_ort_session_options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = os.fspath(output_file)
    if isinstance(model_or_file, str | os.PathLike):
        model: str | bytes = os.fspath(model_or_file)
    else:
        model = model_or_file.SerializeToString()
    InferenceSession(model, options, function.execution_providers)
