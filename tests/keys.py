"""Keys of elliptic curves, or of what else a test gives, as PEM files."""

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)


def write_keys(folder: Path, name: str, key: Any = None, password: bytes | None = None) -> tuple[Path, Path]:
    """Write a private and a public key, on P-256 where none is given."""
    key = ec.generate_private_key(ec.SECP256R1()) if key is None else key
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public
