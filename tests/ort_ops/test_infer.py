"""What a kernel's ``infer`` function is given, and what ONNX Runtime is told by it."""

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import ort_ops
from ort_ops.errors import SchemaError

from .models import DOMAIN, builtin, model, node, tensor

op = ort_ops.onnx_op
Floats = NDArray[np.float32]


def test_inferred_types_and_shapes_show_downstream() -> None:
    @op(f"{DOMAIN}::Op")
    def kernel(x: NDArray[np.float32]) -> NDArray[np.int64]:
        return np.concatenate([x, x], 1).astype(np.int64)

    @kernel.infer
    def _(x: ort_ops.TensorType) -> ort_ops.TensorType:
        assert x.shape is not None
        return ort_ops.TensorType(np.dtype(np.int64), (x.shape[0], np.int64(2) * x.shape[1], None))  # type: ignore[operator]

    data = model(
        [node("Op", outputs=["v"]), builtin("Neg", ["v"], ["y"])],
        [tensor("x", shape=["batch", 3])],
        [onnx.ValueInfoProto(name="y")],
    )
    (y,) = ort_ops.InferenceSession(data).get_outputs()
    assert (y.type, y.shape[:2]) == ("tensor(int64)", ["batch", 6])
    assert y.shape[2].startswith("unknown_")


