import subprocess
import sys

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch

import ort_ops
from mylinear import MyLinear, kernels
from mylinear.errors import OperandError
from mylinear.export import export
from ort_ops.errors import KernelError
from tests.cases import LINEAR_CASES

NUMPY = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]


def noise(shape, dtype, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def one_node(domain):
    """Return x, weight and bias as inputs of one MYLINEAR in a domain, float32."""
    node = onnx.helper.make_node("MYLINEAR", ["x", "weight", "bias"], ["y"], "n", domain=domain)
    shapes = {"x": ["b", 4], "weight": [3, 4], "bias": [3]}
    ends = [onnx.helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items()]
    out = onnx.helper.make_tensor_value_info("y", 1, ["b", 3])
    opsets = [onnx.helper.make_opsetid(name, version) for name, version in {"": 18, domain: 18}.items()]
    graph = onnx.helper.make_graph([node], "g", ends, [out])
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


@pytest.mark.parametrize("dtype", NUMPY)
@pytest.mark.parametrize("case", LINEAR_CASES, ids=str)
def test_the_kernel_computes_what_it_says_in_every_shape(case, dtype):
    x, weight, bias = (t.detach().numpy() for t in case.operands(torch.float64))
    x, weight, bias = (array.astype(dtype) for array in (x, weight, bias))
    y = kernels.mylinear(x, weight, bias)
    exact = x.astype("d") @ weight.astype("d").T + bias.astype("d")
    assert (y.dtype, y.shape) == (np.dtype(dtype), exact.shape)
    eps = float(ml_dtypes.finfo(dtype).eps)
    np.testing.assert_allclose(y.astype("d"), exact, rtol=eps, atol=64 * eps * max(1, weight.shape[1]) ** 0.5)
    np.testing.assert_array_equal(kernels.mylinear(x, weight), kernels.mylinear(x, weight, 0 * bias))


@pytest.mark.parametrize("kernel", [kernels.mylinear, kernels.mylinear_cuda])
@pytest.mark.parametrize(
    ("x", "weight", "bias", "said"),
    [
        ((), (3, 4), (3,), "input is a scalar"),
        ((2, 5), (3, 4), (3,), r"weight is \(3, 4\) but input has 5 features; expected weight \(out, 5\)"),
        ((2, 4), (4,), (3,), r"weight is \(4,\)"),
        ((2, 4), (3, 4), (1,), r"bias is \(1,\) but weight is \(3, 4\); expected bias \(3,\)"),
    ],
)
def test_operands_that_do_not_fit_are_refused(kernel, x, weight, bias, said):
    make = torch.zeros if kernel is kernels.mylinear_cuda else np.zeros
    out = {"out": torch.zeros(2, 3)} if kernel is kernels.mylinear_cuda else {}
    with pytest.raises(OperandError, match=said):
        kernel(make(x), make(weight), make(bias), **out)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("case", LINEAR_CASES, ids=str)
def test_the_kernels_on_both_providers_are_one_operator(case, bias):
    operands = case.operands(bias=bias)
    numpys = kernels.mylinear(*(tensor.numpy() for tensor in operands))
    out = torch.full(numpys.shape, torch.nan, dtype=torch.float64)
    assert kernels.mylinear_cuda(*operands, out=out) is None
    np.testing.assert_allclose(out.numpy(), numpys, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("domain", ["mylinear", "", "ai.onnx.contrib"])
def test_the_domains_that_the_kernels_serve(domain):
    session = ort_ops.InferenceSession(one_node(domain))
    feed = {"x": noise((2, 4), "f"), "weight": noise((3, 4), "f", 1), "bias": noise(3, "f", 2)}
    np.testing.assert_array_equal(session.run(None, feed)[0], kernels.mylinear(*feed.values()))
    assert [str(run) for run in session.explain()] == [
        f"n [{domain}::MYLINEAR]: kernel mylinear.kernels.mylinear on CPUExecutionProvider"
    ]


def test_a_misfit_at_run_time_names_the_node():
    node = onnx.helper.make_node("MYLINEAR", ["x", "weight"], ["y"], "n", domain="mylinear")
    ends = [onnx.helper.make_tensor_value_info(name, 1, None) for name in ("x", "weight", "y")]
    opsets = [onnx.helper.make_opsetid(name, 18) for name in ("", "mylinear")]
    graph = onnx.helper.make_graph([node], "g", ends[:2], ends[2:])
    data = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    with pytest.raises(KernelError, match="node 'n' failed: OperandError: MYLINEAR: weight is") as failure:
        ort_ops.InferenceSession(data).run(None, {"x": noise((2, 5), "f"), "weight": noise((3, 4), "f")})
    assert isinstance(failure.value.__cause__, OperandError)


BESIDE_EXTENSIONS = """
import sys
import numpy as np, onnxruntime, onnxruntime_extensions
import ort_ops
from mylinear import kernels
from tests.mylinear.test_kernels import one_node, noise
options = onnxruntime.SessionOptions()
options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
feed = {"x": noise((2, 4), "f"), "weight": noise((3, 4), "f", 1), "bias": noise(3, "f", 2)}
y = ort_ops.InferenceSession(one_node("mylinear"), options).run(None, feed)[0]
print(np.array_equal(y, kernels.mylinear(*feed.values())))
options = onnxruntime.SessionOptions()
options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
try:
    ort_ops.InferenceSession(one_node("ai.onnx.contrib"), options)
except ort_ops.errors.RegistrationError as error:
    print(error)
"""


def test_beside_onnxruntime_extensions_all_but_its_own_domain_is_served():
    pytest.importorskip("onnxruntime_extensions")
    command = [sys.executable, "-W", "ignore", "-c", BESIDE_EXTENSIONS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    lines = done.stdout.splitlines()
    assert lines[0] == "True", done.stderr
    assert "ort_ops and onnxruntime-extensions both register one domain" in lines[1]
    assert done.returncode == 0


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", NUMPY)
def test_on_cuda_the_kernel_runs_there_and_equals_pytorch(dtype, tmp_path):
    names = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
    torch_dtype = names.get(np.dtype(dtype).name, torch.float64)
    model = MyLinear(64, 32, torch_dtype, init="kaiming").eval()
    export(model, tmp_path / "m.onnx", example=torch.zeros(2, 64, dtype=torch_dtype))
    session = ort_ops.InferenceSession(tmp_path / "m.onnx", providers=["CUDAExecutionProvider"])
    x = noise((7, 64), dtype)
    y = session.run(None, {"x": x})[0]
    assert [run.provider for run in session.explain()] == ["CUDAExecutionProvider"]
    expected = model.double()(torch.from_numpy(x.astype("d"))).detach().numpy()
    eps = float(ml_dtypes.finfo(dtype).eps)
    np.testing.assert_allclose(y.astype("d"), expected, rtol=eps, atol=64 * eps)
