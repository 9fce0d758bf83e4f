"""examples/deform_conv: its README's output; its kernel, its forward and ONNX Runtime's own DeformConv."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper

from tests.ort_ops.native.build import build, shared_folder

from .readme import copy_of, load, masked, run_readme

NAMES = ("x", "weight", "offset", "bias", "mask")
Arrays = dict[str, np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with shared_folder(tmp_path_factory, "deform_conv") as made:
        if not (made / "build" / "libdeform_conv.so").exists():
            # Skipped where there is no compiler. The README's commands find everything made.
            build(copy_of("deform_conv", made.parent), made / "build")
    return made


@pytest.fixture(scope="module")
def library(folder: Path) -> Path:
    return folder / "build" / "libdeform_conv.so"


def test_its_commands_print_what_the_readme_shows(folder: Path) -> None:
    ran = run_readme(folder)
    assert len(ran) == 2
    for each in ran:
        assert masked(each.printed) == masked(each.shown)
        assert each.printed.endswith("verdict: equal\n")


def session(arrays: Arrays, attributes: dict[str, Any], library: Path | None, threads: int = 2) -> Any:
    """Return a session of one node; without a library it is ONNX's operator of the same name."""
    domain = "" if library is None else "example"
    inputs = [name if name in arrays else "" for name in NAMES]
    while not inputs[-1]:
        inputs.pop()
    node = helper.make_node("DeformConv", inputs, ["y"], domain=domain, **attributes)
    kind = helper.np_dtype_to_tensor_dtype(arrays["x"].dtype)
    ends = [helper.make_tensor_value_info(name, kind, [None] * arrays[name].ndim) for name in inputs if name]
    output = helper.make_tensor_value_info("y", kind, None)
    imports = [helper.make_opsetid("", 19), helper.make_opsetid("example", 1)]
    graph = helper.make_graph([node], "g", ends, [output])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    if library is not None:
        options.register_custom_ops_library(str(library))
    model = helper.make_model(graph, opset_imports=imports, ir_version=9)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def run(arrays: Arrays, attributes: dict[str, Any], library: Path | None, threads: int = 2) -> Any:
    return session(arrays, attributes, library, threads).run(None, arrays)[0]


