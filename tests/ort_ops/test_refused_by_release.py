"""Kernels that a release of ONNX Runtime refuses, in sessions that don't ask for them."""

from typing import Any

import onnxruntime
import pytest

import ort_ops
import ort_ops.registry
from ort_ops.errors import RegistrationError
from ort_ops.selection import _everything
from tests.ort_ops.models import DOMAIN, model, node, one_node


def test_a_refused_kernel_takes_neither_others_nor_plain_sessions_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beside another kernel of the same operator, which is given."""

    @ort_ops.onnx_op(f"{DOMAIN}::Op", inputs=["float32"] * 2, outputs=["float32"])
    def declared(x: Any, y: Any = None) -> Any:
        return x

    @ort_ops.onnx_op(f"{DOMAIN}::Op", providers=["CUDAExecutionProvider"], array="torch")
    def refused(x: Any, y: Any = None) -> Any:
        return x

    refused.infer(lambda x, y: x)
    monkeypatch.setattr(ort_ops.registry, "RELEASE", (1, 21))
    given = [overload.op for name, overload in _everything(None).overloads if name == (DOMAIN, "Op")]
    assert given == [declared]
    options = onnxruntime.SessionOptions()
    ort_ops.register(options)
    onnxruntime.InferenceSession(one_node("Op"), options)
    with pytest.raises(RegistrationError, match=r"1\.22"):
        _everything(f"{DOMAIN}::Op")


def test_a_session_has_one_tuning() -> None:
    def kernel(x: Any) -> Any:
        return x

    ort_ops.onnx_op(f"{DOMAIN}::Op", inputs=["float32"])(kernel)
    session = ort_ops.InferenceSession(model([node("Op")]))
    assert session.get_session_options().intra_op_num_threads == session._tuning.threads == 0
