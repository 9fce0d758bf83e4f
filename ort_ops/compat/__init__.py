"""The Python-op API of onnxruntime-extensions, for code that moves over.

``import onnxruntime_extensions`` becomes ``import ort_ops.compat as onnxruntime_extensions``. Names,
arguments and meaning are those of release 0.15.2; where that ends the process or changes bits (an exception
in a function, a float64 result for an int64 output), an exception is raised instead. The operators that it
has in C++ (tokenizers, image decoders and the like) are not here.
"""

from typing import NoReturn

from ort_ops.session import get_library_path

from .customop import CustomOp, CustomOpConverter, SingleOpGraph
from .hashing import hash_64
from .models import expand_onnx_inputs, hook_model_op, make_onnx_model
from .opdef import (
    Opdef,
    PyCustomOpDef,
    PyOp,
    add_custom_op,
    default_opset_domain,
    enable_py_op,
    onnx_op,
)
from .pyfunction import (
    ONNXRuntimeError,
    ONNXRuntimeException,
    OrtPyFunction,
    PyOrtFunction,
    optimize_model,
    ort_inference,
)

__all__ = [
    "CustomOp",
    "CustomOpConverter",
    "ONNXRuntimeError",
    "ONNXRuntimeException",
    "Opdef",
    "OrtPyFunction",
    "PyCustomOpDef",
    "PyOp",
    "PyOrtFunction",
    "SingleOpGraph",
    "__version__",
    "add_custom_op",
    "default_opset_domain",
    "enable_py_op",
    "expand_onnx_inputs",
    "get_library_path",
    "hash_64",
    "hook_model_op",
    "make_onnx_model",
    "onnx_op",
    "optimize_model",
    "ort_inference",
]

__version__ = "0.15.2"
"""The release of onnxruntime-extensions whose names, arguments and meaning these are."""

# What else that package shows: modules that build models of its C++ operators, and classes for these.
_TOOLS = ("cmd", "cvt", "gen_processing_models", "onnxprocess", "pnp", "pp_api", "tools", "util")
_CPP_OPERATORS = (
    *("AudioDecoder", "BertTokenizer", "BertTokenizerDecoder", "BlingFireSentenceBreaker", "BpeDecoder"),
    *("CLIPTokenizer", "GPT2Tokenizer", "GaussianBlur", "HfJsonTokenizer", "ImageDecoder", "ImageReader"),
    *("Inverse", "MaskedFill", "MergeSignalSegments", "RobertaTokenizer", "SegmentExtraction"),
    *("SentencepieceDecoder", "SentencepieceTokenizer", "SplitSignalSegments", "SpmTokenizer", "StftNorm"),
    *("StringECMARegexReplace", "StringMapping", "StringToVector", "TrieDetokenizer", "TrieTokenizer"),
    "VectorToString",
)


def __getattr__(name: str) -> NoReturn:
    """Say of a name that only onnxruntime-extensions has where to find it (PEP 562)."""
    if name in _TOOLS or name in _CPP_OPERATORS:
        raise AttributeError(
            f"{__name__} has no {name!r}: it belongs to the C++ operators of onnxruntime-extensions, of "
            f"which ort_ops has only the Python-op API; install that package and use "
            f"onnxruntime_extensions.{name} (both work in one session when their domains differ)"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
