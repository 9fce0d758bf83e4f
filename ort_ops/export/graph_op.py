"""``g.op`` as a ``symbolic`` gets it: None is an absent input, and what can't be written is said in words."""

from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import is_fake
from torch.utils import _pytree as pytree

__all__ = ["checked"]


def checked(op: Callable[..., Any]) -> Callable[..., Any]:
    """Return a ``g.op`` for which None is an absent input; PyTorch's ends the process over it.

    It raises TypeError for an input that is no tensor, and for an attribute that isn't what its suffix says.
    """

    def op_checked(name: str, *inputs: Any, **attributes: Any) -> Any:
        while inputs and inputs[-1] is None:
            inputs = inputs[:-1]
        for index, value in enumerate(inputs):
            if value is not None and not isinstance(value, torch._C.Value | torch.Tensor):
                raise TypeError(
                    f"g.op({name!r}) is given {_describe(value)} for input {index}; {_remedy(value)}"
                )
            if isinstance(value, torch.Tensor) and is_fake(value):
                raise TypeError(
                    f"g.op({name!r}) is given a tensor of the model for input {index} that apply isn't "
                    "given as an argument, but inside of an object; expected it as an argument of apply"
                )
        try:
            return op(name, *(absent() if each is None else each for each in inputs), **attributes)
        except TypeError as error:
            if not attributes:
                raise
            values = [
                key
                for key, value in attributes.items()
                if any(isinstance(each, torch._C.Value) for each in pytree.tree_leaves(value))
            ]
            if values:
                raise TypeError(
                    f"g.op({name!r}): {values[0]} depends on the model's inputs, which an attribute can't; "
                    "expected a constant (int(size) where a size is), or an input of the node"
                ) from error
            shown = ", ".join(f"{key}={value!r:.40}" for key, value in attributes.items())
            raise TypeError(f"g.op({name!r}) can't write {shown}; {_SUFFIXES}") from error

    def absent() -> Any:
        value = op("prim::Constant")
        value.setType(torch._C.OptionalType.ofTensor())
        return value

    return op_checked


_SUFFIXES = "expected an int or a list of them for _i, of float for _f, of str for _s, of torch.Tensor for _t"


def _describe(value: Any) -> str:
    return f"a {type(value).__name__} ({value!r:.40})"


def _remedy(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "expected tensors one by one (*xs), or an attribute (name_i=, name_f=, name_s=)"
    return "expected a tensor; a number or text is an attribute (name_i=, name_f=, name_s=)"
