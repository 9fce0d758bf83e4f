"""What the pytest plug-in's fixture ``parity`` gives: a test for each execution provider.

::

    def test_my_model(parity, tmp_path):
        export(model, args, tmp_path / "model.onnx")
        parity.check(model, tmp_path / "model.onnx")        # fails unless equal, or less precise
        parity.replay("my_model", model, tmp_path / "model.onnx")  # against golden answers in the repository

Settings in pyproject.toml, ``[tool.pytest.ini_options]``: ``parity_providers`` (default ``["cpu"]``), and
``parity_golden``, the folder of golden answers (default ``golden`` beside the test). A provider that isn't
there is a skip, or a failure with ``--parity-require PROVIDER``. ``--parity-update`` writes golden answers
anew and shows what changed. What was found of each output is in the JUnit XML.

The hooks and the fixture are in ``pytest_ort_ops``, which is all of ours that every run of pytest loads.
"""

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ort_ops import parity as comparison
from ort_ops.parity.verdict import GOOD

__all__ = ["Accepted", "Parity"]


@dataclass(frozen=True)
class Accepted:
    """A deviation that is known: which verdict of an output, why it is accepted, and until when.

    provider: that on which it is to be found (``"cuda"``, with whatever options); None for each.
    """

    verdict: str
    reason: str
    until: datetime.date
    provider: str | None = None

    def __post_init__(self) -> None:
        if not self.reason.strip():
            raise ValueError("an accepted deviation has a reason")


Accept = Mapping[str, Accepted | Sequence[Accepted]]


class Parity:
    """What the fixture gives: ``provider`` is the one that the test is for."""

    def __init__(
        self, provider: str, folder: Path, update: bool, properties: list[tuple[str, object]]
    ) -> None:
        self.provider = provider
        self._folder, self._update, self._properties = folder, update, properties

    def check(
        self,
        model: Any,
        file: Any,
        inputs: Any = None,
        *,
        accept: Accept | None = None,
        **options: Any,
    ) -> "comparison.Report":
        """Fail unless the file is what the model computes, and the provider computes the file.

        The other arguments are those of ``ort_ops.parity.check``. ``accept`` has known deviations by the
        output's name, one or several. Returns the report.
        """
        report = comparison.check(model, file, inputs, [self.provider], **options)
        self._judge(report, accept or {})
        return report

    def replay(
        self,
        name: str,
        model: Any,
        file: Any,
        inputs: Any = None,
        *,
        accept: Accept | None = None,
        **options: Any,
    ) -> "comparison.Report":
        """Fail unless a run of the file gives the golden answers of this name.

        With ``--parity-update`` they are recorded from the model first, and what changed is shown; without it
        the model isn't looked at, and may be None. The other arguments are those of ``record``.
        """
        if not re.fullmatch(r"[\w.-]+", name):
            raise ValueError(f"{name!r} is no name for golden answers; expected letters, digits, _, - and .")
        golden = self._folder / f"{name}.safetensors"
        if self._update:
            self._record(golden, model, file, inputs, options)
        elif not golden.is_file():
            pytest.fail(f"{golden} is missing; --parity-update writes it", pytrace=False)
        said = ("functions", "trust", "libraries", "prefer")
        runs = {key: options[key] for key in said if key in options}
        report = comparison.replay(golden, file, [self.provider], **runs)
        self._judge(report, accept or {})
        return report

    def _record(self, golden: Path, model: Any, file: Any, inputs: Any, options: Mapping[str, Any]) -> None:
        before = comparison.read_recorded(golden) if golden.is_file() else None
        golden.parent.mkdir(parents=True, exist_ok=True)
        comparison.record(model, file, golden, inputs, **options)
        changes = ["new"] if before is None else before.changes(comparison.read_recorded(golden))
        for change in changes:
            print(f"{golden.name}: {change}")

    def _judge(self, report: "comparison.Report", accept: Accept) -> None:
        """Fail over what is neither good nor accepted, and over what is accepted for nothing."""
        known = {
            (name, each.verdict): each
            for name, given in accept.items()
            for each in ([given] if isinstance(given, Accepted) else given)
            if each.provider in (None, self.provider, self.provider.partition(":")[0])
        }
        failed = []
        used = set()
        for row in report.rows:
            key = f"parity {row.question} {row.output}"
            text = f"{row.verdict}; {row.max_abs:.3g} of {row.tolerance:.3g} allowed; {row.reason}"
            self._properties.append((key, text))
            if row.verdict in GOOD:
                continue
            accepted = known.get((row.output, row.verdict))
            if accepted is None:
                failed.append(f"{row.question} {row.output}: {'; '.join(filter(None, (text, row.worst)))}")
                continue
            used.add((row.output, row.verdict))
            if accepted.until < datetime.datetime.now(tz=datetime.UTC).date():
                failed.append(f"{row.question} {row.output}: {text}; accepted only until {accepted.until}")
        failed += [f"{name}: {verdict} is accepted, and not found" for name, verdict in known.keys() - used]
        if report.verdict == "cannot_say" and not failed and not used:
            failed.append("nothing was compared")
        if failed:
            said = "\n".join(failed)
            notes = [note for note in report.notes if note not in said]
            pytest.fail("\n".join([said, *notes]), pytrace=False)
