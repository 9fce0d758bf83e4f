"""Signed bundles: every change is refused before anything is read of them, and model-signing agrees."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("model_signing")

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ort_ops import deploy, parity
from ort_ops.errors import BundleError
from tests.keys import write_keys

from .test_bundle import LIBRARY, alter, link, write_model


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return write_keys(tmp_path, "key")


@pytest.fixture
def signed(tmp_path: Path, keys: tuple[Path, Path]) -> Path:
    """Return a signed bundle with a library and an optimised graph."""
    model = write_model(tmp_path / "model.onnx")
    deploy.bundle(model, tmp_path / "bundle", libraries=[LIBRARY], optimized=True, sign_key=keys[0])
    return tmp_path / "bundle"


def model_signing(*arguments: object) -> int:
    command = [Path(sys.executable).parent / "model_signing", *arguments]
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True)
    return done.returncode


@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1, ec.SECP521R1])
def test_what_is_signed_is_verified_wherever_it_is(curve: Callable[[], Any], tmp_path: Path) -> None:
    private, public = write_keys(tmp_path, "key", ec.generate_private_key(curve()))
    model = write_model(tmp_path / "model.onnx")
    deploy.bundle(model, tmp_path / "bundle", libraries=[LIBRARY])
    assert (
        deploy.sign(tmp_path / "bundle", private).manifest == deploy.open_bundle(tmp_path / "bundle").manifest
    )
    (tmp_path / "bundle").rename(tmp_path / "moved")
    assert deploy.open_bundle(tmp_path / "moved", verify_key=public).model.is_file()


def test_model_signing_takes_the_signature(signed: Path, keys: tuple[Path, Path]) -> None:
    verify = ("verify", "key", signed, "--signature", signed / "model.sig", "--public_key", keys[1])
    assert model_signing(*verify) == 0
    alter(signed / "optimized" / "model.onnx")
    assert model_signing(*verify) != 0


def test_a_signature_of_model_signing_is_taken_where_it_leaves_nothing_out(
    signed: Path, keys: tuple[Path, Path]
) -> None:
    path = signed / "model.sig"
    path.unlink()
    sign = ("sign", "key", signed, "--signature", path, "--private_key", keys[0])
    assert model_signing(*sign) == 0
    deploy.open_bundle(signed, verify_key=keys[1])
    assert model_signing(*sign, "--ignore-paths", signed / "libraries") == 0
    with pytest.raises(BundleError, match=rf"leaves .*{LIBRARY.name} out"):
        deploy.open_bundle(signed, verify_key=keys[1])


def add(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("new")

    return change


def rewrite(folder: Path) -> None:
    """Change a file, and its hash in the manifest."""
    path = folder / "model" / "model.onnx"
    path.write_bytes(path.read_bytes() + b"\x10\x00")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["model/model.onnx"] = parity.digest(path)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    deploy.open_bundle(folder)  # without a key nothing is to be seen of it


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(rewrite, "Hash mismatch", id="file and manifest"),
        pytest.param(lambda folder: alter(folder / "README.md"), "Hash mismatch", id="file"),
        pytest.param(lambda folder: alter(folder / "manifest.json"), "Hash mismatch", id="manifest"),
        pytest.param(lambda folder: (folder / "README.md").unlink(), "Missing files", id="missing"),
        pytest.param(add("new.so"), "Extra files", id="added"),
        pytest.param(add(".gitignore"), "Extra files", id="added for git"),
        pytest.param(add(".git/config"), "Extra files", id="added in .git"),
        pytest.param(add("libraries/new.so"), "Extra files", id="added in a folder"),
        pytest.param(lambda folder: link(folder / "README.md"), "symlink", id="link"),
        pytest.param(lambda folder: alter(folder / "model.sig"), "is no signature", id="signature"),
        pytest.param(lambda folder: (folder / "model.sig").write_text(""), "is no signature", id="empty"),
        pytest.param(lambda folder: (folder / "model.sig").write_text("{}"), "is no signature", id="other"),
        pytest.param(lambda folder: (folder / "model.sig").unlink(), "is not signed", id="unsigned"),
        pytest.param(lambda folder: link(folder / "model.sig"), "is not signed", id="linked signature"),
    ],
)
def test_what_was_not_signed_is_refused(
    signed: Path, keys: tuple[Path, Path], change: Callable[[Path], object], said: str
) -> None:
    deploy.open_bundle(signed, verify_key=keys[1])
    change(signed)
    with pytest.raises(BundleError, match=said):
        deploy.open_bundle(signed, verify_key=keys[1])


def test_a_link_to_a_bundle_is_followed_once(signed: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(signed)
    bundle = deploy.open_bundle(tmp_path / "current", verify_key=keys[1])
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to(tmp_path)  # what was opened is what was checked
    assert bundle.session(["CPUExecutionProvider"]).get_inputs()[0].name == "x"


def test_another_key_is_refused(signed: Path, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path, "other")
    with pytest.raises(BundleError, match=r"is no signature of this folder by .*other"):
        deploy.open_bundle(signed, verify_key=public)
    deploy.sign(signed, private)
    deploy.open_bundle(signed, verify_key=public)


def test_the_hint_of_a_key_is_not_trusted(signed: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    """Another's signature that claims to be of this key."""
    hint = json.loads((signed / "model.sig").read_text())["verificationMaterial"]
    deploy.sign(signed, write_keys(tmp_path, "other")[0])
    forged = json.loads((signed / "model.sig").read_text())
    assert forged["verificationMaterial"] != hint
    (signed / "model.sig").write_text(json.dumps(forged | {"verificationMaterial": hint}))
    with pytest.raises(BundleError, match="is no signature of this folder"):
        deploy.open_bundle(signed, verify_key=keys[1])