def test_unknown_dimensions_are_each_another_one() -> None:
    @op(f"{DOMAIN}::Op")
    def kernel(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return x[:, : x.shape[1] // 2]

    @kernel.infer
    def _(x: ort_ops.TensorType) -> ort_ops.TensorType:
        assert x.shape is not None
        return ort_ops.TensorType(x.dtype, (x.shape[0], None))

    nodes = [
        node("Op", outputs=["v"]),
        node("Op", ["v"], ["w"]),
        builtin("Concat", ["v", "w"], ["y"], axis=1),
    ]
    nodes[1].name = "second"
    x = np.arange(24, dtype=np.float32).reshape(2, 12)
    data = model(nodes, [tensor("x", shape=["n", 12])], [tensor("y", shape=["n", 9])])
    (y,) = ort_ops.InferenceSession(data).run(None, {"x": x})
    np.testing.assert_array_equal(y, np.concatenate([x[:, :6], x[:, :3]], 1))


@pytest.mark.parametrize(
    ("result", "error", "said"),
    [
        (ZeroDivisionError("in infer"), ZeroDivisionError, "in infer"),
        (TypeError("in infer"), SchemaError, "Op: the infer function of .* failed: TypeError: in infer$"),
        ((2, 3), SchemaError, "has to return ort_ops.TensorType.*; got 2, which is part of a shape"),
        (np.float32, SchemaError, "has to return ort_ops.TensorType.*; got type"),
        (ort_ops.TensorType(np.dtype(np.float64), (2,)), SchemaError, "declares float32"),
        (
            ort_ops.TensorType(None, (1.5,)),
            SchemaError,
            r"output 0 has shape \(1.5,\); expected a tuple of sizes",
        ),  # type: ignore[arg-type]
        (ort_ops.TensorType(None, (-1, 3)), SchemaError, r"output 0 has shape \(-1, 3\)"),
        (ort_ops.TensorType(None, (2**70,)), SchemaError, "output 0 has shape"),
        (ort_ops.TensorType(None, "nm"), SchemaError, "output 0 has shape 'nm'"),  # type: ignore[arg-type]
        ((), SchemaError, "gives 0 outputs; expected one .* each of the kernel's 1"),
        ((ort_ops.TensorType(None, (2,)),) * 2, SchemaError, "gives 2 outputs"),
    ],
)
def test_an_error_in_infer_is_raised_when_the_session_is_made(
    result: Any, error: type[Exception], said: str
) -> None:
    @op(f"{DOMAIN}::Op")
    def kernel(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return x

    @kernel.infer
    def _(x: Any) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    with pytest.raises(error, match=said):
        ort_ops.InferenceSession(model([node("Op")], [tensor("x", shape=[2, 3])]))


def test_a_function_that_counts_with_a_symbol_is_told_what_a_dimension_may_be() -> None:
    @op(f"{DOMAIN}::Op")
    def kernel(x: Floats) -> Floats:
        return x[: len(x) // 2]

    @kernel.infer
    def counts(x: Any) -> ort_ops.TensorType:
        return ort_ops.TensorType(x.dtype, (x.shape[0] // 2,))

    def session(size: int | str) -> ort_ops.InferenceSession:
        return ort_ops.InferenceSession(model([node("Op")], [tensor("x", shape=[size])], [tensor("y")]))

    said = r"Op: .* failed: TypeError: .*; it is given the dimension 'n'.* isinstance\(n, int\)"
    with pytest.raises(SchemaError, match=said) as caught:
        session("n")
    assert isinstance(caught.value.__cause__, TypeError)
    assert session(6).get_outputs()


def test_whatever_a_function_raises_has_a_note_of_the_operator() -> None:
    @op(f"{DOMAIN}::Op")
    def kernel(x: Floats) -> Floats:
        return x

    kernel.infer(lambda x: int(x.shape[0]))
    with pytest.raises(ValueError, match="invalid literal") as caught:
        ort_ops.InferenceSession(model([node("Op")], [tensor("x", shape=["n"])], [tensor("y")]))
    assert f"{DOMAIN}::Op: the infer function of " in caught.value.__notes__[0]
    assert "is given the dimension 'n'" in caught.value.__notes__[0]


def test_a_function_that_does_not_take_the_inputs_is_refused_at_once() -> None:
    @op(f"{DOMAIN}::Op")
    def kernel(x: Floats, y: Floats | None = None, *, size: int = 2) -> Floats:
        return x

    wrong: list[Any] = [lambda x: x, lambda x, y, size: x, lambda x, y, z, *, size: x, lambda x, *, size: x]
    for function in wrong:
        with pytest.raises(SchemaError, match=r"kernel: its infer function takes \(x.*\); expected \(x, y"):
            kernel.infer(function)
    with pytest.raises(SchemaError, match=r"expected \(x, y, \*, size\): a positional parameter for each"):
        kernel.infer(lambda x, *, size: x)
    right: list[Any] = [lambda *xs: xs[0], lambda x, y, *, size: x, lambda x, y=None, size=1: x]
    for function in right:
        kernel.infer(function)


# --- attributes ------------------------------------------------------------------------------------

DEFAULTS = {
    "i": 7,
    "b": True,
    "f": 0.5,
    "s": "text",
    "ints": (1, 2),
    "bools": (True, False),
    "floats": (0.5,),
}


def shape_said(data: bytes) -> list[Any]:
    """Return the shape of the output of a model that leaves it open."""
    shape: list[Any] = ort_ops.InferenceSession(data).get_outputs()[0].shape
    return shape


def open_model(**attributes: Any) -> bytes:
    return model([node("Op", **attributes)], [tensor("x", shape=["n", 3])], [onnx.ValueInfoProto(name="y")])


def test_it_is_given_the_attributes_that_it_names() -> None:
    @op(f"{DOMAIN}::Op")
    def kernel(x: Floats, *, times: int, axis: int = 1) -> Floats:
        return np.concatenate([x] * times, axis)

    @kernel.infer
    def _(x: ort_ops.TensorType, *, times: int, axis: int) -> ort_ops.TensorType:
        assert x.shape is not None
        sizes = list(x.shape)
        sizes[axis] = None if isinstance(sizes[axis], str) else times * sizes[axis]  # type: ignore[operator]
        return ort_ops.TensorType(x.dtype, tuple(sizes))

    assert shape_said(open_model(times=4)) == ["n", 12]
    along_rows = shape_said(open_model(times=2, axis=0))
    assert (along_rows[0].startswith("unknown_"), along_rows[1]) == (True, 3)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, DEFAULTS),
        (
            {"i": -3, "b": 0, "f": 0.25, "s": "ä", "ints": [5], "bools": [0, 1, 1], "floats": [1.5, -2.0]},
            {
                "i": -3,
                "b": False,
                "f": 0.25,
                "s": "ä",
                "ints": [5],
                "bools": [False, True, True],
                "floats": [1.5, -2.0],
            },
        ),
    ],
)
def test_attributes_are_of_every_kind_with_the_kernels_defaults(
    given: dict[str, Any], expected: dict[str, Any]
) -> None:
    @op(f"{DOMAIN}::Op")
    def kernel(
        x: Floats,
        *,
        i: int = 7,
        b: bool = True,
        f: float = 0.5,
        s: str = "text",
        ints: list[int] = (1, 2),  # type: ignore[assignment]
        bools: list[bool] = (True, False),  # type: ignore[assignment]
        floats: list[float] = (0.5,),  # type: ignore[assignment]
    ) -> Floats:
        return x

    seen: list[dict[str, Any]] = []

    @kernel.infer
    def _(x: Any, *, i: Any, b: Any, f: Any, s: Any, ints: Any, bools: Any, floats: Any) -> Any:
        values = {"i": i, "b": b, "f": f, "s": s, "ints": ints, "bools": bools, "floats": floats}
        seen.append(values)
        return x

    assert shape_said(open_model(**given)) == ["n", 3]
    assert seen
    for values in seen:
        assert values == expected
        assert [type(value) for value in values.values()] == [type(value) for value in expected.values()]


def test_buffers_to_fill_are_of_the_shape_that_attributes_give() -> None:
    @op(f"{DOMAIN}::Op")
    def kernel(x: Floats, *, rows: int = 2, out: Floats) -> None:
        out[:] = x.sum(0)

    @kernel.infer
    def _(x: ort_ops.TensorType, *, rows: int) -> ort_ops.TensorType:
        assert x.shape is not None
        return ort_ops.TensorType(x.dtype, (rows, x.shape[1]))

    for given, rows in (({}, 2), ({"rows": 5}, 5)):
        (y,) = ort_ops.InferenceSession(open_model(**given)).run(None, {"x": np.ones((4, 3), np.float32)})
        np.testing.assert_array_equal(y, np.full((rows, 3), 4))


def test_a_missing_attribute_is_the_kernels_error() -> None:
    @op(f"{DOMAIN}::Op")
    def kernel(x: Floats, *, times: int) -> Floats:
        return x

    kernel.infer(lambda x, *, times: ort_ops.TensorType(x.dtype, (times,)))
    with pytest.raises(Exception, match='has no attribute "times"'):
        ort_ops.InferenceSession(open_model())


def test_an_attribute_that_it_can_not_be_given_is_refused_at_once() -> None:
    @op(f"{DOMAIN}::Op")
    def kernel(x: Floats, *, table: NDArray[np.float32], size: int = 2) -> Floats:
        return x

    with pytest.raises(SchemaError, match="asks for 'table', a tensor, which ONNX Runtime doesn't show"):
        kernel.infer(lambda x, *, table: x)
    with pytest.raises(SchemaError, match=r"asks for 'width', which is no attribute .* one of table, size"):
        kernel.infer(lambda x, *, width: x)


def test_a_symbol_of_the_file_is_no_unknown_dimension() -> None:
    @op(f"{DOMAIN}::Op")
    def kernel(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return x[x > 0]

    @kernel.infer
    def _(x: ort_ops.TensorType) -> ort_ops.TensorType:
        return ort_ops.TensorType(x.dtype, (None,))

    for number in range(20):
        ends = [tensor("x", shape=[f"unknown_{number}"])], [onnx.ValueInfoProto(name="y")]
        session = ort_ops.InferenceSession(model([node("Op")], *ends))
        assert session.run(None, {"x": np.array([-1, 2, 3], np.float32)})[0].tolist() == [2, 3]
