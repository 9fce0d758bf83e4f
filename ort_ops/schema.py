"""An operator's schema, read off the signature of its kernel.

Positional parameters are inputs (``= None`` makes one optional, ``*xs`` takes any number), keyword-only
parameters are attributes, and the annotations give the element types. A type variable stands for one
type in all the places where it occurs, as ``T`` does in ONNX's own operator schemas.
"""

import inspect
import itertools
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np

from .callables import annotated_by_text, annotations_of, name_of, parameters_of
from .dtypes import ANY, COMMON_TYPES, DTYPES, DType, find_dtype, from_numpy, from_onnx
from .errors import SchemaError

__all__ = ["Attribute", "Dim", "Formal", "OpSchema", "Signature", "TensorType", "read_schema"]

Dim: TypeAlias = int | str | None
"""A dimension: its size, its symbol, or None where nothing is known of it."""

MAX_SIGNATURES = 256
"""More overloads than this by type are a sign of a missing type variable."""


@dataclass(frozen=True)
class TensorType:
    """A tensor's element type and shape while a session is made; what ``@op.infer`` is given and gives.

    ``dtype`` is a NumPy dtype, or None where unknown. ``shape`` is a tuple of ``Dim``, or None where the
    rank is unknown (ONNX Runtime shows a scalar in the same way).
    """

    dtype: np.dtype[Any] | None
    shape: tuple[Dim, ...] | None


@dataclass(frozen=True)
class Formal:
    """An input or output as the operator declares it.

    ``types`` are ONNX element types, empty for any; formals with the same ``variable`` have the same
    type in a node.
    """

    name: str
    types: tuple[int, ...] = ()
    variable: TypeVar | None = None
    optional: bool = False
    variadic: bool = False


@dataclass(frozen=True)
class Attribute:
    """An attribute: ``kind`` is one of the Python types in ``ATTRIBUTE_KINDS``."""

    name: str
    kind: str
    required: bool


ATTRIBUTE_KINDS: Mapping[Any, str] = {
    bool: "bool",
    int: "int",
    float: "float",
    str: "str",
    bytes: "bytes",
    list[bool]: "list[bool]",
    list[int]: "list[int]",
    list[float]: "list[float]",
    list[str]: "list[str]",
    np.ndarray: "tensor",
}

OUT = "out"
"""The keyword-only parameter by which a kernel asks for the buffers of its outputs, to fill them.

Its annotation, where it has one, is the outputs', as otherwise that of the result is.
"""


