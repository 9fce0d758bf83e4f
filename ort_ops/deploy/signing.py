"""Signing a bundle that is there already."""

import os
from pathlib import Path

from ort_ops.errors import BundleError

from . import signature
from .manifest import MANIFEST
from .opening import Bundle, open_bundle

__all__ = ["sign"]


def sign(folder: str | os.PathLike[str], key: str | os.PathLike[str]) -> Bundle:
    """Check a bundle against its manifest, and sign every file in its folder; returns the bundle.

    key: a PEM file with a private key on the curve P-256, P-384 or P-521, without a password.

    The signature is ``model.sig`` in the folder, which ``model_signing verify key`` takes, too. Raises
    BundleError for a bundle that is altered, or has files that its manifest doesn't name, for a key of
    another kind, and without model-signing (``pip install 'ort-ops[sign]'``).
    """
    bundle = open_bundle(folder)
    known = {*bundle.manifest.files, MANIFEST, signature.SIGNATURE}
    paths = (path for path in bundle.folder.rglob("*") if path.is_symlink() or not path.is_dir())
    others = sorted({path.relative_to(bundle.folder).as_posix() for path in paths} - known)
    if others:
        raise BundleError(f"{bundle.folder} has files that its manifest doesn't name: {', '.join(others)}")
    signature.write(bundle.folder, Path(key))
    return bundle
