"""Train with quick GELU, export it as a node, run the file in three ways and compare: ``python main.py``."""

import numpy as np
import onnxruntime
import torch

import kernel
import ort_ops
from quick_gelu import Net, QuickGelu

FILE = "quick_gelu.onnx"
CPU = ["CPUExecutionProvider"]

# 1. The gradient: backward against differences of forward.
x = torch.linspace(-4, 4, 9, dtype=torch.float64, requires_grad=True)
print("gradcheck:", torch.autograd.gradcheck(QuickGelu.apply, (x, 1.702)))

# 2. Train: a curve with a bend, from 64 points.
torch.manual_seed(0)
model = Net()
x = torch.linspace(-2, 2, 64)[:, None]
wanted = torch.sin(2 * x)
optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
for step in range(401):
    loss = torch.nn.functional.mse_loss(model(x), wanted)
    if step in (0, 400):
        print(f"step {step}: loss {loss.item():.1g}")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
model.eval()

# 3. Export: the node is kept, with a function body derived from forward.
dynamic = ({0: "batch"},)
program = ort_ops.export.export(
    model, (x,), FILE, dynamic_shapes=dynamic, functions="attach", input_names=["x"], verbose=False
)
print("nodes:", *(f"{node.domain or 'ai.onnx'}::{node.op_type}" for node in program.model.graph))

# 4. Run: by the kernel in NumPy, and by the function body in an onnxruntime that knows nothing of ours.
feed = {"x": np.linspace(-3, 3, 5, dtype=np.float32)[:, None]}
session = ort_ops.InferenceSession(FILE, providers=CPU, ops=[kernel.quick_gelu])
print(*session.explain())
(by_kernel,) = session.run(None, feed)
(by_body,) = onnxruntime.InferenceSession(FILE, providers=CPU).run(None, feed)
with torch.no_grad():
    by_torch = model(torch.from_numpy(feed["x"])).numpy()
print("kernel as PyTorch:", np.allclose(by_kernel, by_torch, atol=1e-5))
print("body as PyTorch:", np.allclose(by_body, by_torch, atol=1e-5))

# 5. Check: is the file the model, and does each run compute the file? Every tolerance has its reason.
for prefer in ("kernel", "body"):
    report = ort_ops.parity.check(model, FILE, prefer=prefer)
    answers = ", ".join(f"{row.question} {row.verdict.value}" for row in report.rows)
    print(f"check, run by the {prefer}: {answers}; verdict: {report.verdict.value}")
    assert report.exit_code == 0, report
