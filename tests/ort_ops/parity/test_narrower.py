"""A narrower arithmetic is named where it explains the difference, and only where there may be one."""

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from ort_ops.export import export
from ort_ops.parity import Row, Verdict
from ort_ops.parity.evaluated import evaluate
from ort_ops.parity.judge import judge_output
from ort_ops.parity.runtime_side import RoundingBounds, golden_outputs
from ort_ops.parity.subject import Subject

from .models import uniform


def rounded(array: Any, bits: int) -> Any:
    """Round float32 numbers to so many bits of their fraction."""
    raw = array.view(np.uint32).astype(np.uint64)
    drop = 23 - bits
    return ((raw + (1 << (drop - 1))) >> drop << drop).astype(np.uint32).view(np.float32)


def judged(bits: int, *, on_cpu: bool, spoilt: float = 0.0) -> Row:
    """Judge the output of two layers whose factors are rounded to so many bits before they are multiplied."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 32)).eval()
    x = uniform(50, 256)
    program = export(model, (x,), verbose=False)
    subject = Subject(model, program, (x,))
    (sample,) = evaluate(subject).samples
    y = x.numpy()
    for layer in (model[0], model[2]):
        weight, bias = (each.detach().numpy() for each in (layer.weight, layer.bias))  # type: ignore[union-attr]
        y = rounded(y, bits) @ rounded(weight, bits).T + bias
        y = np.maximum(y, 0) if layer is model[0] else y
    y[3, 5] += spoilt
    (golden,) = golden_outputs(subject.exact_file, sample)
    assert isinstance(subject.content, ir.Model)
    return judge_output(y, golden, RoundingBounds(subject.exact_file, sample), rule=None, on_cpu=on_cpu)


@pytest.mark.parametrize(("bits", "name"), [(10, "TF32"), (7, "bfloat16")])
def test_it_is_named_on_other_providers_than_the_cpus(bits: int, name: str) -> None:
    row = judged(bits, on_cpu=False)
    assert (row.verdict, row.reason) == (Verdict.REDUCED_PRECISION, f"as far off as {name} explains")
    assert row.error is not None
    assert row.error < row.tolerance


def test_the_cpus_provider_has_none() -> None:
    assert judged(10, on_cpu=True).verdict is Verdict.RUNTIME_WRONG


def test_full_precision_is_not_taken_for_it() -> None:
    assert judged(22, on_cpu=False).verdict in (Verdict.EQUAL, Verdict.LESS_PRECISE)


def test_a_real_fault_under_it_is_found() -> None:
    row = judged(10, on_cpu=False, spoilt=0.05)
    assert "TF32" not in row.reason
    assert judged(7, on_cpu=False, spoilt=2.0).verdict is Verdict.RUNTIME_WRONG
