"""What do fixed tolerances see of planted faults, of right models? Run: python -m benchmarks.parity_faults.

The faults and the models are those of the tests; nothing is timed.
"""

import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from benchmarks.report import environment, write
from ort_ops.export.quiet import quiet
from ort_ops.parity import check
from tests.ort_ops.parity.faults import ARCHITECTURES, FAULTS
from tests.ort_ops.parity.models import CLEAN
from tests.ort_ops.parity.test_faults import planted

QUESTION = "What do fixed tolerances see of planted faults, and what of right models?"
OURS = "ort_ops.parity.check"
RULES = {
    "1e-5, absolute and relative": (1e-5, 1e-5),
    "1e-3 relative, 1e-7 absolute": (1e-7, 1e-3),
    "torch.testing.assert_close": None,
}
COLUMNS = ("fault", "files", *(f"missed by {name}" for name in RULES), f"missed by {OURS}")
NOTE = (
    "Each fault planted in every file of ten that has something to plant it in, where it changes an output "
    "by more than the check says it sees: CNN, MLP of MyLinear, transformer block and LSTM by both "
    "exporters, a model of integers and booleans, a float16 one. A rule compares ONNX Runtime's outputs with "
    "PyTorch's, as polygraphy and optimum (1e-5), ONNX's backend tests (1e-3) and PyTorch's own tests do. "
    "The last row: right models, exported by the newer exporter, that are called wrong. ONNX Runtime on the "
    "CPU."
)


def to_array(tensor: Any) -> Any:
    return tensor.detach().numpy() if isinstance(tensor, torch.Tensor) else np.asarray(tensor)


def caught_by_rules(model: Any, file: str | bytes, inputs: tuple[Any, ...]) -> dict[str, bool]:
    """Return which rules find a run of a file unlike the model's."""
    onnxruntime.set_seed(0)  # the same noise each time
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    feed = {i.name: to_array(t) for i, t in zip(session.get_inputs(), inputs, strict=True)}
    got = session.run(None, feed)
    with torch.no_grad():
        expected = model(*inputs)
    wanted = [to_array(t) for t in torch.utils._pytree.tree_leaves(expected)]
    return {
        name: any(not same(*pair, rule) for pair in zip(got, wanted, strict=True))
        for name, rule in RULES.items()
    }


def same(got: Any, wanted: Any, rule: tuple[float, float] | None) -> bool:
    if rule is not None:
        return np.allclose(got, wanted, atol=rule[0], rtol=rule[1], equal_nan=True)
    try:
        torch.testing.assert_close(torch.from_numpy(got), torch.from_numpy(wanted), equal_nan=True)
    except AssertionError:
        return False
    return True


def main() -> None:
    warnings.simplefilter("ignore")
    files: Counter[str] = Counter()
    missed: dict[str, Counter[str]] = {name: Counter() for name in (*RULES, OURS)}
    for name, case in ARCHITECTURES.items():
        for each in planted(name):
            fault = each.fault.name
            files[fault] += 1
            report = check(case.model(), each.model, each.inputs, functions=case.functions)
            missed[OURS][fault] += report.exit_code == 0
            for rule, caught in caught_by_rules(
                case.model(), each.model.SerializeToString(), each.inputs
            ).items():
                missed[rule][fault] += not caught
    rows = [
        (fault.name, str(files[fault.name]), *(str(missed[name][fault.name]) for name in missed))
        for fault in FAULTS
    ]
    rows.append(("all of them", str(files.total()), *(str(missed[name].total()) for name in missed)))
    rows.append(false_alarms())
    raw = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    write("parity_faults", QUESTION, NOTE, COLUMNS, rows, raw, environment(["torch", "onnx", "onnxruntime"]))


def false_alarms() -> tuple[str, ...]:
    """Count the right models that each rule calls wrong."""
    wrong: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "model.onnx"))
        for case in CLEAN:
            with quiet():
                torch.onnx.export(
                    case.model(), case.inputs, path, dynamo=True, opset_version=18, verbose=False
                )
            wrong[OURS] += check(case.model(), path, case.inputs).exit_code != 0
            wrong.update(
                name for name, caught in caught_by_rules(case.model(), path, case.inputs).items() if caught
            )
    return ("right models called wrong", str(len(CLEAN)), *(str(wrong[name]) for name in (*RULES, OURS)))


if __name__ == "__main__":
    main()
