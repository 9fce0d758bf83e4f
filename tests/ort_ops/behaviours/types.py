"""Kernels on strings, ml_dtypes and buffers to be filled."""

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime
from onnx import numpy_helper

import ort_ops
from tests.ort_ops.models import DOMAIN, builtin, model, one_node

from .base import BAD, BEHAVIOURS, GOOD, KEPT, Behaviour, attempt, behaviour

BF16 = np.dtype(ml_dtypes.bfloat16)
BYTE = np.dtype(ml_dtypes.float8_e4m3fn)


def typed(
    dtype: str, good: Any, says: str, infer: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare a kernel of one dtype that has to give its input back, but fails on its second run."""

    def add(compute: Callable[..., Any]) -> Callable[..., Any]:
        def run() -> None:
            runs: list[int] = []

            def step(x: Any, fill: Any) -> Any:
                runs.append(1)
                if len(runs) == 2:
                    return compute(x) if fill is None else compute(x, fill)
                if fill is None:
                    return x
                fill[...] = x
                return None

            if infer:

                @ort_ops.onnx_op(f"{DOMAIN}::Op", inputs=[dtype], outputs=[dtype])
                def filling(x: Any, *, out: Any) -> Any:
                    return step(x, out)

                filling.infer(lambda x: x)
            else:

                @ort_ops.onnx_op(f"{DOMAIN}::Op", inputs=[dtype], outputs=[dtype])
                def returning(x: Any) -> Any:
                    return step(x, None)

            session = ort_ops.InferenceSession(one_node("Op", dtype))
            for _ in range(3):
                if len(runs) == 1:
                    attempt(session, good)
                else:
                    y = session.run(None, {"x": good})[0]
                    print("right" if (y == good).all() and y.dtype == good.dtype else "WRONG")

        BEHAVIOURS[compute.__name__] = Behaviour(run, ("right", says, "right"))
        return compute

    return add


TEXT = np.array(["a", "größe"], object)
KEPT_OUT = (
    "kept a view of an input or of out beyond its call, where its memory is freed; keep a copy (x.copy())"
)
BESIDE = "ResultError: returned a result though it is given out=; expected it to fill out, and None"
MISFIT = "KernelError: ValueError: could not broadcast input array from shape (2,3) into shape (7,)"


def not_cast(got: str, expected: str) -> str:
    cast = "str).astype(object" if expected == "object" else repr(expected)  # objects that are strings
    return (
        f"ResultError: returned dtype {got} for output 0; expected {expected}: nothing is cast for you, "
        f"so return result.astype({cast}) if that is what you mean"
    )


@typed("string", TEXT, "ResultError: returned an object array with a bytes in it; expected strings alone")
def bytes_among_strings(x: Any) -> Any:
    return np.array(["a", b"b"], object)


@typed("string", TEXT, "ResultError: returned an object array with a NoneType in it; expected strings alone")
def none_among_strings(x: Any) -> Any:
    return np.array([None, "a"], object)


@typed(
    "string",
    TEXT,
    not_cast("float32", "object"),
)
def numbers_for_strings(x: Any) -> Any:
    return np.zeros(2, np.float32)


@typed("string", TEXT, "no error")
def keeps_strings_which_are_its_own(x: Any) -> Any:
    KEPT.append(x)
    return x


@typed(
    "bfloat16",
    GOOD.astype(BF16),
    not_cast("float32", "bfloat16"),
)
def float32_for_bfloat16(x: Any) -> Any:
    return x.astype(np.float32)


@typed(
    "bfloat16",
    GOOD.astype(BF16),
    not_cast("float16", "bfloat16"),
)
def float16_for_bfloat16(x: Any) -> Any:
    return x.view(np.float16)


@typed(
    "float8_e4m3fn",
    GOOD.astype(BYTE),
    not_cast("uint8", "float8_e4m3fn"),
)
def bytes_for_float8(x: Any) -> Any:
    return x.view(np.uint8)


@typed(
    "uint64",
    np.array([2**64 - 1, 2**53 + 1], np.uint64),
    not_cast("float64", "uint64"),
)
def doubles_for_uint64(x: Any) -> Any:
    return x.astype(np.float64)


@typed(
    "int64",
    np.array([2**63 - 1, -(2**63)]),
    not_cast("float64", "int64"),
)
def doubles_for_int64(x: Any) -> Any:
    return x.astype(np.float64)


@typed(
    "bool",
    np.array([True, False]),
    not_cast("uint8", "bool"),
)
def bytes_for_bool(x: Any) -> Any:
    return x.view(np.uint8)


@typed("float32", GOOD, "KernelError: ValueError: half filled", infer=True)
def raises_with_out_half_filled(x: Any, out: Any) -> Any:
    out[:1] = 5
    raise ValueError("half filled")


@typed(
    "float32",
    GOOD,
    "ResultError: returned a result though it is given out=; expected it to fill out, and None",
    infer=True,
)
def returns_a_result_beside_out(x: Any, out: Any) -> Any:
    return x


@typed(
    "float32",
    GOOD,
    f"ResultError: {KEPT_OUT}",
    infer=True,
)
def keeps_out(x: Any, out: Any) -> Any:
    KEPT.append(out[1:])


@typed(
    "float32",
    GOOD,
    "KernelError: ValueError: could not broadcast input array from shape (2,3) into shape (7,)",
    infer=True,
)
def fills_out_with_another_shape(x: Any, out: Any) -> Any:
    np.zeros(7, np.float32)[...] = np.zeros_like(BAD)


@behaviour("right", "KernelError: ValueError: cannot set WRITEABLE flag to True of this array", "right")
def makes_a_tensor_attribute_writeable() -> None:
    """It serves every run."""

    def step(x: Any, weight: Any) -> Any:
        if (x == 0).all():
            weight.flags.writeable = True
            weight[...] = 7
        return x * weight

    def check(session: Any) -> None:
        print("right" if (session.run(None, {"x": GOOD})[0] == [2, 2, 2]).all() else "WRONG")

    @ort_ops.onnx_op(f"{DOMAIN}::Op", inputs=["float32"])
    def op(x: Any, *, w: np.ndarray[Any, Any]) -> Any:
        return step(x, w)

    session = ort_ops.InferenceSession(one_node("Op", w=numpy_helper.from_array(GOOD[0] * 2)))
    check(session)
    attempt(session, BAD)
    check(session)


@behaviour("refused", "refused")
def a_tensor_attribute_is_of_complex_numbers() -> None:
    """ONNX Runtime can't hand it on; the kernel's default would take its place."""

    @ort_ops.onnx_op(f"{DOMAIN}::Op", inputs=["float32"])
    def op(x: Any, *, w: np.ndarray[Any, Any] = BAD) -> Any:
        return x

    for dtype in (np.complex64, np.complex128):
        w = numpy_helper.from_array(np.ones(2, dtype))
        try:
            ort_ops.InferenceSession(one_node("Op", w=w))
        except Exception as error:
            print("refused" if "a tensor of a type that ONNX Runtime hasn't" in str(error) else error)


@behaviour(*("ValueError: 'x' has masked elements",) * 3, "no error")
def a_run_is_fed_with_masked_elements() -> None:
    session = ort_ops.InferenceSession(model([builtin("Neg", ["x"], ["y"])]))
    masked = np.ma.masked_equal(BAD, 0)
    feeds = (
        lambda: session.run(None, {"x": masked}),
        lambda: session.run_async(None, {"x": masked}, print, None),
        lambda: session.bind({"x": masked}),
        lambda: session.run(None, {"x": np.ma.masked_equal(GOOD, 0)}),
    )
    for feed in feeds:
        try:
            feed()
            print("no error")
        except ValueError as error:
            print(f"ValueError: {str(error).partition(',')[0].removeprefix('input ')}")


@behaviour(*["ResultError: returned an object array with a NoneType in it; expected strings alone"] * 2)
def strings_that_numpy_has_not_filled() -> None:
    """An object array may hold no object at all, which is read as None."""

    @ort_ops.onnx_op(f"{DOMAIN}::Op", inputs=["string"], outputs=["string"])
    def op(x: Any) -> Any:
        return np.add(x, x, where=np.array([True, False]))

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = ort_ops.InferenceSession(one_node("Op", "string"), options)
    for _ in range(2):
        attempt(session, np.array(["a", "b"], object))
