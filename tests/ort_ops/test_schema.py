from collections.abc import Callable
from typing import Any, TypeVar

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from ort_ops.dtypes import DTYPES
from ort_ops.errors import SchemaError
from ort_ops.schema import Attribute, Formal, Signature, read_schema

T = TypeVar("T", np.float32, ml_dtypes.bfloat16)
U = TypeVar("U", np.int32, np.int64)
Free = TypeVar("Free")

FLOAT, INT32, INT64, DOUBLE, BFLOAT16 = 1, 6, 7, 11, 16


def signatures(function: Callable[..., Any], **declared: Any) -> set[tuple[Any, ...]]:
    return {(s.inputs, s.outputs) for s in read_schema(function, **declared).signatures()}


def test_unannotated_parameters_take_any_type_and_the_result_that_of_the_first() -> None:
    def kernel(x, y=None): ...

    schema = read_schema(kernel)
    assert schema.inputs == (Formal("x"), Formal("y", optional=True))
    assert schema.outputs == (Formal("output0"),)
    assert list(schema.signatures()) == [Signature((0, 0), (0,))]


def test_arrays_scalars_unions_and_names_give_element_types() -> None:
    def kernel(a: NDArray[np.float32], b: np.float64, c: np.int32 | np.int64) -> NDArray[np.float32]: ...

    found = {((FLOAT, DOUBLE, INT32), (FLOAT,)), ((FLOAT, DOUBLE, INT64), (FLOAT,))}
    assert signatures(kernel) == found


def test_a_type_variable_is_one_type_in_all_its_places() -> None:
    def kernel(x: NDArray[T], i: NDArray[U], y: NDArray[T] | None = None) -> NDArray[T]: ...

    pairs = [(t, u) for t in (FLOAT, BFLOAT16) for u in (INT32, INT64)]
    assert signatures(kernel) == {((t, u, t), (t,)) for t, u in pairs}


def test_an_alias_is_what_it_stands_for() -> None:
    """``NDArray`` is one from NumPy 2.5 on."""
    aliases = pytest.importorskip("typing_extensions")
    array = np.ndarray[Any, np.dtype[Free]]  # type: ignore[type-var]
    alias: Any = aliases.TypeAliasType("alias", array, type_params=(Free,))

    def kernel(x: alias[T], i: alias[np.int32] | None = None, *, table: alias[np.int64]) -> alias[T]: ...

    assert signatures(kernel) == {((t, INT32), (t,)) for t in (FLOAT, BFLOAT16)}
    assert [attribute.kind for attribute in read_schema(kernel).attributes] == ["tensor"]


def test_a_free_type_variable_is_every_type_that_all_releases_have() -> None:
    def kernel(x: NDArray[Free]) -> NDArray[Free]: ...

    assert signatures(kernel) == {((d.onnx,), (d.onnx,)) for d in DTYPES if d.onnx <= BFLOAT16}


Floating = TypeVar("Floating", bound=np.floating)
Either = TypeVar("Either", bound=np.float32 | np.int64)
SAME_NAME = TypeVar("U", np.int32, np.int64), TypeVar("U", np.float32, np.float64)


def test_a_bound_type_variable_is_the_types_of_its_bound() -> None:
    def kernel(x: NDArray[Floating]) -> NDArray[Floating]: ...
    def either(x: NDArray[Either]) -> NDArray[Either]: ...
    def any_of_them(x: NDArray[np.integer[Any]]) -> np.float32: ...

    assert signatures(kernel) == {((t,), (t,)) for t in (FLOAT, 10, DOUBLE)}
    assert signatures(either) == {((t,), (t,)) for t in (FLOAT, INT64)}
    assert signatures(any_of_them) == {((t,), (FLOAT,)) for t in (2, 3, 4, 5, INT32, INT64, 12, 13)}


def test_one_type_or_any_is_any() -> None:
    def kernel(x: NDArray[np.float32] | np.ndarray) -> np.float32: ...
    def twice(x: NDArray[np.floating[Any]] | NDArray[np.float32]) -> np.float32: ...
    def mixed(x: NDArray[T] | NDArray[np.int64], y: NDArray[T]) -> NDArray[T]: ...

    assert signatures(kernel) == {((0,), (FLOAT,))}
    assert signatures(twice) == {((t,), (FLOAT,)) for t in (FLOAT, 10, DOUBLE)}
    with pytest.raises(SchemaError, match="'x' is of a type variable or another type"):
        read_schema(mixed)


