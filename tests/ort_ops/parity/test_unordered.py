"""topk(sorted=False): in which order the elements come is nobody's business, unless the outputs are in it."""

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from ort_ops.export import export
from ort_ops.parity import Verdict, check, locate
from ort_ops.parity.verdict import GOOD

from .models import Model, uniform

BOTH = pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])


def experts(model: Any, x: Tensor) -> Tensor:
    """Weigh those of eight experts that a router likes best, as mixtures of experts do."""
    weights, chosen = model.router(x).softmax(-1).topk(3, sorted=False)
    weights = weights / weights.sum(-1, keepdim=True)
    return (
        (x[:, None, None] @ model.experts.weight.reshape(8, 16, 16)[chosen])[:, :, 0] * weights[..., None]
    ).sum(1)


def mixture() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return Model(experts, router=nn.Linear(16, 8), experts=nn.Linear(16, 128)).eval(), uniform(6, 16)


@BOTH
def test_what_is_made_of_them_in_any_order_is_compared(dynamo: bool, tmp_path: Path) -> None:
    model, x = mixture()
    path = tmp_path / "model.onnx"
    export(model, (x,), path, dynamo=dynamo, external_data=False, verbose=False)
    assert check(model, path, (x,)).verdict is Verdict.EQUAL
    assert locate(model, path, (x,)).node is None
    file = onnx.load(path)
    (best,) = (node for node in file.graph.node if node.op_type == "TopK")
    kept = [attribute for attribute in best.attribute if attribute.name != "largest"]
    best.ClearField("attribute")
    best.attribute.extend([*kept, onnx.helper.make_attribute("largest", 0)])
    onnx.save(file, path)
    assert check(model, path, (x,)).verdict is Verdict.EXPORT_WRONG
    assert locate(model, path, (x,)).node == best.name


@BOTH
def test_outputs_in_their_order_are_nobodys_fault(dynamo: bool, tmp_path: Path) -> None:
    model, x = Model(lambda model, x: x.topk(5, sorted=False)).eval(), uniform(4, 30)
    path = tmp_path / "model.onnx"
    export(model, (x,), path, dynamo=dynamo, verbose=False)
    rows = check(model, path, (x,)).rows
    assert {row.verdict for row in rows if row.question == "export"} == {Verdict.EQUAL}
    assert {row.verdict for row in rows} <= {*GOOD, Verdict.CANNOT_SAY}
    assert locate(model, path, (x,)).node is None


@BOTH
def test_a_model_that_sorts_wants_a_file_that_does(dynamo: bool) -> None:
    model, x = Model(lambda model, x: x.topk(5).values.cumsum(-1)).eval(), uniform(3, 7)
    file = export(model, (x,), dynamo=dynamo, verbose=False).model_proto
    (best,) = (node for node in file.graph.node if node.op_type == "TopK")
    kept = [attribute for attribute in best.attribute if attribute.name != "sorted"]
    best.ClearField("attribute")
    best.attribute.extend([*kept, onnx.helper.make_attribute("sorted", 0)])
    report = check(model, file, (x,))
    assert report.verdict is Verdict.EXPORT_WRONG
    assert {row.verdict for row in report.rows if row.question == "runtime"} == {Verdict.CANNOT_SAY}
    assert locate(model, file, (x,)).node == best.name


def test_a_sum_of_what_is_in_any_order_is_right() -> None:
    model, x = Model(lambda model, x: x.topk(5).values.amax(-1)).eval(), uniform(3, 7)
    file = export(model, (x,), verbose=False).model_proto
    (best,) = (node for node in file.graph.node if node.op_type == "TopK")
    kept = [attribute for attribute in best.attribute if attribute.name != "sorted"]
    best.ClearField("attribute")
    best.attribute.extend([*kept, onnx.helper.make_attribute("sorted", 0)])
    assert check(model, file, (x,)).verdict in GOOD
