"""Kernels that return what is no result."""

from typing import Any

import numpy as np

from tests.ort_ops.releases import NUMPY

from .base import kernel, lambdas

ONE = "expected a NumPy array"
PAIR = "expected a tuple of 2, each a NumPy array: return a, b"
SEVERAL = "several outputs are declared as -> tuple[A, B]"
# NumPy 1 itself has 32 dimensions at the most.
TOO_MANY = "KernelError: ValueError: maximum supported dimension for an ndarray is 32, found 64"
OF_64 = "no error" if NUMPY >= (2, 0) else TOO_MANY

lambdas(
    [
        ("none", lambda x: None, f"ResultError: returned None; {ONE}; did the function forget its return?"),
        ("a_list", lambda x: x.tolist(), f"ResultError: returned a list; {ONE}"),
        ("a_number", lambda x: 1.0, f"ResultError: returned a float; {ONE}"),
        ("a_string", lambda x: "text", f"ResultError: returned a str; {ONE}"),
        ("a_generator", lambda x: (i for i in x), f"ResultError: returned a generator; {ONE}"),
        ("a_class", lambda x: np.ndarray, f"ResultError: returned a type; {ONE}"),
        ("not_implemented", lambda x: NotImplemented, f"ResultError: returned a NotImplementedType; {ONE}"),
        (
            "a_tuple",
            lambda x: (x, x),
            f"ResultError: returned a tuple of 2 (ndarray, ndarray); {ONE}; {SEVERAL}",
        ),
        (
            "objects",
            lambda x: np.array([None]),
            "ResultError: returned dtype object for output 0; expected float32: nothing is cast for you, so "
            "return result.astype('float32') if that is what you mean",
        ),
        (
            "another_dtype",
            lambda x: x.astype(np.float64),
            "ResultError: returned dtype float64 for output 0; expected float32: nothing is cast for you, so "
            "return result.astype('float32') if that is what you mean",
        ),
        (
            "the_same_size_in_another_dtype",
            lambda x: x.view(np.int32),
            "ResultError: returned dtype int32 for output 0; expected float32: nothing is cast for you, so "
            "return result.astype('float32') if that is what you mean",
        ),
        (
            "masked_elements",
            lambda x: np.ma.masked_equal(x, 0),
            "ResultError: returned masked elements in output 0, and a tensor has no mask; say what they are: "
            "return result.filled(value)",
        ),
        ("an_array_with_a_mask_that_masks_nothing", lambda x: np.ma.masked_equal(x, 7), "no error"),
        (
            "a_record",
            lambda x: np.zeros(3, [("a", "f4")]),
            "ResultError: returned dtype [('a', '<f4')] for output 0; expected float32: nothing is cast for "
            "you, so return result.astype('float32') if that is what you mean",
        ),
    ]
)
lambdas(
    [
        ("one_of_two", lambda x: x, f"ResultError: returned a ndarray; {PAIR}"),
        ("a_tuple_of_one", lambda x: (x,), f"ResultError: returned a tuple of 1 (ndarray); {PAIR}"),
        (
            "a_tuple_of_three",
            lambda x: (x, x, x),
            f"ResultError: returned a tuple of 3 (ndarray, ndarray, ndarray); {PAIR}",
        ),
        ("a_list_of_two", lambda x: [x, x], f"ResultError: returned a list; {PAIR}"),
        (
            "none_in_a_tuple",
            lambda x: (x, None),
            f"ResultError: returned a tuple of 2 (ndarray, NoneType); {PAIR}",
        ),
    ],
    outputs=2,
)


CAST = "nothing is cast for you, so return result.astype('float32') if that is what you mean"


def refused(dtype: str) -> str:
    return f"ResultError: returned dtype {dtype} for output 0; expected float32: {CAST}"


class Array(np.ndarray):
    """A subclass is an array like any other."""


