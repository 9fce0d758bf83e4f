"""A user's CSV file as numbers: read, and refused with the row and the column where it can't be."""

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import DataError

__all__ = ["Table", "read_table"]

_FEWEST_ROWS = 10  # a fifth is held out, and R² of fewer than two held-out rows says nothing
_LARGEST = 1e100  # squares of larger values, summed over a table, would overflow float64


@dataclass(frozen=True, eq=False)  # == on arrays has no one answer
class Table:
    """Numbers of one table: x (rows, features) float64 and y (rows, 1) float64, with the columns' names."""

    features: tuple[str, ...]
    target: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]

    def digest(self) -> str:
        """Return 16 hex digits that differ for tables that differ in a name or a number."""
        names = "\n".join((*self.features, self.target)).encode()
        return hashlib.sha256(names + self.x.tobytes() + self.y.tobytes()).hexdigest()[:16]


def read_table(path: str | Path, target: str) -> Table:
    """Read a CSV file with a header row and numeric columns; ``target`` names the column to be predicted.

    Rows are counted as an editor shows them: the header is row 1. Blank lines are skipped.

    Raises DataError for a file that can't be read, has no header, no such target, no other column, a missing
    or non-numeric cell, a value that is not finite or is beyond 1e100, a row of another length, or fewer than
    10 rows.
    """
    header, rows = _read_rows(Path(path))
    _check_header(Path(path), header, target)
    values = np.array([_numbers(Path(path), header, number, cells) for number, cells in rows])
    if len(values) < _FEWEST_ROWS:
        raise DataError(
            f"{path}: {len(values)} rows of data; expected {_FEWEST_ROWS} or more (a fifth is held out)"
        )
    column = header.index(target)
    features = tuple(name for name in header if name != target)
    return Table(features, target, np.delete(values, column, axis=1), values[:, [column]])


def _read_rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header's names and (row number, cells) for every row that is not blank."""
    try:
        with path.open(
            newline="", encoding="utf-8-sig"
        ) as file:  # utf-8-sig: spreadsheets write a mark first
            reader = csv.reader(file, strict=True)
            rows = [(reader.line_num, cells) for cells in reader if cells]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: {error}; expected a readable CSV file in UTF-8") from error
    if not rows:
        raise DataError(f"{path}: empty; expected a header row, and below it rows of numbers")
    return [name.strip() for name in rows[0][1]], rows[1:]


def _check_header(path: Path, header: list[str], target: str) -> None:
    """Refuse a header without the target, without a feature, with a name twice, or that is a row of data."""
    if all(_is_number(name) for name in header):
        raise DataError(f"{path}: row 1 is all numbers; expected a header row with the columns' names")
    if target not in header:
        raise DataError(f"{path}: no column {target!r}; expected one of {', '.join(map(repr, header))}")
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise DataError(f"{path}: {header.count(twice)} columns are named {twice!r}; expected distinct names")
    if len(header) == 1:
        raise DataError(
            f"{path}: no column besides {target!r}; expected at least one feature to predict it from"
        )


def _numbers(path: Path, header: list[str], row: int, cells: list[str]) -> list[float]:
    """Return the numbers of one row, or raise DataError naming the row and the column."""
    if len(cells) != len(header):
        raise DataError(
            f"{path}: row {row} has {len(cells)} cells; expected {len(header)}, as the header has"
        )
    for name, cell in zip(header, cells, strict=True):
        where = f"{path}: row {row}, column {name!r}"
        if not cell.strip():
            raise DataError(f"{where}: missing; expected a number (drop the row, or fill it in)")
        if not _is_number(cell):
            raise DataError(f"{where}: {cell!r}; expected a number (drop the column, or encode it)")
        if not abs(float(cell)) <= _LARGEST:  # NaN too, which is not <= anything
            raise DataError(f"{where}: {cell!r}; expected a finite number, at most {_LARGEST:g} in size")
    return [float(cell) for cell in cells]


def _is_number(text: str) -> bool:
    """Tell whether a cell is a number; NaN and infinity count, and are refused by name later."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text  # which Python takes for nothing: 2024_01 is no 202401
