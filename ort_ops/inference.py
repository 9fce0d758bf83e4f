"""Output types and shapes: a kernel's ``infer`` function, asked in the bridge's own terms."""

import inspect
import itertools
import operator
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .callables import parameters_of
from .dtypes import from_numpy, from_onnx
from .errors import SchemaError
from .schema import Dim, OpSchema, Signature, TensorType

__all__ = ["Infer", "asked_attributes"]

# ONNX Runtime shows no others while a session is made (of a text not where it ends, which bytes may need).
_READABLE = frozenset({"bool", "int", "float", "str", "list[bool]", "list[int]", "list[float]"})


def asked_attributes(function: Callable[..., Any], schema: OpSchema, where: str) -> frozenset[str]:
    """Return the attributes that an ``infer`` function asks for, which are its keyword-only parameters.

    Raises SchemaError for one that the kernel doesn't have, or that can't be had while a session is made, and
    for a function that doesn't take the kernel's inputs.
    """
    kinds = {attribute.name: attribute.kind for attribute in schema.attributes}
    asked = [p.name for p in parameters_of(function) if p.kind is p.KEYWORD_ONLY]
    for name in asked:
        if name not in kinds:
            raise SchemaError(
                f"{where}: its infer function asks for {name!r}, which is no attribute of it; "
                f"expected one of {', '.join(kinds) or 'none'}"
            )
        if kinds[name] not in _READABLE:
            raise SchemaError(
                f"{where}: its infer function asks for {name!r}, a {kinds[name]}, which ONNX Runtime doesn't "
                f"show while a session is made; expected one of {', '.join(sorted(_READABLE))}"
            )
    _refuse_other_inputs(function, schema, asked, where)
    return frozenset(asked)


def _refuse_other_inputs(
    function: Callable[..., Any], schema: OpSchema, asked: Sequence[str], where: str
) -> None:
    if any(formal.variadic for formal in schema.inputs):
        return  # how many it is given depends on the node
    names = [formal.name for formal in schema.inputs]
    try:
        inspect.signature(function).bind(*names, **dict.fromkeys(asked))
    except TypeError as error:
        wanted = ", ".join([*names, *(["*", *asked] if asked else ())])
        raise SchemaError(
            f"{where}: its infer function takes {inspect.signature(function)}; expected ({wanted}): a "
            "positional parameter for each input, and the attributes that it asks for behind a *"
        ) from error


class Infer:
    """Asks a kernel's ``infer`` function for output types and shapes, in the bridge's own terms.

    ``defaults`` has what the kernel itself takes for attributes that a node doesn't have; ``where`` names the
    operator and the kernel in messages.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        schema: OpSchema,
        signature: Signature,
        defaults: Mapping[str, Any],
        where: str,
    ) -> None:
        self.function, self.schema, self.signature = function, schema, signature
        self.defaults, self.where = defaults, where

    def __call__(
        self,
        inputs: list[tuple[int, tuple[int | str | None, ...] | None]],
        attributes: dict[str, Any],
    ) -> list[tuple[int, tuple[int | str, ...] | None]]:
        """Return (element type, dims) of each output from those of the inputs; type 0: an absent input.

        ``attributes`` are the node's own.
        """
        given = [TensorType(from_onnx(t).numpy, shape) if t else None for t, shape in inputs]
        missing = len(self.schema.inputs) - len(given)
        if missing > 0 and not any(f.variadic for f in self.schema.inputs):
            given += [None] * missing
        asked = {name: attributes.get(name, default) for name, default in self.defaults.items()}
        if inspect.Parameter.empty in asked.values():
            return []  # a required attribute is missing, which the kernel says when it is made
        try:
            result = self.function(*given, **asked)
        except Exception as error:
            if any(t is not None and t.shape is None for t in given):
                return []  # of an unknown rank nothing need follow
            hint = _hint(given)
            if isinstance(error, TypeError):  # as of counting with a symbol
                raise SchemaError(f"{self.where} failed: {type(error).__name__}: {error}{hint}") from error
            error.add_note(f"{self.where} raised it{hint}")
            raise
        outputs = [self._tensor_type(output) for output in _as_tuple(result)]
        if len(outputs) != len(self.signature.outputs):
            raise SchemaError(
                f"{self.where}: gives {len(outputs)} outputs; "
                f"expected one ort_ops.TensorType for each of the kernel's {len(self.signature.outputs)}"
            )
        return [self._output(i, output) for i, output in enumerate(outputs)]

    def _tensor_type(self, output: object) -> TensorType:
        if isinstance(output, TensorType):
            return output
        got = f"{output!r}, which is part of a shape" if _is_dim(output) else type(output).__name__
        raise SchemaError(
            f"{self.where} has to return ort_ops.TensorType(dtype, shape), a tuple of them for several "
            f"outputs; got {got}"
        )

    def _output(self, index: int, output: TensorType) -> tuple[int, tuple[int | str, ...] | None]:
        declared = self.signature.outputs[index]
        stated = declared if output.dtype is None else from_numpy(output.dtype).onnx
        if declared and stated != declared:
            raise SchemaError(
                f"{self.where}: output {index} is {from_onnx(stated).name}; "
                f"the kernel declares {from_onnx(declared).name}"
            )
        if output.shape is None:
            return stated, None
        if not isinstance(output.shape, tuple | list) or not all(map(_is_dim, output.shape)):
            raise SchemaError(
                f"{self.where}: output {index} has shape {output.shape!r}; expected a tuple "
                "of sizes, symbols (str), and None for what isn't known"
            )
        return stated, tuple(map(_dim, output.shape))


def _hint(given: Iterable[TensorType | None]) -> str:
    """Say what dimensions may be, where some are no numbers, with which a function may have counted."""
    dims = [dim for each in given if each is not None for dim in each.shape or ()]
    symbol = next((dim for dim in dims if not isinstance(dim, int)), 0)
    if symbol == 0:
        return ""
    return (
        f"; it is given the dimension {symbol!r}, and a dimension is a number, a symbol (str) or None: count "
        "with n // 2 if isinstance(n, int) else None"
    )


def _is_dim(dim: object) -> bool:
    if isinstance(dim, int | np.integer):
        return 0 <= int(dim) < 1 << 63
    return dim is None or isinstance(dim, str)


_UNKNOWN = f"unknown_{os.urandom(4).hex()}_"  # which no file has
_unknown = itertools.count(1)


def _dim(dim: Dim) -> int | str:
    """Return a dimension as ONNX Runtime takes it.

    From an operator it takes no unknown one (it reads -1, and its Concat refuses that); so each gets a
    symbol of its own, one a call, since dimensions of one symbol are taken to be equal.
    """
    if dim is None:
        return f"{_UNKNOWN}{next(_unknown)}"
    return dim if isinstance(dim, str) else operator.index(dim)


def _as_tuple(result: object) -> tuple[object, ...]:
    return result if isinstance(result, tuple) else (result,)
