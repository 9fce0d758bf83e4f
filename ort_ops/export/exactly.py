"""What is next to 0 or 1 kept: onnxscript's rules take 1e-8 for 0, and 1.00001 for 1, and leave it out.

``x.abs() + 1e-8`` would become ``x.abs()``, which divides a row of zeros by 0.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from onnxscript.rewriter._matcher import SimplePatternMatcher

__all__ = ["constants_matched_exactly"]


@contextlib.contextmanager
def constants_matched_exactly() -> Iterator[None]:
    """Have rules for a number with which an operation does nothing match that number alone, until the end."""
    own = SimplePatternMatcher._match_constant

    def match(self: Any, pattern: Any, value: Any) -> bool:
        if not own(self, pattern, value):
            return False
        wanted = pattern.value
        if isinstance(wanted, list) or wanted not in (0, 1, -1):
            return True
        got = value.const_value.numpy().item()
        return got == wanted or bool(self.fail(f"{got} is not {wanted}"))

    SimplePatternMatcher._match_constant = match  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        SimplePatternMatcher._match_constant = own  # type: ignore[method-assign]
