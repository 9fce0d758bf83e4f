"""A report as continuous integration wants it: JUnit XML, and GitHub's annotations and step summary."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from .report import Report, Row
from .verdict import Verdict, good_for

__all__ = ["annotate", "to_junit", "to_markdown"]


def to_junit(
    reports: Mapping[str, Report],
    unchecked: Mapping[str, str] | None = None,
    *,
    allow_reduced_precision: bool = False,
) -> str:
    """Return reports as JUnit XML: a suite for each, by its name, and in it a case for each row.

    unchecked: by the name of what could not be run, why: a suite with an error.
    """
    good = good_for(allow_reduced_precision=allow_reduced_precision)
    root = ElementTree.Element("testsuites")
    for name, report in reports.items():
        failures = [row for row in report.rows if row.verdict not in good | {Verdict.CANNOT_SAY}]
        errors = [row for row in report.rows if row.verdict is Verdict.CANNOT_SAY]
        counts = {"tests": len(report.rows), "failures": len(failures), "errors": len(errors)}
        suite = ElementTree.SubElement(
            root, "testsuite", {"name": name, **{key: str(count) for key, count in counts.items()}}
        )
        for row in report.rows:
            case = ElementTree.SubElement(suite, "testcase", {"classname": name, "name": _title(row)})
            if row.verdict not in good:
                kind = "error" if row.verdict is Verdict.CANNOT_SAY else "failure"
                ElementTree.SubElement(case, kind, {"message": f"{row.verdict}: {_said(row)}"})
    for name, why in (unchecked or {}).items():
        suite = ElementTree.SubElement(
            root, "testsuite", {"name": name, "tests": "1", "failures": "0", "errors": "1"}
        )
        case = ElementTree.SubElement(suite, "testcase", {"classname": name, "name": "check"})
        ElementTree.SubElement(case, "error", {"message": why})
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{"".join(map(_in_xml, text))}'


def _in_xml(character: str) -> str:
    """Return a character as XML may have it, which has no control characters, not even by their numbers."""
    allowed = character in "\t\n\r" or " " <= character <= "\ud7ff" or character >= "\ue000"
    return character if allowed and character not in "\ufffe\uffff" else repr(character)[1:-1]


def to_markdown(name: str, report: Report) -> str:
    """Return a report as a table in Markdown."""
    lines = [
        f"### {name}: {report.verdict.replace('_', ' ')}",
        "",
        "| question | output | verdict | difference | tolerance | smallest fault |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in report.rows:
        fault = "" if row.smallest_fault is None else f"{row.smallest_fault:.1e}"
        cells = (
            *(f"{row.question} {row.provider}".strip(), f"`{row.output}`", row.verdict.replace("_", " ")),
            *(f"{row.max_abs:.1e}", f"{row.tolerance:.1e}", fault),
        )
        lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join([*lines, "", *(f"- {note}" for note in report.notes), ""])


def annotate(name: str, report: Report, *, allow_reduced_precision: bool = False) -> Sequence[str]:
    """Return GitHub's workflow commands for what is not good; a step summary, if there is one, gets a table.

    Nothing where GITHUB_ACTIONS isn't set.
    """
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return ()
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(to_markdown(name, report))
    return [
        f"::{'warning' if row.verdict is Verdict.CANNOT_SAY else 'error'} file={_escaped(name, True)},"
        f"title={_escaped(f'{_title(row)}: {row.verdict}', True)}::{_escaped(_said(row))}"
        for row in report.rows
        if row.verdict not in good_for(allow_reduced_precision=allow_reduced_precision)
    ]


def _title(row: Row) -> str:
    return " ".join(part for part in (row.question, row.output, row.provider) if part)


def _said(row: Row) -> str:
    return "; ".join(part for part in (row.reason, row.worst) if part)


def _escaped(text: str, in_property: bool = False) -> str:
    """Escape what would end a workflow command, or a property of it."""
    pairs = [("%", "%25"), ("\r", "%0D"), ("\n", "%0A")]
    for raw, escaped in [*pairs, *([(":", "%3A"), (",", "%2C")] if in_property else [])]:
        text = text.replace(raw, escaped)
    return text
