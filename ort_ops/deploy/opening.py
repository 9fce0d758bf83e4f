"""A bundle as it is deployed: checked first, then loaded."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime

from ort_ops import parity
from ort_ops.errors import BundleError
from ort_ops.parity import Recorded, Report
from ort_ops.session import InferenceSession

from .manifest import Manifest, read_manifest

__all__ = ["Bundle", "open_bundle"]


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files are what its manifest says."""

    folder: Path
    manifest: Manifest

    @property
    def model(self) -> Path:
        """Return the path of the model."""
        return self.folder / self.manifest.model

    @property
    def libraries(self) -> list[Path]:
        """Return the paths of the libraries."""
        return [self.folder / name for name in self.manifest.libraries]

    def session(
        self,
        providers: Sequence[str | tuple[str, dict[str, Any]]] | None = None,
        options: onnxruntime.SessionOptions | None = None,
    ) -> InferenceSession:
        """Return a session of the model, the libraries registered; ``options`` are added to."""
        options = onnxruntime.SessionOptions() if options is None else options
        for library in self.libraries:
            options.register_custom_ops_library(os.fspath(library))
        return InferenceSession(self.model, options, providers)

    def replay(self, providers: Sequence[str] = ("cpu",)) -> Report:
        """Check the model on this machine against the golden answers, as ``ort_ops.parity.replay`` does.

        Raises BundleError where the bundle has none.
        """
        golden = self._golden()
        digests = {self.folder / name: sha256 for name, sha256 in self.manifest.files.items()}
        return parity.replay(golden, self.model, providers, libraries=self.libraries, digests=digests)

    def golden_answers(self) -> Recorded:
        """Return the golden answers; raises BundleError where there are none, or those of other files."""
        golden = parity.read_recorded(self._golden())
        digests = {Path(name).name: sha256 for name, sha256 in self.manifest.files.items()}
        for name, recorded in golden.manifest.files.items():
            if digests.get(name) != recorded:
                raise BundleError(f"{self.folder} has golden answers of another {name}")
        return golden

    def _golden(self) -> Path:
        if self.manifest.golden is None:
            raise BundleError(f"{self.folder} has no golden answers; ort-ops bundle --parity adds them")
        return self.folder / self.manifest.golden


def open_bundle(folder: str | os.PathLike[str]) -> Bundle:
    """Check every file of a bundle against its manifest, and return it; nothing of it is loaded before.

    Who can change a file can change the manifest, too: where that is to be found, it needs a signature.

    Raises BundleError where a file is missing or altered, is a link, or where the manifest names a path that
    leads out of the folder.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    for name, recorded in manifest.files.items():
        path = folder / name
        if any(each.is_symlink() for each in (path, *path.parents[: len(Path(name).parts) - 1])):
            raise BundleError(f"{path} is a link; expected the file itself")
        if not path.is_file():
            raise BundleError(f"{path} is missing")
        found = parity.digest(path)
        if found != recorded:
            raise BundleError(f"{path} is altered: its SHA-256 is {found}, the manifest has {recorded}")
    return Bundle(folder, manifest)
