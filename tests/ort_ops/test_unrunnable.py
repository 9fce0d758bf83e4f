"""What is said where nobody can run a node of a model."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidGraph

import ort_ops
from ort_ops.errors import NoKernelError
from ort_ops.inspection import inspect_model

from .models import DOMAIN, builtin, function, model, node, one_node, tensor

CPU = ["CPUExecutionProvider"]


def refusal(data: bytes | str, **options: Any) -> NoKernelError:
    with pytest.raises(NoKernelError) as caught:
        ort_ops.InferenceSession(data, providers=CPU, **options)
    return caught.value


def test_an_operator_without_a_kernel_is_named_with_what_is_near_it(tmp_path: Path) -> None:
    for name in ("other.domain::Op2", f"{DOMAIN}::Opp2", f"{DOMAIN}::Unlike", f"{DOMAIN}::Any"):
        ort_ops.onnx_op(name)(lambda x: x)
    path = tmp_path / "model.onnx"
    path.write_bytes(one_node("Op2"))
    for source in (one_node("Op2"), str(path)):
        error = refusal(source)
        assert isinstance(error, Fail)
        assert isinstance(error.__cause__, Fail)
        said, orts = str(error).split("\n", 1)
        assert said.startswith(f"node 'Op2' is of {DOMAIN}::Op2, and nobody can run it: no kernel")
        assert f"(there is {DOMAIN}::Opp2, other.domain::Op2)" in said
        assert "import the module that has its kernel" in said
        assert "is not a registered function/op" in orts


def test_what_would_run_it_says_the_same_of_what_is_near_it() -> None:
    ort_ops.onnx_op(f"{DOMAIN}::Opp2")(lambda x: x)
    (nodes,) = inspect_model(one_node("Op2"), CPU).custom
    assert nodes.reason == f"no kernel is registered for it (there is {DOMAIN}::Opp2)"


def test_an_operator_that_resembles_none_is_named_alone() -> None:
    assert "(there is" not in str(refusal(one_node("Qqqqq")))


def test_one_that_onnx_runtime_might_have_is_named_too() -> None:
    error = refusal(model([builtin("Reluu", ["x"], ["y"])]))
    assert "node 'Reluu_y' is of ai.onnx::Reluu, and nobody can run it" in str(error)


def test_it_is_said_beside_an_operator_that_has_a_body_too() -> None:
    @ort_ops.onnx_op(f"{DOMAIN}::Op")
    def kernel(x: Any) -> Any:
        return x

    body = function("Op", ["a"], ["b"], builtin("Neg", ["a"], ["b"]))
    data = model([node("Op", outputs=["v"]), node("Nobodys", ["v"])], functions=[body])
    assert f"node 'Nobodys' is of {DOMAIN}::Nobodys" in str(refusal(data))


def test_an_element_type_that_no_kernel_takes_is_said_with_those_that_one_does() -> None:
    @ort_ops.onnx_op(f"{DOMAIN}::Op")
    def kernel(x: NDArray[np.float32], y: Any = None) -> NDArray[np.float32]:
        return x

    error = refusal(one_node("Op", "float64"))
    assert isinstance(error, InvalidGraph)
    assert "kernel can't take (float64), it takes (float32, any)\n" in str(error)
    assert "tensor(double)" in str(error)  # where the file doesn't state a type, ONNX Runtime knows it


def test_more_inputs_or_outputs_than_the_kernel_declares_are_said_with_what_to_write() -> None:
    @ort_ops.onnx_op(f"{DOMAIN}::Op")
    def kernel(x: Any, *, axis: int = 0) -> Any:
        return x

    ends = [tensor("x"), tensor("axis", "int64", [])]
    said = str(refusal(model([node("Op", ["x", "axis"])], ends)))
    assert "it has 2 inputs, " in said
    assert "kernel takes x; a positional parameter is an input, a keyword-only one an attribute" in said
    said = str(refusal(model([node("Op", outputs=["y", "z"])])))
    assert "it has 2 outputs, " in said
    assert "kernel declares 1; several are declared as -> tuple[A, B], one type each" in said


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(Exception, match="TypeInferenceError") as caught:
        ort_ops.InferenceSession(
            model([builtin("Transpose", ["x"], ["y"], perm=[0, 0, 1])], [tensor("x", shape=[2])])
        )
    assert not isinstance(caught.value, NoKernelError)


def test_the_error_goes_to_another_process() -> None:
    error = refusal(one_node("Qqqqq"))
    assert isinstance(pickle.loads(pickle.dumps(error)), type(error))
