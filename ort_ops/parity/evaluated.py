"""What a model and its file compute in float64, and what that tells of the file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .graphs import read_tensor
from .original import ExactModel, as_arrays
from .sample import Sample, take_sample
from .storage import Stored, Watched
from .subject import Subject
from .weights import ChangedWeight

__all__ = ["Evaluated", "evaluate"]


@dataclass(frozen=True)
class Evaluated:
    """Samples, and what is known once they were taken.

    changed: the subject's, less those that the model computes itself, from others or by a cast, unless they
        bear the weight's own name: the model may well compute its transpose.
    computed: the constants in the file that the model computes itself.
    narrowed: the outputs that depend on what the file alone stores in 16 bits, and where it does.
    notes: operations of the model that could not be computed in float64, and why.
    """

    samples: Sequence[Sample]
    changed: Sequence[ChangedWeight]
    computed: frozenset[str]
    narrowed: Mapping[str, Stored]
    notes: Mapping[str, str]


def evaluate(
    subject: Subject, model: ExactModel | None = None, on_sample: Callable[[int], None] | None = None
) -> Evaluated:
    """Run a model and its file on what they are given; raises ParityError for a model that returns nothing.

    model: the subject's in float64, for who goes on with it. on_sample: called before each, with its number.
    """
    model = model or subject.exact_model()
    initializers = subject.content.graph.initializers
    rounded = {
        each.initializer: read_tensor(tensor)
        for each in subject.changed
        if each.rounded and (tensor := initializers[each.initializer].const_value) is not None
    }
    watched = Watched(subject.content, subject.model, rounded)
    samples = []
    for number, given in enumerate(subject.given):
        if on_sample is not None:
            on_sample(number)
        with watched.watching() as needed:
            if needed:
                subject.run(given)
        samples.append(take_sample(as_arrays(subject.run(given)), model, subject.exact_file, given))
    named = {each.initializer for each in subject.changed if each.initializer == each.parameter}
    known = (model.taken - named) | watched.cast
    return Evaluated(
        samples=samples,
        changed=[each for each in subject.changed if each.initializer not in known],
        computed=frozenset(model.taken),
        narrowed=watched.strange_outputs(subject.exact_file.precisions),
        notes=model.notes,
    )
