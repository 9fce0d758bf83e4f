"""Deformable convolution, version 2 (Zhu et al., 2018, arXiv:1811.11168), in operations of torch.

Inputs and attributes are those of ONNX's operator DeformConv (opset 19), but for kernel_shape, which the
weight has. Positions outside of the image, and those that are NaN, read 0.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def deform_conv(
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    dilations: Sequence[int] = (1, 1),
    group: int = 1,
    offset_group: int = 1,
) -> Tensor:
    """Return the convolution of x, read at positions that are moved by offset and scaled by mask.

    x: (n, c, h, w), weight: (out, c / group, kh, kw), bias: (out,), mask: (n, offset_group·kh·kw, oh, ow),
    offset: (n, offset_group·kh·kw·2, oh, ow), rows and columns by turns; y: (n, out, oh, ow). One dtype, a
    floating-point one. pads: top, left, bottom, right. Raises ValueError where the shapes don't fit.
    """
    if not torch.jit.is_tracing():  # sizes are tensors then, and comparing them warns
        _check(x, weight, offset, strides, pads, dilations, group, offset_group)
    n, channels, height, width = x.shape
    out, _, kernel_height, kernel_width = weight.shape
    taps, (out_height, out_width) = kernel_height * kernel_width, offset.shape[2:]

    # Where each tap of the kernel reads for each output pixel: (n, offset_group, taps, oh, ow).
    moved = offset.reshape(n, offset_group, taps, 2, out_height, out_width)
    tap = torch.arange(taps, device=x.device)[:, None, None]
    row = torch.arange(out_height, device=x.device)[:, None] * strides[0] - pads[0]
    column = torch.arange(out_width, device=x.device) * strides[1] - pads[1]
    rows = moved[:, :, :, 0] + (row + tap // kernel_width * dilations[0])
    columns = moved[:, :, :, 1] + (column + tap % kernel_width * dilations[1])

    planes = x.reshape(n, offset_group, channels // offset_group, height * width)
    read = _interpolate(
        planes, rows, columns, height, width
    )  # (n, offset_group, channels in it, taps, oh, ow)
    if mask is not None:
        read = read * mask.reshape(n, offset_group, 1, taps, out_height, out_width)
    factors = weight.reshape(group, out // group, channels // group * taps)
    y = factors @ read.reshape(n, group, channels // group * taps, out_height * out_width)
    y = y.reshape(n, out, out_height, out_width)
    return y if bias is None else y + bias[:, None, None]


def _check(
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    group: int,
    offset_group: int,
) -> None:
    """Raise ValueError unless the channels divide into the groups, and offset has the output's size."""
    if x.shape[1] != group * weight.shape[1] or weight.shape[0] % group or x.shape[1] % offset_group:
        raise ValueError(
            f"x is {tuple(x.shape)} and weight is {tuple(weight.shape)} in {group} groups and {offset_group} "
            "of offsets; expected groups that divide the channels"
        )
    size = [
        (x.shape[2 + i] + pads[i] + pads[i + 2] - dilations[i] * (weight.shape[2 + i] - 1) - 1) // strides[i]
        + 1
        for i in range(2)
    ]
    expected = (x.shape[0], offset_group * weight.shape[2] * weight.shape[3] * 2, *size)
    if offset.shape != expected:
        raise ValueError(f"offset is {tuple(offset.shape)}; expected {expected}")


def _interpolate(planes: Tensor, rows: Tensor, columns: Tensor, height: int, width: int) -> Tensor:
    """Return planes (n, g, c, h·w) at positions (n, g, taps, oh, ow), bilinearly: (n, g, c, taps, oh, ow)."""
    top, left = rows.floor(), columns.floor()
    down, right = rows - top, columns - left
    total = planes.new_zeros(())
    for i, vertical in ((top, 1 - down), (top + 1, down)):
        for j, horizontal in ((left, 1 - right), (left + 1, right)):
            inside = (i >= 0) & (i <= height - 1) & (j >= 0) & (j <= width - 1)
            index = torch.where(inside, i, 0).long() * width + torch.where(inside, j, 0).long()
            each = index.flatten(2)[:, :, None].expand(-1, -1, planes.shape[2], -1)
            read = planes.gather(3, each).unflatten(3, index.shape[2:])
            total = total + torch.where(inside[:, :, None], (vertical * horizontal)[:, :, None] * read, 0)
    return total