lambdas(
    [
        ("an_empty_tuple", lambda x: (), f"ResultError: returned a tuple of 0 (); {ONE}; {SEVERAL}"),
        ("a_dict", lambda x: {"y": x}, f"ResultError: returned a dict; {ONE}"),
        ("a_set", lambda x: {1.0}, f"ResultError: returned a set; {ONE}"),
        ("a_bool", lambda x: True, f"ResultError: returned a bool; {ONE}"),
        ("a_complex_number", lambda x: 1j, f"ResultError: returned a complex; {ONE}"),
        ("bytes_of_the_right_length", lambda x: x.tobytes(), f"ResultError: returned a bytes; {ONE}"),
        ("a_memoryview_of_its_input", lambda x: memoryview(x), f"ResultError: returned a memoryview; {ONE}"),
        ("itself", lambda x: lambdas, f"ResultError: returned a function; {ONE}"),
        (
            "an_exception_object",
            lambda x: ValueError("not raised"),
            f"ResultError: returned a ValueError; {ONE}",
        ),
        ("a_python_int", lambda x: 2**100, f"ResultError: returned a int; {ONE}"),
        ("a_list_of_arrays", lambda x: [x], f"ResultError: returned a list; {ONE}"),
        ("float16", lambda x: x.astype(np.float16), refused("float16")),
        ("a_double_scalar", lambda x: np.float64(1), refused("float64")),
        ("bools", lambda x: x > 0, refused("bool")),
        ("complex_numbers", lambda x: x.astype(np.complex64), refused("complex64")),
        ("dates", lambda x: np.zeros(3, "M8[s]"), refused("datetime64[s]")),
        ("durations", lambda x: np.zeros(3, "m8[s]"), refused("timedelta64[s]")),
        ("text", lambda x: np.array(["a"]), refused("<U1")),
        ("raw_bytes", lambda x: np.array([b"a"]), refused("|S1")),
        ("voids", lambda x: np.zeros(3, "V4"), refused("|V4")),
        ("long_doubles", lambda x: x.astype(np.longdouble), refused("float128")),
        ("a_subclass", lambda x: x.copy().view(Array), "no error"),
        ("a_scalar", lambda x: np.float32(1), "no error"),
        ("a_transpose", lambda x: x.T, "no error"),
        ("a_byte_swapped_array", lambda x: x.astype(">f4"), "no error"),
        ("an_array_of_64_dimensions", lambda x: x.sum().reshape((1,) * 64), OF_64),
        ("an_empty_array", lambda x: x[:0], "no error"),
    ]
)
lambdas(
    [
        ("a_dict_of_two", lambda x: {0: x, 1: x}, f"ResultError: returned a dict; {PAIR}"),
        ("an_array_of_two", lambda x: np.stack([x, x]), f"ResultError: returned a ndarray; {PAIR}"),
        (
            "nothing_of_two",
            lambda x: None,
            f"ResultError: returned None; {PAIR}; did the function forget its return?",
        ),
        (
            "the_second_in_another_dtype",
            lambda x: (x, x.astype(int)),
            refused("int64").replace("output 0", "output 1"),
        ),
    ],
    outputs=2,
)


@kernel(refused("float64"), outputs=2)
def changes_a_result_while_another_is_looked_at(x: Any) -> Any:
    """Its elements become twice as large, behind the look at their type where that came first."""
    first = np.ones(1 << 16, np.float32)

    class Masked(np.ndarray):
        @property
        def _mask(self) -> Any:
            first.dtype = np.float64
            return np.ma.nomask

    return first, np.ones(2, np.float32).view(Masked)


class LongTuple(tuple[Any, ...]):
    """A tuple that says it is longer than it is."""

    def __len__(self) -> int:
        return 2


@kernel(f"ResultError: returned a tuple of 2 (ndarray); {PAIR}", outputs=2)
def a_tuple_that_lies_about_its_length(x: Any) -> Any:
    return LongTuple((x,))
