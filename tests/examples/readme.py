"""An example's README: its commands run in a copy of the folder, and what they print beside what it shows."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

EXAMPLES = Path(__file__).parents[2] / "examples"
BLOCKS = re.compile(r"```sh\n([^`]*)```\n\n```text\n([^`]*)```")


@dataclass(frozen=True)
class Shown:
    """Commands, what the README shows for them, and what they printed."""

    commands: str
    shown: str
    printed: str


def copy_of(name: str, to: Path) -> Path:
    """Return a copy of an example's folder, where it may leave files."""
    ignore = shutil.ignore_patterns("__pycache__", "build")
    return Path(shutil.copytree(EXAMPLES / name, to / name, ignore=ignore, dirs_exist_ok=True))


def run_readme(folder: Path) -> list[Shown]:
    """Run the commands of a README in its folder, in order; those alone that it shows an output for."""
    blocks = BLOCKS.findall((folder / "README.md").read_text(encoding="utf-8"))
    return [Shown(commands, shown, run_shell(commands, folder)) for commands, shown in blocks]


def run_shell(commands: str, folder: Path) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-ec", commands],
        cwd=folder,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def masked(text: str) -> list[str]:
    """Drop what differs from one machine to the next: errors, losses, sizes of files, and their room."""
    text = re.sub(r"(\d\.\de[+-]\d\d) +[\d.]+ +(?=\d\.\de)", r"\1 RATIO ", text)
    text = re.sub(r"\d\.\de[+-]\d\d", "ERROR", text)
    text = re.sub(r"loss \S+", "loss LOSS", text)
    text = re.sub(r"\d+ bytes", "SIZE bytes", text)
    return [re.sub(r"  +", "  ", line).rstrip() for line in text.strip().splitlines()]


def load(name: str, folder: str) -> ModuleType:
    """Return a module of an example's folder, which is on no path."""
    spec = importlib.util.spec_from_file_location(
        f"examples_{folder}_{name}", EXAMPLES / folder / f"{name}.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
