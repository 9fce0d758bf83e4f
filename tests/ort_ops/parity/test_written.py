"""A run is right by the constants that the file has, where those aren't what was meant by them."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ort_ops.export import export
from ort_ops.parity import Verdict, check, record, replay

from .models import Model, uniform

BOTH = pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])


def trained() -> nn.Module:
    layer = nn.BatchNorm1d(16).double()
    layer(uniform(8, 16).double() * 2 + 1)
    return layer


NORMS: dict[str, Callable[[], nn.Module]] = {
    "LayerNorm": lambda: nn.LayerNorm(16).double(),
    "BatchNorm": trained,
    "between layers": lambda: nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16), nn.Linear(16, 4)).double(),
}


@BOTH
@pytest.mark.parametrize("name", NORMS)
def test_epsilons_of_float64_normalisations_are_float32s_in_a_file(
    name: str, dynamo: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model, x = NORMS[name]().eval(), uniform(4, 16).double()
    path, golden = tmp_path / "model.onnx", tmp_path / "golden.safetensors"
    export(model, (x,), path, dynamo=dynamo, verbose=False)
    assert check(model, path, (x,)).verdict is Verdict.EQUAL
    record(model, path, golden, (x,))
    assert replay(golden, path).verdict is Verdict.EQUAL
    file = onnx.load(path)
    for node in file.graph.node:
        for attribute in node.attribute:
            if attribute.name == "epsilon":
                attribute.f = 1.001e-5
    onnx.save(file, path)
    assert check(model, path, (x,)).verdict is Verdict.EXPORT_WRONG


@BOTH
@pytest.mark.parametrize("scale", [2, 3, 0.5])
def test_a_scale_that_divides_exactly_turns_nothing(scale: float, dynamo: bool, tmp_path: Path) -> None:
    """The best places of an image that is resized: a fault before it is no rounding's."""

    def call(model: Model, x: Tensor) -> Tensor:
        larger = functional.interpolate(model.conv(x), scale_factor=scale, mode="nearest")  # type: ignore[operator]
        return larger.flatten(1).topk(5)[0]

    torch.manual_seed(0)
    model, x = Model(call, conv=nn.Conv2d(3, 4, 3, padding=1)).eval(), uniform(1, 3, 8, 8)
    path = tmp_path / "model.onnx"
    export(model, (x,), path, dynamo=dynamo, verbose=False, **({"external_data": False} if dynamo else {}))
    assert check(model, path, (x,)).verdict is Verdict.EQUAL
    file = onnx.load(path)
    (conv,) = (node for node in file.graph.node if node.op_type == "Conv")
    del conv.input[2]
    onnx.save(file, path)
    assert check(model, path, (x,)).verdict is Verdict.EXPORT_WRONG
