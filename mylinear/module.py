"""MyLinear: nn.Linear with LinearF inside, and the swap of one for the other in a whole model."""

from typing import Literal, TypeGuard

import torch
from torch import nn

from .errors import MyLinearError
from .function import DTYPES, LinearF

__all__ = ["MyLinear", "replace_linear"]

Init = Literal["uniform", "kaiming"]
_INITS = ("uniform", "kaiming")


class MyLinear(nn.Module):
    """Y = X·Wᵀ + B with trainable W: (out_features, in_features) and B: (out_features,).

    dtype is float16, bfloat16, float32 or float64, torch's default dtype if None; device is torch's default
    if None; bias=False gives Y = X·Wᵀ. init="uniform" draws every parameter from U(0, 1); init="kaiming" does
    what nn.Linear does, with the same numbers for the same seed.

    A state_dict goes from here into nn.Linear and back. Raises MyLinearError for an unknown init; calling it
    raises OperandError for an x that doesn't fit the weight.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        bias: bool = True,
        *,
        init: Init = "uniform",
    ) -> None:
        super().__init__()
        if init not in _INITS:
            raise MyLinearError(f"MyLinear: init is {init!r}; expected one of {', '.join(map(repr, _INITS))}")
        self.in_features = in_features
        self.out_features = out_features
        self.init: Init = init
        self.weight = nn.Parameter(torch.empty(out_features, in_features, dtype=dtype, device=device))
        values = torch.empty(out_features, dtype=dtype, device=device) if bias else None
        self.register_parameter("bias", None if values is None else nn.Parameter(values))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew from torch's global generator, as ``init`` says."""
        if self.init == "kaiming":
            # Its own method: it reads weight and bias only, and so the numbers are its own in any version.
            nn.Linear.reset_parameters(self)  # type: ignore[arg-type]
            return
        for parameter in self.parameters(recurse=False):
            nn.init.uniform_(parameter)  # U(0, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return y: (..., out_features) for x: (..., in_features) of the weight's dtype and device."""
        return LinearF.apply(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Say the sizes as nn.Linear does."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        )

    @classmethod
    def from_linear(cls, linear: nn.Linear) -> "MyLinear":
        """Return a MyLinear on the very Parameters of ``linear``: training one trains the other.

        dtype, device, requires_grad and the training flag come with them. ``reset_parameters`` of the result
        draws what nn.Linear draws. Hooks stay behind.
        """
        # On "meta" the first parameters cost neither memory nor a draw from the global generator.
        has_bias = linear.bias is not None
        layer = cls(linear.in_features, linear.out_features, device="meta", bias=has_bias)
        layer.init = "kaiming"
        layer.register_parameter("weight", linear._parameters["weight"])
        layer.register_parameter("bias", linear._parameters["bias"])
        return layer.train(linear.training)


def replace_linear(model: nn.Module) -> nn.Module:
    """Swap every nn.Linear of a model for a MyLinear on the same Parameters, in place, and return the model.

    A layer that is used in several places is swapped once and stays shared. What does more than nn.Linear is
    left alone: a subclass (the out_proj of nn.MultiheadAttention is one), a layer with hooks, with a forward
    of its own, or with parameters, buffers or layers besides weight and bias, one whose weight is computed
    (torch.nn.utils.weight_norm), and one of a dtype that LinearF has not. A model that is itself an nn.Linear
    cannot be changed in place, so use what is returned.
    """
    swapped: dict[nn.Module, MyLinear] = {
        module: MyLinear.from_linear(module) for module in model.modules() if _is_plain_linear(module)
    }
    for parent in list(model.modules()):
        for name, child in parent._modules.items():  # named_children() leaves out a layer's second name
            if child in swapped:
                parent._modules[name] = swapped[child]
    return swapped.get(model, model)


def _is_plain_linear(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Tell whether a module is nn.Linear and nothing more, of a dtype that LinearF computes in."""
    state = vars(module)
    hooked = any(kept for name, kept in state.items() if name.endswith("hooks"))  # those of a state_dict too
    changed = "forward" in state or state["_parameters"].keys() != {"weight", "bias"}
    if type(module) is not nn.Linear or hooked or changed or module._buffers or module._modules:
        return False
    return module.weight.dtype in DTYPES
