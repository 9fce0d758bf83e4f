"""``mylinear demo``: all of it in one go, on real input."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnxruntime
import torch
import typer

import mylinear
import ort_ops
from mylinear import kernels as kernels  # for what it registers
from ort_ops.cli.report import print_report
from ort_ops.errors import ExportError

from .console import console, say
from .export import describe, example_for
from .train import TaskName, choose_task, run_training

__all__ = ["demo"]


def demo(
    task: Annotated[TaskName, typer.Option(help="What to train on.")] = "line",
    out: Annotated[Path, typer.Option(help="The folder for what is written.")] = Path("runs"),
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bits on a CPU.")] = 0,
) -> int:
    """Train, export by both exporters, run by kernel and by function body, and compare."""
    chosen = choose_task(task)
    _headline("1. Train in PyTorch")
    model = run_training(chosen, out, seed=seed).model
    _headline("2. Export to ONNX, by both of PyTorch's exporters")
    path = _export(model, out)
    _headline("3. Run in ONNX Runtime")
    _run(path, chosen)
    _headline("4. Compare with PyTorch")
    reports = [
        mylinear.verify.verify(model.cpu(), path, providers=_providers(), prefer=prefer, seed=seed)
        for prefer in ("kernel", "body")
    ]
    # The file is compared with the model in both; once is enough to show.
    runs = tuple(row for row in reports[1].rows if row.question == "runtime")
    report = replace(reports[0], rows=(*reports[0].rows, *runs))
    print_report(report)
    (out / "parity.json").write_text(report.to_json() + "\n", encoding="utf-8")
    if task == "digits":
        _compare_accuracy(chosen, model, path)
    names = ", ".join(str(out / name) for name in ("linear.onnx", "loss.png", "parity.json"))
    say()
    say(f"wrote {names}")
    return int(report.exit_code)


def _headline(text: str) -> None:
    console.print(f"\n[bold]{text}[/]")


def _export(model: torch.nn.Module, out: Path) -> Path:
    """Write linear.onnx by the newer exporter; the TorchScript one has to write the same."""
    path = out / "linear.onnx"
    example = example_for(model)
    file = mylinear.export.export(model, path, example=example)
    other = mylinear.export.export(model, example=example, dynamo=False)
    if file != other:
        raise ExportError("the two exporters wrote different files; expected the same")
    console.print(f"  both wrote {describe(file)}")
    return path


def _run(path: Path, task: Any) -> None:
    """Run the file by our kernel, and by its function body in plain onnxruntime with nothing registered."""
    x = task.batch(0)[0].numpy()[:2]
    kernel = ort_ops.InferenceSession(path, providers=["CPUExecutionProvider"])
    plain = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for run in kernel.explain():
        say(f"  {run}")
    for name, session in (("Python kernel", kernel), ("function body, plain onnxruntime", plain)):
        (y,) = session.run(None, {"x": x})
        say(f"  {name}: y[0] = {np.array2string(y[0], precision=4, threshold=4, edgeitems=2)}")


def _providers() -> list[str]:
    """Return every execution provider of this machine that the kernels are for.

    On a GPU without TF32, which ONNX Runtime uses unless it is told, and which is no fault of a file's.
    """
    cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers() and torch.cuda.is_available()
    return ["cpu", "cuda:use_tf32=0"] if cuda else ["cpu"]


def _compare_accuracy(task: Any, model: torch.nn.Module, path: Path) -> None:
    """Say how many held-out images PyTorch and ONNX Runtime read right."""
    x, target = task.held_out
    with torch.no_grad():
        answers = {"PyTorch": model(x).argmax(1).numpy()}
    session = ort_ops.InferenceSession(path, providers=["CPUExecutionProvider"])
    answers["ONNX Runtime"] = session.run(None, {"x": x.numpy()})[0].argmax(1)
    for name, answer in answers.items():
        right = int((answer == target.numpy()).sum())
        say(f"{name}: {right} of {len(target)} held-out digits read right, {right / len(target):.1%}")
