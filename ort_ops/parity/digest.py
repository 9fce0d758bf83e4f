"""What identifies a file: known without anything but Python."""

import hashlib
from pathlib import Path

__all__ = ["digest"]


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
