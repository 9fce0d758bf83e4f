"""Run the operator beside PyTorch's own: ``python use.py build/libsoftshrink.so``."""

import sys

import numpy as np
import onnxruntime
import torch
from onnx.parser import parse_model

MODEL = """<ir_version: 8, opset_import: ["example": 1]>
softshrink (float[n] x) => (float[n] y) { y = example.Softshrink <lambd = 0.25> (x) }"""

options = onnxruntime.SessionOptions()
options.register_custom_ops_library(sys.argv[1])
session = onnxruntime.InferenceSession(parse_model(MODEL).SerializeToString(), options)

x = np.linspace(-1, 1, 9, dtype=np.float32)
(y,) = session.run(None, {"x": x})
expected = torch.nn.functional.softshrink(torch.from_numpy(x), 0.25).numpy()
print(y)
assert np.array_equal(y, expected), expected
