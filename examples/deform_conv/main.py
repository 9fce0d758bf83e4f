"""Export deformable convolutions, run them by the kernel in C++, compare: ``python main.py LIBRARY``."""

import sys

import numpy as np
import onnxruntime
import torch

import ort_ops
from deform_conv import DeformConv, build

FILE = "deform_conv.onnx"
CPU = ["CPUExecutionProvider"]
LIBRARY = sys.argv[1]

# 1. The gradients of every input, in float64, at positions between pixels.
torch.manual_seed(0)
shapes = {
    "x": (2, 4, 5, 6),
    "weight": (2, 2, 3, 2),
    "offset": (2, 24, 2, 3),
    "bias": (2,),
    "mask": (2, 12, 2, 3),
}
inputs = [torch.rand(shape, dtype=torch.float64, requires_grad=True) for shape in shapes.values()]
attributes = ([2, 2], [0, 1, 0, 0], [1, 1], 2, 2)
print("gradcheck:", torch.autograd.gradcheck(lambda *given: DeformConv.apply(*given, *attributes), inputs))

# 2. Export: each call is one node.
model, x = build(), torch.rand(2, 3, 20, 30)
sizes = ({0: "batch", 2: "height", 3: "width"},)
program = ort_ops.export.export(model, (x,), FILE, dynamic_shapes=sizes, input_names=["x"], verbose=False)
print("nodes:", *(f"{node.domain or 'ai.onnx'}::{node.op_type}" for node in program.model.graph))

# 3. Run: plain onnxruntime takes the library, and no Python runs the nodes.
options = onnxruntime.SessionOptions()
options.register_custom_ops_library(LIBRARY)
session = onnxruntime.InferenceSession(FILE, options, providers=CPU)
x = torch.rand(1, 3, 33, 17)
(y,) = session.run(None, {"x": x.numpy()})
with torch.no_grad():
    print("shape:", y.shape, "as PyTorch:", np.allclose(y, model(x).numpy(), atol=1e-5))

# 4. Check.
report = ort_ops.parity.check(model, FILE, libraries=[LIBRARY], functions=[DeformConv])
for row in report.rows:
    print(f"{row.question}: {row.verdict.value} ({row.ran})")
print("verdict:", report.verdict.value)
sys.exit(report.exit_code)