@dataclass(frozen=True)
class Signature:
    """The element types of one overload, inputs and outputs in order; 0 means any."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class OpSchema:
    """Inputs, outputs and attributes of an operator."""

    inputs: tuple[Formal, ...]
    outputs: tuple[Formal, ...]
    attributes: tuple[Attribute, ...]
    takes_out: bool = False

    def signatures(self) -> Iterator[Signature]:
        """Give every combination of element types, as ONNX Runtime wants them registered."""
        formals = (*self.inputs, *self.outputs)
        choices = {_variable(f, i): f.types or (ANY,) for i, f in enumerate(formals)}
        for combination in itertools.product(*choices.values()):
            chosen = dict(zip(choices, combination, strict=True))
            types = [chosen[_variable(f, i)] for i, f in enumerate(formals)]
            yield Signature(tuple(types[: len(self.inputs)]), tuple(types[len(self.inputs) :]))


def _variable(formal: Formal, index: int) -> TypeVar | int:
    return formal.variable or index


def read_schema(
    function: Callable[..., Any],
    inputs: Sequence[Any] | None = None,
    outputs: Sequence[Any] | None = None,
) -> OpSchema:
    """Read the schema of the operator that ``function`` computes.

    ``inputs`` and ``outputs``, where given, are lists of types that replace the annotations. Raises
    SchemaError, naming the parameter and the remedy, for a signature that can't be an operator.
    """
    where = name_of(function)
    parameters = parameters_of(function)
    hints = annotations_of(function, _NAMES)
    positional = [p for p in parameters if p.kind is not p.KEYWORD_ONLY]
    keyword_only = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    # A text that is the name of a type; as an attribute's it is Python's bool.
    others = {p.name for p in keyword_only}
    hints |= {name: "bool" for name in annotated_by_text(function, "bool") if name not in others}
    if inputs is not None:
        if len(inputs) != len(positional):
            raise SchemaError(f"{where}: inputs= lists {len(inputs)} types for {len(positional)} parameters")
        hints |= {p.name: hint for p, hint in zip(positional, inputs, strict=True)}
    formals = tuple(_input(p, hints.get(p.name), where) for p in positional)
    takes_out = any(p.name == OUT for p in keyword_only)
    schema = OpSchema(
        formals,
        _outputs(_filled(hints) if takes_out else hints, outputs, formals, where),
        tuple(_attribute(p, hints.get(p.name), where) for p in keyword_only if p.name != OUT),
        takes_out,
    )
    count = sum(1 for _ in itertools.islice(schema.signatures(), MAX_SIGNATURES + 1))
    if count > MAX_SIGNATURES:
        raise SchemaError(
            f"{where}: more than {MAX_SIGNATURES} combinations of element types; "
            "let parameters of one type share a type variable"
        )
    taken = [signature.inputs for signature in schema.signatures()]
    if len(set(taken)) < len(taken):
        raise SchemaError(
            f"{where}: for inputs of one type there are several of an output; let it share a type variable "
            "with an input, or leave its type open (Any) and say it in .infer"
        )
    return schema


# What a name stands for in an annotation that is a string: "float32" as well as "NDArray[np.float32]".
_NAMES = {dtype.name: dtype.numpy.type for dtype in DTYPES if dtype.name != "bool"}


def _input(parameter: inspect.Parameter, hint: Any, where: str) -> Formal:
    if parameter.kind is parameter.VAR_KEYWORD:
        raise SchemaError(
            f"{where}: **{parameter.name} can't be an operator's attributes; "
            "name each as a keyword-only parameter"
        )
    if parameter.default is not parameter.empty and parameter.default is not None:
        raise SchemaError(
            f"{where}: input {parameter.name!r} has the default {parameter.default!r}; an input's only "
            "default is None, and an attribute is keyword-only (put it behind a *)"
        )
    types, variable = _types(hint, where, parameter.name)
    return Formal(
        parameter.name,
        types,
        variable,
        optional=parameter.default is None,
        variadic=parameter.kind is parameter.VAR_POSITIONAL,
    )


def _outputs(
    hints: Mapping[str, Any], declared: Sequence[Any] | None, inputs: tuple[Formal, ...], where: str
) -> tuple[Formal, ...]:
    if declared is None:
        if "return" not in hints:
            return (_like_first_input(inputs, where),)
        hint = hints["return"]
        if hint is type(None):
            return ()
        declared = typing.get_args(hint) if typing.get_origin(hint) is tuple else [hint]
    return tuple(Formal(f"output{i}", *_types(hint, where, f"output {i}")) for i, hint in enumerate(declared))


def _filled(hints: Mapping[str, Any]) -> dict[str, Any]:
    """Return annotations with that of ``out`` for the result, of which a kernel that fills it has none."""
    others = {name: hint for name, hint in hints.items() if name != "return" or hint is not type(None)}
    return others if others.get(OUT, Any) is Any else {"return": others[OUT], **others}


def _like_first_input(inputs: tuple[Formal, ...], where: str) -> Formal:
    if not inputs:
        raise SchemaError(f"{where}: has no input whose type its output could take; annotate the result")
    first = inputs[0]
    if first.types and first.variable is None and len(first.types) > 1:
        raise SchemaError(f"{where}: annotate the result; input {first.name!r} is of several types")
    return Formal("output0", first.types, first.variable)


def _attribute(parameter: inspect.Parameter, hint: Any, where: str) -> Attribute:
    required = parameter.default is parameter.empty
    if hint is None and not required:
        hint = _type_of_default(parameter.default)
    hint = _present(_expanded(hint))
    kind = ATTRIBUTE_KINDS.get(np.ndarray if typing.get_origin(hint) is np.ndarray else hint)
    if kind is None:
        unsaid = isinstance(parameter.default, list | tuple) and hint is type(parameter.default)
        if unsaid:
            raise SchemaError(
                f"{where}: attribute {parameter.name!r} has the default {parameter.default!r}, which "
                "doesn't say of what kind its elements are; annotate it, as list[int]"
            )
        known = ", ".join(ATTRIBUTE_KINDS.values())
        raise SchemaError(
            f"{where}: attribute {parameter.name!r} is annotated {hint!r}; expected one of {known}, "
            "or one with | None where the default is None"
        )
    return Attribute(parameter.name, kind, required)


def _present(hint: Any) -> Any:
    """Return T of ``T | None``, and every other annotation as it is."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint
    parts = [part for part in typing.get_args(hint) if part is not type(None)]
    return _expanded(parts[0]) if len(parts) == 1 else hint


def _type_of_default(default: object) -> Any:
    """Return the annotation that a default stands for: ``list[int]`` for ``(1, 2)``."""
    if not isinstance(default, list | tuple):
        return type(default)
    kinds = {type(item) for item in default}
    return types.GenericAlias(list, (kinds.pop(),)) if len(kinds) == 1 else type(default)


