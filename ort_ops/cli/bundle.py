"""``ort-ops bundle``: a model, its libraries and its golden answers in one folder."""

from pathlib import Path
from typing import Annotated

import typer

from ort_ops import deploy
from ort_ops.deploy.needs import PYTHON

from .arguments import check_provider, import_modules, library_paths
from .console import say
from .options import File, Kernels, Libraries

__all__ = ["bundle"]


def bundle(
    file: File,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to make.")],
    library: Libraries = None,
    parity: Annotated[Path | None, typer.Option(help="Golden answers: what ort-ops record wrote.")] = None,
    optimized: Annotated[
        bool, typer.Option("--optimized", help="Save the graph as it is optimised for this hardware, too.")
    ] = False,
    provider: Annotated[
        str | None, typer.Option(help="What that is for; cpu if not given.", parser=check_provider)
    ] = None,
    kernels: Kernels = None,
    sign_key: Annotated[
        Path | None, typer.Option(help="Sign it with this private key of an elliptic curve, a PEM file.")
    ] = None,
    triton: Annotated[
        Path | None, typer.Option(help="Write a model repository for Triton, too, into this folder.")
    ] = None,
    triton_root: Annotated[
        str | None, typer.Option(help="That folder's path on the server, where it is another.")
    ] = None,
    max_batch: Annotated[int, typer.Option(min=0, help="Requests that Triton may batch; 0 for none.")] = 0,
    delay_us: Annotated[int, typer.Option(min=0, help="Microseconds that a request may wait.")] = 0,
    instances: Annotated[int, typer.Option(min=1, help="Sessions that Triton makes.")] = 1,
    gpu: Annotated[bool, typer.Option("--gpu", help="They are on GPUs.")] = False,
) -> None:
    """Put what a deployment needs into one folder, for ort-ops replay to check before anything is loaded."""
    if provider is not None and not optimized:
        raise typer.BadParameter("--provider is what --optimized is for; give both")
    if triton is None and (triton_root or max_batch or delay_us or instances != 1 or gpu):
        raise typer.BadParameter(
            "--triton-root, --max-batch, --delay-us, --instances and --gpu are for --triton"
        )
    if delay_us and not max_batch:
        raise typer.BadParameter("--delay-us is for --max-batch")
    if triton is not None and triton.resolve().is_relative_to(out.resolve()):
        raise typer.BadParameter("--triton is inside of the bundle, whose files are those of its manifest")
    import_modules(kernels or ())
    manifest = deploy.bundle(
        file,
        out,
        libraries=library_paths(library),
        modules=kernels or (),
        golden=parity,
        optimized=(provider or True) if optimized else False,
        sign_key=sign_key,
    )
    size = sum((out / name).stat().st_size for name in manifest.files)
    say(f"wrote {out}: {len(manifest.files)} files, {size} bytes")
    for each in manifest.needs:
        aside = ", which is not in the folder (its README says more)" if each.by == PYTHON else ""
        say(f"{each.op}: {each.nodes} node{'s' if each.nodes != 1 else ''}, by {each.by}{aside}")
    if manifest.optimized is not None:
        graph = manifest.optimized
        say(f"{graph.model}: for ONNX Runtime {graph.onnxruntime}, {graph.provider}, this kind of processor")
    if sign_key is not None:
        say("signed: model.sig")
    if triton is not None:
        made = deploy.write_triton(
            deploy.open_bundle(out),
            triton,
            root=triton_root,
            max_batch=max_batch,
            delay_us=delay_us,
            instances=instances,
            gpu=gpu,
        )
        say(f"wrote {made}")
    if manifest.golden is None:
        say("no golden answers: ort-ops replay can check the files, and nothing else")
