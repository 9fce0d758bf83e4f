import ml_dtypes
import numpy as np
import onnx
import pytest

from ort_ops.dtypes import DTYPES, DType, find_dtype, from_numpy, from_onnx
from ort_ops.errors import SchemaError

from .releases import needs_onnx

by_name = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)


@by_name
def test_onnx_means_the_same_type(dtype: DType) -> None:
    if dtype.name == "float4_e2m1fn":
        needs_onnx((1, 18), "float4e2m1")
    assert onnx.TensorProto.DataType.Name(dtype.onnx) == dtype.ort.upper()
    if dtype.onnx >= 16:
        needs_onnx((1, 19), "ml_dtypes' types")
    assert onnx.helper.tensor_dtype_to_np_dtype(dtype.onnx) == dtype.numpy


@by_name
def test_torch_means_the_same_type(dtype: DType) -> None:
    if dtype.torch is None:
        assert dtype.name in ("string", "uint4", "int4", "float4_e2m1fn")
    else:
        torch = pytest.importorskip("torch")
        assert getattr(torch, dtype.torch).itemsize == dtype.numpy.itemsize


@by_name
def test_every_name_finds_its_row(dtype: DType) -> None:
    assert from_onnx(dtype.onnx) is from_numpy(dtype.numpy) is dtype
    for name in (dtype.name, dtype.ort, f"tensor({dtype.ort})"):
        assert find_dtype(name) is dtype


def test_byte_order_does_not_matter() -> None:
    assert from_numpy(np.dtype(">f8")).name == "float64"


def test_what_kernels_can_not_have_is_named() -> None:
    with pytest.raises(SchemaError, match="element type 14 can't"):
        from_onnx(onnx.TensorProto.COMPLEX64)
    with pytest.raises(SchemaError, match="complex64 is no element type"):
        from_numpy(np.complex64)
    with pytest.raises(SchemaError, match="float6_e2m3fn is no element type"):
        from_numpy(ml_dtypes.float6_e2m3fn)
    with pytest.raises(SchemaError, match="'float31' is no element type; expected one of float32"):
        find_dtype("float31")
