"""Signing a folder with a private key, and verifying it with the public one, by model-signing."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

from model_signing import hashing, signing, verifying

from ort_ops.errors import BundleError

from . import SIGNATURE

__all__ = ["verify", "write"]


def write(folder: Path, key: Path) -> None:
    """Sign every file in a folder, into a file in it; one that is there already is written anew.

    key: a PEM file with a private key on the curve P-256, P-384 or P-521, without a password.

    Raises BundleError for a key of another kind, and where something in the folder is a link.
    """
    _require_file(key)
    try:
        signer = signing.Config().use_elliptic_key_signer(private_key=key)
    except Exception as error:
        raise BundleError(f"{key} is no private key to sign with: {_said(error)}") from error
    try:
        signer.set_hashing_config(_every_file()).sign(folder, folder / SIGNATURE)
    except ValueError as error:
        raise BundleError(f"{folder} can't be signed: {error}") from error


def verify(folder: Path, key: Path) -> None:
    """Check that every file in a folder is what was signed, and that nothing was added.

    key: a PEM file with the public key. Each file is read for its SHA-256, and nothing is loaded.

    Raises BundleError where there is no signature, where it is of another key, and where a file in the folder
    is altered, missing, new, a link, or one that the signature leaves out.
    """
    _require_file(key)
    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=key)
    except Exception as error:
        raise BundleError(f"{key} is no public key to verify with: {_said(error)}") from error
    path = folder / SIGNATURE
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"{folder} is not signed: {SIGNATURE} is missing, or a link")
    try:
        verifier.set_hashing_config(_every_file()).verify(folder, path)
        signed = frozenset(_names(path))
    except Exception as error:  # the file is anybody's, and whatever its parser raises is a refusal
        raise BundleError(f"{path} is no signature of this folder by {key}: {_said(error)}") from error
    # A signature may name paths that it says nothing of.
    for each in sorted(folder.rglob("*")):
        left_out = each != path and each.relative_to(folder).as_posix() not in signed
        if left_out and (each.is_symlink() or not each.is_dir()):
            raise BundleError(f"{path} leaves {each} out; expected one of every file")


def _require_file(key: Path) -> None:
    if not key.is_file():
        raise FileNotFoundError(f"{key} is missing; expected a key in a PEM file")


def _every_file() -> hashing.Config:
    return hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)


def _names(signature: Path) -> Iterator[str]:
    """Give the paths that a verified signature is of."""
    payload = json.loads(signature.read_text(encoding="utf-8"))["dsseEnvelope"]["payload"]
    for resource in json.loads(base64.b64decode(payload))["predicate"]["resources"]:
        yield resource["name"]


def _said(error: Exception) -> str:
    return f"{error}" or type(error).__name__
