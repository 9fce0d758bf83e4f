import json

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

import ort_ops
from mylinear import MyLinear, kernels
from mylinear.export import export
from mylinear.verify import verify
from ort_ops.errors import ParityError, ProviderError
from ort_ops.parity import ExitCode, Verdict, arithmetic_of
from ort_ops.parity.exact import ExactFile
from tests.cases import FLOAT_DTYPES
from tests.mylinear.bound import error_bound


def perceptron(dtype=torch.float32):
    layers = MyLinear(5, 7, dtype, init="kaiming"), nn.ReLU(), MyLinear(7, 3, dtype, init="kaiming")
    return nn.Sequential(*layers).eval()


def exported(model, path, **options):
    weight = next(model.parameters())
    return export(model, path, example=torch.zeros(2, weight.shape[1], dtype=weight.dtype), **options)


def verdicts(report, question):
    return {row.verdict for row in report.rows if row.question == question and row.elements}


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
@pytest.mark.parametrize("prefer", ["kernel", "body"])
def test_a_right_file_is_equal_in_every_dtype(tmp_path, dtype, prefer):
    model = MyLinear(5, 3, dtype).eval()
    exported(model, tmp_path / "m.onnx")
    report = verify(model, tmp_path / "m.onnx", prefer=prefer)
    assert report.exit_code is ExitCode.EQUAL
    assert {row.question for row in report.rows} == {"export", "runtime"}
    assert {row.elements for row in report.rows} == {3 * (0 + 1 + 2 + 7 + 64)}
    runner = {"kernel": "kernel", "body": "function body"}[prefer]
    (ran,) = {row.ran for row in report.rows if row.question == "runtime"}
    assert ran.endswith(f"mylinear::MYLINEAR: {runner}")


@pytest.mark.parametrize("seed", range(5))
def test_several_layers_are_equal(tmp_path, seed):
    torch.manual_seed(seed)
    model = perceptron()
    exported(model, tmp_path / "m.onnx")
    assert verify(model, tmp_path / "m.onnx", seed=seed).exit_code is ExitCode.EQUAL


def test_one_weight_off_by_a_millionth_is_the_files_fault(tmp_path):
    model = perceptron(torch.float64)
    exported(model, tmp_path / "m.onnx")
    with torch.no_grad():
        model[2].weight[0, 0] *= 1 + 1e-6
    report = verify(model, tmp_path / "m.onnx", batches=(64,))
    assert verdicts(report, "export") == {Verdict.EXPORT_WRONG}
    assert report.exit_code is ExitCode.WRONG


def test_one_float32_weight_off_by_a_millionth_shows_in_the_file_alone(tmp_path):
    model = perceptron()
    exported(model, tmp_path / "m.onnx")
    with torch.no_grad():
        model[2].weight[0, 0] *= 1 + 2e-6  # of which a float32 keeps about 17 units in the last place
    report = verify(model, tmp_path / "m.onnx", batches=(64,))
    assert verdicts(report, "export") == {Verdict.EXPORT_WRONG}


def test_a_wrong_kernel_is_the_runtimes_fault(tmp_path, monkeypatch):
    model = perceptron()
    exported(model, tmp_path / "m.onnx")

    right = ort_ops.InferenceSession.run

    def wrong(self, *arguments):
        return [y * np.float32(1.01) for y in right(self, *arguments)]

    monkeypatch.setattr(ort_ops.InferenceSession, "run", wrong)
    report = verify(model, tmp_path / "m.onnx")
    assert verdicts(report, "export") == {Verdict.EQUAL}
    assert verdicts(report, "runtime") == {Verdict.RUNTIME_WRONG}


