"""A trained model in one safetensors file: its parameters, and in the metadata the layers they belong to.

Reading a file runs no code of it: the layers are MyLinear and ReLU, and anything else is refused.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import nn

from .errors import CheckpointError
from .files import replace_file
from .module import MyLinear

__all__ = ["load_model", "save_model"]

_FORMAT = "mylinear-model-1"


def save_model(path: str | Path, model: nn.Module) -> None:
    """Write a MyLinear, or an nn.Sequential of MyLinear and ReLU; raises CheckpointError for another."""
    # One entry: safetensors writes several in any order, and equal models are to be equal files.
    metadata = {"model": json.dumps({"format": _FORMAT, "layers": _describe(model)})}
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    replace_file(Path(path), serialise(tensors, metadata=metadata))


def load_model(path: str | Path) -> nn.Module:
    """Return the model in a file, on the CPU and in evaluation mode.

    Raises CheckpointError for a file that is missing, cut short, or no model of ``save_model``'s.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Copies: what it gives may be a view of the file, which others may write anew.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118, it is no dict
        described = json.loads(metadata.get("model", "{}"))
        if described.get("format") != _FORMAT:
            raise ValueError(f"format is {described.get('format', 'missing')}; expected {_FORMAT}")
        model = _build(described["layers"])
        _check_tensors(model, tensors)
        model.load_state_dict(tensors, assign=True)
    except _REFUSALS as error:
        raise CheckpointError(
            f"{path}: {error}; expected a whole model file that `mylinear train` wrote"
        ) from error
    return model.eval()


# What damaged and forged files raise, in what reads them.
_REFUSALS = (
    *(OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError),
    *(OverflowError, RuntimeError),  # RuntimeError: RecursionError, and what torch says
)


def _describe(model: nn.Module) -> list[object] | dict[str, object]:
    """Return what ``_build`` needs: a dict for one layer, a list of them for a Sequential."""
    if type(model) is nn.Sequential:
        return [_describe(layer) for layer in model]
    if type(model) is nn.ReLU:
        return {"layer": "ReLU"}
    if type(model) is MyLinear:
        dtype = str(model.weight.dtype).removeprefix("torch.")
        sizes = [model.in_features, model.out_features]
        return {"layer": "MyLinear", "sizes": sizes, "bias": model.bias is not None, "dtype": dtype}
    raise CheckpointError(
        f"a {type(model).__name__} can't be saved; expected a MyLinear, or a Sequential of MyLinear and ReLU"
    )


def _build(description: list[dict[str, object]] | dict[str, object]) -> nn.Module:
    if isinstance(description, list):
        return nn.Sequential(*(_build(layer) for layer in description))
    if description["layer"] == "ReLU":
        return nn.ReLU()
    if description["layer"] != "MyLinear":
        raise ValueError(f"layer {description['layer']!r} is unknown; expected MyLinear or ReLU")
    sizes, dtype = description["sizes"], description["dtype"]
    if dtype not in ("float16", "bfloat16", "float32", "float64") or not isinstance(sizes, list):
        raise ValueError(f"a MyLinear of dtype {dtype!r} and sizes {sizes!r}")
    in_features, out_features = (int(size) for size in sizes)
    bias = bool(description["bias"])
    # On "meta": what a file says of its sizes costs no memory before its tensors bear it out.
    return MyLinear(in_features, out_features, dtype=getattr(torch, dtype), device="meta", bias=bias)


def _check_tensors(model: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Raise ValueError where a tensor is of another dtype than its layer; load_state_dict checks the rest."""
    for name, parameter in model.state_dict().items():
        if name in tensors and tensors[name].dtype != parameter.dtype:
            raise ValueError(f"{name} is {tensors[name].dtype}; expected {parameter.dtype}")
