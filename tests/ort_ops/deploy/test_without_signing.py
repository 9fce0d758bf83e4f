"""What needs the extra ``sign`` says so where it is missing, and the rest works."""

import sys
from pathlib import Path

import pytest

from ort_ops import deploy
from ort_ops.deploy import signature
from ort_ops.errors import BundleError

from .test_bundle import LIBRARY, write_model


@pytest.mark.parametrize("package", ["model_signing", "OpenSSL"])
def test_a_missing_package_names_the_extra(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_model(tmp_path / "model.onnx")
    loaded = ("model_signing", f"{signature.__name__}.")
    for name in [each for each in sys.modules if each.startswith(loaded)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BundleError, match=r"pip install 'ort-ops\[sign\]'"):
        deploy.bundle(model, tmp_path / "bundle", libraries=[LIBRARY], sign_key=tmp_path / "key.pem")
    assert not (tmp_path / "bundle").exists()
    deploy.bundle(model, tmp_path / "bundle", libraries=[LIBRARY])
    for refused in (deploy.sign, lambda folder, key: deploy.open_bundle(folder, verify_key=key)):
        with pytest.raises(BundleError, match=r"pip install 'ort-ops\[sign\]'"):
            refused(tmp_path / "bundle", tmp_path / "key.pem")
    assert deploy.open_bundle(tmp_path / "bundle").model.is_file()


def test_nothing_else_is_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = signature.nothing
