"""The graph as ONNX Runtime optimised it: saved once, so that a session need not do it again.

Where it fits is a matter of right and wrong, not of speed alone: the weights of convolutions may lie in
blocks as wide as the processor's vectors (NCHWc: 16 floats with AVX-512, 8 with AVX), and nothing in the file
says how wide. ONNX Runtime itself says to use it only in the environment that it was made in.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime

from ort_ops.errors import BundleError, OrtOpsError
from ort_ops.libraries import register_library
from ort_ops.model import read_model, weight_files
from ort_ops.providers import CPU, parse_provider, session_providers
from ort_ops.registry import find_ops, split_name
from ort_ops.session import InferenceSession
from ort_ops.tuning import Tuning

from .processor import Processor, this_processor

__all__ = ["Optimized", "optimize", "unfit"]

_FOLDER = "optimized"
# Bytes of a model from which weights go outside: a file ends at 2 GiB, and folded constants may add some.
_OUTSIDE = 2**30
_ALL = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL


@dataclass(frozen=True)
class Optimized:
    """An optimised graph, and what it was made for.

    model: its path in the bundle. provider: the execution provider. onnxruntime: the version.
    processor: the kind of processor. bodies: operators in whose place it has their function bodies.
    """

    model: str
    provider: str
    onnxruntime: str
    processor: Processor
    bodies: Sequence[str]


def optimize(model: Path, provider: str, libraries: Sequence[Path], folder: Path) -> Optimized:
    """Save a model as ONNX Runtime optimises it here, into a folder of its own in a bundle's folder.

    provider: as in ``"cuda:device_id=1"``. Function bodies stand in for operators that no library has.

    Raises BundleError where ONNX Runtime can't make or save it, and where the kind of processor is unknown;
    ProviderError where the provider isn't there.
    """
    processor = this_processor()
    if not processor.instructions:
        raise BundleError(
            "this system doesn't say which vector instructions its processor has, so it could not be told "
            "where an optimised graph may be used; bundle without one"
        )
    path = folder / _FOLDER / model.name
    path.parent.mkdir()
    _save(model, path, provider, libraries)
    original, made = read_model(model), read_model(path)
    bodies = sorted((original.functions & original.calls()) - made.calls())
    return Optimized(
        model=f"{_FOLDER}/{model.name}",
        provider=parse_provider(provider)[0],
        onnxruntime=onnxruntime.__version__,
        processor=processor,
        bodies=[f"{domain}::{op}" for domain, op in bodies],
    )


def _save(model: Path, path: Path, provider: str, libraries: Sequence[Path]) -> None:
    """Save the optimised graph, its weights beside it where the model has them so or is large."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns that the graph is for this hardware
    options.optimized_model_filepath = os.fspath(path)
    outside = weight_files(model)
    weights = f"{model.name}.weights"
    while weights in outside:  # so that what still names a file of the original's is told from the rest
        weights += "_"
    if outside or model.stat().st_size >= _OUTSIDE:
        key = "session.optimized_model_external_initializers_file_name"
        options.add_session_config_entry(key, weights)
    for library in libraries:
        register_library(options, library)
    try:
        InferenceSession(model, options, [parse_provider(provider)], prefer="body")
    except OrtOpsError:
        raise
    except Exception as error:
        raise BundleError(f"ONNX Runtime can't optimise {model} for {provider}: {error}") from error
    if left := weight_files(path) - {weights}:
        raise BundleError(
            f"ONNX Runtime {onnxruntime.__version__} leaves small weights of the optimised graph in "
            f"{', '.join(sorted(left))} of the original; use a newer release, or save them inside of {model}"
        )


def unfit(
    optimized: Optimized,
    providers: Sequence[str | tuple[str, dict[str, Any]]] | None,
    options: onnxruntime.SessionOptions | Tuning | None,
    *,
    by_functions: bool = False,
) -> str:
    """Say why a session here, of these arguments, can't be one of the optimised graph; "" where it can."""
    return "; ".join(_differences(optimized, providers, options, by_functions))


def _differences(
    optimized: Optimized,
    providers: Sequence[str | tuple[str, dict[str, Any]]] | None,
    options: onnxruntime.SessionOptions | Tuning | None,
    by_functions: bool,
) -> Iterator[str]:
    if optimized.onnxruntime != onnxruntime.__version__:
        yield f"it is for ONNX Runtime {optimized.onnxruntime}, this is {onnxruntime.__version__}"
    here = this_processor()
    if optimized.processor.machine != here.machine:
        yield f"it is for {optimized.processor.machine}, this is {here.machine}"
    elif apart := set(optimized.processor.instructions) ^ set(here.instructions):
        yield f"it is for a processor that differs in {', '.join(sorted(apart))}"
    # Azure's has no kernels for nodes of the standard.
    names = [name for name in session_providers(providers) if name != "AzureExecutionProvider"]
    if names != list(dict.fromkeys((optimized.provider, CPU))):
        yield f"it is for {optimized.provider}, the session is on {', '.join(names)}"
    if options is not None and options.graph_optimization_level != _ALL:
        yield "the session's options ask for another level of optimisation"
    for op in optimized.bodies:
        if find_ops(split_name(op)):
            yield f"it has the function body of {op}, for which a kernel is registered"
    if by_functions and optimized.bodies:
        yield f"it has function bodies ({', '.join(optimized.bodies)}), and Functions are to run"
