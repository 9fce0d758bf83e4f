"""Which models can be given the rows of several requests at once."""

from ort_ops.errors import BundleError
from ort_ops.model import Model

__all__ = ["check_batchable"]


def check_batchable(model: Model) -> None:
    """Raise BundleError where an input or an output has no free first dimension, to batch along."""
    for kind, values in (("input", model.inputs), ("output", model.outputs)):
        for value in values:
            if value.kind != "tensor" or not value.shape or isinstance(value.shape[0], int):
                found = value.shape if value.kind == "tensor" else f"a {value.kind}"
                raise BundleError(
                    f"{kind} {value.name!r} is {found}; expected a first dimension that is free, to batch"
                )
