"""Files of golden answers that are none: refused, before memory is asked for that they don't have."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from ort_ops.errors import ParityError
from ort_ops.parity import Recorded, read_recorded

TENSORS = {
    "0/input/x": np.arange(3, dtype=np.float32),
    "0/exact/y": np.arange(3, dtype=np.float64),
    "0/torch/y": np.arange(3, dtype=np.float32),
    "0/bound/y": np.ones(3, np.float64),
}


def write(path: Path, **changed: Any) -> Path:
    """Write golden answers of one sample, with other things in their manifest."""
    entries = {name: [array.dtype.name, list(array.shape)] for name, array in TENSORS.items()}
    manifest = {"format": 1, "samples": 1, "inputs": ["x"], "outputs": ["y"], "files": {}, "versions": {}}
    manifest |= {"machine": "", "tensors": entries, **changed}
    raw = {name: np.frombuffer(array.tobytes(), np.uint8) for name, array in TENSORS.items()}
    save_file({**raw, "empty": np.zeros(0, np.uint8)}, path, {"parity": json.dumps(manifest)})
    return path


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_recorded(write(tmp_path / "g")).feed(0)["x"], [0, 1, 2])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"samples": "1"}, "samples is '1'"),
        ({"samples": 10**12}, "1/input/x is missing"),
        ({"inputs": 5}, "inputs is 5"),
        ({"files": [1]}, "files is"),
        ({"versions": [1]}, "versions is"),
        ({"tensors": [1]}, r"tensors is \[1\]"),
        ({"tensors": {"0/input/x": ["float32", [3]]}}, "0/exact/y is missing"),
        ({"tensors": {"empty": ["object", [3]]}}, "0 bytes are no object"),
        ({"tensors": {"empty": ["float32", [10**6, 10**6, 10**6]]}}, "0 bytes are no float32"),
        ({"tensors": {"0/input/x": ["finfo", [3]]}}, "12 bytes are no finfo"),
        ({"tensors": {"0/input/x": ["float32", [-1]]}}, "12 bytes are no float32"),
    ],
    ids=str,
)
def test_what_is_not_whole_is_refused(changed: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=said):
        read_recorded(write(tmp_path / "g", **changed))


@pytest.mark.parametrize(
    ("after", "changes"),
    [
        ([1.0, np.inf], []),
        ([1.5, np.inf], ["0/exact/y differs by up to 0.5"]),
        ([np.nan, np.inf], ["0/exact/y differs by up to inf"]),
        ([1.0, 2.0], ["0/exact/y differs by up to inf"]),
    ],
    ids=str,
)
def test_numbers_that_become_none_are_a_change(
    after: list[float], changes: list[str], tmp_path: Path
) -> None:
    manifest = read_recorded(write(tmp_path / "g")).manifest
    old, new = (Recorded(manifest, {"0/exact/y": np.array(each)}) for each in ([1.0, np.inf], after))
    assert old.changes(new) == changes


def test_a_bound_of_another_shape_is_refused(tmp_path: Path) -> None:
    entries = {name: [array.dtype.name, list(array.shape)] for name, array in TENSORS.items()}
    entries["0/bound/y"] = ["float64", [3, 1]]
    with pytest.raises(ParityError, match=r"0/bound/y is \(3, 1\); expected \(3,\)"):
        read_recorded(write(tmp_path / "g", tensors=entries))


def test_a_manifest_nested_beyond_reason_is_refused(tmp_path: Path) -> None:
    save_file({"a": np.zeros(1, np.uint8)}, tmp_path / "g", {"parity": "[" * 100_000})
    with pytest.raises(ParityError, match="holds no golden answers"):
        read_recorded(tmp_path / "g")
