"""Do two runs of the benchmarks agree? Run: python -m benchmarks.agree EARLIER [LATER].

EARLIER and LATER are folders of results; LATER is benchmarks/results where it isn't given.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS, Ratio

_FIELDS = {"ratio", "low", "high"}


def ratios(folder: Path) -> dict[str, Ratio]:
    """Return every ratio of a folder's results by what it is of."""
    found: dict[str, Ratio] = {}
    for path in sorted(folder.glob("*.json")):
        for row in json.loads(path.read_text(encoding="utf-8"))["results"]:
            for name, one in _of(row, f"{path.stem}: {_words(row)}"):
                assert name not in found, f"two ratios of {name}"
                found[name] = one
    return found


def _words(row: dict[str, Any]) -> str:
    """Return what tells a row from the others: its texts and whole numbers."""
    return ", ".join(str(value) for value in row.values() if isinstance(value, str | int))


def _of(value: Any, words: str) -> Iterator[tuple[str, Ratio]]:
    if not isinstance(value, dict):
        return
    if value.keys() >= _FIELDS:
        yield words, Ratio(**{field: value[field] for field in _FIELDS})
    for key, inner in value.items():
        yield from _of(inner, f"{words}, {key}")


def overlap(one: Ratio, other: Ratio) -> bool:
    """Whether the two spreads have a ratio in common as printed."""
    low, high = max(one.low, other.low), min(one.high, other.high)
    return round(low, 2) <= round(high, 2)


def main(earlier: Path, later: Path) -> int:
    """Print the ratios that don't agree; returns how many."""
    before, now = ratios(earlier), ratios(later)
    both = before.keys() & now.keys()
    apart = [name for name in now if name in both and not overlap(before[name], now[name])]
    for name in apart:
        print(f"{name}: {before[name].text}, then {now[name].text}")
    for name in sorted(before.keys() ^ now.keys()):
        print(f"{name}: in one run alone")
    print(f"{len(both)} ratios, {len(both) - len(apart)} of them within the spread of both runs")
    return len(apart) + len(before.keys() ^ now.keys())


if __name__ == "__main__":
    folders = [Path(argument) for argument in sys.argv[1:]]
    sys.exit(1 if main(folders[0], *(folders[1:] or [RESULTS])) else 0)
