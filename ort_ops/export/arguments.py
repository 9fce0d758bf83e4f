"""Arguments of a call that may be changed after it: what they were when it was made.

An exporter asks ``symbolic`` for a call, and tries forward out, once the whole model has run.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

__all__ = ["Held", "as_they_were", "held"]


@dataclass(frozen=True, eq=False)
class Held:
    """An array with a copy of it, or another object with what its attributes were."""

    value: Any
    then: Any

    @property
    def argument(self) -> Any:
        """Return what the call is given again."""
        return self.then if isinstance(self.value, np.ndarray) else self.value

    def same(self, other: "Held") -> bool:
        """Tell whether it is the same, and was the same."""
        if self.value is not other.value:
            return False
        if isinstance(self.value, np.ndarray):
            return bool(self.then.tobytes() == other.then.tobytes())
        mine, theirs = self.attributes(), other.attributes()
        return mine.keys() == theirs.keys() and all(mine[name] is theirs[name] for name in mine)

    def attributes(self) -> Mapping[str, Any]:
        """Return what an object's attributes were; none for an array."""
        return {} if isinstance(self.value, np.ndarray) else self.then


def held(value: Any) -> Any:
    """Return an argument with what it is now, where it may be changed; others as they are."""
    if isinstance(value, np.ndarray):
        return Held(value, value.copy())
    if isinstance(getattr(value, "__dict__", None), dict) and not isinstance(value, ModuleType):
        return Held(value, dict(vars(value)))
    return value


@contextlib.contextmanager
def as_they_were(arguments: Iterable[Any]) -> Iterator[None]:
    """Have the attributes of objects be what they were; what changes them now changes them for as long."""
    with contextlib.ExitStack() as stack:
        for each in arguments:
            if isinstance(each, Held) and (then := each.attributes()):
                now = vars(each.value)
                if now.keys() != then.keys() or any(now[name] is not then[name] for name in then):
                    stack.callback(_set, now, dict(now))
                    _set(now, then)
        yield


def _set(attributes: dict[str, Any], to: Mapping[str, Any]) -> None:
    for name in attributes.keys() - to.keys():
        del attributes[name]
    attributes.update(to)
