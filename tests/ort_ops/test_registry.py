import copy
import functools
import pickle
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ort_ops
from ort_ops.errors import RegistrationError, SchemaError
from ort_ops.providers import CUDA
from ort_ops.registry import Op, find_ops, registered_ops, split_name

NAME = ("test.domain", "Op")


def register(kind: Any, name: str = "kernel", **options: Any) -> Op:
    def kernel(x): ...

    kernel.__qualname__ = name
    return ort_ops.onnx_op("test.domain::Op", inputs=[kind], **options)(kernel)


def test_a_kernel_stays_a_function() -> None:
    @ort_ops.onnx_op("test.domain::Twice")
    def twice(x):
        """Double."""
        return 2 * x

    assert twice(21) == 42
    assert twice.__doc__ == "Double."
    assert "test.domain::Twice on CPUExecutionProvider" in repr(twice)


def test_other_types_providers_and_versions_live_together() -> None:
    ops = [
        register("float32", "a"),
        register("float64", "b"),
        register("float32", "c", providers=[CUDA], array="torch"),
        register("float32", "d", version=2),
    ]
    assert find_ops(NAME, 1) == ops[:3]
    assert find_ops(NAME) == find_ops(NAME, 7) == ops[3:]
    assert find_ops(NAME, 0) == find_ops(("other", "Op")) == []


def test_two_kernels_for_one_thing_are_refused() -> None:
    first = register("float32", "a")
    with pytest.raises(RegistrationError, match="kernels for the same operator, types and provider"):
        register("float32", "b")
    assert find_ops(NAME) == [first]


def test_the_same_function_defined_anew_replaces_its_predecessor() -> None:
    register("float32")
    again = register("float32")
    assert find_ops(NAME) == [again]
    assert list(registered_ops())[-1] is again


def test_one_function_may_be_registered_for_several_providers_and_types() -> None:
    def twice(x): ...

    for provider in ("CPUExecutionProvider", CUDA):
        ort_ops.onnx_op("test.domain::Op", providers=[provider], array="torch")(twice)
    assert [op.kernel.providers for op in find_ops(NAME)] == [("CPUExecutionProvider",), (CUDA,)]
    for kind in ("int32", "int64", "int64"):  # the last replaces the one before
        for name, kernel in (
            ("Partial", functools.partial(scaled.kernel.function, by=2.0)),
            ("Scale", Scale(2)),
        ):
            ort_ops.onnx_op(f"test.domain::{name}", inputs=[kind], outputs=[kind])(kernel)
    for name in ("Partial", "Scale"):
        assert [op.kernel.schema.inputs[0].types for op in find_ops(("test.domain", name))] == [(6,), (7,)]


def test_another_name_of_a_kernel_infers_as_the_first_does() -> None:
    op = register("float32")
    op.infer(lambda x: x)
    other = ort_ops.onnx_op("test.domain::Other", inputs=["float32"])(op)
    assert other._infer is op._infer


def test_two_functions_of_one_name_in_other_domains_are_two_kernels() -> None:
    def kernel(x): ...

    ops = [ort_ops.onnx_op(f"test.{domain}::Op")(kernel) for domain in "ab"]
    assert [find_ops((f"test.{domain}", "Op")) for domain in "ab"] == [ops[:1], ops[1:]]


@pytest.mark.parametrize(
    ("name", "split"),
    [("a.b::Op", ("a.b", "Op")), ("::Op", ("", "Op")), ("ai.onnx::Op", ("", "Op"))],
)
def test_names_split(name: str, split: tuple[str, str]) -> None:
    assert split_name(name) == split


@pytest.mark.parametrize("name", ["Op", "a::", "a::b::c", "", "a::b\0c", " a::b", "a::b,c", 5, len])
def test_what_names_no_operator_is_refused(name: Any) -> None:
    with pytest.raises(SchemaError, match="names no operator; expected 'domain::NAME'"):
        split_name(name)


@pytest.mark.parametrize(
    ("names", "options", "said"),
    [
        ((), {}, "expected a name"),
        (("a::B",), {"providers": "CPUExecutionProvider"}, "expected a list of names"),
        (("a::B",), {"providers": []}, "expected a list of names"),
        (("a::B",), {"providers": ["CPU"]}, "expected a list of names such as 'CPUExecutionProvider'"),
        (("a::B",), {"version": "1"}, "version='1'; expected an integer from 1 on"),
        (("a::B",), {"version": 0}, "version=0; expected an integer from 1 on"),
        (("a::B",), {"array": "jax"}, "expected 'numpy', 'torch' or 'dlpack'"),
        (("a::B",), {"providers": [CUDA]}, "which NumPy can't read"),
    ],
)
def test_a_wrong_declaration_is_refused(names: tuple[str, ...], options: Any, said: str) -> None:
    with pytest.raises(SchemaError, match=said):
        ort_ops.onnx_op(*names, **options)


class Scale:
    def __init__(self, by: float) -> None:
        self.by = by

    def __call__(self, x: np.float64) -> np.float64:
        return x * self.by

    def twice(self, x: np.float64) -> np.float64:
        return self(self(x))


@ort_ops.onnx_op("test.pickled::Op")
def scaled(x: np.float64, *, by: float = 1.0) -> np.float64:
    return x * by


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (Scale(2), "Scale"),
        (Scale(2).twice, "Scale.twice"),
        (functools.partial(scaled.kernel.function, by=2.0), "scaled"),
        (functools.partial(functools.partial(Scale(2))), "Scale"),
        (scaled, "scaled"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_can_be_called_is_a_kernel(function: Callable[..., Any], name: str) -> None:
    op = ort_ops.onnx_op("test.domain::Op")(function)
    assert op.kernel.where == f"{__name__}.{name}"
    assert op(3.0) == function(3.0)
    assert [formal.types for formal in (*op.kernel.schema.inputs, *op.kernel.schema.outputs)] == [
        (11,),
        (11,),
    ]


def test_what_infers_is_a_function() -> None:
    with pytest.raises(SchemaError, match=r"infer: got 5; expected a function"):
        register("float32").infer(5)  # type: ignore[arg-type]


def test_a_kernel_is_pickled_and_copied_by_name() -> None:
    assert pickle.loads(pickle.dumps(scaled)) is scaled
    assert copy.deepcopy([scaled]) == [scaled]
    local = register("float32")
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(local)


def test_an_overload_takes_known_unknown_and_absent_types() -> None:
    @ort_ops.onnx_op("test.domain::Op")
    def kernel(x: np.float32, y: np.int64 | None = None): ...

    (overload,) = kernel.overloads(NAME, leaves_out=False)
    for fitting in ([1], [None], [1, 7], [1, 0], [None, None]):
        assert overload.accepts(fitting)
    for other in ([11], [1, 1], [1, 7, 1], [], [0], [0, 7]):
        assert not overload.accepts(other)


def test_kernels_are_defined_anew_while_others_read() -> None:
    """Somebody always has one, and nobody meets one that is half there."""
    register("float32")
    failures: list[BaseException] = []
    done = threading.Event()

    def define() -> None:
        try:
            for _ in range(300):
                register("float32")
        except BaseException as error:
            failures.append(error)

    def read() -> None:
        while not done.is_set():
            if len(find_ops(NAME)) != 1:
                failures.append(AssertionError(str(find_ops(NAME))))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        writers = [threading.Thread(target=define) for _ in range(3)]
        readers = [threading.Thread(target=read) for _ in range(2)]
        for thread in (*writers, *readers):
            thread.start()
        for thread in writers:
            thread.join()
        done.set()
        for thread in readers:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert failures == []
