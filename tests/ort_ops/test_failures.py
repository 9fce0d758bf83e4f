"""A kernel's exception is what ``run`` raises, whatever it holds, and whatever is wrong with itself."""

import dataclasses
import importlib
import importlib.util
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest

import ort_ops
from ort_ops import failures
from ort_ops.errors import KernelError, ProviderError, RegistrationError, SchemaError
from ort_ops.providers import CPU

from .models import DOMAIN, builtin, model, node, one_node

torch: Any = importlib.import_module("torch") if importlib.util.find_spec("torch") else None
X = np.arange(6, dtype=np.float32).reshape(2, 3)


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    array: Any


def misspells_a_method(x: Any) -> Any:
    return x[1:].no_such_method()


def misses_in_a_comprehension(x: Any) -> Any:
    return [x[i, 10] for i in range(2)]


def raises_with_its_input(x: Any) -> Any:
    raise ValueError("of", x)


def raises_what_is_frozen(x: Any) -> Any:
    raise FrozenError(x)


def sets_an_attribute(x: Any) -> Any:
    error = ValueError("has")
    error.array = x  # type: ignore[attr-defined]
    raise error


def stops_a_generator(x: Any) -> Any:
    def generator() -> Any:
        yield 1
        return x

    steps = generator()
    return next(steps), next(steps)


def raises_a_group(x: Any) -> Any:
    errors = []
    for i in range(2):
        try:
            x[i, 10]
        except IndexError as error:
            errors.append(error)
    raise ExceptionGroup("of", errors)


def failure_of(kernel: Callable[[Any], Any], array: Any = "numpy") -> KernelError:
    options: Any = {"inputs": ["float32"], "outputs": ["float32"], "array": array}
    ort_ops.onnx_op(f"{DOMAIN}::Op", **options)(kernel)
    session = ort_ops.InferenceSession(one_node("Op"))
    with pytest.raises(KernelError) as caught:
        session.run(None, {"x": X})
    return caught.value


@pytest.mark.parametrize(
    "array", ["numpy", pytest.param("torch", marks=pytest.mark.skipif(not torch, reason=""))]
)
@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        (misspells_a_method, AttributeError),
        (misses_in_a_comprehension, IndexError),
        (raises_with_its_input, ValueError),
        (raises_what_is_frozen, FrozenError),
        (sets_an_attribute, ValueError),
        (stops_a_generator, StopIteration),
        (raises_a_group, ExceptionGroup),
    ],
    ids=lambda value: value.__name__,
)
def test_an_exception_that_holds_an_input_comes_out_with_a_copy_of_it(
    kernel: Callable[[Any], Any], kind: type, array: Any
) -> None:
    error = failure_of(kernel, array)
    assert type(error.__cause__) is kind
    assert kernel.__name__ in [step.name for step in traceback.extract_tb(error.__cause__.__traceback__)]
    for held in (*error.__cause__.args, *vars(error.__cause__).values()):
        assert isinstance(held, str | list) or np.array_equal(np.asarray(held), X)


@pytest.mark.skipif(not torch, reason="torch is missing")
def test_what_a_kernel_has_from_outside_stays_the_same_array() -> None:
    weights = np.ones(3, np.float32)
    shared = torch.from_numpy(weights)

    def kernel(x: Any) -> Any:
        return x.no_such_method(shared)

    failure_of(kernel, "torch")
    assert kernel.__closure__ is not None
    assert [cell.cell_contents for cell in kernel.__closure__] == [shared]
    assert kernel.__closure__[0].cell_contents.data_ptr() == weights.ctypes.data


def test_an_exception_that_must_be_thrown_away_leaves_its_traceback() -> None:
    def kernel(x: Any) -> Any:
        raise ValueError("in a list", [x])

    cause = failure_of(kernel).__cause__
    assert type(cause) is KernelError
    assert "in a list" in str(cause)
    assert "the exception itself kept a view" in str(cause)
    assert [step.name for step in traceback.extract_tb(cause.__traceback__)] == ["kernel"]


class WithoutName(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override] # that is the case
        raise ValueError("no name")


class NamelessError(Exception, metaclass=WithoutName):
    pass


