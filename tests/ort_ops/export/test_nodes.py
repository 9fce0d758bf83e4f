"""Each Function of the table exports as the nodes that the TorchScript exporter writes for it."""

import functools
import io
import warnings
from collections import Counter
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch

from ort_ops.export import Program, export
from ort_ops.export.quiet import quiet
from tests.ort_ops.releases import TORCH, from_torch

from .functions import CASES, Case

CUSTOM = ("my", "custom")


def attributes(node: onnx.NodeProto) -> tuple[Any, ...]:
    found = []
    for attribute in sorted(node.attribute, key=lambda a: a.name):
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, onnx.TensorProto):
            array = onnx.numpy_helper.to_array(value)
            value = (str(array.dtype), array.shape, array.tobytes())
        found.append((attribute.name, attribute.type, value if not isinstance(value, list) else tuple(value)))
    return tuple(found)


def all_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    found = []
    for node in graph.node:
        found.append(node)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found += all_nodes(attribute.g)
    return found


def custom_nodes(model: onnx.ModelProto) -> Counter[Any]:
    """Type, attributes and arity of each node that isn't ONNX's own, whatever its domain."""
    return Counter(
        (node.op_type, attributes(node), tuple(bool(name) for name in node.input), len(node.output))
        for graph in (model.graph, *model.functions)
        for node in (all_nodes(graph) if isinstance(graph, onnx.GraphProto) else graph.node)
        if node.domain in CUSTOM or (node.domain == "" and not onnx.defs.has(node.op_type))
    )


def options(case: Case, *, dynamo: bool) -> dict[str, Any]:
    names = ["x", *(f"x{i}" for i in range(1, len(case.inputs)))]
    if not case.dynamic:
        return {"input_names": names, "verbose": False}
    if dynamo:
        shapes = tuple(case.dynamic.get(name, None) for name in names)
        return {"input_names": names, "dynamic_shapes": shapes, "verbose": False}
    return {"input_names": names, "dynamic_axes": case.dynamic, "verbose": False}


def by_torchscript(case: Case) -> onnx.ModelProto:
    file = io.BytesIO()
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(case.model(), case.inputs, file, dynamo=False, **options(case, dynamo=False))
    return onnx.load_from_string(file.getvalue())


def by_us(case: Case, *, dynamo: bool, **more: Any) -> Program:
    with warnings.catch_warnings():
        # The tracer's, that what a forward does with values is not in the trace: it needn't be.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        given = {**options(case, dynamo=dynamo), **case.options, **more}
        missing = case.in_2_9.get(dynamo)
        since = (2, 9) if missing is None else (2, 10)
        return from_torch(
            since, missing or "", lambda: export(case.model(), case.inputs, dynamo=dynamo, **given)
        )


kept = functools.cache(by_us)
"""A program that several tests look at."""


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nodes_are_those_of_the_torchscript_exporter(case: Case) -> None:
    program = kept(case, dynamo=True)
    ours = custom_nodes(program.model_proto)
    assert ours or case.name in ("standard operators only", "a whole operator of an opset module")
    if case.torchscript:
        assert ours == custom_nodes(by_torchscript(case))
        assert ours == custom_nodes(kept(case, dynamo=False).model_proto)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_newer_exporter_by_itself_loses_them_or_fails(case: Case) -> None:
    def by_torch() -> onnx.ModelProto:
        with quiet():
            program: Any = torch.onnx.export(
                case.model(), case.inputs, dynamo=True, **options(case, dynamo=True)
            )
        proto: onnx.ModelProto = program.model_proto
        return proto

    try:
        model = by_torch()
    except (torch.onnx.OnnxExporterError, TypeError):
        assert not case.dynamo or TORCH < (2, 13)
    else:
        assert case.dynamo
        assert not custom_nodes(model)


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("case", [case for case in CASES if case.runs], ids=str)
def test_the_file_runs_at_once(case: Case, dynamo: bool) -> None:
    if not dynamo and not case.torchscript:
        pytest.skip("the TorchScript exporter can't")
    program = kept(case, dynamo=dynamo)
    session = program.session(providers=["CPUExecutionProvider"])
    feed = {i.name: to_numpy(t) for i, t in zip(session.get_inputs(), case.inputs, strict=True)}
    outputs = session.run(None, feed)
    with quiet():  # torch.cond compiles, and that makes an instance of Function
        expected = case.model()(*case.inputs)
    for output, tensor in zip(outputs, expected if isinstance(expected, tuple) else (expected,), strict=True):
        assert output.dtype == to_numpy(tensor).dtype
        np.testing.assert_allclose(
            output.astype(np.float64), to_numpy(tensor).astype(np.float64), rtol=1e-5, atol=1e-6
        )
    runs = {run.node: run for run in session.explain()}
    for call in program.calls:
        assert all(runs[node].runner == "kernel" for node in call.nodes)


def to_numpy(tensor: torch.Tensor) -> Any:
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.detach().numpy()
