"""Bound inputs and outputs: what is written into the one is computed into the other."""

import contextlib
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import helper

import ort_ops
from ort_ops import binding as module
from ort_ops.binding import Binding
from ort_ops.dtypes import DTYPES, from_numpy
from ort_ops.errors import KernelError
from ort_ops.providers import CPU
from ort_ops.tuning import graph_options

DENSE = [dtype.numpy for dtype in DTYPES if dtype.onnx < 17 and dtype.name != "string"]


def model(dtype: Any = np.float32, shape: Any = ("n", 3), op: str = "Identity", domain: str = "") -> bytes:
    """Return y = op(x), of x's shape."""
    kind = from_numpy(dtype).onnx
    ends = [helper.make_tensor_value_info(name, kind, shape) for name in "xy"]
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"], domain=domain)], "g", ends[:1], ends[1:])
    imports = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return bytes(helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString())


@pytest.mark.parametrize("dtype", DENSE, ids=lambda dtype: dtype.name)
def test_every_dtype_is_read_and_written_where_it_lies(dtype: Any) -> None:
    x = np.zeros((4, 3), dtype)
    session = ort_ops.InferenceSession(model(dtype))
    try:
        binding = session.bind({"x": x})
    except Exception as error:  # releases that bind no bfloat16
        if dtype != ml_dtypes.bfloat16 or "bfloat16" not in str(error).lower():
            raise
        pytest.skip(str(error))
    y = binding.outputs["y"]
    assert (y.dtype, y.shape) == (x.dtype, x.shape)
    for seed in range(3):
        x[:] = np.random.default_rng(seed).integers(0, 2, x.shape).astype(dtype)
        assert binding.run()["y"] is y
        assert np.array_equal(y, x)


@pytest.mark.parametrize("shape", [(), (0, 3), (2, 0)])
def test_scalars_and_empty_arrays(shape: tuple[int, ...]) -> None:
    x = np.full(shape, 7, np.float32)
    session = ort_ops.InferenceSession(model(shape=shape), providers=["CPUExecutionProvider"])
    assert np.array_equal(session.bind({"x": x}).run()["y"], x)


def test_outputs_may_be_given() -> None:
    session = ort_ops.InferenceSession(model(op="Neg"))
    whole = np.zeros((8, 3), np.float32)
    binding = session.bind({"x": np.ones((2, 3), np.float32)}, {"y": whole[4:6]})
    binding.run()
    assert whole.sum(axis=1).tolist() == [0, 0, 0, 0, -3, -3, 0, 0]


def test_an_output_in_anothers_memory_is_refused() -> None:
    ends = [helper.make_tensor_value_info(name, 1, ["n"]) for name in "xyz"]
    nodes = [helper.make_node("Neg", ["x"], ["y"]), helper.make_node("Abs", ["x"], ["z"])]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = ort_ops.InferenceSession(made.SerializeToString(), providers=[CPU])
    memory = np.ones(8, np.float32)
    for x, y, z in ((memory[:4], memory[4:], memory[4:]), (memory[:4], memory[2:6], np.ones(4, np.float32))):
        with pytest.raises(
            ValueError, match=r"'[yz]' lies in the memory of '[xy]'; expected an array of its own"
        ):
            session.bind({"x": x}, {"y": y, "z": z})
    # In an input's own place, which a model may be made for, and beside another.
    outputs = session.bind({"x": memory[:4]}, {"z": memory[:4], "y": memory[4:]}).run()
    assert outputs["y"].tolist() == [-1] * 4
    wide = np.zeros(8, np.float64)  # as many elements at one place, and other bytes
    assert session.bind({"x": wide.view(np.float32)[:8]}, {"z": wide.view(np.float32)[:8], "y": memory})
    ends = [helper.make_tensor_value_info("x", 1, ["n"]), helper.make_tensor_value_info("y", 11, ["n"])]
    graph = helper.make_graph([helper.make_node("Cast", ["x"], ["y"], to=11)], "g", ends[:1], ends[1:])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    cast = ort_ops.InferenceSession(made.SerializeToString(), providers=[CPU])
    with pytest.raises(ValueError, match="'y' lies in the memory of 'x'"):
        cast.bind({"x": wide.view(np.float32)[:8]}, {"y": wide})
    empty = memory[:0]
    assert session.bind({"x": empty}, {"y": empty, "z": empty}).run()["y"].size == 0


def test_no_other_array_takes_the_place_of_one() -> None:
    binding = ort_ops.InferenceSession(model()).bind({"x": np.ones((2, 3), np.float32)})
    for arrays in (binding.inputs, binding.outputs):
        with pytest.raises(TypeError):
            arrays["x"] = np.zeros((2, 3), np.float32)  # type: ignore[index]


def test_bindings_of_one_session_are_apart() -> None:
    session = ort_ops.InferenceSession(model(op="Neg"))
    bindings = [session.bind({"x": np.full((rows, 3), rows, np.float32)}) for rows in (1, 5, 2)]
    for binding in bindings:
        binding.run()
    assert [binding.outputs["y"].sum() for binding in bindings] == [-3, -75, -12]


class RefusedError(ValueError):
    """What a kernel raises here."""


