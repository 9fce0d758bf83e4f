"""LinearF: Y = X·Wᵀ + B as an ``autograd.Function`` with its own backward and its own ONNX node.

For the loss L = ½·Σ(Y* - Y)², summed over every element, grad_Y = ∂L/∂Y = Y - Y*.
Element by element, with r any index of the leading dimensions, Y[r, n] = Σ_m X[r, m]·W[n, m] + B[n].
The chain rule sums grad_Y times the derivative of Y over every element of Y that a value reaches:

    grad_X[r, m] = Σ_n grad_Y[r, n]·W[n, m]      grad_X = grad_Y·W           X[r, m] reaches row r of Y
    grad_W[n, m] = Σ_r grad_Y[r, n]·X[r, m]      grad_W = grad_Yᵀ·X          W[n, m] reaches column n of Y
    grad_B[n]    = Σ_r grad_Y[r, n]              grad_B = sum of grad_Y      B[n] reaches column n of Y
                                                          over every leading dimension

Only grad_Y knows the loss, so the same three lines serve any other loss.
"""

import warnings
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812, the name that PyTorch's own documentation uses
from torch import is_grad_enabled
from torch._C import _are_functorch_transforms_active, _get_tracing_state, _is_any_autocast_enabled
from torch.autograd import Function, forward_ad
from torch.compiler import is_dynamo_compiling

from .errors import OperandError

__all__ = ["DTYPES", "LinearF"]

# What the operator computes in; there is no integer gradient, and F.linear on CUDA has no integer kernel.
DTYPES = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})


