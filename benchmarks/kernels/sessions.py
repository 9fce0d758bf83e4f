"""The models that the benchmarks of kernels run: one graph on built-in nodes, on ort_ops, on extensions."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnxruntime
import onnxruntime_extensions as extensions
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import ort_ops

DOMAIN = "benchmarks"
CONTRIB = "ai.onnx.contrib"  # where onnxruntime-extensions puts operators without a domain
CPU = ["CPUExecutionProvider"]
FLOAT = extensions.PyCustomOpDef.dt_float
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Step:
    """A node on what the one before it gave; ``extra`` are its further inputs, "weight" being WEIGHT."""

    op: str
    domain: str = ""
    extra: tuple[str, ...] = ()


SIDE = 1024  # of the square matrices
WEIGHT: Array = np.random.default_rng(0).standard_normal((SIDE, SIDE), np.float32) / 32
product_seconds: list[float] = []  # of each product inside a kernel


# Both libraries are given every operator before there is a session: extensions crashes otherwise.
@ort_ops.onnx_op(f"{DOMAIN}::Identity")
def identity(x: Array) -> Array:
    """Return the input, which the bridge copies once."""
    return x


@ort_ops.onnx_op(f"{DOMAIN}::First")
def first(x: Array, _a: Array, _b: Array) -> Array:
    """Return the first of three inputs."""
    return x


@ort_ops.onnx_op(f"{DOMAIN}::Tanh")
def tanh(x: Array) -> Array:
    """Work in NumPy, which releases the GIL meanwhile."""
    return np.tanh(x)


@ort_ops.onnx_op(f"{DOMAIN}::Product")
def product(x: Array) -> Array:
    """Multiply x (n, SIDE) by WEIGHT, and note how long it took."""
    start = time.perf_counter()
    result = x @ WEIGHT
    product_seconds.append(time.perf_counter() - start)
    return result


@ort_ops.onnx_op(f"{DOMAIN}::Fail")
def fail(x: Array) -> Array:
    """Fail, whatever the input."""
    raise ValueError(f"no {x.shape}")


@extensions.onnx_op(op_type="Identity", inputs=[FLOAT], outputs=[FLOAT])
def _extensions_identity(x: Array) -> Array:
    return x


@extensions.onnx_op(op_type="First", inputs=[FLOAT] * 3, outputs=[FLOAT])
def _extensions_first(x: Array, _a: Array, _b: Array) -> Array:
    return x


def chain(*steps: Step) -> bytes:
    """Return a model that takes x, float32 of any shape, through the steps to y."""
    names = ["x", *(f"h{i}" for i in range(1, len(steps))), "y"]
    nodes = [
        helper.make_node(s.op, [names[i], *s.extra], [names[i + 1]], name=f"{s.op}_{i}", domain=s.domain)
        for i, s in enumerate(steps)
    ]
    extra = {name for step in steps for name in step.extra}
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in side]
        for side in (["x", *sorted(extra - {"weight"})], ["y"])
    )
    weights = [numpy_helper.from_array(WEIGHT, "weight")] if "weight" in extra else []
    opsets = [helper.make_opsetid("", 18), *(helper.make_opsetid(d, 1) for d in (DOMAIN, CONTRIB))]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, weights)
    data: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return data


def session(
    *steps: Step, threads: int = 1, config: Mapping[str, str] | None = None
) -> onnxruntime.InferenceSession:
    """Return a session of a chain, every operator registered, the graph not optimised.

    threads: intra-op threads of ONNX Runtime. config: session config entries.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    for key, value in (config or {}).items():
        options.add_session_config_entry(key, value)
    if any(step.domain == CONTRIB for step in steps):
        options.register_custom_ops_library(extensions.get_library_path())
    return ort_ops.InferenceSession(chain(*steps), options, providers=CPU)
