"""The experiment: faults planted in right files, each caught, under the right question."""

import functools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from ort_ops.export import export
from ort_ops.export.quiet import quiet
from ort_ops.parity import Report, Verdict, check
from ort_ops.parity.exact import ExactFile
from ort_ops.parity.tensors import to_numpy

from .faults import ARCHITECTURES, FAULTS, Architecture, Fault


@functools.cache
def exported(name: str) -> bytes:
    case = ARCHITECTURES[name]
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = export(
            case.model(),
            case.inputs,
            dynamo=case.dynamo,
            functions="attach",
            opset_version=18,
            verbose=False,
        )
    return program.model_proto.SerializeToString()


@functools.cache
def clean(name: str) -> Report:
    case = ARCHITECTURES[name]
    model = onnx.load_from_string(exported(name))
    return check(case.model(), model, case.inputs, functions=case.functions)


def size_of(case: Architecture, model: onnx.ModelProto, inputs: tuple[Any, ...]) -> float:
    """Return the largest change, in float64, that a fault makes to an output."""
    right, wrong = (
        ExactFile(ir.from_proto(proto), functions=case.functions)
        for proto in (onnx.load_from_string(exported(case.name)), model)
    )
    feed = {name: to_numpy(tensor) for name, tensor in zip(right.inputs, inputs, strict=True)}
    sizes = [0.0]
    for a, b in zip(right.run(feed).values(), wrong.run(feed).values(), strict=True):
        same = (a == b) | ((a != a) & (b != b))
        apart = np.where(same, 0.0, np.abs(a.astype(np.float64) - b.astype(np.float64)))
        sizes.append(float(np.nan_to_num(apart, nan=np.inf).max(initial=0.0)))
    return max(sizes)


@dataclass(frozen=True)
class Planted:
    """A file with a fault in it that changes an output by more than what is said to be seen."""

    fault: Fault
    model: onnx.ModelProto
    blamed: list[str]
    inputs: tuple[Any, ...]


def planted(name: str) -> Iterator[Planted]:
    """Give every fault that there is something to plant in."""
    case = ARCHITECTURES[name]
    smallest = max(row.smallest_fault or 0.0 for row in clean(name).rows if row.question == "export")
    for fault in FAULTS:
        model = onnx.load_from_string(exported(name))
        blamed = fault.plant(model)
        inputs = tuple(map(fault.inputs, case.inputs))
        if blamed is not None and size_of(case, model, inputs) > smallest:
            yield Planted(fault, model, blamed, inputs)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_right_file_is_equal_and_says_what_it_would_see(name: str) -> None:
    report = clean(name)
    assert report.verdict is Verdict.EQUAL, str(report)
    assert report.notes == ()
    for row in report.rows:
        if row.question == "export" and row.dtype == "float64":
            assert row.smallest_fault is not None
            assert row.smallest_fault < 1e-12


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_faults_are_caught_under_the_right_question(name: str) -> None:
    case = ARCHITECTURES[name]
    count = 0
    for each in planted(name):
        report = check(case.model(), each.model, each.inputs, functions=case.functions)
        assert report.verdict is Verdict.EXPORT_WRONG, f"{each.fault}: {report}"
        # ONNX Runtime computes the wrong file rightly, but for noise, which is another each time.
        runtime = {row.verdict for row in report.rows if row.question == "runtime"}
        also = {Verdict.CANNOT_SAY} if "seed" in each.fault.name else set()
        if each.fault.name == "NaN lost" and name.startswith(("CNN", "LSTM")):
            also = {Verdict.RUNTIME_WRONG}  # ONNX Runtime's MaxPool and LSTM lose NaN themselves
        assert runtime <= {Verdict.EQUAL, Verdict.LESS_PRECISE} | also, f"{each.fault}: {report}"
        count += 1
    assert count >= (4 if name == "float16" else 7)


def test_the_table_is_as_large_as_it_says() -> None:
    assert len(FAULTS) >= 12
    assert sum(1 for name in ARCHITECTURES for _ in planted(name)) >= 80
