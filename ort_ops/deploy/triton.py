"""A bundle as a model repository of NVIDIA's Triton Inference Server, for its ONNX Runtime backend."""

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ort_ops.dtypes import from_onnx
from ort_ops.errors import BundleError
from ort_ops.model import Value, read_model

from .batchable import check_batchable
from .needs import PYTHON
from .opening import Bundle

__all__ = ["write_triton"]

_TYPES = {
    **{name: f"TYPE_{name.upper()}" for name in ("bool", "int8", "int16", "int32", "int64")},
    **{name: f"TYPE_{name.upper()}" for name in ("uint8", "uint16", "uint32", "uint64", "string")},
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "bfloat16": "TYPE_BF16",
}


def write_triton(
    bundle: Bundle,
    out: str | os.PathLike[str],
    *,
    name: str | None = None,
    root: str | None = None,
    max_batch: int = 0,
    batches: Sequence[int] = (),
    delay_us: int = 0,
    instances: int = 1,
    gpu: bool = False,
) -> Path:
    """Write a model repository with this one model, version 1; returns the model's folder.

    name: the model's; that of its file without ``.onnx`` where none is given.
    root: the repository's path on the server, where that is another than here: Triton hands ONNX Runtime the
        paths of libraries as the configuration has them.
    max_batch: how many requests Triton may put together along the first dimension; 0 for none. batches: sizes
        that it should prefer; delay_us: for how many microseconds a request may wait for others.
    instances: how many sessions there are, on the CPU or, with ``gpu``, on each GPU.

    Raises BundleError where a Python kernel runs an operator, where an input or output has no type of
    Triton's or no rank, where a batch is asked for and a first dimension is fixed, and where the folder is
    there already. It is there whole, or not at all.
    """
    name = bundle.model.stem if name is None else name
    if name != Path(name).name or name in ("", ".", ".."):
        raise BundleError(f"{name!r} is no name of a folder in the model repository")
    if Path(out).resolve().is_relative_to(bundle.folder.resolve()):
        raise BundleError(f"{out} is inside of the bundle, whose files are those of its manifest")
    folder = Path(out, name)
    if folder.exists():
        raise BundleError(f"{folder} is there already; expected a new folder")
    for need in bundle.manifest.needs:
        if need.by == PYTHON:
            raise BundleError(f"{need.op} is run by a Python kernel, which Triton can't; give it a library")
    content = read_model(bundle.model)
    if max_batch:
        check_batchable(content)
    config = [
        f"name: {json.dumps(name)}",
        'backend: "onnxruntime"',
        f"max_batch_size: {max_batch}",
        f"default_model_filename: {json.dumps(bundle.model.name)}",
        *(_tensor("input", value, max_batch) for value in content.inputs),
        *(_tensor("output", value, max_batch) for value in content.outputs),
        f"instance_group [ {{ count: {instances} kind: {'KIND_GPU' if gpu else 'KIND_CPU'} }} ]",
    ]
    if max_batch:
        config.append(_batching(batches, delay_us))
    home = f"{(root or os.path.abspath(out)).rstrip('/')}/{name}"
    libraries = [f"{home}/{library}" for library in bundle.manifest.libraries]
    if libraries:
        listed = ", ".join(json.dumps(path) for path in libraries)
        config.append(f"model_operations {{ op_library_filename: [ {listed} ] }}")
    home_of_model = PurePosixPath(bundle.manifest.model).parent
    places = {library: PurePosixPath(library) for library in bundle.manifest.libraries}
    for file in map(PurePosixPath, bundle.manifest.files):  # and nothing else that lies there
        if home_of_model in file.parents:
            places[str(file)] = PurePosixPath("1") / file.relative_to(home_of_model)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as made:
        for name_in_bundle, place in places.items():
            copy = Path(made, folder.name, place)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.folder / name_in_bundle, copy)
        Path(made, folder.name, "config.pbtxt").write_text("\n".join(config) + "\n", encoding="utf-8")
        Path(made, folder.name).replace(folder)
    return folder


def _tensor(kind: str, value: Value, max_batch: int) -> str:
    known = (
        from_onnx(value.element_type).name if value.kind == "tensor" and value.element_type else value.kind
    )
    if known not in _TYPES:
        raise BundleError(f"{kind} {value.name!r} is of {known}, for which Triton has no type")
    if value.shape is None:
        raise BundleError(f"{kind} {value.name!r} has no rank in the model; Triton's configuration needs one")
    shape = [dim if isinstance(dim, int) else -1 for dim in value.shape]
    dims = ", ".join(map(str, shape[1:] if max_batch else shape))
    # Triton has no tensors without dimensions: it gets one of size 1, which the model hasn't.
    more = f"dims: [ {dims} ]" if dims else "dims: [ 1 ] reshape { shape: [ ] }"
    return f"{kind} [ {{ name: {json.dumps(value.name)} data_type: {_TYPES[known]} {more} }} ]"


def _batching(batches: Sequence[int], delay_us: int) -> str:
    sizes = f"preferred_batch_size: [ {', '.join(map(str, batches))} ] " if batches else ""
    return f"dynamic_batching {{ {sizes}max_queue_delay_microseconds: {delay_us} }}"
