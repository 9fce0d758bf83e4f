"""PyTorch and ONNX Runtime beside each other on the same inputs: is the file right, is its run right."""

import copy
import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

import ort_ops
from ort_ops.errors import ParityError
from ort_ops.parity import Difference, ExitCode, Verdict, arithmetic_of, compare, exit_code
from ort_ops.parity.tolerance import TF32
from ort_ops.providers import parse_provider

from . import kernels as kernels  # for what it registers
from .oracle import error_bound, evaluate_file, terms_of

__all__ = ["BATCHES", "Report", "Row", "verify"]

BATCHES = (0, 1, 2, 7, 64)


@dataclass(frozen=True)
class Row:
    """One comparison: of the file with the model, or of one run in ONNX Runtime with one in PyTorch."""

    question: Literal["file", "run"]
    batch: int
    dtype: str
    ran: str  # who computed the MYLINEAR nodes, on which provider
    difference: Difference
    reason: str  # of the tolerance
    verdict: Verdict


@dataclass(frozen=True)
class Report:
    """Every comparison that was made."""

    rows: tuple[Row, ...]

    def to_json(self) -> str:
        """Return the verdict, the versions and the rows; a number that JSON has no name for is a string."""
        whole = {
            "verdict": self.exit_code.name.lower(),
            "versions": {
                "numpy": np.__version__,
                "onnx": onnx.__version__,
                "onnxruntime": onnxruntime.__version__,
                "ort_ops": version("ort-ops"),
                "torch": torch.__version__,
            },
            "rows": [_finite(asdict(row)) for row in self.rows],
        }
        return json.dumps(whole, indent=2, allow_nan=False)

    @property
    def exit_code(self) -> ExitCode:
        """Return what a command exits with; where no run gave an element to compare, that is "cannot say"."""
        compared = any(row.difference.elements for row in self.rows if row.question == "run")
        return exit_code(row.verdict for row in self.rows) if compared else ExitCode.CANNOT_SAY


def _finite(value: Any) -> Any:
    """Return a value with each NaN and infinity in it spelled out."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


def verify(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    providers: Sequence[str] = ("cpu",),
    batches: Iterable[int] = BATCHES,
    seed: int = 0,
    prefer: Literal["kernel", "body"] = "kernel",
) -> Report:
    """Compare a model of MyLinear and ReLU with the file that was exported from it.

    For each batch size the file is compared with the model in float64, and a run on each provider
    (``"cpu"``, ``"cuda:use_tf32=0"``) with PyTorch's own run in the model's dtype, inputs from N(0, 1).
    A pair may differ by twice the certain bound of the arithmetic: either may be off by it.

    Raises ProviderError where a provider isn't there, ParityError where nothing can be compared.
    """
    if model.training:
        raise ParityError("the model is in training mode; expected evaluation mode: call model.eval()")
    sessions = [_session(path, text, prefer) for text in providers]  # refuses what is no model
    proto = onnx.load(path)
    inputs = [_make_input(model, proto, batch, seed) for batch in batches]
    if not inputs or not sessions:
        raise ParityError("no batch size or no provider was given; expected one of each at least")
    rows = [_compare_file(model, proto, x) for x in inputs]
    rows += [_compare_run(model, session, x) for session in sessions for x in inputs]
    return Report(tuple(rows))


def _session(
    path: str | os.PathLike[str], provider: str, prefer: Literal["kernel", "body"]
) -> ort_ops.InferenceSession:
    return ort_ops.InferenceSession(path, providers=[parse_provider(provider)], prefer=prefer)


def _make_input(model: nn.Module, proto: onnx.ModelProto, batch: int, seed: int) -> torch.Tensor:
    """Return x: the file's input shape with ``batch`` for its symbolic dimensions, in the model's dtype."""
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    shape = [dim.dim_value if dim.HasField("dim_value") else batch for dim in dims]
    weight = next(model.parameters())
    features = weight.shape[-1]
    if not shape or shape[-1] != features:
        raise ParityError(f"the file takes {shape} but the model (..., {features}); they belong to others")
    generator = torch.Generator().manual_seed(seed * 1_000_003 + batch)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(weight.dtype)


def _compare_file(model: nn.Module, proto: onnx.ModelProto, x: torch.Tensor) -> Row:
    exact = _to_numpy(x.double())
    expected = _run_torch(copy.deepcopy(model).double(), x.double())
    got = evaluate_file(proto, exact)
    bound = error_bound(model, exact, arithmetic_of(np.float64))
    difference = _difference(got, expected, 2 * bound)
    verdict = Verdict.EQUAL if difference.within else Verdict.EXPORT_WRONG
    return Row("file", len(x), "float64", "onnx's reference", difference, _reason(model, "float64"), verdict)


def _compare_run(model: nn.Module, session: ort_ops.InferenceSession, x: torch.Tensor) -> Row:
    expected = _run_torch(model, x)
    (got,) = session.run(None, {session.get_inputs()[0].name: _to_numpy(x)})
    arithmetic = arithmetic_of(expected.dtype)
    exact = _to_numpy(x.double())
    difference = _difference(got, expected, 2 * error_bound(model, exact, arithmetic))
    verdict = Verdict.EQUAL
    if not difference.within:
        narrow = expected.dtype == np.float32 and session.get_providers()[0] != "CPUExecutionProvider"
        wide = error_bound(model, exact, arithmetic) + error_bound(model, exact, TF32) if narrow else None
        explained = wide is not None and _difference(got, expected, wide).within
        verdict = Verdict.REDUCED_PRECISION if explained else Verdict.RUNTIME_WRONG
    ran = _who_ran(session)
    if not ran:
        verdict = Verdict.CANNOT_SAY
    reason = _reason(model, arithmetic.name)
    return Row("run", len(x), expected.dtype.name, ran or "nobody", difference, reason, verdict)


def _difference(got: NDArray[Any], expected: NDArray[Any], allowed: NDArray[np.float64]) -> Difference:
    """Compare; another dtype or shape than expected is a difference in every element, not an error."""
    if got.dtype == expected.dtype and got.shape == expected.shape:
        return compare(got, expected, allowed)
    return Difference(expected.size, max(expected.size, 1), float("inf"), 0)


def _who_ran(session: ort_ops.InferenceSession) -> str:
    """Return who ran the MYLINEAR nodes, and where; empty where the session doesn't know of any."""
    runs = {f"{run.runner} on {run.provider.removesuffix('ExecutionProvider')}" for run in session.explain()}
    return ", ".join(sorted(runs))


def _reason(model: nn.Module, arithmetic: str) -> str:
    terms = terms_of(model)
    return f"2γ of {', '.join(map(str, terms))} terms in {arithmetic}"


def _run_torch(model: nn.Module, x: torch.Tensor) -> NDArray[Any]:
    with torch.no_grad():
        return _to_numpy(model(x))


def _to_numpy(tensor: torch.Tensor) -> NDArray[Any]:
    """Return a tensor as an array, bfloat16 in ml_dtypes' type."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype != torch.bfloat16:
        return tensor.numpy()
    return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
