"""``ort-ops bundle``: a model, its libraries and its golden answers in one folder."""

from pathlib import Path
from typing import Annotated

import typer

from ort_ops import deploy

from .console import say
from .options import File, Libraries

__all__ = ["bundle"]


def bundle(
    file: File,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to make.")],
    library: Libraries = None,
    parity: Annotated[Path | None, typer.Option(help="Golden answers: what ort-ops record wrote.")] = None,
) -> None:
    """Put what a deployment needs into one folder, for ort-ops replay to check before anything is loaded."""
    manifest = deploy.bundle(file, out, libraries=library or (), golden=parity)
    size = sum((out / name).stat().st_size for name in manifest.files)
    say(f"wrote {out}: {len(manifest.files)} files, {size} bytes")
    for each in manifest.needs:
        say(f"{each.op}: {each.nodes} node{'s' if each.nodes != 1 else ''}, by {each.by}")
    if manifest.golden is None:
        say("no golden answers: ort-ops replay can check the files, and nothing else")
