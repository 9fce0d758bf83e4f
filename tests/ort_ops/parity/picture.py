"""A picture of a page, by Chromium."""

import shutil
import subprocess
from pathlib import Path

__all__ = ["screenshot"]


def screenshot(page: Path, picture: Path, size: str) -> None:
    """Take a picture of a page; raises CalledProcessError where Chromium fails."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome") or "chromium"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={size}"]
    command = [chromium, *flags, f"--screenshot={picture}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
