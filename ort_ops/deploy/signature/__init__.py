"""A bundle's signature, in the format of model-signing, by the key of an elliptic curve.

That package is loaded when ``write`` or ``verify`` is first asked for; without it, that is a BundleError.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ort_ops.errors import BundleError

if TYPE_CHECKING:
    from .elliptic import verify, write

__all__ = ["SIGNATURE", "verify", "write"]

SIGNATURE = "model.sig"


def __getattr__(name: str) -> Any:
    """Load what signs and verifies when it is first asked for (PEP 562)."""
    if name not in ("verify", "write"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.elliptic"), name)
    except ImportError as error:
        raise BundleError(
            f"a signature needs model-signing and pyOpenSSL: pip install 'ort-ops[sign]' ({error})"
        ) from error
