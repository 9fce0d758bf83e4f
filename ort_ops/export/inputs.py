"""The tensors that a model is exported with, each an object of its own.

The newer exporter knows an input by its tensor: of two inputs that are given the same one, the file reads one
only. Both exporters take a weight that is given for an input for that input.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ort_ops.errors import ExportError

__all__ = ["inputs_apart"]


def inputs_apart(model: Any, given: Any, dynamic_shapes: Any = None) -> Any:
    """Return what the model is called with, with a copy of a tensor that comes again or is the model's own.

    Raises ExportError where ``dynamic_shapes`` is a ShapesCollection, which knows the shapes of tensors, and
    would know none of the copy.
    """
    own = (*model.parameters(), *model.buffers()) if isinstance(model, torch.nn.Module) else ()
    seen = {id(tensor) for tensor in own}

    def apart(tensor: Tensor) -> Tensor:
        if id(tensor) in seen:
            if isinstance(dynamic_shapes, torch.export.ShapesCollection):
                raise ExportError(
                    "a tensor is given for two inputs, or is the model's own, and dynamic_shapes is a "
                    "ShapesCollection; expected a tensor of its own for each input"
                )
            return tensor.detach().clone().requires_grad_(tensor.requires_grad)
        seen.add(id(tensor))
        return tensor

    return pytree.tree_map_only(Tensor, apart, given)
