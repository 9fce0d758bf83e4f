"""A bundle as it is deployed: checked first, then loaded."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Unpack

import onnxruntime

from ort_ops import parity
from ort_ops.errors import BundleError
from ort_ops.libraries import register_library
from ort_ops.model import weight_files
from ort_ops.parity import Recorded, Report
from ort_ops.providers import parse_provider
from ort_ops.session import InferenceSession, SessionArguments
from ort_ops.tuning import Tuning

from . import signature
from .manifest import Manifest, name_in_answers, read_manifest
from .optimizing import unfit

__all__ = ["Bundle", "Graph", "open_bundle"]

_AS_IT_IS = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL


@dataclass(frozen=True)
class Graph:
    """The file that a session loads.

    optimized: whether it is the one that ONNX Runtime optimised beforehand; reason: why it isn't, in a bundle
        that has one.
    """

    path: Path
    optimized: bool = False
    reason: str = ""


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

    def graph(
        self,
        providers: Sequence[str | tuple[str, dict[str, Any]]] | None = None,
        options: onnxruntime.SessionOptions | Tuning | None = None,
        *,
        by_functions: bool = False,
    ) -> Graph:
        """Return what ``session`` loads for these arguments: the optimised graph where it fits them here.

        by_functions: whether the session is given ``functions`` or ``trust``.
        """
        made = self.manifest.optimized
        if made is None:
            return Graph(self.model)
        reason = unfit(made, providers, options, by_functions=by_functions)
        return Graph(self.model, reason=reason) if reason else Graph(self.folder / made.model, True)

    def session(
        self,
        providers: Sequence[str | tuple[str, dict[str, Any]]] | None = None,
        options: onnxruntime.SessionOptions | Tuning | None = None,
        **arguments: Unpack[SessionArguments],
    ) -> InferenceSession:
        """Return a session of the model, the libraries registered; ``options`` are added to.

        It loads the optimised graph where that was made for the ONNX Runtime, the processor and the provider
        that are here; ``graph`` says which it is. ``arguments`` are the other ones of
        ``ort_ops.InferenceSession``: ``prefer``, ``ops``, ``functions``, ...
        """
        named = bool(arguments.get("functions") or arguments.get("trust"))
        graph = self.graph(providers, options, by_functions=named)
        options = Tuning(threads=0) if options is None else options
        asked = options.graph_optimization_level
        level = _AS_IT_IS if graph.optimized else asked  # nothing is left to optimise in a graph that was
        if isinstance(options, Tuning):
            libraries = (*self.libraries, *options.libraries)
            tuning = replace(options, libraries=libraries, graph_optimization_level=level)
            return InferenceSession(graph.path, tuning, tuning.providers(providers), **arguments)
        for library in self.libraries:
            register_library(options, library)
        options.graph_optimization_level = level
        try:
            return InferenceSession(graph.path, options, providers, **arguments)
        finally:
            options.graph_optimization_level = asked

    def replay(self, providers: Sequence[str] = ("cpu",)) -> Report:
        """Check the model on this machine against the golden answers, as ``ort_ops.parity.replay`` does.

        The optimised graph is judged besides, on each provider that it fits; for another a note says why not.
        Raises BundleError where the bundle has no golden answers.
        """
        golden = self._golden()
        graphs = {provider: self.graph([parse_provider(provider)]) for provider in providers}
        report = parity.replay(
            golden,
            self.model,
            providers,
            libraries=self.libraries,
            digests={self.folder / name: sha256 for name, sha256 in self.manifest.files.items()},
            optimized={provider: graph.path for provider, graph in graphs.items() if graph.optimized},
        )
        unused = [f"{on}: no run of the optimised graph: {g.reason}" for on, g in graphs.items() if g.reason]
        return replace(report, notes=(*report.notes, *unused))

    def golden_answers(self) -> Recorded:
        """Return the golden answers; raises BundleError where there are none, or those of other files."""
        golden = parity.read_recorded(self._golden())
        made = self.manifest.optimized
        aside = f"{PurePosixPath(made.model).parent}/" if made else ""  # what else is there of the same names
        files = self.manifest.files.items()
        digests = {
            name_in_answers(name, self.manifest.model): sha256
            for name, sha256 in files
            if not (aside and name.startswith(aside))
        }
        for name, recorded in golden.manifest.files.items():
            if digests.get(name) != recorded:
                raise BundleError(f"{self.folder} has golden answers of another {name}")
        return golden

    def _golden(self) -> Path:
        if self.manifest.golden is None:
            raise BundleError(f"{self.folder} has no golden answers; ort-ops bundle --parity adds them")
        return self.folder / self.manifest.golden


def open_bundle(
    folder: str | os.PathLike[str], *, verify_key: str | os.PathLike[str] | None = None
) -> Bundle:
    """Check every file of a bundle against its manifest, and return it; nothing of it is loaded before.

    Who can change a file can change the manifest, too: where that is to be found, it needs a signature.
    folder: may itself be a link, as to the release that is current; the bundle's is then where it leads.
    verify_key: a PEM file with the public key that the bundle has to be signed with, which is checked first.

    Raises BundleError where a file is missing or altered, is a link, where the manifest names a path that
    leads out of the folder, or where the model has weights in a file that the manifest doesn't name; with a
    key also where the bundle is not signed with it, where the folder holds a file that the signature is not
    of, and without model-signing (``pip install 'ort-ops[sign]'``); ModelError where the model is none.
    """
    folder = Path(folder).absolute()  # wherever the program goes
    if folder.is_symlink():  # to where it leads now: it may be set to another bundle meanwhile
        folder = folder.resolve()
    if verify_key is not None:
        signature.verify(folder, Path(verify_key))
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
    graphs = [manifest.model, *([manifest.optimized.model] if manifest.optimized else [])]
    for graph in graphs:
        _check_weights(folder, graph, manifest.files)
    return Bundle(folder, manifest)


def _check_weights(folder: Path, graph: str, files: Mapping[str, str]) -> None:
    """Raise BundleError where a graph has weights in a file that the manifest doesn't name."""
    for location in sorted(weight_files(folder / graph)):
        place = PurePosixPath(graph).parent / location
        if ".." in place.parts or place.as_posix() not in files:
            raise BundleError(
                f"{folder / graph} has weights in {location!r}, of which the manifest has no SHA-256"
            )
