"""A report as one HTML file that needs nothing else: rows, how the errors are spread, and the nodes."""

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from .profile import Profile
from .verdict import ExitCode, Verdict

if TYPE_CHECKING:
    from .locating import Located
    from .report import Report, Row

__all__ = ["to_html"]

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 420, 190, 46, 34

_STYLE = """
:root { color-scheme: light dark; --badge: #fff;
  --ink: #1d2733; --dim: #66717f; --line: #e2e7ee; --page: #f6f8fb; --card: #fff; --blue: #2f6fde;
  --good: #1a7f4b; --warn: #a86a00; --bad: #c2293a; }
@media (prefers-color-scheme: dark) { :root { --badge: #12161c;
  --ink: #e6ebf2; --dim: #98a4b3; --line: #2b3442;
  --page: #12161c; --card: #1a2029; --blue: #6ea1ff; --good: #4cc38a; --warn: #e0a33e; --bad: #ff6b7a; } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
main { max-width: 1060px; margin: 0 auto; padding: 32px 20px 60px }
h1 { font-size: 24px; margin: 0 0 4px } h2 { font-size: 17px; margin: 34px 0 10px }
p.dim, .dim { color: var(--dim) }
.badge { display: inline-block; padding: 1px 10px; border-radius: 999px; font-weight: 600; font-size: 13px;
  color: var(--badge); white-space: nowrap }
.badge.good { background: var(--good) } .badge.warn { background: var(--warn) }
.badge.bad { background: var(--bad) }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px 18px;
  margin: 12px 0 }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th { text-align: left; font-weight: 600; color: var(--dim); font-size: 13px }
th, td { padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top }
tr:last-child td { border-bottom: 0 }
td.number, th.number { text-align: right }
code { font: 13px/1.4 ui-monospace, "SF Mono", Menlo, Consolas, monospace }
.charts { display: flex; flex-wrap: wrap; gap: 18px }
figure { margin: 0; flex: 1 1 380px } figcaption { color: var(--dim); font-size: 13px; margin-bottom: 4px }
svg { width: 100%; height: auto; display: block }
svg text { fill: var(--dim); font-size: 11px } svg .axis { stroke: var(--line) }
svg .bar { fill: var(--blue); opacity: .85 } svg .dot { fill: var(--blue); opacity: .5 }
svg .limit { stroke: var(--bad); stroke-dasharray: 4 3 } svg text.limit { fill: var(--bad); stroke: none }
"""


def to_html(report: "Report", *, title: str = "Parity", located: "Located | None" = None) -> str:
    """Return a report, and what ``locate`` found, as one page."""
    verdict = _badge(report.verdict)
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    parts = [
        f"<h1>{escape(title)} {verdict}</h1>",
        f'<p class="dim">{escape(versions)}</p>',
        _rows(report.rows),
        *(_row_card(row) for row in report.rows if row.profile is not None),
        _notes(report.notes),
        _nodes(located) if located is not None else "",
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


def _badge(verdict: Verdict) -> str:
    return f'<span class="badge {verdict.grade}">{verdict.replace("_", " ")}</span>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: frozenset[int]) -> str:
    def cells(tag: str, row: Sequence[str]) -> str:
        marks = (' class="number"' if place in numbers else "" for place in range(len(row)))
        return "".join(f"<{tag}{mark}>{cell}</{tag}>" for mark, cell in zip(marks, row, strict=True))

    lines = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="card scroll"><table><tr>{cells("th", head)}</tr>\n{lines}</table></div>'


def _rows(rows: "Sequence[Row]") -> str:
    head = (
        *("question", "output", "verdict", "difference", "tolerance"),
        *("&times; PyTorch's", "ULP", "smallest fault", "elements"),
    )
    table = [
        (
            escape(f"{row.question} {row.provider}"),
            f"<code>{escape(row.output)}</code>",
            _badge(row.verdict),
            _number(row.max_abs),
            _number(row.tolerance),
            "" if row.ratio is None else f"{row.ratio:.2g}",
            str(row.max_ulp) if row.max_ulp else "",
            "" if row.smallest_fault is None else _number(row.smallest_fault),
            f"{row.elements:,}",
        )
        for row in rows
    ]
    return _table(head, table, frozenset(range(3, 9)))


def _row_card(row: "Row") -> str:
    """Show how the errors of one output are spread."""
    assert row.profile is not None
    where = f" Worst: {row.worst}." if row.worst else ""
    return (
        f'<div class="card"><strong>{escape(f"{row.question} {row.provider}")}</strong> '
        f"<code>{escape(row.output)}</code> {_badge(row.verdict)}"
        f'<p class="dim">Tolerance {_number(row.tolerance)}: {escape(row.reason)}.{escape(where)} '
        f"Ran: {escape(row.ran)}.</p>"
        f'<div class="charts">{_histogram(row.profile, row.tolerance)}'
        f"{_scatter(row.profile, row.tolerance)}</div></div>"
    )


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<h2>Notes</h2><div class="card"><ul>{items}</ul></div>'


def _nodes(located: "Located") -> str:
    cleared = located.exit_code is ExitCode.EQUAL
    guilty = "No node is guilty." if cleared else "No node can be blamed, and not all can be cleared."
    if located.node is not None:
        guilty = f"Guilty: <code>{escape(located.node)}</code> ({located.question})."
    shares = ", ".join(f"{share:.0%} judged under {question}" for question, share in located.matched.items())
    rows = [
        (
            row.question,
            f"<code>{escape(row.node)}</code>",
            f"<code>{escape(row.op.removeprefix('ai.onnx::'))}</code>",
            _badge(row.verdict),
            _number(row.error) if row.question == "runtime" else "",
            _number(row.tolerance) if row.question == "runtime" else "",
            escape(row.counterpart or ", ".join(row.fused)),
        )
        for row in located.rows
    ]
    head = ("question", "node", "operator", "verdict", "error", "tolerance", "counterpart, or fused with")
    table = _table(head, rows, frozenset({4, 5}))
    return f'<h2>Nodes</h2><p>{guilty} <span class="dim">{shares}.</span></p>{table}'


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.1e}"