def _types(hint: Any, where: str, name: str) -> tuple[tuple[int, ...], TypeVar | None]:
    """Return the element types that an annotation admits, and the type variable that it is."""
    hint = _expanded(hint)
    if hint is None or hint is Any:
        return (), None
    _refuse_python_type(hint, where, name)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        parts = [part for part in typing.get_args(hint) if part is not type(None)]
        if len(parts) == 1:
            return _types(parts[0], where, name)
        for part in parts:
            _refuse_python_type(part, where, name)
        found = [_types(part, where, name) for part in parts]
        if any(variable is not None for _, variable in found):
            raise SchemaError(
                f"{where}: {name!r} is of a type variable or another type; expected one of both"
            )
        if not all(types for types, _ in found):  # one of them is any
            return (), None
        return tuple(dict.fromkeys(t for types, _ in found for t in types)), None
    hint = _element(hint)
    if isinstance(hint, TypeVar):
        if hint.__bound__ is None:
            admitted = tuple(_one_type(t, where, name).onnx for t in hint.__constraints__)
        else:
            admitted = _types(hint.__bound__, where, name)[0]
        return admitted or COMMON_TYPES, hint
    if kinds := _kinds(hint):
        return kinds, None
    if hint is np.generic or hasattr(hint, "__dlpack__"):  # np.ndarray, torch.Tensor: an array of any type
        return (), None
    return (_one_type(hint, where, name).onnx,), None


def _kinds(hint: Any) -> tuple[int, ...]:
    """Return the types of a kind of NumPy's (``np.floating``); nothing for what is none, or is every type."""
    kind = typing.get_origin(hint) or hint
    if kind is np.generic or not isinstance(kind, type) or not issubclass(kind, np.generic):
        return ()
    return tuple(
        t for t in COMMON_TYPES if issubclass(of := from_onnx(t).numpy.type, kind) and of is not kind
    )


# What to write for a tensor of what a Python type is called like.
_PYTHON_TYPES = {float: "np.float64", int: "np.int64", bool: "np.bool_", str: "'string'"}


def _refuse_python_type(hint: Any, where: str, name: str) -> None:
    """Raise SchemaError for Python's numbers, texts and lists: an input or output is a tensor."""
    is_input = name.isidentifier()
    origin = typing.get_origin(hint) or hint
    if not isinstance(origin, type):
        return
    if issubclass(origin, Sequence) and origin is not str and origin is not bytes:
        remedy = "*xs, annotated with the type of one, takes any number of them"
        remedy = remedy if is_input else "several outputs are -> tuple[A, B], with the type of each"
    elif hint in _PYTHON_TYPES:
        remedy = f"a tensor of it is {_PYTHON_TYPES[hint]}"
        remedy += ", and an attribute is keyword-only (put it behind a *)" if is_input else ""
    else:
        return
    what = "a positional parameter is an input" if is_input else "what is returned is an output"
    shown = hint.__name__ if isinstance(hint, type) and hint is origin else hint
    raise SchemaError(f"{where}: {name!r} is annotated {shown}, and {what}, a tensor: {remedy}")


def _element(hint: Any) -> Any:
    """Return T of ``NDArray[T]``, and every other annotation as it is."""
    hint = _expanded(hint)
    if typing.get_origin(hint) is np.ndarray:
        dtype = typing.get_args(hint)[1]
        return typing.get_args(dtype)[0] if typing.get_args(dtype) else np.generic
    return hint


def _expanded(hint: Any) -> Any:
    """Return what a type alias stands for: from NumPy 2.5 on, on Python 3.12, ``NDArray`` is one."""
    alias = typing.get_origin(hint) or hint
    if not hasattr(alias, "__value__"):
        return hint
    given = typing.get_args(hint)
    return _expanded(alias.__value__[given] if given else alias.__value__)


def _one_type(hint: Any, where: str, name: str) -> DType:
    of_onnxscript = getattr(hint, "dtype", None)  # its FLOAT and FLOAT["N"] say ONNX's number there
    try:
        if isinstance(of_onnxscript, int):
            return from_onnx(int(of_onnxscript))
        if isinstance(hint, type) and not issubclass(hint, (np.generic, *_PYTHON_TYPES)):
            raise SchemaError("no type of NumPy's")  # which takes an array of it for one of objects
        return find_dtype(hint) if isinstance(hint, str) else from_numpy(hint)
    except (SchemaError, TypeError) as error:
        raise SchemaError(
            f"{where}: {name!r} is annotated {hint!r}, which is no element type; expected a NumPy type, "
            "NDArray[type], a type variable over such types, or a name such as 'float32'"
        ) from error
