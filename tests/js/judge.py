"""Whether a build of ONNX Runtime answered every case, and as PyTorch did."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ort_ops.parity import Difference, arithmetic_of, compare
from tests.js.cases import Case, decode
from tests.mylinear.bound import error_bound


@dataclass(frozen=True)
class Judgement:
    """What became of one build: the comparisons that were made, and what failed."""

    differences: tuple[tuple[str, Difference], ...]  # with the dtype
    right: int  # of the held-out digits, all files together
    labels: int
    failures: tuple[str, ...]


def judge(cases: Sequence[Case], answers: Mapping[str, Any]) -> Judgement:
    """Compare answers with PyTorch's; each of the two may be off by the certain bound of its rounding errors.

    An answer that is missing, an error, or of another dtype or shape is a failure; so are no elements at all.
    """
    differences = []
    failures = []
    right = labels = 0
    for case in cases:
        answer = answers.get(case.id, {"error": "no answer"})
        got = None if "error" in answer else decode(answer)
        if got is None or (got.dtype, got.shape) != (case.expected.dtype, case.expected.shape):
            what = answer.get("error", "another dtype or shape than PyTorch's")
            failures.append(f"{case.id}: {what}")
            continue
        bound = error_bound(case.model, case.x.astype(np.float64), arithmetic_of(got.dtype))
        found = compare(got, case.expected, 2 * bound)
        differences.append((got.dtype.name, found))
        if not found.within:
            failures.append(
                f"{case.id}: {found.exceeding} of {found.elements} elements differ by more than allowed; "
                f"the worst, {found.index}: {found.got!r}, PyTorch {found.expected!r}, "
                f"allowed {found.allowed:.2g}"
            )
        if case.labels is not None:
            right, labels = right + int((got.argmax(1) == case.labels).sum()), labels + len(case.labels)
    if not any(found.elements for _, found in differences):
        failures.append("nothing was compared")
    return Judgement(tuple(differences), right, labels, tuple(failures))
