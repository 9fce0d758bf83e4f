"""What an installed wheel does, with NumPy and ONNX Runtime alone: python -I tests/environments/installed.py.

It runs by itself in whatever Python the wheel is installed in, and needs neither torch nor onnx: the models
are written here as the protocol buffers that they are.
"""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

import mylinear
import mylinear.kernels
import ort_ops

FLOAT = 1
X = np.arange(6, dtype=np.float32).reshape(2, 3)
WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3)
BIAS = np.ones(4, np.float32)


def message(*fields: tuple[int, int | bytes]) -> bytes:
    """Return a protocol buffer: of each field its number, and a number or the bytes that it holds."""
    parts = []
    for field, value in fields:
        if isinstance(value, int):
            parts.append(varint(field << 3) + varint(value))
        else:
            parts.append(varint(field << 3 | 2) + varint(len(value)) + value)
    return b"".join(parts)


def varint(number: int) -> bytes:
    parts = []
    while number >= 0x80:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def model(domain: str, op: str, inputs: Sequence[str]) -> bytes:
    """Return an ONNX model of one node, of IR 8 and opset 18; everything is float32."""
    node = message(*((1, name.encode()) for name in inputs), (2, b"y"), (3, b"node"), (4, op.encode()))
    tensor = message((1, message((1, FLOAT))))
    node += message((7, domain.encode()))
    ends = [(11, message((1, name.encode()), (2, tensor))) for name in inputs]
    graph = message((1, node), (2, b"g"), *ends, (12, message((1, b"y"), (2, tensor))))
    opsets = [(8, message((1, b""), (2, 18))), (8, message((1, domain.encode()), (2, 1)))]
    return message((1, 8), *opsets, (7, graph))


@ort_ops.onnx_op("installed::Halve")
def halve(x: np.ndarray) -> np.ndarray:
    """Return x / 2; refuse NaN, so that a failure is seen, too."""
    if np.isnan(x).any():
        raise ValueError("halve of NaN")
    return x / 2


def check_python_kernel() -> None:
    """A Python kernel runs, and its exception comes out of ``run``, after which the session goes on."""
    session = ort_ops.InferenceSession(model("installed", "Halve", ["x"]), providers=["CPUExecutionProvider"])
    failure = "none"
    try:
        session.run(None, {"x": np.full((2, 3), np.nan, np.float32)})
    except ort_ops.errors.KernelError as error:
        failure = str(error)
    assert "halve of NaN" in failure, failure
    np.testing.assert_array_equal(session.run(None, {"x": X})[0], X / 2)
    (run,) = session.explain()
    assert "halve" in str(run), run


def check_library() -> None:
    """MYLINEAR runs in plain onnxruntime by the C++ library and by the Python kernel."""
    feed = {"x": X, "weight": WEIGHT, "bias": BIAS}
    for path in (mylinear.get_library_path(), ort_ops.get_library_path()):
        options = onnxruntime.SessionOptions()
        options.register_custom_ops_library(path)
        session = onnxruntime.InferenceSession(
            model("mylinear", "MYLINEAR", list(feed)), options, providers=["CPUExecutionProvider"]
        )
        # Small integers: exact in whatever order they are added.
        np.testing.assert_array_equal(session.run(None, feed)[0], X @ WEIGHT.T + BIAS)


def check_installation() -> None:
    """What runs is installed, needs no torch, and has what a C++ compiler asks for."""
    for package in (ort_ops, mylinear):
        assert Path(sys.prefix) in Path(str(package.__file__)).parents, f"{package.__file__} is not installed"
    present = [name for name in ("torch", "onnx") if importlib.util.find_spec(name)]
    assert not present, f"{', '.join(present)}: this environment says nothing about one without"
    assert Path(ort_ops.get_include(), "ort_ops", "op.hpp").is_file()
    assert Path(ort_ops.get_cmake_dir(), "ort_ops-config.cmake").is_file()


if __name__ == "__main__":
    onnxruntime.set_default_logger_severity(4)  # it would print the failure that is provoked
    check_installation()
    check_python_kernel()
    check_library()
    python = sys.version.split()[0]
    print(f"runs: Python {python}, onnxruntime {onnxruntime.__version__}, NumPy {np.__version__}")
