"""MYLINEAR in C++: a library for every ONNX Runtime, in whatever language, with no Python in it."""

import sys
from pathlib import Path

__all__ = ["get_library_path"]

_NAMES = {"win32": "mylinear_ort.dll", "darwin": "libmylinear_ort.dylib"}


def get_library_path() -> str:
    """Return the path for ``SessionOptions.register_custom_ops_library``.

    The library has MYLINEAR in the domain ``mylinear`` for float16, bfloat16, float32 and float64, on the CPU
    and on CUDA. On the CPU a file's function body is as fast as ONNX Runtime's own Gemm, and the library
    nearly so (benchmarks/results/native_kernels.md); it holds a constant float32 weight twice, as it is and
    packed, a 16-bit one as it is and packed in float32, a float64 one once.

    Raises FileNotFoundError where the package was installed without it.
    """
    name = _NAMES.get(sys.platform, "libmylinear_ort.so")
    folders = sys.modules[__package__].__path__  # two where the package is installed to be edited
    for folder in folders:
        if Path(folder, name).is_file():
            return str(Path(folder, name))
    raise FileNotFoundError(f"{name} is missing in {', '.join(folders)}; install the package anew")
