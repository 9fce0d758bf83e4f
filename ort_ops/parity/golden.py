"""The file of golden answers: what is in it, and how it is read, with NumPy alone."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from ort_ops.errors import ParityError

from .compare import distance

try:
    from safetensors import SafetensorError, safe_open
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"golden answers, and bundles, need safetensors: pip install 'ort-ops[cli]' ({error})",
        name=error.name,
    ) from None

__all__ = ["FORMAT", "Manifest", "Recorded", "read_recorded", "tensor_entry"]

FORMAT = 1
Array = NDArray[Any]


@dataclass(frozen=True)
class Manifest:
    """What a file of golden answers says of itself.

    files: SHA-256 of the model and of libraries by their names, of weights besides by their paths from the
    model's folder. tensors: dtype and shape of each, whose bytes the file holds.
    """

    format: int
    samples: int
    inputs: Sequence[str]
    outputs: Sequence[str]
    files: Mapping[str, str]
    tensors: Mapping[str, tuple[str, Sequence[int]]]
    versions: Mapping[str, str]
    machine: str

    def to_dict(self) -> dict[str, Any]:
        """Return it in JSON's terms."""
        return asdict(self)


@dataclass(frozen=True)
class Recorded:
    """A file of golden answers, read."""

    manifest: Manifest
    arrays: Mapping[str, Array]

    def feed(self, sample: int) -> dict[str, Array]:
        """Return the inputs of a sample by name."""
        return {name: self.arrays[f"{sample}/input/{name}"] for name in self.manifest.inputs}

    def first(self) -> "Recorded":
        """Return them with the first sample alone."""
        arrays = {name: array for name, array in self.arrays.items() if name.startswith("0/")}
        return Recorded(replace(self.manifest, samples=min(self.manifest.samples, 1)), arrays)

    def changes(self, other: "Recorded") -> list[str]:
        """Say in what other golden answers differ from these; nothing where they don't."""
        found = []
        for what in ("files", "versions"):
            mine, theirs = getattr(self.manifest, what), getattr(other.manifest, what)
            for name in sorted(mine.keys() | theirs.keys()):
                before, after = mine.get(name, "none"), theirs.get(name, "none")
                if before != after:
                    found.append(f"{name} was {before[:12]}, is {after[:12]}")
        for name in sorted(self.arrays.keys() | other.arrays.keys()):
            before, after = self.arrays.get(name), other.arrays.get(name)
            if before is None or after is None:
                found.append(f"{name} is {'gone' if after is None else 'new'}")
            elif (before.dtype, before.shape) != (after.dtype, after.shape):
                found.append(f"{name} was {before.dtype} {before.shape}, is {after.dtype} {after.shape}")
            elif before.tobytes() != after.tobytes():
                apart = distance(before.astype(np.float64), after.astype(np.float64))
                found.append(f"{name} differs by up to {apart.max(initial=0.0):.3g}")
        return found


def tensor_entry(array: Array) -> tuple[str, list[int]]:
    """Return the dtype and the shape of an array."""
    return array.dtype.name, list(array.shape)


def read_recorded(path: str | os.PathLike[str]) -> Recorded:
    """Read golden answers; raises ParityError for a file that holds none, or holds them in part."""
    try:
        with safe_open(path, "numpy") as file:
            manifest = Manifest(**json.loads((file.metadata() or {})["parity"]))
            if manifest.format != FORMAT:
                raise ParityError(f"{os.fspath(path)} is of format {manifest.format}; expected {FORMAT}")
            _check_types(manifest)
            arrays = {name: _array(file.get_tensor(name), *entry) for name, entry in manifest.tensors.items()}
            _check_whole(manifest, arrays)
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ParityError(f"{os.fspath(path)} holds no golden answers: {error}") from error
    return Recorded(manifest, arrays)


def _array(raw: Array, dtype: str, shape: Sequence[int]) -> Array:
    kind = np.dtype(getattr(ml_dtypes, dtype) if hasattr(ml_dtypes, dtype) else dtype)
    if kind.hasobject or math.prod(shape) * kind.itemsize != raw.size:  # before memory is asked for
        raise ValueError(f"{raw.size} bytes are no {dtype} of shape {tuple(shape)}")
    return raw.view(kind).reshape(shape) if raw.size else np.empty(shape, kind)


def _check_types(manifest: Manifest) -> None:
    """Raise TypeError where something else stands in the manifest than belongs there."""
    expected = {
        "samples": int,
        "inputs": list,
        "outputs": list,
        "files": dict,
        "tensors": dict,
        "versions": dict,
    }
    for name, kind in expected.items():
        if not isinstance(getattr(manifest, name), kind):
            raise TypeError(f"{name} is {getattr(manifest, name)!r}; expected {kind.__name__}")


def _check_whole(manifest: Manifest, arrays: Mapping[str, Array]) -> None:
    """Raise ValueError where something of a sample is missing, or not of the shape that its output has."""
    if manifest.samples < 1 or not manifest.outputs:
        raise ValueError(
            f"it has {manifest.samples} samples of {len(manifest.outputs)} outputs; expected some"
        )
    for name in manifest.files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or not name:
            raise ValueError(f"it names {name!r}, which is no file beside the model")
    for sample in range(manifest.samples):
        for name in manifest.inputs:
            _require(arrays, f"{sample}/input/{name}")
        for name in manifest.outputs:
            exact = _require(arrays, f"{sample}/exact/{name}")
            limit = "bound" if exact.dtype == np.float64 else "undecided"
            for kind in ("torch", limit):
                found = _require(arrays, f"{sample}/{kind}/{name}")
                if found.shape != exact.shape:
                    raise ValueError(
                        f"{sample}/{kind}/{name} is {found.shape}; expected {exact.shape}, as the answer is"
                    )


def _require(arrays: Mapping[str, Array], name: str) -> Array:
    if name not in arrays:
        raise ValueError(f"{name} is missing")
    return arrays[name]
