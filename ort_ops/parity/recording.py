"""Golden answers in one file: what a deployment is checked against where there is no torch."""

import json
import os
import platform
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as serialise
from torch import nn

from ort_ops.errors import ParityError
from ort_ops.model import weight_files
from ort_ops.runtime import release_of
from ort_ops.selection import Prefer

from .compare import distance
from .digest import digest
from .evaluated import evaluate, notes_of, versions
from .export_side import ExportSide
from .golden import FORMAT, Manifest, tensor_entry
from .judge import NARROWER, READINGS, Bounds, Golden
from .report import Report, unless_empty, worst_rows
from .runtime_side import RoundingBounds, golden_outputs, readings
from .sample import Sample
from .subject import Subject
from .verdict import Verdict

__all__ = ["record"]


def record(
    model: nn.Module,
    file: str | os.PathLike[str],
    out: str | os.PathLike[str],
    inputs: Any = None,
    *,
    seeds: int = 3,
    functions: Iterable[type] | None = None,
    trust: Iterable[str] = (),
    libraries: Sequence[str | os.PathLike[str]] = (),
    prefer: Prefer = "kernel",
    ranges: Mapping[str, tuple[float, float]] | None = None,
    dims: Mapping[str, int] | None = None,
) -> Report:
    """Write what a run of a file has to give, into one safetensors file; returns the check of the export.

    out: where it is written: inputs, PyTorch's outputs, the file's in float64, how far rounding errors may
        carry them, versions, the machine, and the SHA-256 of the model, of the weights beside it and of
        libraries.

    The other arguments are those of ``check``. Raises ParityError where the file is not what the model
    computes: its answers are none to be checked against.
    """
    subject = Subject(
        model,
        file,
        inputs,
        count=seeds,
        ranges=ranges,
        dims=dims,
        functions=functions,
        trust=trust,
        prefer=prefer,
    )
    evaluated = evaluate(subject)
    samples = evaluated.samples
    export = ExportSide(subject, evaluated, plant=False)
    rows = worst_rows([export.judge(sample, n) for n, sample in enumerate(samples)])
    report = Report(unless_empty(rows, subject.empty), tuple(notes_of(subject, evaluated)), versions())
    wrong = [row for row in report.rows if row.verdict is not Verdict.EQUAL]
    if wrong:
        raise ParityError(f"output {wrong[0].output!r} of the file is {wrong[0].verdict}: {wrong[0].reason}")
    tensors: dict[str, NDArray[Any]] = {}
    for number, sample in enumerate(samples):
        tensors |= {f"{number}/{name}": array for name, array in _tensors(subject, sample).items()}
    manifest = Manifest(
        format=FORMAT,
        samples=len(samples),
        inputs=subject.exact_file.inputs,
        outputs=subject.exact_file.outputs,
        files={name: digest(path) for name, path in _files(Path(file), libraries).items()},
        tensors={name: tensor_entry(array) for name, array in tensors.items()},
        versions={each: release_of(each) for each in ("torch", "onnx", "numpy", "ort-ops")},
        machine=f"{platform.system()} {platform.machine()}",
    )
    flat = {name: np.frombuffer(array.tobytes(), np.uint8) for name, array in tensors.items()}
    place = Path(out).resolve()
    # In one step, so that who replays meanwhile has the old answers or the new; not by save_file, whose file
    # nobody else may read.
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".golden.") as folder:
        written = Path(folder, place.name)
        written.write_bytes(serialise(flat, {"parity": json.dumps(manifest.to_dict())}))
        os.replace(written, place)
    return report


def _tensors(subject: Subject, sample: Sample) -> dict[str, NDArray[Any]]:
    """Return what is recorded of one sample."""
    bounds = RoundingBounds(subject.exact_file, sample)
    found = {f"input/{name}": np.asarray(array) for name, array in sample.feed.items()}
    others = {key: readings(subject.exact_file, sample, key) for key in READINGS}
    for golden in golden_outputs(subject.exact_file, sample):
        name = golden.name
        if golden.exact.dtype.kind not in "fiub":
            raise ParityError(f"output {name!r} is of {golden.exact.dtype}, which can't be recorded")
        found[f"torch/{name}"] = golden.torch
        found |= _bounds(golden, bounds)
        if golden.torch.dtype == np.float32 and golden.exact.dtype == np.float64:
            found |= {f"{kind}/{name}": bounds.bound(name, kind) for kind in NARROWER}
        for key, each in others.items():
            if name in each and _is_another(
                each[name].golden.exact, golden.exact, found.get(f"bound/{name}")
            ):
                other = _bounds(each[name].golden, each[name].bounds)
                found |= {f"{key}/{place}": array for place, array in other.items()}
    return {key: np.ascontiguousarray(array).reshape(array.shape) for key, array in found.items()}


def _is_another(other: Any, exact: Any, bound: NDArray[Any] | None) -> bool:
    """Tell whether by another reading an output isn't what it is within its bound."""
    if other.shape != exact.shape or bound is None:
        return not np.array_equal(other, exact)
    return bool((distance(other, exact) > bound).any())


def _bounds(golden: Golden, bounds: Bounds) -> dict[str, NDArray[Any]]:
    """Return what an output should be, and how far it may be off."""
    name, fractions = golden.name, golden.exact.dtype == np.float64
    found = {f"exact/{name}": golden.exact}
    undecided = bounds.undecided(name)
    if not fractions or undecided.any():
        found[f"undecided/{name}"] = undecided
    if fractions:
        found[f"bound/{name}"] = bounds.bound(name, opposite=True)
    return found


def _files(path: Path, libraries: Sequence[str | os.PathLike[str]]) -> dict[str, Path]:
    """Return the model, its weights besides, by their paths from its folder, and the libraries, by name."""
    outside = sorted({PurePosixPath(location).as_posix() for location in weight_files(path)})
    found = [(path.name, path), *((name, path.parent / name) for name in outside)]
    found += [(Path(library).name, Path(library)) for library in libraries]
    names = [name for name, _ in found]
    if len(set(names)) < len(names):
        raise ParityError(f"two files are of one name: {', '.join(names)}")
    return dict(found)
