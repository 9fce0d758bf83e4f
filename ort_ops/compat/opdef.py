"""``onnx_op``: a function becomes a kernel, with the argument names of onnxruntime-extensions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ort_ops.dtypes import ANY, from_onnx
from ort_ops.errors import ResultError, SchemaError
from ort_ops.kernel import Kernel
from ort_ops.providers import CPU
from ort_ops.registry import Op, add_op, split_name
from ort_ops.schema import Attribute, Formal, OpSchema
from ort_ops.selection import offer

from .casting import STRING, cast_exactly

__all__ = [
    "Opdef",
    "PyCustomOpDef",
    "PyOp",
    "add_custom_op",
    "default_opset_domain",
    "enable_py_op",
    "onnx_op",
    "split_op_type",
]

_DOMAIN = "ai.onnx.contrib"


def default_opset_domain() -> str:
    """Return the domain of operators whose ``op_type`` names none."""
    return _DOMAIN


class PyCustomOpDef:
    """An operator's declaration; ``dt_*`` are the element types, the numbers of ONNX.

    ``attrs`` is a mapping from name to ``dt_int64``, ``dt_float`` or ``dt_string``; ``obj_id`` the
    ``id`` of the ``Opdef`` that holds the function.
    """

    undefined = ANY
    dt_float = 1
    dt_uint8 = 2
    dt_int8 = 3
    dt_uint16 = 4
    dt_int16 = 5
    dt_int32 = 6
    dt_int64 = 7
    dt_string = STRING
    dt_bool = 9
    dt_float16 = 10
    dt_double = 11
    dt_uint32 = 12
    dt_uint64 = 13
    dt_complex64 = 14
    dt_complex128 = 15
    dt_bfloat16 = 16

    def __init__(self) -> None:
        self.op_type: str = ""
        self.obj_id: int = 0
        self.input_types: Sequence[int] = []
        self.output_types: Sequence[int] = []
        self.attrs: Mapping[str, int] = {}


PyOp = PyCustomOpDef

_ATTRIBUTE_KINDS = {PyOp.dt_int64: "int", PyOp.dt_float: "float", PyOp.dt_string: "str"}


class Opdef:
    """A function that is an operator's kernel; calling it calls the function as it is."""

    def __init__(self, op_type: str, func: Callable[..., Any]) -> None:
        self.op_type = op_type
        self.body = func

    @staticmethod
    def declare(
        op_type: str | None = None,
        inputs: Sequence[int] | None = None,
        outputs: Sequence[int] | None = None,
        attrs: Sequence[str] | Mapping[str, int] | None = None,
    ) -> Callable[[Callable[..., Any]], "Opdef"]:
        """Make the decorated function the kernel of an operator on the CPU.

        ``op_type`` is ``"Name"`` or ``"domain::Name"``, by default the function's name; without a domain
        it is ``default_opset_domain()``. ``inputs`` and ``outputs`` list element types (``PyOp.dt_*``), by
        default one float. ``attrs`` are names of string attributes, or a mapping from name to
        ``PyOp.dt_int64``, ``dt_float`` or ``dt_string``; every node must have them all.

        The function is given arrays of its own, one an input, and the attributes by keyword. It returns an
        array, a list or a scalar, for several outputs a tuple of them; what has another type is cast when
        every value survives. Raises SchemaError for a declaration that can't be an operator and
        RegistrationError where another function is the operator's kernel already.
        """
        if callable(op_type):
            raise SchemaError("onnx_op: it takes arguments; expected @onnx_op() or @onnx_op(op_type=...)")
        return lambda func: Opdef.create(func, op_type, inputs, outputs, attrs)

    @staticmethod
    def create(
        func: Callable[..., Any],
        op_type: str | None = None,
        inputs: Sequence[int] | None = None,
        outputs: Sequence[int] | None = None,
        attrs: Sequence[str] | Mapping[str, int] | None = None,
    ) -> "Opdef":
        """Make ``func`` the kernel of an operator; the arguments are those of ``declare``."""
        opdef = Opdef(op_type or _name_of(func), func)
        definition = PyCustomOpDef()
        definition.op_type = opdef.op_type
        definition.obj_id = id(opdef)
        definition.input_types = [PyOp.dt_float] if inputs is None else inputs
        definition.output_types = [PyOp.dt_float] if outputs is None else outputs
        definition.attrs = attrs if isinstance(attrs, Mapping) else dict.fromkeys(attrs or (), STRING)
        _opdefs[definition.obj_id] = opdef
        add_custom_op(definition)
        return opdef

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function as it is."""
        return self.body(*args, **kwargs)


onnx_op = Opdef.declare

_opdefs: dict[int, Opdef] = {}  # what is in here is never freed, so an id stays its object's
_in_default_domain: list[Op] = []
_enabled = True


def add_custom_op(opdef: PyCustomOpDef) -> None:
    """Register a declaration, with the function of the ``Opdef`` whose ``id`` is its ``obj_id``."""
    if opdef.obj_id not in _opdefs:
        raise SchemaError(f"{opdef.op_type!r}: no Opdef has the id {opdef.obj_id}; expected @onnx_op(...)")
    domain, name = split_op_type(opdef.op_type)
    function = _adapt(_opdefs[opdef.obj_id].body, tuple(opdef.output_types))
    # onnxruntime-extensions makes nothing of attributes that weren't declared, either.
    kernel = Kernel(function, _schema_of(opdef), (CPU,), "numpy", any_attributes=True)
    op = Op(kernel, ((domain, name),), 1)
    add_op(op)
    if domain == _DOMAIN:
        _in_default_domain.append(op)
    offer(op, _enabled or domain != _DOMAIN)


def enable_py_op(enabled: bool) -> bool:
    """Say whether plain onnxruntime is given the kernels in the default domain; return what was so before.

    It is so at first. False leaves that domain to another library in sessions that are made from then on.
    """
    global _enabled
    before, _enabled = _enabled, enabled
    for op in _in_default_domain:
        offer(op, enabled)
    return before


def split_op_type(op_type: str) -> tuple[str, str]:
    """Split ``"domain::Name"``; ``"Name"`` alone is of the default domain."""
    try:
        return split_name(op_type if "::" in op_type else f"{_DOMAIN}::{op_type}")
    except SchemaError:
        raise SchemaError(f"{op_type!r} names no operator; expected 'Name' or 'domain::Name'") from None


def _name_of(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _schema_of(opdef: PyCustomOpDef) -> OpSchema:
    attributes = []
    for name, kind in opdef.attrs.items():
        if kind not in _ATTRIBUTE_KINDS:
            raise SchemaError(
                f"{opdef.op_type}: attribute {name!r} is of type {kind}; "
                "expected dt_int64, dt_float or dt_string"
            )
        attributes.append(Attribute(name, _ATTRIBUTE_KINDS[kind], required=True))
    return OpSchema(
        _formals(opdef.op_type, "input", opdef.input_types),
        _formals(opdef.op_type, "output", opdef.output_types),
        tuple(attributes),
    )


def _formals(op_type: str, what: str, types: Sequence[int]) -> tuple[Formal, ...]:
    for index, element_type in enumerate(types):
        try:
            if element_type != ANY:
                from_onnx(element_type)
        except SchemaError as error:
            raise SchemaError(f"{op_type}: {what} {index}: {error}") from None
    return tuple(Formal(f"{what}{i}", () if t == ANY else (int(t),)) for i, t in enumerate(types))


def _adapt(function: Callable[..., Any], outputs: tuple[int, ...]) -> Callable[..., Any]:
    """Return the kernel that ONNX Runtime is given: arrays that the function may change and keep."""

    def kernel(*arrays: Any, **attributes: Any) -> Any:
        result = function(*(array.copy() for array in arrays), **attributes)
        return _cast_results(result, outputs)

    kernel.__module__ = getattr(function, "__module__", None) or type(function).__module__
    kernel.__qualname__ = getattr(function, "__qualname__", type(function).__qualname__)
    kernel.__doc__ = function.__doc__
    return kernel


def _cast_results(result: Any, outputs: tuple[int, ...]) -> Any:
    several = isinstance(result, tuple) or (isinstance(result, list) and len(outputs) != 1)
    items = tuple(result) if several else () if result is None and not outputs else (result,)
    if len(items) != len(outputs):
        raise ResultError(f"returned {len(items)} results; expected one for each of {len(outputs)} outputs")
    cast = [_cast_result(item, outputs[index], index) for index, item in enumerate(items)]
    return cast[0] if len(cast) == 1 else tuple(cast) if cast else None


def _cast_result(item: Any, element_type: int, index: int) -> Any:
    try:
        return cast_exactly(item, element_type)
    except (TypeError, ValueError) as error:
        raise ResultError(f"result for output {index}: {error}") from error