class LinearF(Function):
    """Y = X·Wᵀ + B, with the gradients derived above; call ``LinearF.apply(x, weight, bias=None)``.

    x: (..., in), weight: (out, in), bias: (out,) or None; y: (..., out). Any number of leading dimensions,
    none included, and any size, zero included; x may be a nested tensor of the jagged layout. float16,
    bfloat16, float32 or float64, one dtype and one device for all of them, in any memory layout.

    Works under autocast, double backward, forward mode, ``torch.compile(fullgraph=True)`` with dynamic
    shapes, and ``torch.func``: vmap, grad, vjp, jvp, jacrev, jacfwd, hessian, linearize. One thing doesn't,
    and torch says so: vmap inside of ``torch.compile`` over operands that require gradients, where Dynamo
    wraps every autograd.Function in one of its own that has no vmap rule; ``hessian`` too from torch 2.15 on.
    Outside of ``torch.compile``, and with grad and jvp inside of it, all is well.
    """

    # Microseconds on x[8, 64], W[32, 64] (forward without grad, forward, forward and backward), torch 2.13:
    # F.linear 3.3, 4.2, 28; forward(ctx) 6.4, 7.2, 32; setup_context 16.5, 17.2, 43. So the ctx form is the
    # rule, and the setup_context form, which functorch demands, is kept for functorch and for forward mode
    # (_LinearTransforms): full-graph torch.compile refuses a Function that has a jvp.
    # apply leaves out torch.autograd.Function's own Python layer, which looks for both at every call, and
    # calls forward by itself where gradients are turned off: the rest of a Function would cost as much as
    # F.linear there. benchmarks/op_overhead.py measures what is left.

    @classmethod
    def apply(cls, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """Return x·weightᵀ + bias: (..., in), (out, in), (out,) or None -> (..., out).

        Under autocast the operands are cast first, as F.linear casts them, so that weight and x may differ in
        dtype there; everywhere else nothing is cast.

        Raises OperandError when the operands' ranks, sizes, dtypes or devices don't fit each other.
        """
        if is_dynamo_compiling():
            return cls.apply(x, weight, bias)  # no recursion: Dynamo never takes a Function's apply for this
        if _is_any_autocast_enabled():
            x, weight, bias = _autocast(x, weight, bias)
        traced = _get_tracing_state() is not None
        if traced:
            _check_traced(x, weight, bias)
        elif not _fit(x, weight, bias):
            raise _misfit(x, weight, bias)
        form: Any = super(Function, cls)
        if _are_functorch_transforms_active() or forward_ad._current_level >= 0:
            form = _LinearTransforms
        elif cls is LinearF and not traced and not is_grad_enabled():
            return cls.forward(_NO_GRADIENT, x, weight, bias)
        y: torch.Tensor = form.apply(x, weight, bias)
        return y

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Compute y: (..., out), and keep what the gradients that are asked for will need.

        With frozen weights x is not kept, which is most of the memory of a frozen layer.
        """
        if is_dynamo_compiling():  # it comes here without apply, and F.linear then casts by itself
            _check_compiled(x, weight, bias)
        needs_x, needs_weight = ctx.needs_input_grad[:2]  # two of them where Dynamo saw no bias
        ctx.save_for_backward(x if needs_weight else None, weight if needs_x else None)
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(
        ctx: Any, grad_y: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Return the gradients of x, weight and bias for grad_y: (..., out); None where none is asked for."""
        x, weight = ctx.saved_tensors
        return _gradients(grad_y, x, weight, ctx.needs_input_grad)

    @staticmethod
    def symbolic(g: Any, x: Any, weight: Any, bias: Any = None) -> Any:
        """Write one node mylinear::MYLINEAR into the graph of an ONNX exporter and return its output.

        g is a torch.onnx graph context; x, weight and bias are torch._C.Value. A bias that is None, or a
        value that holds the constant None, is left out: the node then has two inputs. The output gets x's
        type with sizes (*x.sizes[:-1], out) where they are known: without it the TorchScript exporter
        loses every shape after a node that it doesn't know.
        """
        no_bias = bias is None or bias.node().mustBeNone()
        y = g.op("mylinear::MYLINEAR", x, weight, *([] if no_bias else [bias]))
        sizes, weight_sizes = (value.type().varyingSizes() for value in (x, weight))  # None: unknown
        known = sizes and weight_sizes
        y.setType(x.type().with_sizes([*sizes[:-1], weight_sizes[0]] if known else None))
        return y


class _NoGradient:
    """Stands for forward's ctx where gradients are turned off, and nothing is to be kept for one."""

    needs_input_grad = (False, False, False)

    def save_for_backward(self, *tensors: torch.Tensor | None) -> None:
        """Keep nothing."""


_NO_GRADIENT = _NoGradient()


class _LinearTransforms(Function):
    """LinearF for forward mode, and for torch.func, which refuses a ``forward`` that is given the ctx.

    Shapes as in LinearF. https://docs.pytorch.org/docs/stable/notes/extending.func.html
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Compute y: (..., out)."""
        return F.linear(x, weight, bias)

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None], output: torch.Tensor
    ) -> None:
        """Keep x and weight for backward and for jvp."""
        x, weight, _ = inputs
        ctx.save_for_backward(x, weight)
        ctx.save_for_forward(x, weight)

    @staticmethod
    def backward(
        ctx: Any, grad_y: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Return the gradients of x, weight and bias; None where none is asked for."""
        x, weight = ctx.saved_tensors
        return _gradients(grad_y, x, weight, ctx.needs_input_grad)

    @staticmethod
    def jvp(
        ctx: Any, x_tangent: torch.Tensor, weight_tangent: torch.Tensor, bias_tangent: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the tangent of y: the product rule, dY = dX·Wᵀ + X·dWᵀ + dB."""
        x, weight = ctx.saved_tensors
        return F.linear(x_tangent, weight, bias_tangent) + F.linear(x, weight_tangent)


def _gradients(
    grad_y: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, needed: tuple[bool, ...]
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Return (grad_x, grad_weight, grad_bias) as the chain rule above has it; None for each not needed."""
    grad_x = grad_y @ weight if needed[0] else None
    rows = _rows(grad_y)  # (r, out)
    grad_weight = rows.t() @ _rows(x) if needed[1] else None
    grad_bias = rows.sum(0) if any(needed[2:]) else None
    return grad_x, grad_weight, grad_bias


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor (..., n) as (r, n); flatten, unlike reshape(-1, n), is defined for n = 0 too."""
    if tensor.ndim == 2:
        return tensor
    if tensor.is_nested:
        tensor = tensor.values()  # of a jagged one: its rows, one behind the other
    return tensor.flatten(0, -2) if tensor.ndim > 1 else tensor.unsqueeze(0)


def _autocast(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Cast the operands as F.linear does under autocast.

    Outside of the Function, so that autograd turns each gradient back into its operand's own dtype, in double
    backward too.
    """
    return _autocast_one(x), _autocast_one(weight), None if bias is None else _autocast_one(bias)


def _autocast_one(operand: torch.Tensor) -> torch.Tensor:
    """Cast a floating-point tensor other than float64 to its device's autocast dtype.

    https://docs.pytorch.org/docs/stable/amp.html#autocast-op-reference
    """
    device = operand.device.type
    if not operand.is_floating_point() or operand.dtype == torch.float64:
        return operand
    # Of a device without autocast ("meta") torch doesn't say that it isn't enabled: it raises.
    # Dynamo of 2.9 can't trace the question.
    has_autocast = device != "meta" and (
        torch.compiler.is_compiling() or torch.amp.is_autocast_available(device)
    )
    enabled = has_autocast and torch.is_autocast_enabled(device)
    return operand.to(torch.get_autocast_dtype(device)) if enabled else operand


def _fit(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> bool:
    """Tell whether the operands fit each other: under a microsecond, because every call pays for it.

    Reads the sizes of features only: a leading dimension may be symbolic, and must not become a guard.
    """
    dtype, device, weight_shape = x.dtype, x.device, weight.shape
    if dtype not in DTYPES or weight.dtype is not dtype or weight.device != device:
        return False
    if len(weight_shape) != 2:
        return False
    shape = x.shape
    if not shape or shape[-1] != weight_shape[1]:
        return False
    if bias is None:
        return True
    bias_shape = bias.shape
    if len(bias_shape) != 1 or bias_shape[0] != weight_shape[0]:
        return False
    return bias.dtype is dtype and bias.device == device


def _check_traced(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    """Raise OperandError while torch.jit.trace records: sizes are tensors then, and comparing them warns.

    The warning says that the comparison is not in the graph, which is what a check wants.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]  # not in its __all__
        if not _fit(x, weight, bias):
            raise _misfit(x, weight, bias)


def _check_compiled(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    """Raise OperandError while Dynamo traces ``forward``; under fullgraph=True its own error quotes it."""
    if _is_any_autocast_enabled():
        x, weight, bias = _autocast(
            x, weight, bias
        )  # seen by the check alone, so it leaves no operation behind
    if not _fit(x, weight, bias):
        raise _misfit(x, weight, bias)


def _misfit(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> OperandError:
    """Return the error for operands that ``_fit`` refused: the first reason in the order below."""
    others = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    for name, operand in {"input": x, **others}.items():
        if not isinstance(operand, torch.Tensor):
            return OperandError(f"MYLINEAR: {name} is a {type(operand).__name__}; expected a torch.Tensor")
    reason = _misfit_of_shapes(x, weight, bias) or _misfit_of_kinds(x, others)
    return OperandError(f"MYLINEAR: {reason}")


def _misfit_of_shapes(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> str | None:
    """Say which rank or size is wrong, or None."""
    if weight.ndim != 2:
        return f"weight is {_shape(weight)}, rank {weight.ndim}; expected rank 2, weight (out, in)"
    out_features, in_features = _shape(weight)
    if x.ndim == 0:
        return f"input is a scalar but weight is {_shape(weight)}; expected input (..., {in_features})"
    features = _shape(x)[-1]
    if features != in_features:
        return (
            f"weight is {_shape(weight)} but input has {features} features; expected weight (out, {features})"
        )
    if bias is not None and _shape(bias) != (out_features,):
        return f"bias is {_shape(bias)} but weight is {_shape(weight)}; expected bias ({out_features},)"
    return None


def _misfit_of_kinds(x: torch.Tensor, others: dict[str, torch.Tensor]) -> str | None:
    """Say which dtype or device is wrong, or None."""
    if x.dtype not in DTYPES:
        return f"input is {_name(x.dtype)}; expected float16, bfloat16, float32 or float64: use .to(dtype)"
    for name, other in others.items():
        if other.dtype != x.dtype:
            got, want = _name(other.dtype), _name(x.dtype)
            return f"{name} is {got} but input is {want}; expected one dtype: use .to(torch.{want})"
        if other.device != x.device:
            return (
                f"{name} is on {other.device} but input is on {x.device}; "
                f"expected one device: use .to('{x.device}')"
            )
    return None


def _shape(tensor: torch.Tensor) -> tuple[int, ...]:
    """Return the shape as plain integers, as a message prints it."""
    return tuple(int(size) for size in tensor.shape)


def _name(dtype: torch.dtype) -> str:
    """Return a dtype's name without ``torch.``."""
    return str(dtype).removeprefix("torch.")
