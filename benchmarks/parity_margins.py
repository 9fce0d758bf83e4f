"""How much of their tolerances do right models take, and faults? Run: python -m benchmarks.parity_margins.

The models and the faults are those of the tests; nothing is timed.
"""

import tempfile
import warnings
from collections.abc import Iterable, Iterator, Set
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.report import environment, write
from ort_ops.export.quiet import quiet
from ort_ops.parity import Report, Verdict, check
from ort_ops.parity.verdict import GOOD
from tests.ort_ops.parity.faults import ARCHITECTURES
from tests.ort_ops.parity.models import CLEAN
from tests.ort_ops.parity.test_faults import planted

QUESTION = "How much of their tolerances do right models take, and how far beyond are faults?"
COLUMNS = ("of", "outputs", "exact", "median", "largest", "smallest")
NOTE = (
    "The difference of the element that comes nearest to its own tolerance, or is furthest beyond it, as a "
    "share of that; of outputs of fractions. 52 right models as both exporters write them, and the faults of "
    "parity_faults, some of which show otherwise: in integers, in shapes, in what is stored in 16 bits. "
    "Exact: outputs without any difference, which the median leaves out. What lies between right models' "
    "largest share and faults' smallest is the room that the tolerances leave. ONNX Runtime on the CPU."
)


def shares(report: Report, question: str, verdicts: Set[Verdict] = GOOD) -> Iterator[float]:
    """Give for each row of fractions the share of its tolerance that its worst element takes."""
    for row in report.rows:
        fractions = row.dtype.startswith(("float", "bfloat")) and row.index is not None
        if row.question != question or row.verdict not in verdicts or not fractions:
            continue
        apart = abs(float(row.got) - float(row.expected))
        if np.isfinite(apart):
            yield apart / row.tolerance if row.tolerance else (np.inf if apart else 0.0)


def row_of(what: str, found: Iterable[float]) -> tuple[str, ...]:
    taken = np.array(list(found))
    some = taken[taken > 0]
    ends = (np.median(some), some.max(), some.min()) if some.size else (0.0, 0.0, 0.0)
    return (what, str(taken.size), str(int((taken == 0).sum())), *(f"{end:.2g}" for end in ends))


def right_reports() -> Iterator[Report]:
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "model.onnx"))
        for case in CLEAN:
            for dynamo in (True, False):
                try:
                    with quiet():
                        options: dict[str, Any] = {"dynamo": dynamo, "opset_version": 18, "verbose": False}
                        torch.onnx.export(case.model(), case.inputs, path, **options)
                except Exception:  # what the older one can't write
                    continue
                yield check(case.model(), path, case.inputs)


def fault_reports() -> Iterator[Report]:
    for name, case in ARCHITECTURES.items():
        for each in planted(name):
            yield check(case.model(), each.model, each.inputs, functions=case.functions)


def main() -> None:
    warnings.simplefilter("ignore")
    right, wrong = list(right_reports()), list(fault_reports())
    rows = [
        row_of("right models: the file beside the model", (s for r in right for s in shares(r, "export"))),
        row_of("right models: a run beside the file", (s for r in right for s in shares(r, "runtime"))),
        row_of(
            "faulty files beside the model, outputs called wrong",
            (s for r in wrong for s in shares(r, "export", {Verdict.EXPORT_WRONG})),
        ),
    ]
    raw = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    write("parity_margins", QUESTION, NOTE, COLUMNS, rows, raw, environment(["torch", "onnx", "onnxruntime"]))


if __name__ == "__main__":
    main()
