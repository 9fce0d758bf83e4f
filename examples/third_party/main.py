"""Export a model with a Function of the package entmax, which knows nothing of ONNX: ``python main.py``."""

import sys
from typing import Any

import numpy as np
import torch
from entmax import Entmax15
from entmax.activations import Entmax15Function
from torch import Tensor, nn

import ort_ops

FILE = "attention.onnx"
CPU = ["CPUExecutionProvider"]


class Attention(nn.Module):
    """Attention of one head whose weights are 1.5-entmax's: most are 0. x: (batch, n, 8) -> (batch, n, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))
        self.normalize = Entmax15(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """Return each row's mixture of all rows."""
        scores = self.query(x) @ self.key(x).transpose(-2, -1)
        y: Tensor = self.normalize(scores) @ self.value(x)
        return y


def symbolic(g: Any, x: Any, dim: int, k: int | None) -> Any:
    """Write the node that a call of Entmax15Function becomes; k only says how to sort."""
    return g.op("entmax::Entmax15", x, dim_i=dim).setType(x.type())


# The one thing that is missing: how a call is to be written. The package's files stay as they are.
Entmax15Function.symbolic = staticmethod(symbolic)

torch.manual_seed(0)
model, x = Attention().eval(), torch.randn(2, 5, 8) * 3

# 1. Code that exports by itself, as somebody else's would: torch.onnx.export, and nothing of ours inside.
with ort_ops.export.keep_functions() as kept:
    sizes = ({0: "batch", 1: "n"},)
    torch.onnx.export(model, (x,), FILE, dynamo=True, dynamic_shapes=sizes, input_names=["x"], verbose=False)
(program,) = kept.programs
print("custom nodes:", *(f"{node.domain}::{node.op_type}" for node in program.model.graph if node.domain))
print(
    *(f"call of {call.function}: {call.reason or 'its forward can run the node'}" for call in program.calls)
)

# 2. Run: the Function's own forward runs the node. A file names no code by itself: we trust the package.
session = ort_ops.InferenceSession(FILE, providers=CPU, trust=["entmax"])
print(*session.explain(), sep="\n")
x = torch.randn(3, 7, 8) * 3
(y,) = session.run(None, {"x": x.numpy()})
with torch.no_grad():
    print("as PyTorch:", np.allclose(y, model(x).numpy(), atol=1e-5))

# 3. Check.
report = ort_ops.parity.check(model, FILE, trust=["entmax"])
for row in report.rows:
    print(f"{row.question}: {row.verdict.value} ({row.ran})")
print("verdict:", report.verdict.value)
sys.exit(report.exit_code)