def test_an_altered_bundle_is_not_signed(signed: Path, keys: tuple[Path, Path]) -> None:
    before = (signed / "model.sig").read_bytes()
    alter(signed / "README.md")
    with pytest.raises(BundleError, match="is altered"):
        deploy.sign(signed, keys[0])
    assert (signed / "model.sig").read_bytes() == before


@pytest.mark.parametrize(
    ("key", "password"),
    [
        (rsa.generate_private_key(65537, 2048), None),
        (ec.generate_private_key(ec.SECP256K1()), None),
        (ec.generate_private_key(ec.SECP256R1()), b"secret"),
    ],
    ids=["RSA", "another curve", "with a password"],
)
def test_a_key_that_can_not_sign_is_an_error(key: Any, password: bytes | None, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path, "key", key, password)
    model = write_model(tmp_path / "model.onnx")
    with pytest.raises(BundleError, match="is no private key to sign with"):
        deploy.bundle(model, tmp_path / "bundle", libraries=[LIBRARY], sign_key=private)
    with pytest.raises(FileNotFoundError, match="expected a key in a PEM file"):
        deploy.bundle(model, tmp_path / "bundle", libraries=[LIBRARY], sign_key=tmp_path / "missing.pem")
    assert not (tmp_path / "bundle").exists()
    deploy.bundle(model, tmp_path / "bundle", libraries=[LIBRARY])
    if password is None:
        with pytest.raises(BundleError, match="is no public key to verify with"):
            deploy.open_bundle(tmp_path / "bundle", verify_key=public)
    with pytest.raises(BundleError, match=r"is not signed: model.sig is missing"):
        deploy.open_bundle(tmp_path / "bundle", verify_key=write_keys(tmp_path, "good")[1])


def test_model_signing_is_loaded_for_a_key_alone(signed: Path, keys: tuple[Path, Path]) -> None:
    program = (
        "import sys\nfrom ort_ops import deploy\n"
        "for key in (None, sys.argv[2]):\n"
        "    deploy.open_bundle(sys.argv[1], verify_key=key)\n"
        "    print('model_signing' in sys.modules)"
    )
    command = [sys.executable, "-c", program, signed, keys[1]]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
