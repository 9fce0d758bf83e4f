"""``mylinear verify``: PyTorch and ONNX Runtime beside each other on the same inputs."""

from pathlib import Path
from typing import Annotated

import typer

import mylinear
from ort_ops.cli.arguments import refuse_overwriting, with_weights
from ort_ops.cli.options import Json, Prefer, Providers
from ort_ops.cli.report import print_report

__all__ = ["verify"]


def verify(
    file: Annotated[Path, typer.Argument(help="What `mylinear export` wrote.")] = Path("runs/linear.onnx"),
    model: Annotated[Path, typer.Option(help="The model that it was exported from.")] = Path(
        "runs/model.safetensors"
    ),
    provider: Providers = None,
    batch: Annotated[
        list[int] | None, typer.Option(min=0, help="A batch size; may be given again. 0, 1, 2, 7, 64 if not.")
    ] = None,
    prefer: Prefer = "kernel",
    seed: Annotated[int, typer.Option(min=0, help="Of the inputs.")] = 0,
    json_file: Json = None,
) -> int:
    """Compare a file with the model it was exported from, and ONNX Runtime with PyTorch."""
    refuse_overwriting([json_file], [*with_weights(file), model])
    report = mylinear.verify.verify(
        mylinear.modelfile.load_model(model),
        file,
        providers=provider or ["cpu"],
        batches=batch or mylinear.verify.BATCHES,
        seed=seed,
        prefer=prefer,
    )
    print_report(report)
    if json_file is not None:
        json_file.write_text(report.to_json() + "\n", encoding="utf-8")
    return int(report.exit_code)
