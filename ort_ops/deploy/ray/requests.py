"""What goes between a handle and a replica."""

import pickle
import traceback
from collections.abc import Sequence

from .replica import Feed

__all__ = ["Request", "portable"]

Request = tuple[Sequence[str] | None, Feed]
"""The outputs that are wanted, None for all, and the inputs."""


def portable(error: Exception) -> Exception:
    """Return an error that reaches another process as what it is, or a RuntimeError with its text.

    A traceback and a cause don't; they go along as a note.
    """
    text = "".join(traceback.format_exception(error)).rstrip()
    error.add_note(f"In the replica:\n{text}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(text)
    return error
