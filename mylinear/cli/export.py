"""``mylinear export``: a trained model to an ONNX file with one MYLINEAR node a layer."""

from pathlib import Path
from typing import Annotated, Any, Literal

import onnx
import torch
import typer

import mylinear
from ort_ops.cli.arguments import refuse_overwriting

from .console import say

__all__ = ["describe", "example_for", "export"]

Exporter = Literal["dynamo", "torchscript"]


def example_for(model: torch.nn.Module, rank: int = 2) -> torch.Tensor:
    """Return an x of ``rank`` dimensions that the model takes; only shape and dtype matter."""
    weight = next(model.parameters())
    return torch.zeros(*[2] * (rank - 1), weight.shape[1], dtype=weight.dtype, device=weight.device)


def describe(model: onnx.ModelProto) -> str:
    """Return the custom nodes, opsets and IR of a file in one line."""
    nodes = [node for node in model.graph.node if node.op_type == "MYLINEAR"]
    domain = nodes[0].domain
    name = f"{domain}::MYLINEAR" if domain else "MYLINEAR in the default domain"
    opsets = ", ".join(f"{o.domain or 'ai.onnx'} {o.version}" for o in model.opset_import)
    body = "with a function body" if model.functions else "without a function body"
    return f"{len(nodes)} x {name} {body}; opsets {opsets}; IR {model.ir_version}"


def export(
    model: Annotated[Path, typer.Argument(help="What `mylinear train` wrote.")] = Path(
        "runs/model.safetensors"
    ),
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")] = Path("runs/linear.onnx"),
    exporter: Annotated[
        Exporter | None, typer.Option(help="PyTorch's newer exporter (dynamo), or the TorchScript one.")
    ] = None,
    opset: Annotated[int | None, typer.Option(help="18 if not given, 11 with --domain ''.")] = None,
    domain: Annotated[
        str,
        typer.Option(
            help="Of the MYLINEAR nodes; '' is ONNX's default one, which stock ONNX Runtime refuses."
        ),
    ] = "mylinear",
    rank: Annotated[int, typer.Option(min=1, help="Dimensions of x, the batch among them.")] = 2,
) -> None:
    """Export a trained model to ONNX."""
    refuse_overwriting([out], [model])
    opset = opset if opset is not None else (18 if domain else 11)
    if exporter is None:
        exporter = "dynamo" if opset >= 18 else "torchscript"
    trained: Any = mylinear.modelfile.load_model(model)
    file = mylinear.export.export(
        trained,
        out,
        example=example_for(trained, rank),
        dynamo=exporter == "dynamo",
        opset=opset,
        domain=domain,
    )
    say(f"wrote {out}: {describe(file)}")
