"""No false alarm: what PyTorch exports rightly is found equal, at every level and number of threads."""

import warnings
from pathlib import Path

import pytest
import torch

from ort_ops.export.quiet import quiet
from ort_ops.parity import Report, Verdict, check
from ort_ops.parity.runs import LEVELS

from .models import CLEAN, Clean


def export(case: Clean, path: Path, *, dynamo: bool) -> None:
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(case.model(), case.inputs, path, dynamo=dynamo, opset_version=18, verbose=False)


def failed(report: Report) -> list[str]:
    good = (Verdict.EQUAL, Verdict.LESS_PRECISE)
    return [f"{row}" for row in report.rows if row.verdict not in good]


PAIRS = [(case, dynamo) for case in CLEAN for dynamo in (True, False) if dynamo or case.torchscript]


@pytest.mark.parametrize(
    ("case", "dynamo"), PAIRS, ids=[f"{case}-{'dynamo' if d else 'torchscript'}" for case, d in PAIRS]
)
def test_a_right_file_is_found_right(case: Clean, dynamo: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    export(case, path, dynamo=dynamo)
    report = check(case.model(), path, case.inputs, levels=LEVELS, threads=(1, 2))
    assert failed(report) == []
    outputs = sum(row.question == "export" for row in report.rows)
    assert len(report.rows) == outputs * (1 + len(LEVELS) * 2)
