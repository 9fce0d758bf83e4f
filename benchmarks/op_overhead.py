"""What does LinearF cost beside F.linear? Run: python -m benchmarks.op_overhead."""

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812, the name that PyTorch's own documentation uses

from benchmarks.report import SPREAD, Seconds, alternate, environment, in_processes, ratio, summarise, write
from mylinear import LinearF

QUESTION = "What does LinearF cost beside F.linear?"
NOTE = f"float32 on the CPU. {SPREAD}"
COLUMNS = ("case", "pass", "torch threads", "F.linear, µs", "LinearF, µs", "LinearF / F.linear")
NO_GRAD = "forward, no grad"
PASSES = (NO_GRAD, "forward", "forward and backward")
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

    return dict(zip(PASSES, (forward, forward, forward_backward), strict=True))


def measure() -> dict[str, Seconds]:
    """Time both by case and pass."""
    found = {}
    for case in CASES:
        calls = {name: passes(function, case) for name, function in FUNCTIONS.items()}
        for which in PASSES:
            with torch.set_grad_enabled(which != NO_GRAD):
                timed = {name: calls[name][which] for name in calls}
                found[f"{case.name} {which}"] = alternate(timed, threads=case.threads, rounds=9)
    return found


def main() -> None:
    rows, raw = [], []
    found = in_processes(measure)
    for case in CASES:
        for which in PASSES:
            seconds = found[f"{case.name} {which}"]
            times = {name: summarise(values) for name, values in seconds.items()}
            beside = ratio(seconds["LinearF"], seconds["F.linear"])
            texts = (times[name].text for name in FUNCTIONS)
            rows.append((case.name, which, str(case.threads), *texts, beside.text))
            raw.append(
                {
                    **dataclasses.asdict(case),
                    "pass": which,
                    **dataclasses.asdict(beside),
                    **{name: dataclasses.asdict(timing) for name, timing in times.items()},
                }
            )
    print(write("op_overhead", QUESTION, NOTE, COLUMNS, rows, raw, environment(["torch", "numpy"])))


if __name__ == "__main__":
    main()