def test_two_type_variables_of_one_name_are_two() -> None:
    one, other = SAME_NAME

    def kernel(x, y): ...

    found = signatures(kernel, inputs=[one, other], outputs=[other])
    assert found == {((i, f), (f,)) for i in (INT32, INT64) for f in (FLOAT, DOUBLE)}


def test_star_takes_any_number_and_none_gives_no_output() -> None:
    def kernel(*xs: np.float32) -> None: ...

    schema = read_schema(kernel)
    assert schema.inputs == (Formal("xs", (FLOAT,), variadic=True),)
    assert schema.outputs == ()


def test_a_kernel_that_fills_its_outputs_has_their_types_on_out() -> None:
    def one(x: np.float32, *, out: NDArray[np.int64]) -> None: ...
    def two(x: np.float32, *, out: tuple[NDArray[np.int64], np.float32]): ...
    def like_the_input(x: np.float32, *, out: Any) -> None: ...
    def by_the_result(x: np.float32, *, out: Any) -> NDArray[np.int64]: ...

    assert signatures(one) == signatures(by_the_result) == {((FLOAT,), (INT64,))}
    assert signatures(two) == {((FLOAT,), (INT64, FLOAT))}
    assert signatures(like_the_input) == {((FLOAT,), (FLOAT,))}
    assert read_schema(one).takes_out
    assert read_schema(one).attributes == ()


def test_a_tuple_is_several_outputs() -> None:
    def kernel(x: np.float32) -> tuple[NDArray[np.float32], np.int64]: ...

    assert signatures(kernel) == {((FLOAT,), (FLOAT, INT64))}


def test_keyword_only_parameters_are_attributes() -> None:
    def kernel(x, *, n: int, alpha: float = 1.0, on=True, mode="a", dims: list[int] = [], f: list[float]): ...  # noqa: B006

    assert read_schema(kernel).attributes == (
        Attribute("n", "int", True),
        Attribute("alpha", "float", False),
        Attribute("on", "bool", False),
        Attribute("mode", "str", False),
        Attribute("dims", "list[int]", False),
        Attribute("f", "list[float]", True),
    )


def test_an_attribute_may_be_left_out_altogether() -> None:
    def kernel(x, *, alpha: float | None = None, dims: "list[int] | None" = None, n: int | None): ...

    assert read_schema(kernel).attributes == (
        Attribute("alpha", "float", False),
        Attribute("dims", "list[int]", False),
        Attribute("n", "int", True),
    )


def test_lists_of_types_replace_the_annotations() -> None:
    def kernel(x: Any, y: Any) -> Any: ...

    assert signatures(kernel, inputs=["float32", T], outputs=[T]) == {
        ((FLOAT, t), (t,)) for t in (FLOAT, BFLOAT16)
    }


def many(a: Free, b: T, c: U, d: np.int32 | np.int64, e: np.int32 | np.int64, f: np.int8 | np.uint8) -> T: ...


def from_nowhere(x: "Nowhere"): ...  # type: ignore[name-defined]  # noqa: F821


def misspelt(x: "np.flot32"): ...  # type: ignore[name-defined]


THREE = np.ones(3)


async def awaits(x): ...


def yields(x):
    yield x


@pytest.mark.parametrize(
    ("kernel", "said"),
    [
        (5, "5 is a int; expected a function"),
        (awaits, "test_schema.awaits: is async"),
        (yields, "test_schema.yields: yields; expected a function that returns"),
        (misspelt, "no attribute 'flot32'.*; annotations are looked up"),
        (lambda x, w=THREE: None, r"input 'w' has the default array.*behind a \*"),
        (lambda **attributes: None, r"\*\*attributes can't be.*keyword-only"),
        (lambda x, alpha=1.0: None, r"input 'alpha' has the default 1.0.*behind a \*"),
        (lambda: None, "no input whose type its output could take"),
        (
            lambda x, *, a=(1, "b"): None,
            r"attribute 'a' has the default \(.*\), which doesn't say of what kind",
        ),
        (lambda x, *, a: None, "attribute 'a' is annotated None"),
        (lambda x, *, a=None: None, "attribute 'a' is annotated .*NoneType.*one with | None"),
        (many, "more than 256 combinations.*share a type variable"),
        (from_nowhere, "'Nowhere' is not defined; annotations are looked up"),
    ],
)
def test_a_signature_that_is_no_operator_is_refused(kernel: Callable[..., Any], said: str) -> None:
    with pytest.raises(SchemaError, match=said):
        read_schema(kernel)


