"""A bfloat16 model whose normalisation the exporter puts into a weight has that weight in bfloat16."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from ort_ops.export import export


def normalised(layer: nn.Module, norm: Any) -> nn.Module:
    torch.manual_seed(0)
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(tensor)
    return nn.Sequential(layer, norm).eval().to(torch.bfloat16)


MODELS = {
    "Linear": (lambda: normalised(nn.Linear(3, 4), nn.BatchNorm1d(4)), (5, 3)),
    "Conv": (lambda: normalised(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)), (2, 3, 8, 8)),
    "ConvTranspose": (lambda: normalised(nn.ConvTranspose2d(3, 4, 3), nn.BatchNorm2d(4)), (2, 3, 8, 8)),
}


@pytest.mark.parametrize("name", MODELS)
def test_its_weights_are_in_bfloat16(name: str, tmp_path: Path) -> None:
    make, shape = MODELS[name]
    model, given = make(), torch.rand(shape).bfloat16()
    export(model, (given,), tmp_path / "model.onnx", opset_version=22, verbose=False)
    file = onnx.load(tmp_path / "model.onnx")
    assert [node.op_type for node in file.graph.node] == ["Gemm" if name == "Linear" else name]
    assert {each.data_type for each in file.graph.initializer} == {TensorProto.BFLOAT16}
    onnx.checker.check_model(file, full_check=True)
    weight = numpy_helper.to_array(file.graph.initializer[0]).astype(np.float64)
    layer, norm = model.double()
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    expected = layer.weight * scale.reshape(
        ((1, -1) if name == "ConvTranspose" else (-1, 1)) + (1,) * (len(shape) - 2)
    )
    rounding = float(ml_dtypes.finfo(ml_dtypes.bfloat16).eps) / 2
    np.testing.assert_allclose(weight, expected.detach().numpy(), rtol=1.01 * rounding)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's own
def test_by_torch_alone_they_are_not(tmp_path: Path) -> None:
    """Or nothing here would be needed."""
    make, shape = MODELS["Linear"]
    given = torch.rand(shape).bfloat16()
    torch.onnx.export(make(), (given,), tmp_path / "model.onnx", dynamo=True, verbose=False)
    with pytest.raises(onnx.shape_inference.InferenceError, match="inconsistent type"):
        onnx.checker.check_model(onnx.load(tmp_path / "model.onnx"), full_check=True)
