"""Quantised files as ONNX Runtime runs them: it quantises weights and biases that are not quantised, too.

Its optimiser WeightBiasQuantization does so to a Conv, ConvTranspose or Gemm that reads codes and is read as
codes: a bias becomes whole multiples of the product of both scales (int32), and a weight in float32 becomes
int8, by one scale for all of it.
"""

from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from .exact import ExactFile
from .step import Step

__all__ = ["requantizing"]

Array = NDArray[Any]

_READ = frozenset({"Conv", "ConvTranspose", "Gemm"})
_BETWEEN = frozenset({"Clip", "Relu"})  # a product and what makes codes of it
_LOWEST, _HIGHEST = -128, 127


def requantizing(file: ExactFile) -> Callable[[Step], Step] | None:
    """Return what computes each node of a file with the weights and biases that ONNX Runtime has.

    None where it has the file's own.
    """
    scales: dict[str, Array | None] = {
        node.output[0]: None for node in file.nodes if node.op_type == "DequantizeLinear"
    }
    nodes = _quantized_nodes(file, scales.keys())
    if not nodes:
        return None

    def computed(step: Step) -> Step:
        node = step.node
        if node.op_type == "DequantizeLinear":
            scales[node.output[0]] = step.inputs[1]
        scale = scales.get(node.input[0]) if tuple(node.output) in nodes else None
        if scale is None or scale.size != 1:
            return step
        inputs = _quantized(step.inputs, scale.reshape(()), scales.get(node.input[1]))
        return replace(step, inputs=inputs, outputs=step.again(inputs))

    return computed


def _quantized_nodes(file: ExactFile, codes: Set[str]) -> set[tuple[str, ...]]:
    """Return the results of nodes that read codes, have a weight or bias of none, and give codes alone."""
    constants = {each.output[0] for each in file.nodes if each.op_type == "Constant"}
    constants |= file.model.graph.initializers.keys()
    readers: dict[str, list[NodeProto]] = {}
    for node in file.nodes:
        for name in dict.fromkeys(node.input):
            readers.setdefault(name, []).append(node)

    def becomes_codes(name: str) -> bool:
        """Tell whether codes are made of a result, and nothing else is."""
        if name in file.outputs or len(readers.get(name, ())) != 1:
            return False
        (reader,) = readers[name]
        if reader.op_type == "QuantizeLinear":
            return True
        return reader.op_type in _BETWEEN and becomes_codes(reader.output[0])

    return {
        tuple(node.output)
        for node in file.nodes
        if node.op_type in _READ
        and node.domain in ("", "ai.onnx")
        and node.input[0] in codes
        and (node.input[1] in codes or node.input[1] in constants)
        and constants.intersection(node.input[1:])
        and becomes_codes(node.output[0])
    }


def _quantized(inputs: Sequence[Any], scale: Array, weight_scale: Array | None) -> list[Any]:
    """Return a node's inputs with what is no code rounded as codes are: to those that float32 gives."""
    x, weight, *rest = inputs
    if weight_scale is None:
        weight, weight_scale = _as_int8(weight)
    if not rest or rest[0] is None:
        return [x, weight, *rest]
    if weight_scale.size not in (1, rest[0].size):  # a scale for each channel that is read
        return list(inputs)
    weight_scale = weight_scale.reshape(-1) if weight_scale.size > 1 else weight_scale.reshape(())
    codes = np.rint(np.float32(rest[0]) / (np.float32(scale) * np.float32(weight_scale)))
    return [x, weight, codes * (scale * weight_scale), *rest[1:]]


def _as_int8(weight: Array) -> tuple[Array, Array]:
    """Return a weight quantised between its smallest and its largest element, and its scale."""
    low, high = np.float32(min(weight.min(), 0.0)), np.float32(max(weight.max(), 0.0))
    scale = (high - low) / np.float32(_HIGHEST - _LOWEST) or np.float32(1)
    zero = np.rint(np.clip(_LOWEST - low / scale, _LOWEST, _HIGHEST))
    codes = np.clip(np.rint(np.float32(weight) / scale) + zero, _LOWEST, _HIGHEST)
    return (codes - zero) * np.float64(scale), np.asarray(scale, np.float64)
