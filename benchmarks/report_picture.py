"""The README's picture of a report: python -m benchmarks.report_picture, which needs Chromium."""

import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

from ort_ops import parity
from ort_ops.export import export
from tests.ort_ops.parity.picture import screenshot

PICTURE = Path(__file__).parent / "results" / "report.png"


def build() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 64), nn.GELU(), nn.LayerNorm(64), nn.Linear(64, 32)).eval()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file, page = Path(folder, "model.onnx"), Path(folder, "report.html")
        free = {"dynamic_shapes": ({0: "batch"},), "verbose": False}
        export(build(), (torch.rand(2, 8),), file, **free)  # type: ignore[arg-type]
        model = build()
        with torch.no_grad():
            model[3].weight[0, 0] *= 1 + 1e-5  # type: ignore[union-attr,index,operator]
        dims = {"batch": 200}
        report = parity.check(model, file, dims=dims)
        page.write_text(report.to_html("model.onnx", parity.locate(model, file, dims=dims)))
        screenshot(page, PICTURE, "1100,1080")
    print(f"wrote {PICTURE}", file=sys.stderr)


if __name__ == "__main__":
    main()