def drawn(seed: int) -> tuple[Arrays, dict[str, Any]]:
    """Return random inputs in float64, with offsets that leave the image, and attributes that fit them."""
    rng = np.random.default_rng(seed)

    def some(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    group, offset_group = some(1, 3), some(1, 3)
    channels = int(np.lcm(group, offset_group)) * some(1, 2)
    kernel = np.array([some(1, 4), some(1, 4)])
    strides, dilations, pads = rng.integers(1, 4, 2), rng.integers(1, 4, 2), rng.integers(0, 4, 4)
    reach = dilations * (kernel - 1) + 1
    size = np.maximum(1, reach - pads[:2] - pads[2:]) + rng.integers(0, 20, 2)
    steps = (size + pads[:2] + pads[2:] - reach) // strides + 1
    n = some(1, 3) if seed % 8 else 0
    outs, taps = group * some(1, 3), offset_group * int(kernel.prod())
    shapes: dict[str, tuple[int, ...]] = {
        "x": (n, channels, *size),
        "weight": (outs, channels // group, *kernel),
        "offset": (n, 2 * taps, *steps),
        "bias": (outs,),
        "mask": (n, taps, *steps),
    }
    left_out = {name for name in ("bias", "mask") if rng.random() < 0.4}
    arrays = {name: rng.standard_normal(shape) for name, shape in shapes.items() if name not in left_out}
    arrays["offset"] *= rng.choice([0.5, 3, 30])
    lists = {"strides": strides, "pads": pads, "dilations": dilations}
    attributes = {name: [int(each) for each in value] for name, value in lists.items()}
    return arrays, {**attributes, "group": group, "offset_group": offset_group}


def by_torch(arrays: Arrays, attributes: dict[str, Any]) -> Any:
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return load("deform_conv", "deform_conv").deform_conv(**tensors, **attributes).numpy()


@pytest.mark.parametrize("seed", range(16))
def test_the_kernel_is_forward(library: Path, seed: int) -> None:
    arrays, attributes = drawn(seed)
    expected = by_torch(arrays, attributes)
    narrow = {name: array.astype(np.float32) for name, array in arrays.items()}
    # Positions of up to 100 pixels lose 4e-6 of a pixel in float32, and so does what is read there.
    for given, allowed in ((arrays, 1e-11), (narrow, 1e-3)):
        for threads in (1, 3):
            y = run(given, attributes, library, threads)
            assert (y.dtype, y.shape) == (given["x"].dtype, expected.shape)
            np.testing.assert_allclose(y, expected, rtol=0, atol=allowed)


@pytest.mark.parametrize("seed", [seed for seed in range(16) if drawn(seed)[0]["x"].shape[0]])
def test_forward_is_onnx_runtimes_own(seed: int) -> None:
    arrays, attributes = drawn(seed)
    own = run(arrays, {**attributes, "kernel_shape": arrays["weight"].shape[2:]}, None)
    np.testing.assert_allclose(by_torch(arrays, attributes), own, rtol=0, atol=1e-11)


def test_a_fault_would_show(library: Path) -> None:
    arrays, attributes = drawn(1)
    expected = by_torch(arrays, attributes)
    arrays["offset"] = arrays["offset"] + 1e-6
    assert np.abs(run(arrays, attributes, library) - expected).max() > 1e-9


def small() -> Arrays:
    """Return inputs of a node without attributes: one image of 4 x 4, a kernel of 2 x 2."""
    shapes = {
        "x": (1, 2, 4, 4),
        "weight": (3, 2, 2, 2),
        "offset": (1, 8, 3, 3),
        "bias": (3,),
        "mask": (1, 4, 3, 3),
    }
    return {name: np.ones(shape, np.float32) for name, shape in shapes.items()}


def test_attributes_have_defaults(library: Path) -> None:
    np.testing.assert_allclose(run(small(), {}, library), by_torch(small(), {}))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_positions_that_are_nowhere_read_0(library: Path, value: float) -> None:
    arrays = small()
    arrays["offset"][:] = value
    arrays["x"][:] = np.nan  # and nothing of it gets through
    np.testing.assert_array_equal(run(arrays, {}, library), np.ones((1, 3, 3, 3)))
    np.testing.assert_array_equal(by_torch(arrays, {}), np.ones((1, 3, 3, 3)))


@pytest.mark.parametrize(
    ("shapes", "attributes", "said"),
    [
        ({"x": (1, 2, 4)}, {}, r"x is \(1, 2, 4\).*expected \(n, c, h, w\)"),
        ({"x": (1, 3, 4, 4)}, {}, "expected groups that divide the channels"),
        ({}, {"group": 2}, "in 2 groups"),
        ({}, {"offset_group": 3}, "3 of offsets"),
        ({"x": (1, 2, 0, 4)}, {}, "expected channels and pixels"),
        ({"offset": (1, 8, 3, 4)}, {}, r"offset is \(1, 8, 3, 4\); expected \(1, 8, 3, 3\)"),
        ({"mask": (1, 8, 3, 3)}, {}, r"mask is .*; expected \(1, 4, 3, 3\)"),
        ({"bias": (1,)}, {}, r"bias is \(1,\); expected \(3,\)"),
        ({}, {"dilations": [4, 1]}, "the kernel reaches over 5 but x with its pads has 4"),
        ({}, {"strides": [0, 1]}, r"strides is \(0, 1\); expected 2 integers from 1 on"),
        ({}, {"pads": [1, 1]}, r"pads is \(1, 1\); expected 4 integers from 0 on"),
        ({}, {"group": 0}, "expected 1 or more"),
    ],
)
def test_what_does_not_fit_is_an_error(
    library: Path, shapes: dict[str, Any], attributes: dict[str, Any], said: str
) -> None:
    arrays = small() | {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    with pytest.raises(Exception, match=said):
        run(arrays, attributes, library)


def test_the_shape_is_known_as_far_as_the_inputs_are(library: Path) -> None:
    shapes = {"x": ["n", 2, "h", "w"], "weight": [3, 2, 2, 2], "offset": ["n", 8, "oh", 5]}
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items()
    ]
    node = helper.make_node("DeformConv", list(shapes), ["y"], domain="example")
    output = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "g", ends, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("example", 1)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(library))
    made = onnxruntime.InferenceSession(model.SerializeToString(), options)
    assert made.get_outputs()[0].shape == ["n", 3, "oh", 5]


def test_a_call_is_one_node_whatever_is_absent() -> None:
    from ort_ops.export import export

    function = load("deform_conv", "deform_conv").DeformConv
    arrays = {name: torch.from_numpy(array) for name, array in small().items()}

    class Net(torch.nn.Module):
        def __init__(self, *absent: str) -> None:
            super().__init__()
            self.absent = absent

        def forward(self, x: torch.Tensor) -> Any:
            given = [None if name in self.absent else arrays[name] for name in NAMES[1:]]
            return function.apply(x, *given, [1, 1], [0] * 4, [1, 1], 1, 1)

    for absent, held in (((), 5), (("mask",), 4), (("bias",), 5), (("bias", "mask"), 3)):
        for options in ({"dynamo": True}, {"dynamo": False, "autograd_inlining": False}):
            program = export(Net(*absent).eval(), (arrays["x"],), verbose=False, **options)
            (node,) = (node for node in program.model.graph if node.op_type == "DeformConv")
            assert len(node.inputs) == held
            assert [value is None for value in node.inputs] == [name in absent for name in NAMES[:held]]
            assert program.calls[0].reason == ""
