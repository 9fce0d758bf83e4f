"""``ort-ops replay``: a deployment beside golden answers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ort_ops import deploy, parity
from ort_ops.errors import NoKernelError, ParityError
from ort_ops.inspection import inspect_model
from ort_ops.parity.runs import of_runtime
from ort_ops.providers import parse_provider
from ort_ops.registry import registered_ops

from .arguments import import_modules, library_paths, refuse_overwriting, resolve_functions, with_weights
from .console import say
from .options import (
    AllowReducedPrecision,
    Functions,
    Json,
    Kernels,
    Libraries,
    Prefer,
    Providers,
    Trust,
)
from .report import print_report

__all__ = ["replay"]


def replay(
    golden: Annotated[Path, typer.Argument(help="What ort-ops record wrote, or a bundle's folder.")],
    file: Annotated[Path | None, typer.Argument(help="The ONNX file; a bundle has its own.")] = None,
    provider: Providers = None,
    library: Libraries = None,
    kernels: Kernels = None,
    function: Functions = None,
    trust: Trust = None,
    prefer: Prefer = "kernel",
    verify_key: Annotated[
        Path | None, typer.Option(help="The public key, a PEM file, that a bundle has to be signed with.")
    ] = None,
    allow_reduced_precision: AllowReducedPrecision = False,
    json_file: Json = None,
) -> int:
    """Check a deployment against golden answers, by NumPy and onnxruntime alone; a bundle's files first."""
    if golden.is_dir() and (file is not None or library):
        raise typer.BadParameter("a bundle has its own file and libraries; give the folder alone")
    if golden.is_dir() and (prefer != "kernel" or function or trust):
        raise typer.BadParameter(
            "--prefer, --function and --trust are for a file: a bundle is replayed as its sessions run it"
        )
    if not golden.is_dir() and file is None:
        raise typer.BadParameter("give the ONNX file, too, or the folder of a bundle alone")
    if not golden.is_dir() and verify_key is not None:
        raise typer.BadParameter("--verify-key is for the folder of a bundle")
    bundled = golden.rglob("*") if golden.is_dir() else ()
    refuse_overwriting([json_file], [golden, *with_weights(file), verify_key, *(library or ()), *bundled])
    bundle = deploy.open_bundle(golden, verify_key=verify_key) if golden.is_dir() else None
    import_modules(kernels or ())
    providers = provider or ["cpu"]
    if bundle is not None:
        if verify_key is not None:
            say(f"{golden}: signed with the key of {verify_key}")
        say(f"{golden}: {len(bundle.manifest.files)} files are what the manifest says")
        for name in providers if bundle.manifest.optimized is not None else ():
            loaded = bundle.graph([parse_provider(name)]).path.relative_to(bundle.folder)
            say(f"{name}: a session loads {loaded}")
        if bundle.manifest.golden is None:
            say("no golden answers: nothing else was checked")
            return int(parity.ExitCode.CANNOT_SAY)
        model, libraries = bundle.model, bundle.libraries
    else:
        model, libraries = file or Path(), library_paths(library)
    try:
        if bundle is not None:
            report = bundle.replay(providers)
        else:
            report = parity.replay(
                golden,
                model,
                providers,
                functions=resolve_functions(function),
                trust=trust or (),
                libraries=libraries,
                prefer=prefer,
            )
    except Exception as error:
        if any(of_runtime(each) or isinstance(each, NoKernelError) for each in (error, error.__cause__)):
            _require_kernels(model, providers, libraries)
        raise
    print_report(report)
    if json_file is not None:
        text = report.to_json(allow_reduced_precision=allow_reduced_precision)
        json_file.write_text(text + "\n", encoding="utf-8")
    return int(report.exit_code_for(allow_reduced_precision=allow_reduced_precision))


def _require_kernels(model: Path, providers: Sequence[str], libraries: Sequence[Path]) -> None:
    """Raise ParityError where a node is nobody's, which is why a session can't be made."""
    found = inspect_model(model, [parse_provider(name) for name in providers], libraries=libraries)
    registered = {name for op in registered_ops() for name in op.names}
    nobody = {
        nodes.op: f" ({nodes.reason})" if (nodes.domain, nodes.op_type) in registered else ""
        for nodes in found.custom
        if nodes.runner == "nobody"
    }
    if nobody:
        listed = ", ".join(f"{op}{why}" for op, why in nobody.items())
        raise ParityError(
            f"no session can be made of {model}: nobody runs {listed} here; a kernel in Python is in no "
            "file: name the module that registers it (--kernels MODULE)"
        )
