"""What a wheel and an sdist of this project hold: what a user needs, as in the working tree, nothing else."""

import re
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHON = ("*.py", "*.pyi", "py.typed")
SOURCES = (
    *(f"mylinear/**/{name}" for name in PYTHON),
    *(f"ort_ops/**/{name}" for name in PYTHON),
    *(f"pytest_ort_ops/**/{name}" for name in PYTHON),
    "ort_ops/native/include/**/*.hpp",
    "ort_ops/native/cmake/*.cmake",
)
# One of each, with the names of Linux, macOS and Windows.
COMPILED = (
    r"ort_ops/_bridge\.[\w.-]*(so|pyd)",
    r"mylinear/(libmylinear_ort\.(so|dylib)|mylinear_ort\.dll)",
)
METADATA = ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")


def wheel_sources(root: Path = ROOT) -> dict[str, bytes]:
    """Return the files of the working tree that belong into a wheel, by their names there."""
    paths = (path for pattern in SOURCES for path in root.glob(pattern))
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def wheel_problems(wheel: Path, sources: Mapping[str, bytes]) -> Iterator[str]:
    """Say what a wheel lacks, what it holds besides, and what isn't as in the working tree."""
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    information = "-".join(wheel.name.split("-")[:2]) + ".dist-info"
    wanted = {*sources, *(f"{information}/{name}" for name in METADATA)}
    for pattern in COMPILED:
        found = {name for name in held if re.fullmatch(pattern, name)}
        if len(found) != 1:
            yield f"{wheel.name}: {len(found)} files are {pattern}; expected one"
        wanted |= found
    yield from _differences(wheel.name, held, wanted, sources)


def sdist_sources() -> dict[str, bytes]:
    """Return the files that git has or would take: what belongs into an sdist."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return {name: (ROOT / name).read_bytes() for name in listed.stdout.splitlines() if (ROOT / name).exists()}


def sdist_problems(sdist: Path, sources: Mapping[str, bytes]) -> Iterator[str]:
    """Say what an sdist lacks, what it holds besides, and what isn't as in the working tree."""
    held = {}
    with tarfile.open(sdist) as archive:
        for member in archive:
            if (file := archive.extractfile(member)) is not None:
                held[member.name.partition("/")[2]] = file.read()
    yield from _differences(sdist.name, held, {*sources, "PKG-INFO"}, sources)


def _differences(
    archive: str, held: Mapping[str, bytes], wanted: set[str], sources: Mapping[str, bytes]
) -> Iterator[str]:
    yield from (f"{archive}: {name} is missing" for name in sorted(wanted - held.keys()))
    yield from (f"{archive}: {name} does not belong there" for name in sorted(held.keys() - wanted))
    for name in sorted(held.keys() & sources.keys()):
        if held[name] != sources[name]:
            yield f"{archive}: {name} is not as in the working tree; make wheel builds it anew"