def test_a_type_that_is_no_element_type_is_refused() -> None:
    def kernel(x: NDArray[np.complex64]) -> None: ...

    def union(x: np.int32 | np.int64): ...

    with pytest.raises(SchemaError, match=r"'x' is annotated.*complex64.*expected a NumPy type"):
        read_schema(kernel)
    with pytest.raises(SchemaError, match="annotate the result; input 'x' is of several types"):
        read_schema(union)
    with pytest.raises(SchemaError, match="inputs= lists 2 types for 1 parameters"):
        read_schema(union, inputs=["float32", "float32"])


@pytest.mark.parametrize(
    ("annotation", "as_input", "as_output"),
    [
        (float, r"'x' is annotated float, .*np.float64.*behind a \*", "tensor of it is np.float64$"),
        (int, "'x' is annotated int, and a positional parameter is an input", "is an output, .*np.int64"),
        (str, "tensor of it is 'string'", "'output 0' is annotated str, .*'string'"),
        (bool, "tensor of it is np.bool_", "tensor of it is np.bool_"),
        (float | None, "tensor of it is np.float64", "tensor of it is np.float64"),
        (np.float32 | int, "tensor of it is np.int64", "tensor of it is np.int64"),
        (list, r"\*xs, annotated with the type of one", r"several outputs are -> tuple\[A, B\]"),
        (list[NDArray[np.float32]], r"\*xs, annotated with the type of one", r"several outputs are -> tuple"),
        (tuple, r"\*xs, annotated with the type of one", r"several outputs are -> tuple\[A, B\]"),
        (dict, "dict.*, which is no element type", "dict.*, which is no element type"),
        (object, "object.*, which is no element type", "object.*, which is no element type"),
        (NDArray[Formal], "Formal.*, which is no element type", "Formal.*, which is no element type"),  # type: ignore[type-var]
    ],
    ids=str,
)
def test_what_is_no_tensor_is_refused(annotation: Any, as_input: str, as_output: str) -> None:
    def kernel(x): ...

    kernel.__annotations__ = {"x": annotation, "return": np.float32}
    with pytest.raises(SchemaError, match=as_input):
        read_schema(kernel)
    kernel.__annotations__ = {"return": annotation}
    with pytest.raises(SchemaError, match=as_output):
        read_schema(kernel)


def test_arrays_of_what_numpy_has_a_type_for_are_of_that_type() -> None:
    def kernel(x: NDArray[float], y: NDArray[int], z: NDArray[bool]) -> NDArray[str]: ...  # type: ignore[type-var]

    assert signatures(kernel) == {((DOUBLE, INT64, 9), (8,))}


def test_the_text_bool_is_a_type_of_tensors_and_of_attributes() -> None:
    def kernel(x: "bool", *, on: "bool") -> "bool": ...

    assert signatures(kernel) == {((9,), (9,))}
    assert read_schema(kernel).attributes == (Attribute("on", "bool", True),)


def test_types_are_named_by_strings() -> None:
    def kernel(x: "float32", y: "string", *more: "int4") -> "bfloat16":  # type: ignore[name-defined] # noqa: F821
        return x

    schema = read_schema(kernel)
    assert [f.types for f in (*schema.inputs, *schema.outputs)] == [(1,), (8,), (22,), (16,)]


def test_types_are_named_by_onnxscripts_tensor_types() -> None:
    onnxscript: Any = pytest.importorskip("onnxscript")

    def kernel(x: onnxscript.FLOAT, y: onnxscript.BFLOAT16["N", 3]) -> onnxscript.INT64[...]:  # type: ignore[type-arg,valid-type] # noqa: F821
        return x

    schema = read_schema(kernel)
    assert [f.types for f in (*schema.inputs, *schema.outputs)] == [(1,), (16,), (7,)]
