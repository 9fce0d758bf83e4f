"""What identifies a file: known without anything but Python."""

import hashlib
import os
from pathlib import Path

__all__ = ["digest"]


def digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
