"""``parity.toml``: many models to be checked, one table each."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import typer

from ort_ops.selection import Prefer

__all__ = ["Checked", "read_config"]

_LISTS = {"provider", "library", "kernels", "function", "trust"}
_TABLES = {"range", "dim"}
_KNOWN = {"file", "module", "inputs", "seeds", "prefer", "atol", "rtol", *_LISTS, *_TABLES}


@dataclass(frozen=True)
class Checked:
    """A model file, the model that it comes of, and the options of its check by their names."""

    file: Path
    module: str
    options: Mapping[str, Any] = field(default_factory=dict)


def read_config(path: Path) -> Iterator[Checked]:
    """Give the models of a file of tables ``[[model]]``, whose keys are the options of the command.

    Raises typer.BadParameter for what isn't one.
    """
    try:
        read = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise typer.BadParameter(f"{path}: {error}") from error
    models = read.get("model")
    if not isinstance(models, list) or not models or set(read) != {"model"}:
        raise typer.BadParameter(f"{path} has no tables [[model]], or others besides")
    for number, table in enumerate(models, 1):
        if not isinstance(table, dict):
            raise typer.BadParameter(f"{path}, model {number} is a {type(table).__name__}; expected a table")
        unknown = sorted(set(table) - _KNOWN)
        missing = sorted({"file", "module"} - set(table))
        if unknown or missing:
            what = f"no option {unknown[0]!r}" if unknown else f"{missing[0]!r} is missing"
            raise typer.BadParameter(f"{path}, model {number}: {what}")
        for key, value in table.items():
            if not isinstance(value, _expected(key)):
                raise typer.BadParameter(f"{path}, model {number}: {key} is a {type(value).__name__}")
        if isinstance(seeds := table.get("seeds", 1), bool) or seeds < 1:
            raise typer.BadParameter(f"{path}, model {number}: seeds is {seeds}; expected 1 or more")
        if table.get("prefer", "kernel") not in get_args(Prefer):
            raise typer.BadParameter(f"{path}, model {number}: prefer is {table['prefer']!r}")
        options = {key: _value(key, value) for key, value in table.items() if key not in ("file", "module")}
        yield Checked(path.parent / table["file"], table["module"], options)


def _expected(key: str) -> tuple[type, ...]:
    """Return what TOML types a setting may be of."""
    if key in _TABLES:
        return (dict,)
    if key in _LISTS:
        return (str, list)
    return {"seeds": (int,), "atol": (int, float), "rtol": (int, float)}.get(key, (str,))


def _value(key: str, value: Any) -> Any:
    """Return a setting as the command has it: lists of texts, and name=value for tables."""
    if key in _TABLES:
        return [f"{name}={':'.join(map(str, v)) if isinstance(v, list) else v}" for name, v in value.items()]
    if key in _LISTS:
        return [value] if isinstance(value, str) else [str(each) for each in value]
    return value
