"""Writing a bundle: everything that a deployment needs, in one folder."""

import importlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePath

import onnxruntime

from ort_ops import parity
from ort_ops.errors import BundleError
from ort_ops.fitting import runnable
from ort_ops.libraries import refuse_one_path
from ort_ops.model import Model, read_model, weight_files
from ort_ops.recorded import FUNCTION
from ort_ops.registry import find_ops, split_name
from ort_ops.runtime import release_of
from ort_ops.selection import Plan
from ort_ops.unrunnable import why_no_kernel

from . import signature
from .manifest import FORMAT, MANIFEST, Manifest, name_in_answers, refuse_unnameable
from .needs import PYTHON, Needs, find_needs
from .optimizing import optimize
from .readme import readme

__all__ = ["bundle"]

_GOLDEN = "golden.safetensors"


def bundle(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    libraries: Sequence[str | os.PathLike[str]] = (),
    modules: Sequence[str] = (),
    golden: str | os.PathLike[str] | None = None,
    optimized: bool | str = False,
    sign_key: str | os.PathLike[str] | None = None,
) -> Manifest:
    """Write a model, the files with its weights, its libraries and its golden answers into a new folder.

    model: an ONNX file. out: the folder, which must not be there yet, or be empty; it is there whole, or not
    at all. libraries: libraries of custom operators. modules: imported for the Python kernels that they
    register, which do not go into the folder: the README says to import the modules on the target.
    golden: what ``ort_ops.parity.record`` wrote for this model and these libraries. optimized: whether to
    save the graph besides as ONNX Runtime optimises it on this machine, for the CPU or for the provider that
    is named, as in ``"cuda:device_id=1"``. sign_key: a PEM file with a private key to sign it all with (see
    ``sign``).

    Returns the manifest. Raises BundleError where nobody runs an operator, where weights lie outside of the
    model's folder, where two libraries are of one name, where the golden answers are another model's, and
    where ONNX Runtime can't optimise the graph or the key can't sign; ModelError for a file that is no model;
    ProviderError for a provider that isn't there; ImportError for a module that isn't.
    """
    model, out = Path(model), Path(out).resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BundleError(f"{out} is there already; expected a new folder")
    content = read_model(model)
    refuse_one_path(libraries)
    if isinstance(modules, str):  # before a letter of it is imported
        raise TypeError(f"modules={modules!r}; expected a list: [{modules!r}]")
    for module in modules:
        importlib.import_module(module)
    # Of a library's bare name the system would look for another one.
    files = dict(_files(model, [Path(each).absolute() for each in libraries]))
    for name, path in files.items():
        refuse_unnameable(name)
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing")
    if golden is not None:
        _check_golden(Path(golden), files, f"model/{model.name}")
        files[_GOLDEN] = Path(golden)
    inside = {name for name in files if name.startswith("libraries/")}
    registered = {name: files[name] for name in sorted(inside)}
    needs = find_needs(content, registered)
    kernels = {each.op: _kernels_of(each, content) for each in needs if each.by == PYTHON}
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as made:
        folder = Path(made, out.name)
        for name, path in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)
        graph = None
        if optimized:
            provider = optimized if isinstance(optimized, str) else "cpu"
            graph = optimize(model, provider, [*registered.values()], folder)
        manifest = Manifest(
            format=FORMAT,
            model=f"model/{model.name}",
            libraries=[*registered],
            golden=_GOLDEN if golden is not None else None,
            files={},
            needs=needs,
            ir_version=content.ir_version,
            opsets=dict(content.opsets),
            versions=_versions(),
            optimized=graph,
        )
        text = readme(manifest, content.inputs, kernels, modules, signed=sign_key is not None)
        (folder / "README.md").write_text(text, encoding="utf-8")
        manifest = replace(manifest, files=dict(_digests(folder)))
        (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        if sign_key is not None:
            signature.write(folder, Path(sign_key))
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


def _check_golden(golden: Path, files: dict[str, Path], model: str) -> None:
    """Refuse golden answers of other files than those of the bundle, whose model is at ``model``."""
    recorded = dict(parity.read_recorded(golden).manifest.files)
    for name, path in files.items():
        found = parity.digest(path)
        if recorded.pop(name_in_answers(name, model), None) != found:
            raise BundleError(f"{golden} was not recorded with {path}, the bundle's {name}; record it anew")
    if recorded:
        raise BundleError(f"{golden} was recorded with {', '.join(recorded)}, too; bundle them")


def _kernels_of(need: Needs, model: Model) -> list[str]:
    """Return which functions are an operator's kernels; raises BundleError where none is registered."""
    op = split_name(need.op)
    found = find_ops(op, model.opsets.get(op[0]))
    if not found:
        node = next(node for node in model.nodes if node.op == op and node.in_function is None)
        function = node.metadata.get(FUNCTION, "")
        named = f", and {function}, which the file names, is not run from a bundle" if function else ""
        raise BundleError(
            f"nobody runs {need.op} (node {node.name!r}): the file has no body of it, no library that was "
            f"given has it, no kernel is registered for it{named}; give its library (libraries=[...], "
            "ort-ops --library) or the module that registers its kernel (modules=[...], ort-ops --kernels), "
            'or export the model with its body (functions="attach")'
        )
    there = sorted({provider for each in found for provider in each.kernel.providers})
    overloads, why = runnable(model, op, found, there, there)
    for node in model.nodes:
        if node.op == op and not any(each.accepts(node.input_types, node.outputs) for each in overloads):
            why = why or why_no_kernel(model, node, Plan(tuple((op, each) for each in overloads)))
            raise BundleError(f"nobody runs {need.op} (node {node.name!r}): {why}")
    return [each.kernel.where for each in found]


def _digests(folder: Path) -> Iterator[tuple[str, str]]:
    """Give the SHA-256 of every file in a folder, by its path from there."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), parity.digest(path)


def _versions() -> dict[str, str]:
    return {
        "onnxruntime": onnxruntime.__version__,
        **{each: release_of(each) for each in ("ort-ops", "numpy")},
    }
