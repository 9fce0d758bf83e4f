"""A deployment checked against golden answers, with NumPy and onnxruntime alone."""

import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ort_ops.errors import ParityError
from ort_ops.selection import Prefer

from .digest import digest
from .golden import Recorded, read_recorded
from .judge import READINGS, Golden, Otherwise, judge_output
from .report import Report, Row, worst_rows
from .runs import Run, Setting, make_run, settings

__all__ = ["judge_sample", "replay"]


def replay(
    recorded: str | os.PathLike[str],
    file: str | os.PathLike[str],
    providers: Sequence[str] = ("cpu",),
    *,
    functions: Iterable[type] | None = None,
    trust: Iterable[str] = (),
    libraries: Sequence[str | os.PathLike[str]] = (),
    prefer: Prefer = "kernel",
    digests: Mapping[Path, str] | None = None,
    optimized: Mapping[str, str | os.PathLike[str]] | None = None,
) -> Report:
    """Run a model file on recorded inputs, and judge what it gives as ``check`` would.

    recorded: what ``record`` wrote.
    functions, trust, prefer: who runs custom nodes, as for ``ort_ops.InferenceSession``.
    file, libraries: those that it was recorded for, which their SHA-256 has to show before any is loaded.
    digests: the SHA-256 of files that were read already, which are not read for it again.
    optimized: by provider, the file as ONNX Runtime optimised it beforehand, which is run and judged besides;
        the answers know nothing of it, so that its content is for the caller to vouch for.

    Raises ParityError where a file is another or missing; ProviderError where a provider isn't there.
    """
    asked = settings(providers)
    optimized = optimized or {}
    options = {"functions": functions and [*functions], "trust": tuple(trust), "prefer": prefer}
    golden = read_recorded(recorded)
    _check_files(golden, Path(file), [Path(each) for each in libraries], digests or {})
    rows: list[Row] = []
    for each in asked:
        provider = each.provider
        runs = [(file, each, provider)]
        if provider in optimized:
            runs.append((optimized[provider], Setting(provider, level="disable"), f"{provider} optimized"))
        for path, setting, named in runs:
            run = make_run(os.fspath(path), setting, libraries, options)
            rows += _judge(golden, run, named)
            del run  # before another session holds the weights, too
    return Report(tuple(rows), (), {**golden.manifest.versions, "onnxruntime": onnxruntime.__version__})


def _judge(golden: Recorded, run: Run, named: str) -> list[Row]:
    """Return a row for each output, at the sample at which it is worst."""
    judged, ran = [], run.ran()
    for sample in range(golden.manifest.samples):
        rows = judge_sample(golden, sample, run.outputs(golden.feed(sample)), on_cpu=run.on_cpu)
        judged.append([replace(row, provider=named, ran=ran) for row in rows])
    return worst_rows(judged)


def judge_sample(
    golden: Recorded, sample: int, outputs: Mapping[str, Any], *, on_cpu: bool
) -> tuple[Row, ...]:
    """Judge what a session gave for the inputs of one recorded sample, output by output.

    on_cpu: whether it ran on the CPU provider, which computes in no narrower arithmetic than it is asked for.
    """
    bounds = _Recorded(golden, sample)
    others: dict[str, list[Otherwise]] = {name: [] for name in golden.manifest.outputs}
    for key, (reading, verdict) in READINGS.items():
        recorded = _Recorded(golden, sample, f"{key}/")
        for each in recorded.outputs():
            others[each.name].append(Otherwise(each, recorded, reading, verdict))
    rows = []
    for each in bounds.outputs():
        row = judge_output(
            outputs[each.name],
            each,
            bounds,
            rule=None,
            on_cpu=on_cpu,
            otherwise=functools.partial(iter, others[each.name]),
        )
        rows.append(replace(row, sample=sample))
    return tuple(rows)


def _check_files(
    golden: Recorded, file: Path, libraries: Sequence[Path], digests: Mapping[Path, str]
) -> None:
    """Refuse files that are not those of the record, before anything of them is loaded."""
    given = {path.name: path for path in libraries}
    for name, recorded in golden.manifest.files.items():
        path = given.pop(name, file if name == file.name else file.parent / name)
        if not path.is_file():
            raise ParityError(f"{path} is missing, which the answers were recorded with")
        found = digests.get(path) or digest(path)
        if found != recorded:
            raise ParityError(f"{path} is another than the answers were recorded with: SHA-256 {found}")
    if file.name not in golden.manifest.files:
        names = ", ".join(golden.manifest.files)
        raise ParityError(f"the answers were recorded for {names}, not for {file.name}")
    if given:
        raise ParityError(f"{', '.join(given)} is no library that the answers were recorded with")


class _Recorded:
    """The outputs of one sample, and how far they may be off, as they were recorded.

    reading: what stands before the names of these in the record.
    """

    def __init__(self, golden: Recorded, sample: int, reading: str = "") -> None:
        self._golden, self._sample, self._reading = golden, sample, reading

    def _get(self, kind: str, name: str) -> NDArray[Any] | None:
        return self._golden.arrays.get(f"{self._sample}/{self._reading}{kind}/{name}")

    def outputs(self) -> list[Golden]:
        """Return what each output should be, of those that were recorded."""
        found = []
        for name in self._golden.manifest.outputs:
            exact, own = self._get("exact", name), self._golden.arrays[f"{self._sample}/torch/{name}"]
            if exact is not None:
                found.append(Golden(name, exact, own, own.dtype))
        return found

    def bound(self, name: str, kind: str = "", *, opposite: bool = False) -> NDArray[Any]:
        """Return how far each element may be off; nothing is known of arithmetics that weren't recorded.

        The opposites of errors have been looked at for what was recorded.
        """
        found = self._get(kind or "bound", name)
        return np.zeros(()) if found is None else found

    def undecided(self, name: str) -> NDArray[Any]:
        """Return which elements rounding errors decide; of fractions that is recorded where any are."""
        found = self._get("undecided", name)
        return (
            np.zeros(self._golden.arrays[f"{self._sample}/exact/{name}"].shape, bool)
            if found is None
            else found
        )
