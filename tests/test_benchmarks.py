"""What the benchmarks share: ratios of rounds, and whether two runs agree."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import agree
from benchmarks.report import Ratio, in_processes, ratio, summarise


def test_a_ratio_is_of_rounds_so_that_a_slower_machine_changes_nothing() -> None:
    base = [1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0]  # seconds
    assert ratio([3 * each for each in base], base) == Ratio(3, 3, 3)


def test_rounds_that_were_not_taken_in_turn_are_each_set_against_each() -> None:
    assert ratio([4.0], [1.0, 2.0, 8.0]) == Ratio(2, pytest.approx(0.65), pytest.approx(3.8))
    assert ratio([2.0, 4.0], [2.0, 4.0]) == Ratio(1, 1, 1)
    assert ratio([2.0, 4.0], [2.0, 4.0], in_turn=False).high > 1.5


def test_a_spread_holds_nine_of_ten_rounds() -> None:
    found = summarise([1e-6 * each for each in range(101)])
    assert (found.median_us, found.low_us, found.high_us) == pytest.approx((50, 5, 95))


def rounds(name: str) -> dict[str, Any]:
    return {name: {"call": [1.0, 2.0]}}


def test_rounds_of_several_processes_are_put_together() -> None:
    assert in_processes(rounds, "case") == {"case": {"call": [1.0, 2.0] * 3}}


def write(folder: Path, **ratios: Ratio) -> Path:
    folder.mkdir()
    rows = [{"case": case, "us": 1.5, "by us": dataclasses.asdict(each)} for case, each in ratios.items()]
    (folder / "some.json").write_text(json.dumps({"results": rows}))
    return folder


def test_two_runs_agree_where_their_spreads_meet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = write(tmp_path / "before", a=Ratio(1.0, 0.9, 1.1), b=Ratio(2.0, 1.996, 2.004))
    after = write(tmp_path / "after", a=Ratio(1.2, 1.1, 1.3), b=Ratio(2.01, 2.004, 2.012))
    assert agree.main(before, after) == 0
    assert capsys.readouterr().out == "2 ratios, 2 of them within the spread of both runs\n"


def test_two_runs_that_do_not_agree_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = write(tmp_path / "before", a=Ratio(1.0, 0.9, 1.1), b=Ratio(2.0, 1.9, 2.1))
    after = write(tmp_path / "after", a=Ratio(1.3, 1.2, 1.4), c=Ratio(2.0, 1.9, 2.1))
    assert agree.main(before, after) == 3
    assert capsys.readouterr().out.splitlines() == [
        "some: a, by us: 1.00 (0.90 to 1.10), then 1.30 (1.20 to 1.40)",
        "some: b, by us: in one run alone",
        "some: c, by us: in one run alone",
        "1 ratios, 0 of them within the spread of both runs",
    ]
