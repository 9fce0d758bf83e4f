"""What a report looks like on terminals of several widths."""

import re

import pytest

pytest.importorskip("typer")

from ort_ops.cli import report as printing
from ort_ops.parity import Report, Row, Verdict

LEVELS = ("disable", "basic", "extended", "all")
SWEEP = tuple(
    f"cpu level={level}{threads}" for level in LEVELS for threads in (" threads=1", " threads=2", "")
)


def row(output: str, provider: str = "", verdict: Verdict = Verdict.EQUAL) -> Row:
    numbers = {"max_abs": 3.7e-8, "tolerance": 1.3e-7, "ratio": 1.2, "smallest_fault": 1.8e-7}
    question = "runtime" if provider else "export"
    return Row(question, output, provider, "", "float32", (3,), 3, verdict, "", **numbers)  # type: ignore[arg-type]


def printed(
    rows: list[Row], width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[str]:
    """Return the lines of the table that is printed, and see that none is too long."""
    monkeypatch.setattr(printing.console, "width", width)
    printing.print_report(Report(tuple(rows), (), {}))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    end = next(index for index, line in enumerate(lines) if re.match(r"(\w+ )?\S+:( |$)", line))
    assert max(map(len, lines[:end])) <= width
    return lines[:end]


def test_a_sweep_has_a_line_a_run_where_there_is_room(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row("y"), *(row("y", provider) for provider in SWEEP)]
    lines = printed(rows, 120, monkeypatch, capsys)
    assert lines[0].split("  ")[-1] == "smallest fault"
    numbers = ["y", "equal", "3.7e-08", "1.3e-07", "1.2", "1.8e-07"]
    assert [line.split() for line in lines[1:]] == [
        ["export", *numbers],
        *(["runtime", *provider.split(), *numbers] for provider in SWEEP),
    ]


def test_a_sweep_has_the_runs_above_their_rows_where_it_is_narrow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = [[row(output, provider) for output in ("y", "logits")] for provider in ("", *SWEEP)]
    lines = printed([each for group in made for each in group], 80, monkeypatch, capsys)
    assert [line.split() for line in lines[:2]] == [
        ["x", "smallest"],
        ["output", "verdict", "difference", "tolerance", "PyTorch's", "fault"],
    ]
    for index, named in enumerate(("export", *(f"runtime {provider}" for provider in SWEEP))):
        assert lines[2 + 3 * index] == named
        assert [line.split()[0] for line in lines[3 + 3 * index : 5 + 3 * index]] == ["y", "logits"]
        assert all(len(line.split()) == 6 for line in lines[3 + 3 * index : 5 + 3 * index])


def test_only_long_names_of_outputs_are_folded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "a_very_long_name_of_an_output/of_a_node:0"
    rows = [row(name, provider, Verdict.REDUCED_PRECISION) for provider in SWEEP]
    lines = printed(rows, 80, monkeypatch, capsys)
    at = lines.index("runtime cpu level=extended threads=2")
    assert lines[at + 1].split()[1:] == ["reduced", "precision", "3.7e-08", "1.3e-07", "1.2", "1.8e-07"]
    assert "".join(line.split()[0] for line in lines[at + 1 : at + 4]) == name


@pytest.mark.parametrize("width", [80, 100, 120])
def test_what_is_short_is_one_table_with_a_line_of_names(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed([row("y"), row("y", "cpu")], width, monkeypatch, capsys)
    assert lines == [
        "question     output  verdict  difference  tolerance  x PyTorch's  smallest fault",
        "export       y       equal       3.7e-08    1.3e-07          1.2         1.8e-07",
        "runtime cpu  y       equal       3.7e-08    1.3e-07          1.2         1.8e-07",
    ]
