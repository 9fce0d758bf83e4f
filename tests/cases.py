"""The one table of shapes, dtypes and odd inputs; an ordinary, an empty and an odd case in each part."""

from dataclasses import dataclass

import torch

from .shapes import LINEAR_SHAPES


@dataclass(frozen=True)
class LinearCase:
    id: str
    leading: tuple[int, ...]  # x is (*leading, in_features)
    in_features: int
    out_features: int

    def operands(
        self, dtype: torch.dtype = torch.float64, *, bias: bool = True, grad: bool = False, seed: int = 0
    ) -> list[torch.Tensor]:
        """x (*leading, in), weight (out, in) and, if asked for, bias (out,): normal, one draw a seed."""
        shapes = [(*self.leading, self.in_features), (self.out_features, self.in_features)]
        shapes += [(self.out_features,)] if bias else []
        generator = torch.Generator().manual_seed(seed)
        drawn = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
        return [tensor.to(dtype).requires_grad_(grad) for tensor in drawn]


LINEAR_CASES = tuple(LinearCase(*shape) for shape in LINEAR_SHAPES)

FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class BadLinearCase:
    id: str
    x: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None
    message: str


def _zeros(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype, device=device)


BAD_LINEAR_CASES = (
    BadLinearCase(
        "features",
        _zeros(2, 6),
        _zeros(4, 8),
        None,
        "weight is (4, 8) but input has 6 features; expected weight (out, 6)",
    ),
    BadLinearCase(
        "empty_features",
        _zeros(0, 6),
        _zeros(0, 8),
        None,
        "weight is (0, 8) but input has 6 features; expected weight (out, 6)",
    ),
    BadLinearCase(
        "input_scalar",
        _zeros(),
        _zeros(4, 6),
        None,
        "input is a scalar but weight is (4, 6); expected input (..., 6)",
    ),
    BadLinearCase(
        "weight_rank_1",
        _zeros(2, 6),
        _zeros(6),
        None,
        "weight is (6,), rank 1; expected rank 2, weight (out, in)",
    ),
    BadLinearCase(
        "weight_rank_3",
        _zeros(2, 6),
        _zeros(1, 4, 6),
        None,
        "weight is (1, 4, 6), rank 3; expected rank 2, weight (out, in)",
    ),
    BadLinearCase(
        "bias_that_would_broadcast",
        _zeros(2, 6),
        _zeros(4, 6),
        _zeros(1),
        "bias is (1,) but weight is (4, 6); expected bias (4,)",
    ),
    BadLinearCase(
        "bias_rank_0",
        _zeros(2, 6),
        _zeros(4, 6),
        _zeros(),
        "bias is () but weight is (4, 6); expected bias (4,)",
    ),
    BadLinearCase(
        "bias_rank_2",
        _zeros(2, 6),
        _zeros(4, 6),
        _zeros(2, 4),
        "bias is (2, 4) but weight is (4, 6); expected bias (4,)",
    ),
    BadLinearCase(
        "integers",
        _zeros(2, 6, dtype=torch.int64),
        _zeros(4, 6, dtype=torch.int64),
        None,
        "input is int64; expected float16, bfloat16, float32 or float64: use .to(dtype)",
    ),
    BadLinearCase(
        "weight_dtype",
        _zeros(2, 6),
        _zeros(4, 6, dtype=torch.float64),
        None,
        "weight is float64 but input is float32; expected one dtype: use .to(torch.float32)",
    ),
    BadLinearCase(
        "bias_dtype",
        _zeros(2, 6),
        _zeros(4, 6),
        _zeros(4, dtype=torch.float16),
        "bias is float16 but input is float32; expected one dtype: use .to(torch.float32)",
    ),
    BadLinearCase(
        "weight_device",
        _zeros(2, 6),
        _zeros(4, 6, device="meta"),
        None,
        "weight is on meta but input is on cpu; expected one device: use .to('cpu')",
    ),
    BadLinearCase(
        "bias_device",
        _zeros(2, 6),
        _zeros(4, 6),
        _zeros(4, device="meta"),
        "bias is on meta but input is on cpu; expected one device: use .to('cpu')",
    ),
)
