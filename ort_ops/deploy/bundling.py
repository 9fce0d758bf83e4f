"""Writing a bundle: everything that a deployment needs, in one folder."""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePath

import onnxruntime

from ort_ops import parity
from ort_ops.builtin import is_built_in
from ort_ops.errors import BundleError
from ort_ops.libraries import libraries_in
from ort_ops.model import Model, read_model, weight_files

from .manifest import FORMAT, MANIFEST, Manifest, Needs
from .readme import readme

__all__ = ["bundle"]

_GOLDEN = "golden.safetensors"


def bundle(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    libraries: Sequence[str | os.PathLike[str]] = (),
    golden: str | os.PathLike[str] | None = None,
) -> Manifest:
    """Write a model, the files with its weights, its libraries and its golden answers into a new folder.

    model: an ONNX file. out: the folder, which must not be there yet, or be empty; it is there whole, or not
    at all. libraries: libraries of custom operators. golden: what ``ort_ops.parity.record`` wrote for this
    model and these libraries.

    Returns the manifest. Raises BundleError where weights lie outside of the model's folder, where two
    libraries are of one name, and where the golden answers are another model's; ModelError for a file that is
    no model.
    """
    model, out = Path(model), Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BundleError(f"{out} is there already; expected a new folder")
    content = read_model(model)
    files = dict(_files(model, [Path(each) for each in libraries]))
    for path in files.values():
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing")
    if golden is not None:
        _check_golden(Path(golden), files)
        files[_GOLDEN] = Path(golden)
    inside = {name for name in files if name.startswith("libraries/")}
    registered = {name: files[name] for name in sorted(inside)}
    needs = list(_needs(content, registered))
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as made:
        folder = Path(made, out.name)
        for name, path in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)
        name = f"model/{model.name}"
        text = readme(name, [*registered], has_golden=golden is not None, needs=needs, inputs=content.inputs)
        (folder / "README.md").write_text(text, encoding="utf-8")
        manifest = Manifest(
            format=FORMAT,
            model=name,
            libraries=[*registered],
            golden=_GOLDEN if golden is not None else None,
            files={each: parity.digest(folder / each) for each in sorted([*files, "README.md"])},
            needs=needs,
            ir_version=content.ir_version,
            opsets=dict(content.opsets),
            versions=_versions(),
        )
        (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        if out.exists():
            out.rmdir()
        folder.replace(out)
    return manifest


def _files(model: Path, libraries: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Give the model, its weights and the libraries, each with its place in the bundle."""
    yield f"model/{model.name}", model
    for location in sorted(weight_files(model)):
        place = PurePath(location)
        if place.is_absolute() or ".." in place.parts or "\\" in location:
            raise BundleError(f"{model} has weights in {location!r}, outside of its own folder; save it anew")
        yield f"model/{place.as_posix()}", model.parent / place
    names = [library.name for library in libraries]
    if len(set(names)) < len(names):
        raise BundleError(f"two libraries are of one name: {', '.join(names)}")
    yield from ((f"libraries/{library.name}", library) for library in libraries)


def _check_golden(golden: Path, files: dict[str, Path]) -> None:
    """Refuse golden answers of other files than those of the bundle."""
    recorded = dict(parity.read_recorded(golden).manifest.files)
    for name, path in files.items():
        found = parity.digest(path)
        if recorded.pop(path.name, None) != found:
            raise BundleError(f"{golden} was not recorded with {path}, the bundle's {name}; record it anew")
    if recorded:
        raise BundleError(f"{golden} was recorded with {', '.join(recorded)}, too; bundle them")


def _needs(model: Model, libraries: dict[str, Path]) -> Iterator[Needs]:
    """Give each operator that isn't ONNX Runtime's own, with who runs it."""
    options = onnxruntime.SessionOptions()
    owners: dict[str, tuple[str, frozenset[str]]] = {}
    for name, path in libraries.items():
        options.register_custom_ops_library(os.fspath(path))
        for domain, library in libraries_in(options, model.opsets).items():
            owners.setdefault(domain, (name, library.operators))
    silent = [name for name in libraries if name not in {owner for owner, _ in owners.values()}]
    counts = Counter(node.op for node in model.nodes if node.in_function is None)
    for (domain, op), nodes in sorted(counts.items()):
        if is_built_in((domain, op), model.opsets.get(domain)):
            continue
        owner, operators = owners.get(domain, ("", frozenset()))
        if op in operators:
            by = owner
        elif (domain, op) in model.functions:
            by = "function body"
        else:  # a library that isn't on our header doesn't say what is in it
            by = " or ".join(silent) or "Python kernel"
        yield Needs(f"{domain}::{op}", nodes, by)


def _versions() -> dict[str, str]:
    found = {"onnxruntime": onnxruntime.__version__}
    for package in ("ort-ops", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
