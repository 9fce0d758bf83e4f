"""What a model and its file compute in float64, and what that tells of the file."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx
import onnxruntime
import torch

from ort_ops.runtime import release_of

from .graphs import read_tensor
from .original import ExactModel, as_arrays
from .sample import Sample, take_sample
from .storage import Stored, Watched
from .subject import Subject
from .weights import ChangedWeight

__all__ = ["Evaluated", "evaluate", "notes_of", "versions"]


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


def notes_of(subject: Subject, evaluated: Evaluated) -> Iterator[str]:
    """Give what could not be looked at as closely as the rest, and what that hides."""
    if subject.defaults:
        left = ", ".join(f"{name}={value!r}" for name, value in subject.defaults.items())
        yield f"inputs were made up for the file's inputs alone, and left at forward's defaults: {left}"
    for note in subject.exact_file.notes.values():
        yield (
            f"node {note.node} ({note.op}) of the file was not evaluated in float64 as others: {note.reason}"
        )
    for node, graph in subject.exact_file.never_run():
        yield f"node {node.name} ({node.op_type}): no sample ran its {graph}, in which nothing was compared"
    for operation, reason in evaluated.notes.items():
        yield f"{operation} of the model was not computed in float64: {reason}"
    for each in evaluated.changed:
        yield str(each)


def versions() -> dict[str, str]:
    """Return the versions of what computes and runs."""
    return {
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "ort-ops": release_of("ort-ops"),
        "torch": torch.__version__,
    }