def test_a_kernels_errors_are_raised() -> None:
    @ort_ops.onnx_op("tests.binding::Refusing")
    def refusing(x: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.float32]]:
        if x[0, 0] < 0:
            raise RefusedError("negative")
        return x + 1

    session = ort_ops.InferenceSession(model(op="Refusing", domain="tests.binding"))
    binding = session.bind({"x": np.ones((2, 3), np.float32)})
    assert binding.run()["y"].tolist() == [[2, 2, 2]] * 2
    binding.inputs["x"][:] = -1
    with pytest.raises(KernelError) as raised:
        binding.run()
    assert isinstance(raised.value.__cause__, RefusedError)
    binding.inputs["x"][:] = 4
    assert binding.run()["y"].tolist() == [[5, 5, 5]] * 2


def test_what_cant_be_bound_as_it_is_is_refused() -> None:
    session = ort_ops.InferenceSession(model())
    x = np.ones((2, 3), np.float32)
    for inputs, said in [
        ({}, "the model's are x"),
        ({"x": x, "z": x}, "the inputs are x, z; the model's are x"),
        ({"x": np.ones((3, 2), np.float32).T}, "'x' is not contiguous"),
        ({"x": x.astype(">f4")}, "byte order"),
        ({"x": x.astype(np.float64)}, r"'x' is float64; the model has a tensor\(float\)"),
        ({"x": [[1.0]]}, "'x' is a list; expected a NumPy array or a torch tensor"),
    ]:
        with pytest.raises(ValueError, match=said):
            session.bind(inputs)
    with pytest.raises(ValueError, match="the outputs are ; the model's are y"):
        session.bind({"x": x}, {})
    with pytest.raises(ValueError, match="'y' is int32"):
        session.bind({"x": x}, {"y": np.ones((2, 3), np.int32)})
    with pytest.raises(ValueError, match=r"'x' is string; the model has a tensor\(string\)"):
        ort_ops.InferenceSession(model(object)).bind({"x": np.array([["a", "b", "c"]], object)})


def test_an_output_of_another_shape_than_its_array_is_an_error() -> None:
    ends = [
        helper.make_tensor_value_info("x", 1, ["n"]),
        helper.make_tensor_value_info("y", 7, [1, "found"]),
    ]
    graph = helper.make_graph([helper.make_node("NonZero", ["x"], ["y"])], "g", ends[:1], ends[1:])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    binding = ort_ops.InferenceSession(made.SerializeToString()).bind({"x": np.ones(4, np.float32)})
    assert binding.run()["y"].tolist() == [[0, 1, 2, 3]]
    binding.inputs["x"][0] = 0
    with pytest.raises(Exception, match=r"(?i)shape|size"):
        binding.run()


@pytest.mark.needs("torch")
@pytest.mark.parametrize("shape", [(0, 3), (2, 0), ()], ids=str)
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_scalars_and_empty_tensors(device: str, shape: tuple[int, ...]) -> None:
    import torch

    provider = f"{device.upper()}ExecutionProvider"
    session = ort_ops.InferenceSession(model(shape=shape, op="Neg"), providers=[provider])
    x = torch.full(shape, 7.0, device=device)  # without elements it has no address
    assert torch.equal(session.bind({"x": x}).run()["y"], -x)


def test_what_a_cuda_graph_would_not_read_again_is_refused() -> None:
    session = ort_ops.InferenceSession(model(), providers=["CPUExecutionProvider"])
    with pytest.raises(ValueError, match="'x' is on the CPU; a CUDA graph knows of no copies"):
        Binding(session, {"x": np.ones((2, 3), np.float32)}, None, lambda: graph_options(1))


def test_a_run_that_failed_leaves_its_cuda_graph_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    @ort_ops.onnx_op("tests.binding::Refusing")
    def refusing(x: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.float32]]:
        if x[0, 0] < 0:
            raise RefusedError("negative")
        return x + 1

    # The CPU stands in for a GPU.
    monkeypatch.setattr(Binding, "_checked", staticmethod(module._checked))
    session = ort_ops.InferenceSession(model(op="Refusing", domain="tests.binding"), providers=[CPU])
    graphs: list[int] = []

    def capture() -> Any:
        graphs.append(len(graphs) + 1)
        return graph_options(graphs[-1])

    binding = Binding(session, {"x": np.ones((2, 3), np.float32)}, None, capture)
    binding.run()
    assert graphs == [1]
    for value, expected in ((-1, [1, 2]), (1, [1, 2]), (-1, [1, 2, 3])):
        binding.inputs["x"][:] = value
        with contextlib.suppress(KernelError):
            binding.run()
        assert graphs == expected


@pytest.mark.needs("torch")
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_torch_tensors_in_and_out(device: str) -> None:
    import torch

    provider = f"{device.upper()}ExecutionProvider"
    session = ort_ops.InferenceSession(model(op="Neg"), providers=[provider])
    x = torch.ones(2, 3, device=device)
    binding = session.bind({"x": x})
    y = binding.outputs["y"]
    assert (y.dtype, y.device) == (x.dtype, x.device)
    for _ in range(3):
        x.normal_()
        binding.run()
        assert torch.equal(y, -x)
    with pytest.raises(ValueError, match="'x' is not contiguous"):
        session.bind({"x": torch.ones(3, 2, device=device).T})


def test_outputs_that_can_not_be_written_or_are_none_of_the_models_are_refused() -> None:
    session, x = ort_ops.InferenceSession(model()), np.ones((2, 3), np.float32)
    fixed = np.zeros((2, 3), np.float32)
    fixed.flags.writeable = False
    with pytest.raises(ValueError, match="'y' is read-only"):
        session.bind({"x": x}, {"y": fixed})
    with pytest.raises(ValueError, match="the outputs are y, z; the model's are y"):
        session.bind({"x": x}, {"y": x.copy(), "z": x.copy()})