class _Scale:
    """From numbers to places on an axis."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.high = (low, high) if high > low else (low - 0.5, low + 0.5)
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self._start + share * (self._end - self._start), 1)

    def ticks(self) -> list[int]:
        """Return a few whole numbers."""
        step = max(1, math.ceil((self.high - self.low) / 5))
        return list(range(math.ceil(self.low), math.floor(self.high) + 1, step))


def _axes(x: _Scale, y: _Scale | None, label: str) -> list[str]:
    bottom = _HEIGHT - _BOTTOM
    parts = [f'<line class="axis" x1="{_LEFT}" y1="{bottom}" x2="{_WIDTH}" y2="{bottom}"/>']
    parts += [
        f'<text x="{x(tick)}" y="{bottom + 15}" text-anchor="middle">1e{tick}</text>' for tick in x.ticks()
    ]
    parts.append(
        f'<text x="{(_LEFT + _WIDTH) / 2}" y="{_HEIGHT - 4}" text-anchor="middle">{escape(label)}</text>'
    )
    if y is not None:
        parts += [
            f'<text x="{_LEFT - 6}" y="{y(tick) + 4}" text-anchor="end">1e{tick}</text>' for tick in y.ticks()
        ]
    return parts


def _svg(parts: Sequence[str], caption: str) -> str:
    inside = "".join(parts)
    return (
        f"<figure><figcaption>{escape(caption)}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(caption)}">{inside}</svg>'
        "</figure>"
    )


def _log(value: float) -> float | None:
    return math.log10(value) if value > 0 and math.isfinite(value) else None


def _histogram(profile: Profile, tolerance: float) -> str:
    without = f"; {profile.exact:,} elements have none" if profile.exact else ""
    caption = f"How large the errors are{without}"
    if not profile.counts:
        return _svg([f'<text x="{_LEFT}" y="{_HEIGHT / 2}">no element differs</text>'], caption)
    limit = _log(tolerance)
    ends = [profile.edges[0], profile.edges[-1], *([limit] if limit is not None else [])]
    x = _Scale(min(ends), max(ends), _LEFT, _WIDTH - 12)
    bottom = _HEIGHT - _BOTTOM
    y = _Scale(0, max(profile.counts), bottom, 14)
    parts = _axes(x, None, "error")
    for left, right, count in zip(profile.edges, profile.edges[1:], profile.counts, strict=False):
        top, width = y(count), max(x(right) - x(left) - 1, 1)
        parts.append(
            f'<rect class="bar" x="{x(left)}" y="{top}" width="{width:.1f}" height="{bottom - top:.1f}">'
            f"<title>{count:,} elements</title></rect>"
        )
    if limit is not None:
        parts.append(f'<line class="limit" x1="{x(limit)}" y1="10" x2="{x(limit)}" y2="{bottom}"/>')
        left = limit < (x.low + x.high) / 2  # then there is no room before it
        place, anchor = (x(limit) + 4, "start") if left else (x(limit) - 4, "end")
        parts.append(f'<text class="limit" x="{place}" y="18" text-anchor="{anchor}">tolerance</text>')
    most = max(profile.counts)
    parts.append(f'<text x="{_LEFT - 6}" y="{y(most) + 4}" text-anchor="end">{most:,}</text>')
    return _svg(parts, caption)


def _scatter(profile: Profile, tolerance: float) -> str:
    caption = "Errors over the magnitudes of the numbers"
    points = [(_log(size), _log(error)) for size, error in profile.points]
    known = [(a, b) for a, b in points if a is not None and b is not None]
    if not known:
        return _svg([f'<text x="{_LEFT}" y="{_HEIGHT / 2}">no element differs</text>'], caption)
    limit = _log(tolerance)
    errors = [b for _, b in known] + ([limit] if limit is not None else [])
    x = _Scale(min(a for a, _ in known), max(a for a, _ in known), _LEFT + 6, _WIDTH - 12)
    y = _Scale(min(errors), max(errors), _HEIGHT - _BOTTOM - 6, 14)
    parts = _axes(x, y, "magnitude")
    parts += [f'<circle class="dot" cx="{x(a)}" cy="{y(b)}" r="2.2"/>' for a, b in known]
    if limit is not None:
        parts.append(f'<line class="limit" x1="{_LEFT}" y1="{y(limit)}" x2="{_WIDTH}" y2="{y(limit)}"/>')
    return _svg(parts, caption)