class DeformConv(torch.autograd.Function):
    """``DeformConv.apply``, with the arguments of ``deform_conv``, all of them: one node in a file.

    Kept for backward are the inputs alone. It computes forward again, with autograd on, which costs time and
    saves the memory of what is read: (n, c, kh·kw, oh, ow), and more than once that.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        offset: Tensor,
        bias: Tensor | None,
        mask: Tensor | None,
        *attributes: Any,
    ) -> Tensor:
        """Compute y; see ``deform_conv``."""
        ctx.save_for_backward(x, weight, offset, bias, mask)
        ctx.attributes = attributes
        return deform_conv(x, weight, offset, bias, mask, *attributes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the inputs, None for each that is absent or not needed."""
        inputs = [
            None if saved is None else saved.detach().requires_grad_(needed)
            for saved, needed in zip(ctx.saved_tensors, ctx.needs_input_grad, strict=False)
        ]
        wanted = [each for each in inputs if each is not None and each.requires_grad]
        with torch.enable_grad():
            y = deform_conv(*inputs, *ctx.attributes)
        found = dict(zip(map(id, wanted), torch.autograd.grad(y, wanted, grad), strict=True))
        return (*(found.get(id(each)) for each in inputs), *[None] * len(ctx.attributes))

    @staticmethod
    def symbolic(
        g: Any,
        x: Any,
        weight: Any,
        offset: Any,
        bias: Any,
        mask: Any,
        strides: Sequence[int],
        pads: Sequence[int],
        dilations: Sequence[int],
        group: int,
        offset_group: int,
    ) -> Any:
        """Write one node; bias and mask may be None, which ort_ops.export takes for an absent input."""
        return g.op(
            "example::DeformConv",
            x,
            weight,
            offset,
            bias,
            mask,
            strides_i=strides,
            pads_i=pads,
            dilations_i=dilations,
            group_i=group,
            offset_group_i=offset_group,
        )


class DeformConv2d(nn.Module):
    """A deformable convolution; a convolution of x gives its offsets, and masks unless ``mask=False``."""

    def __init__(
        self,
        channels: int,
        out: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        offset_groups: int = 1,
        bias: bool = True,
        mask: bool = True,
    ) -> None:
        super().__init__()
        place = {"stride": stride, "padding": padding, "dilation": dilation}
        like = nn.Conv2d(channels, out, kernel, groups=groups, bias=bias)  # weights as a convolution has them
        self.weight, self.bias = like.weight, like.bias
        self.positions = offset_groups * kernel * kernel
        self.places = nn.Conv2d(channels, self.positions * (3 if mask else 2), kernel, **place)
        self.attributes = ([stride] * 2, [padding] * 4, [dilation] * 2, groups, offset_groups)

    def forward(self, x: Tensor) -> Tensor:
        """Compute y: (n, out, oh, ow) from x: (n, channels, h, w)."""
        places = self.places(x)
        offset, mask = places[:, : 2 * self.positions], places[:, 2 * self.positions :]
        scale = mask.sigmoid() if mask.shape[1] else None
        y: Tensor = DeformConv.apply(x, self.weight, offset, self.bias, scale, *self.attributes)
        return y


def build() -> nn.Module:
    """Return a model of two layers: with a mask and a bias, and in groups with neither."""
    torch.manual_seed(0)
    return nn.Sequential(
        DeformConv2d(3, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        DeformConv2d(8, 4, 3, padding=2, dilation=2, groups=2, offset_groups=2, bias=False, mask=False),
    ).eval()
