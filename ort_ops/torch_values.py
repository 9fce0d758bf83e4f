"""Torch's own values as arguments of a recorded call, in JSON's terms (see ``recorded``)."""

import base64
from typing import Any

import torch
from torch import Tensor

__all__ = ["record_torch", "restore_torch"]

_NAMED = (torch.dtype, torch.memory_format, torch.layout)


def record_torch(value: object) -> dict[str, Any] | None:
    """Return a tensor, a size, a device or what torch has a name for in JSON's terms; None for all else."""
    if isinstance(value, _NAMED):
        return {"torch": _name(value)}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if type(value) is torch.Size:
        return {"size": list(value)}
    if isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous().flatten()
        data = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
        return {"tensor": [_name(value.dtype), list(value.shape), base64.b64encode(data).decode()]}
    return None


def _name(value: object) -> str:
    return str(value).removeprefix("torch.")


def restore_torch(kind: str, content: Any) -> Any:
    """Return what ``record_torch`` wrote under a kind; raises ValueError for a name that stands for none."""
    if kind == "device":
        return torch.device(content)
    if kind == "size":
        return torch.Size(content)
    if kind == "torch":
        found = getattr(torch, content)
        if not isinstance(found, _NAMED):
            raise ValueError(f"torch.{content} is no dtype, layout or memory format")
        return found
    name, shape, data = content
    dtype = restore_torch("torch", name)
    raw = bytearray(base64.b64decode(data))
    return (torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)).reshape(shape)
