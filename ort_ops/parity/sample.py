"""One set of inputs, and what the model and the file make of it in float64 and in their own dtypes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from ort_ops.errors import ParityError

from .chance import by_chance, by_open_order
from .exact import ExactFile
from .given import Given
from .original import ExactModel, as_arrays

__all__ = ["Sample", "take_sample"]


@dataclass(frozen=True)
class Sample:
    """Inputs, and what they become.

    torch: what the model returns. model: what it returns in float64.
    file: the file's outputs in float64, by name.
    chance: those that are another each time, and the node that makes them so; draws: whether the model's
        results are, too.
    """

    given: Given
    torch: Sequence[NDArray[Any]]
    model: Sequence[NDArray[Any]]
    file: Mapping[str, Any]
    chance: Mapping[str, str] = field(default_factory=dict)
    draws: bool = False

    @property
    def feed(self) -> Mapping[str, NDArray[Any]]:
        """Return the file's inputs by name."""
        return self.given.feed


def take_sample(
    outputs: Sequence[NDArray[Any]], exact_model: ExactModel, exact_file: ExactFile, given: Given
) -> Sample:
    """Run a model in float64, and its file; ``outputs`` is what the model as it is makes of the inputs."""
    if not outputs:
        raise ParityError("the model returned nothing; expected one tensor at least")
    exact = as_arrays(exact_model.run(given.arguments))
    exact_file.know(exact_model.numbers, exact_model.taken)
    file = exact_file.run(given.feed)
    chance = by_chance(exact_file, given.feed, file)
    draws = bool(chance) and exact_model.draws(given.arguments)
    if not exact_model.unordered:  # else the order of one is compared with that of the other
        chance = {**by_open_order(exact_file, given.feed, file), **chance}
    return Sample(given, outputs, exact, file, chance, draws)
