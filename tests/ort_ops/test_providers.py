import pytest

from ort_ops.errors import ProviderError
from ort_ops.providers import parse_provider


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