class UntouchableError(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise ValueError("not to be looked at")


@pytest.mark.parametrize("kind", [NamelessError, UntouchableError], ids=["nameless", "untouchable"])
def test_an_exception_that_can_not_be_looked_at_is_a_failure_like_others(kind: type[Exception]) -> None:
    def kernel(x: Any) -> Any:
        raise kind("wrong")

    error = failure_of(kernel)
    assert "of node 'Op' failed: KernelError: <" in str(error)
    assert error.__cause__ is not None
    assert [step.name for step in traceback.extract_tb(error.__cause__.__traceback__)] == ["kernel"]


def test_an_exception_that_can_not_be_printed_is_raised_all_the_same() -> None:
    class OddSyntaxError(SyntaxError):
        pass

    def kernel(x: Any) -> Any:
        error = OddSyntaxError("odd")
        error.lineno, error.text = "one", 5  # type: ignore[assignment]
        raise error

    assert type(failure_of(kernel).__cause__) is OddSyntaxError


def test_a_session_made_anew_for_providers_raises_as_before_and_refuses_what_is_not_there() -> None:
    @ort_ops.onnx_op(f"{DOMAIN}::Op")
    def kernel(x: Any) -> Any:
        raise ValueError("wrong")

    session = ort_ops.InferenceSession(one_node("Op"))
    session.set_providers([CPU])
    assert [run.runner for run in session.explain()] == ["kernel"]
    with pytest.raises(KernelError, match="of node 'Op' failed: ValueError: wrong") as caught:
        session.run(None, {"x": X})
    assert str(caught.value.__cause__) == "wrong"
    with pytest.raises(ProviderError, match="NoSuchExecutionProvider is not in this onnxruntime"):
        session.set_providers(["NoSuchExecutionProvider"])


def test_a_session_made_anew_leaves_out_the_same_optimizers() -> None:
    # By EliminateIdentity ONNX Runtime removes every node called Identity, whatever computes it.
    ort_ops.onnx_op(f"{DOMAIN}::Identity")(lambda x: x * 2)
    data = model([node("Identity", outputs=["v"]), builtin("Neg", ["v"], ["y"])])
    session = ort_ops.InferenceSession(data)
    for _ in range(2):
        np.testing.assert_array_equal(session.run(None, {"x": X})[0], -2 * X)
        session.set_providers([CPU])


def test_a_session_made_anew_is_tuned_as_before() -> None:
    session = ort_ops.InferenceSession.tuned(model([builtin("Neg", ["x"], ["y"])]), [CPU], arena="shrink")
    session.set_providers([CPU])
    assert session._run_entries == {"memory.enable_memory_arena_shrinkage": "cpu:0"}
    np.testing.assert_array_equal(session.run(None, {"x": X})[0], -X)


def test_failures_of_many_threads_wait_for_each_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threading.active_count", lambda: 300)
    texts = [failures.fail(ValueError(number), "node", "kernel", True) for number in range(300)]
    raised = [failures.error_of(text) for text in texts]
    assert [str(error.__cause__) for error in raised if error] == [str(number) for number in range(300)]


def test_plain_onnxruntime_leaves_no_exception_behind() -> None:
    def kernel(x: Any) -> Any:
        raise ValueError("in plain onnxruntime")

    ort_ops.onnx_op(f"{DOMAIN}::Op")(kernel)
    options = onnxruntime.SessionOptions()
    ort_ops.register(options)
    session = onnxruntime.InferenceSession(one_node("Op"), options)
    before = dict(failures._failures)
    with pytest.raises(Exception, match="in plain onnxruntime"):
        session.run(None, {"x": X})
    assert dict(failures._failures) == before


def test_what_is_wrong_with_a_registration_is_raised_as_it_is_and_a_kernels_own_with_its_node() -> None:
    def kernel(x: Any) -> Any:
        raise RegistrationError("of another session, made in the kernel")

    error = failure_of(kernel)
    assert "of node 'Op'" in str(error)
    assert type(error.__cause__) is RegistrationError
    with pytest.raises(SchemaError, match="names no operator"):
        ort_ops.register(onnxruntime.SessionOptions(), ["no_operator"])
