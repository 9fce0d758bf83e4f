"""What does LinearF cost beside F.linear? Run: python -m benchmarks.op_overhead."""

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812, the name that PyTorch's own documentation uses

from benchmarks.report import environment, time_alternating, write
from mylinear import LinearF

QUESTION = "What does LinearF cost beside F.linear?"
NOTE = "float32 on the CPU; median of 25 alternating rounds, and in brackets the first and third quartile."
COLUMNS = ("case", "pass", "torch threads", "F.linear, µs", "LinearF, µs", "LinearF / F.linear")
NO_GRAD = "forward, no grad"
FUNCTIONS = {"F.linear": F.linear, "LinearF": LinearF.apply}


@dataclasses.dataclass(frozen=True)
class Case:
    """x (rows, in), weight (out, in), bias (out,), float32."""

    name: str
    rows: int
    in_features: int
    out_features: int
    threads: int


CASES = (
    Case("x[8, 64], W[32, 64]", 8, 64, 32, threads=1),
    Case("x[1024, 1024], W[1024, 1024]", 1024, 1024, 1024, threads=torch.get_num_threads()),
)


def passes(function: Callable[..., torch.Tensor], case: Case) -> dict[str, Callable[[], object]]:
    """Return what is timed, by name; gradients are computed for x, weight and bias and then thrown away."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((case.rows, case.in_features), (case.out_features, case.in_features), (case.out_features,))
    operands = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    grad_y = torch.ones(case.rows, case.out_features)

    def forward() -> torch.Tensor:
        return function(*operands)

    def forward_backward() -> object:
        return torch.autograd.grad(function(*operands), operands, grad_y)

    return {
        NO_GRAD: forward,  # timed under torch.no_grad
        "forward": forward,
        "forward and backward": forward_backward,
    }


def main() -> None:
    rows, raw = [], []
    for case in CASES:
        calls = {name: passes(function, case) for name, function in FUNCTIONS.items()}
        for which in calls["F.linear"]:
            with torch.set_grad_enabled(which != NO_GRAD):
                times = time_alternating({name: calls[name][which] for name in calls}, threads=case.threads)
            ratio = times["LinearF"].median_us / times["F.linear"].median_us
            texts = (times[name].text for name in FUNCTIONS)
            rows.append((case.name, which, str(case.threads), *texts, f"{ratio:.2f}"))
            raw.append(
                {
                    **dataclasses.asdict(case),
                    "pass": which,
                    "ratio": ratio,
                    **{name: dataclasses.asdict(timing) for name, timing in times.items()},
                }
            )
    print(write("op_overhead", QUESTION, NOTE, COLUMNS, rows, raw, environment(["torch", "numpy"])))


if __name__ == "__main__":
    main()
