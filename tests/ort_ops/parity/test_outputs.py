"""What becomes of a report: a page, JUnit XML, GitHub's annotations and summary."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import nn

from ort_ops.export import export
from ort_ops.parity import Located, Report, Row, Verdict, annotate, check, locate, to_junit, to_markdown
from ort_ops.parity.profile import profile

from .picture import screenshot


def build() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4)).eval()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Located]:
    path = tmp_path_factory.mktemp("report") / "model.onnx"
    export(build(), (torch.rand(2, 8),), path, dynamic_shapes=({0: "batch"},), verbose=False)
    model = build()
    with torch.no_grad():
        model[2].weight[0, 0] *= 1 + 1e-5  # type: ignore[union-attr,index,operator]
    return check(model, path), locate(model, path)


class Page(HTMLParser):
    """The tags that a page opens, and whether it closes them in order."""

    EMPTY = frozenset({"meta", "line", "rect", "circle", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: Any) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.EMPTY:
            assert self.open.pop() == tag


def test_a_page_is_whole_and_needs_nothing_else(found: tuple[Report, Located]) -> None:
    report, located = found
    page = Page()
    html = report.to_html("a <model> & more", located)
    page.feed(html)
    assert page.open == []
    assert page.links == []
    assert "script" not in page.tags
    assert "url(" not in html
    assert "http" not in html.replace("http-equiv", "")
    assert "a &lt;model&gt; &amp; more" in html
    assert page.tags.count("svg") == 4
    assert page.tags.count("tr") == 2 + len(report.rows) + len(located.rows)
    assert "Guilty: <code>node_linear_1</code>" in html


@pytest.mark.parametrize("tolerance", [1e-14, 1e-7, 1e-2])
def test_the_tolerance_is_in_the_picture_wherever_it_is(tolerance: float) -> None:
    errors = np.array([1e-8, 1e-7, 1e-6])
    row = Row("export", "y", "", "float64", "float64", (3,), 3, Verdict.EXPORT_WRONG, "beyond", 1e-6)
    html = Report((replace(row, tolerance=tolerance, profile=profile(errors, np.ones(3))),)).to_html()
    histogram = html[html.index("How large the errors are") : html.index("Errors over the magnitudes")]
    places = [float(x) for x in re.findall(r'class="limit" x1="([-.\d]+)"', histogram)]
    assert len(places) == 1
    assert 0 < places[0] < 420


def test_a_page_without_errors_or_nodes_is_one_too() -> None:
    row = Row("runtime", "y", "cpu", "1 on CPU", "int64", (3,), 3, Verdict.EQUAL, "every element is the same")
    page = Page()
    page.feed(Report((row,)).to_html())
    assert page.open == []
    nothing = profile(np.zeros(4), np.ones(4))
    assert (nothing.exact, nothing.counts, nothing.points) == (4, (), ())


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
def test_a_page_looks_like_one(found: tuple[Report, Located], tmp_path: Path) -> None:
    image = pytest.importorskip("matplotlib.image")
    report, located = found
    (tmp_path / "page.html").write_text(report.to_html("model.onnx", located))
    screenshot(tmp_path / "page.html", tmp_path / "page.png", "1000,1400")
    picture = (image.imread(tmp_path / "page.png")[..., :3] * 255).round().astype(int)
    assert picture.shape == (1400, 1000, 3)

    def share(*colour: int) -> float:
        return float((np.abs(picture - colour).max(-1) <= 12).mean())

    assert share(0xF6, 0xF8, 0xFB) > 0.1  # the page
    assert share(0xFF, 0xFF, 0xFF) > 0.2  # the cards
    assert share(0xC2, 0x29, 0x3A) > 0.001  # wrong
    assert share(0x1A, 0x7F, 0x4B) > 0.001  # right
    blue = np.abs(picture - (0x4E, 0x84, 0xE3)).max(-1) <= 12
    assert blue.mean() > 0.005  # the bars
    assert picture[:, -1].std(0).max() < 20  # nothing runs out of the page on its right


def test_a_profile_counts_every_element() -> None:
    errors = np.array([0.0, 1e-7, 1e-6, 1e-6, np.inf, np.nan])
    made = profile(errors, np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    assert made.exact == 1
    assert sum(made.counts) == 3
    assert made.points[0][1] == pytest.approx(1e-6)
    assert len(profile(np.ones(10**5), np.ones(10**5)).points) <= 400


def test_junit_has_a_case_for_each_row(found: tuple[Report, Located]) -> None:
    unsure = Row("runtime", "z", "cpu", "", "float32", (), 0, Verdict.CANNOT_SAY, "chance <1>")
    root = ElementTree.fromstring(to_junit({"a": found[0], "b": Report((unsure,))}))
    odd = Report((replace(unsure, output="z\x00\x1b\ud800é"),))
    (case,) = ElementTree.fromstring(to_junit({"a": odd})).iter("testcase")
    assert r"z\x00\x1b\ud800é" in (case.get("name") or "")
    first, second = root.findall("testsuite")
    assert (first.get("name"), first.get("tests"), first.get("failures"), first.get("errors")) == (
        *("a", "2", "1", "0"),
    )
    failures = root.findall(".//failure")
    assert [failure.get("message", "").partition(":")[0] for failure in failures] == ["export_wrong"]
    assert second.find(".//error").get("message") == "cannot_say: chance <1>"  # type: ignore[union-attr]


def test_github_is_told_of_what_is_not_good(
    found: tuple[Report, Located], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    assert annotate("model.onnx", found[0]) == ()
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    (line,) = annotate("a,b.onnx", found[0])
    assert line.endswith(found[0].rows[0].worst)
    assert line.startswith("::error file=a%2Cb.onnx,title=export linear_1%3A export_wrong::beyond ")
    assert summary.read_text().startswith("before\n### a,b.onnx: export wrong\n")
    assert to_markdown("m", found[0]).count("\n| ") == 4


@pytest.mark.parametrize("allowed", [True, False])
def test_where_a_narrower_arithmetic_will_do_nothing_is_said_of_it(
    allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    report = Report((Row("runtime", "y", "cuda", "", "float32", (2,), 2, Verdict.REDUCED_PRECISION, "TF32"),))
    suite = ElementTree.fromstring(to_junit({"m": report}, allow_reduced_precision=allowed))[0]
    lines = annotate("m", report, allow_reduced_precision=allowed)
    code = report.exit_code_for(allow_reduced_precision=allowed)
    assert json.loads(report.to_json(allow_reduced_precision=allowed))["exit_code"] == code
    assert (suite.get("failures"), len(lines), int(code)) == (("0", 0, 0) if allowed else ("1", 1, 1))


def test_a_report_as_text_has_a_line_for_each_row_and_note(found: tuple[Report, Located]) -> None:
    report, _ = found
    lines = str(report).splitlines()
    assert len(lines) == len(report.rows) + len(report.notes) + 1
    output = report.rows[0].output
    assert lines[0].startswith(f"export {output}: export_wrong, ")
    assert lines[1].startswith(f"runtime {output} cpu: equal, ")
    assert lines[2] == f"note: {report.notes[0]}"
    assert lines[-1] == "verdict: export_wrong"


def test_what_was_found_is_shown_without_its_histograms_and_nodes(found: tuple[Report, Located]) -> None:
    report, located = found
    assert any(row.profile is not None for row in report.rows)
    assert "Profile(" not in repr(report)
    assert max(len(repr(row)) for row in report.rows) < 800
    assert "NodeRow(" not in repr(located)
    assert f"node={located.node!r}" in repr(located)


def test_errors_of_nearly_one_size_have_a_profile() -> None:
    made = profile(0.05 + np.arange(6) * 1e-17, np.ones(6))
    assert sum(made.counts) == 6
    nearly = profile(np.array([0.05, np.nextafter(0.05, 1)]), np.ones(2))
    assert sum(nearly.counts) == 2
    assert len(nearly.edges) == len(nearly.counts) + 1
