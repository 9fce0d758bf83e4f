"""What the JavaScript builds are to answer: two trained models on ordinary, odd and empty batches."""

import base64
import json
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

import mylinear

OPSETS = {
    18: True,
    11: False,
}  # with the exporter that writes it: PyTorch's newer one, or the TorchScript one
BATCHES = (0, 1, 7, 64)
HELD_OUT = "held out"


@dataclass(frozen=True)
class Case:
    """One model on one input x: (n, features), and what the model answers in PyTorch."""

    id: str
    file: str
    model: nn.Module
    x: NDArray[Any]
    expected: NDArray[Any]
    labels: NDArray[Any] | None = None


def make_cases(folder: Path) -> list[Case]:
    """Train the line and the digits, export both into folder, and write cases.json beside them."""
    cases = [*_cases(mylinear.data.Line(), folder), *_cases(mylinear.data.Digits(), folder)]
    (folder / "cases.json").write_text(json.dumps([_describe(case) for case in cases]))
    return cases


def _cases(task: Any, folder: Path) -> Iterator[Case]:
    model = mylinear.training.train(task, device="cpu").model
    features = next(model.parameters()).shape[-1]
    generator = torch.Generator().manual_seed(0)
    inputs: dict[Any, Any] = {
        n: torch.randn(n, features, generator=generator).to(task.dtype) for n in BATCHES
    }
    labels = None
    if hasattr(task, "held_out"):
        inputs[HELD_OUT], labels = task.held_out
    for opset, dynamo in OPSETS.items():
        file = f"{task.name}-{opset}.onnx"
        mylinear.export.export(model, folder / file, example=inputs[7], opset=opset, dynamo=dynamo)
        for batch, x in inputs.items():
            with torch.no_grad():
                expected = model(x).numpy()
            known = labels.numpy() if labels is not None and batch == HELD_OUT else None
            yield Case(f"{task.name}, opset {opset}, batch {batch}", file, model, x.numpy(), expected, known)


def _describe(case: Case) -> dict[str, Any]:
    return {"id": case.id, "model": case.file, **encode(case.x)}


def encode(array: NDArray[Any]) -> dict[str, Any]:
    """Return an array as answer.js reads it."""
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"dtype": array.dtype.name, "dims": list(array.shape), "data": data}


def decode(answer: dict[str, Any]) -> NDArray[Any]:
    """Return an array that answer.js wrote."""
    return np.frombuffer(base64.b64decode(answer["data"]), answer["dtype"]).reshape(answer["dims"])


def answer_in_python(cases: Sequence[Case], folder: Path) -> dict[str, Any]:
    """Return what plain onnxruntime in Python answers, in the form of answer.js."""
    answers = {}
    for case in cases:
        session = onnxruntime.InferenceSession(folder / case.file, providers=["CPUExecutionProvider"])
        answers[case.id] = encode(session.run(None, {"x": case.x})[0])
    return {
        "versions": {"onnxruntime": onnxruntime.__version__},
        "host": f"Python {platform.python_version()}",
        "answers": answers,
    }