@pytest.mark.parametrize(
    "spoil", [lambda y: y.astype(np.float64), lambda y: y[:, :1], lambda y: y * np.float32("nan")]
)
def test_another_dtype_shape_or_a_nan_is_wrong(tmp_path, monkeypatch, spoil):
    model = perceptron()
    exported(model, tmp_path / "m.onnx")
    right = ort_ops.InferenceSession.run
    monkeypatch.setattr(ort_ops.InferenceSession, "run", lambda *a: [spoil(y) for y in right(*a)])
    report = verify(model, tmp_path / "m.onnx", batches=(2,))
    assert [row.verdict for row in report.rows] == [Verdict.EQUAL, Verdict.RUNTIME_WRONG]
    assert json.loads(report.to_json())["verdict"] == "runtime_wrong"


def test_nothing_compared_is_cannot_say(tmp_path):
    model = perceptron()
    exported(model, tmp_path / "m.onnx")
    assert verify(model, tmp_path / "m.onnx", batches=(0,)).exit_code is ExitCode.CANNOT_SAY
    with pytest.raises(ParityError, match="no batch size"):
        verify(model, tmp_path / "m.onnx", batches=())
    with pytest.raises(ParityError, match="no provider"):
        verify(model, tmp_path / "m.onnx", providers=())


def test_a_provider_that_is_not_there_is_an_error(tmp_path):
    model = perceptron()
    exported(model, tmp_path / "m.onnx")
    with pytest.raises(ProviderError, match="NoSuchExecutionProvider"):
        verify(model, tmp_path / "m.onnx", providers=["NoSuchExecutionProvider"])


def test_a_model_in_training_mode_or_of_other_sizes_is_refused(tmp_path):
    model = perceptron()
    exported(model, tmp_path / "m.onnx")
    with pytest.raises(ParityError, match=r"model\.eval\(\)"):
        verify(model.train(), tmp_path / "m.onnx")
    with pytest.raises(ParityError, match="belong to others"):
        verify(MyLinear(6, 3).eval(), tmp_path / "m.onnx")


@pytest.mark.parametrize("seed", [0, 21, 36])  # of some, numbers that nearly cancel
def test_the_recipes_own_file_is_equal(seed, tmp_path):
    torch.manual_seed(seed)
    model = MyLinear(2, 1, torch.float64).eval()
    file = exported(model, tmp_path / "m.onnx", domain="", opset=11, dynamo=False)
    assert [(node.domain, node.op_type) for node in file.graph.node] == [("", "MYLINEAR")]
    assert verify(model, tmp_path / "m.onnx").exit_code is ExitCode.EQUAL


def test_the_file_is_evaluated_in_float64():
    model = perceptron()
    file = export(model, example=torch.zeros(2, 5))
    x = np.random.default_rng(0).standard_normal((4, 5))
    exact = ExactFile(ir.from_proto(file), parameters=["0.weight", "0.bias", "2.weight", "2.bias"])
    expected = model.double()(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(exact.run({"x": x})["y"], expected, rtol=1e-14, atol=1e-14)
    assert file.graph.initializer[0].data_type == onnx.TensorProto.FLOAT  # the file itself is as it was


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
def test_the_kernel_stays_inside_the_certain_bound(dtype):
    model = MyLinear(33, 5, dtype, init="kaiming").eval()
    x = torch.randn(50, 33, dtype=torch.float64).to(dtype)
    exact = model.double()(x.double()).detach().numpy()
    model.to(dtype)
    operands = [t.detach() for t in (x, model.weight, model.bias)]
    arrays = [ort_dtype(t) for t in operands]
    bound = error_bound(model, x.double().numpy(), arithmetic_of(arrays[0].dtype))
    assert (np.abs(kernels.mylinear(*arrays).astype(np.float64) - exact) <= bound).all()


def ort_dtype(tensor):
    import ml_dtypes

    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def test_layers_without_a_known_bound_are_refused():
    model = nn.Sequential(MyLinear(2, 2), nn.Tanh()).eval()
    with pytest.raises(ParityError, match="Tanh"):
        error_bound(model, np.ones((1, 2)), arithmetic_of(np.float32))
