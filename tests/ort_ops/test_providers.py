import pytest

from ort_ops.errors import ProviderError
from ort_ops.providers import parse_provider, session_providers


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("cpu", "CPUExecutionProvider", {}),
        ("CUDA", "CUDAExecutionProvider", {}),
        ("cuda:use_tf32=0,device_id=1", "CUDAExecutionProvider", {"use_tf32": "0", "device_id": "1"}),
        ("QNNExecutionProvider", "QNNExecutionProvider", {}),
    ],
)
def test_a_provider_and_its_options_are_read(text, name, options):
    assert parse_provider(text) == (name, options)


@pytest.mark.parametrize("text", ["", "gpu", "cuda:use_tf32", "cuda:=1", "cuda:a=1,"])
def test_what_names_no_provider_is_refused(text):
    with pytest.raises(ProviderError, match="expected"):
        parse_provider(text)


def test_a_session_has_what_is_asked_for_and_the_cpu(monkeypatch):
    cpu, cuda = "CPUExecutionProvider", "CUDAExecutionProvider"
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [cuda, cpu])
    assert session_providers(None) == [cuda, cpu]
    assert session_providers([cpu]) == [cpu]
    assert session_providers([(cuda, {"use_tf32": "0"})]) == [cuda, cpu]
    assert session_providers(["NoSuchExecutionProvider", cpu]) == [cpu]
    for name, meant in (("CPU", cpu), ("cuda", cuda), ("CPUExecutionProvder", cpu), ("Cuda", cuda)):
        with pytest.raises(ProviderError, match=rf"{name} is not in .*; expected {meant}\?$"):
            session_providers([name])
    with pytest.raises(ProviderError, match="install the build that has it"):
        session_providers(["TensorrtExecutionProvider"])
    with pytest.raises(ProviderError, match=f"No is not in this onnxruntime, which has {cuda}, {cpu}"):
        session_providers(["No"])
