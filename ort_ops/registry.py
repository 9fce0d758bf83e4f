"""Which kernels there are: ``@onnx_op``, what it refuses, and what a session is given of them."""

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnxruntime

from . import _bridge
from .builtin import RELEASE
from .dtypes import COMMON_TYPES
from .errors import RegistrationError, SchemaError
from .inference import asked_attributes
from .kernel import ArrayKind, Kernel
from .providers import CPU
from .schema import Signature, read_schema

__all__ = ["Op", "Overload", "add_op", "find_ops", "onnx_op", "registered_ops", "split_name"]


class Op:
    """A function that is registered as an operator's kernel; calling it calls the function.

    ``names`` are (domain, operator) pairs, ``version`` the operator's version. Attributes are read
    only; ``infer`` is a decorator for the function that gives the output types and shapes.
    """

    def __init__(self, kernel: Kernel, names: tuple[tuple[str, str], ...], version: int) -> None:
        self.kernel = kernel
        self.names = names
        self.version = version
        self._infer: Callable[..., Any] | None = None
        self._asked: frozenset[str] = frozenset()  # the attributes that it is given
        self._overloads: dict[tuple[tuple[str, str], int], tuple[Overload, ...]] = {}
        functools.update_wrapper(self, kernel.function, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the kernel's function as it is."""
        return self.kernel.function(*args, **kwargs)

    def __reduce__(self) -> str:
        """Be pickled and copied as functions are: by name."""
        return str(getattr(self, "__qualname__", self.kernel.where))

    def __repr__(self) -> str:
        names = ", ".join(f"{domain}::{name}" for domain, name in self.names)
        return f"<kernel {self.kernel.where} of {names} on {', '.join(self.kernel.providers)}>"

    def infer(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Take a function that gives output types and shapes from those of the inputs.

        It is called while a session is made, with one ``TensorType`` an input (None where it is absent),
        and returns a ``TensorType`` (a tuple of them for several outputs). Its keyword-only parameters are
        attributes that it is given, too: numbers, texts, and lists of numbers. Sessions that exist already
        keep what they have. Raises SchemaError for other attributes, and where it doesn't take the inputs.
        """
        if not callable(function):
            raise SchemaError(f"{self!r}.infer: got {function!r}; expected a function")
        self._asked = asked_attributes(function, self.kernel.schema, self.kernel.where)
        self._infer = function
        self._overloads.clear()
        return function

    def needs_release(self, leaves_out: bool) -> str | None:
        """Return why this release of ONNX Runtime can't be given the operator, or None.

        Before 1.22 it knows an output's type only where that is declared, or where just one input is of
        any type; a computed one it refuses while the session is made, whatever the model. Before 1.24 it
        can't compute one where a node leaves out an input, which ``leaves_out`` says of some node.
        """
        if not any(_computes_type(signature) for signature in self._signatures()):
            return None
        if RELEASE < (1, 22):
            needed = "1.22"
        elif not self._infers(leaves_out):
            needed = "1.24 where a node may leave out an input"
        else:
            return None
        return (
            f"{self.kernel.where}: an output's type is computed from those of several inputs, which needs "
            f"ONNX Runtime {needed}; this is {onnxruntime.__version__}: annotate the types, or let them "
            "share a type variable"
        )

    def overloads(
        self, name: tuple[str, str], leaves_out: bool, outputs: int | None = None
    ) -> tuple["Overload", ...]:
        """Return what ONNX Runtime can be given for one of the operator's names.

        ``leaves_out`` says whether some node may leave out an optional input, by an empty name; ``outputs``
        is how many outputs each node has at least, None where the nodes aren't known.
        """
        told = self._told(outputs) if self._infer is not None and self._infers(leaves_out) else 0
        if (name, told) not in self._overloads:
            self._overloads[name, told] = tuple(
                Overload(self, provider, signature, told, self._bridge_op(name, provider, signature, told))
                for provider in self.kernel.providers
                for signature in self._signatures()
            )
        return self._overloads[name, told]

    def _told(self, outputs: int | None) -> int:
        """Return of how many outputs ONNX Runtime may be told.

        Up to 1.27 it ends the process where it is told of one that the node doesn't have; 1.30 says so.
        """
        declared = len(self.kernel.schema.outputs)
        if outputs is None:
            return declared if RELEASE >= (1, 30) else 1
        return min(declared, outputs)

    def _infers(self, leaves_out: bool) -> bool:
        """Tell whether ONNX Runtime may be given a function for output types and shapes.

        Before 1.24 it reads the type of every input for that function, and of one that is left out there
        is none: the process ends.
        """
        return RELEASE >= (1, 24) or not (leaves_out and any(f.optional for f in self.kernel.schema.inputs))

    def _signatures(self) -> Iterator[Signature]:
        """Give the schema's signatures, with the first input's type for outputs of any type.

        That is where there is no ``infer`` function to say another one. ONNX Runtime finds it by itself only
        where just one input is of any type; a type that is computed it could not be told without a shape. So
        for others there is a signature for each type that the first input may have.
        """
        variadic = any(formal.variadic for formal in self.kernel.schema.inputs)
        for signature in self.kernel.schema.signatures():
            first, *others = signature.inputs or (0,)
            known = 0 not in signature.outputs or not (_computes_type(signature) or variadic)
            if self._infer is not None or known or not signature.inputs:
                yield signature
                continue
            for each in [first] if first else COMMON_TYPES:
                yield Signature((each, *others), tuple(t or each for t in signature.outputs))

    def _bridge_op(self, name: tuple[str, str], provider: str, signature: Signature, told: int) -> _bridge.Op:
        return self.kernel.bridge_op(*name, provider, signature, self._infer, self._asked, told)


def _computes_type(signature: Signature) -> bool:
    """Tell whether an output's type has to be computed while the session is made."""
    return 0 in signature.outputs and signature.inputs.count(0) != 1


@dataclass(frozen=True)
class Overload:
    """An operator on one execution provider with one combination of element types.

    ``told``: of so many outputs ONNX Runtime is told types and shapes while it makes a session.
    """

    op: Op
    provider: str
    signature: Signature
    told: int
    bridge: _bridge.Op = field(repr=False)

    def serves(self, other: "Overload") -> bool:
        """Tell whether ONNX Runtime, which was given this one, needs not be given another.

        Up to 1.27 it ends the process where it is told of an output that a node doesn't have.
        """
        same = self.op is other.op and (self.provider, self.signature) == (other.provider, other.signature)
        return same and (self.told <= other.told or RELEASE >= (1, 30))

    def accepts(self, input_types: Sequence[int | None], outputs: int = 0) -> bool:
        """Tell whether inputs of these element types, and so many outputs, fit; None is unknown, 0 absent."""
        formals = self.op.kernel.schema.inputs
        if outputs > len(self.op.kernel.schema.outputs):
            return False
        for index, formal in enumerate(formals):
            required = not formal.optional and not formal.variadic
            if required and (index >= len(input_types) or input_types[index] == 0):
                return False
        for index, given in enumerate(input_types):
            if index >= len(formals) and not (formals and formals[-1].variadic):
                return False
            declared = self.signature.inputs[min(index, len(formals) - 1)]
            if given and declared and given != declared:
                return False
        return True


_ops: list[Op] = []  # made anew for each change, as other threads may be reading it
_changing = threading.Lock()


def onnx_op(
    *names: str,
    version: int = 1,
    providers: Sequence[str] = (CPU,),
    array: ArrayKind = "numpy",
    inputs: Sequence[Any] | None = None,
    outputs: Sequence[Any] | None = None,
) -> Callable[[Callable[..., Any]], Op]:
    """Register the decorated function as the kernel of an ONNX operator.

    ``names`` are ``"domain::NAME"``, ``"::NAME"`` for ONNX's default domain; several make the kernel
    serve each of them. ``providers`` are the execution providers that it runs on, ``array`` the kind of
    arrays that it is given, ``inputs`` and ``outputs`` lists of types instead of annotations. Raises
    SchemaError for a signature that can't be an operator and RegistrationError where another function
    has the same name, types and provider; the same function defined anew replaces its predecessor.
    """
    if not names:
        raise SchemaError('onnx_op: expected a name, e.g. @onnx_op("mydomain::MyOp")')
    pairs = tuple(split_name(name) for name in names)
    if not isinstance(version, int) or version < 1:
        raise SchemaError(f"onnx_op: version={version!r}; expected an integer from 1 on")
    if isinstance(providers, str) or not providers or not all(map(_names_provider, providers)):
        raise SchemaError(f"onnx_op: providers={providers!r}; expected a list of names such as {CPU!r}")
    if array not in ("numpy", "torch", "dlpack"):
        raise SchemaError(f"onnx_op: array={array!r}; expected 'numpy', 'torch' or 'dlpack'")
    if array == "numpy" and any(provider != CPU for provider in providers):
        raise SchemaError(
            f"onnx_op: providers={list(providers)} keep their tensors on a device, which NumPy can't read; "
            "expected array='torch' or array='dlpack'"
        )

    def register(function: Callable[..., Any]) -> Op:
        infer = None
        if isinstance(function, Op):  # which has another name, too
            infer = function._infer
            function = function.kernel.function
        kernel = Kernel(function, read_schema(function, inputs, outputs), tuple(providers), array)
        op = Op(kernel, pairs, version)
        if infer is not None:
            op.infer(infer)
        add_op(op)
        return op

    return register


def add_op(op: Op) -> None:
    """Register a kernel in place of what the same function registered before; see ``onnx_op``."""
    global _ops
    with _changing:
        others = [other for other in _ops if not _redefines(op, other)]
        for other in others:
            _refuse_conflict(op, other)
        _ops = [*others, op]


def _names_provider(provider: object) -> bool:
    return isinstance(provider, str) and provider.endswith("ExecutionProvider")


def split_name(name: str) -> tuple[str, str]:
    """Split ``"domain::NAME"``; raises SchemaError for anything else."""
    domain, separator, op_type = name.rpartition("::") if isinstance(name, str) else ("", "", "")
    odd = any(character in " ," or not character.isprintable() for character in domain + op_type)
    if not separator or not op_type or "::" in domain or odd:
        raise SchemaError(f"{name!r} names no operator; expected 'domain::NAME' ('::NAME': default domain)")
    return ("" if domain == "ai.onnx" else domain), op_type


def _redefines(op: Op, other: Op) -> bool:
    """Tell whether a kernel is another one defined anew; one line for several types or providers is not."""
    if op.kernel.where != other.kernel.where or not _overlap(op, other):
        return False
    code, others = (_code(each.kernel.function) for each in (op, other))
    return code is not others or _conflict(op, other)


def _code(function: Any) -> Any:
    """Return the code that a kernel runs: a function's, that of a partial's, or that of an object's class."""
    while isinstance(function, functools.partial):
        function = function.func
    called: Any = function if hasattr(function, "__code__") else vars(type(function)).get("__call__")
    return getattr(called, "__code__", None)


def _inputs(op: Op) -> set[tuple[int, ...]]:
    return {signature.inputs for signature in op.kernel.schema.signatures()}


def _overlap(op: Op, other: Op) -> bool:
    return op.version == other.version and bool(set(op.names) & set(other.names))


def _conflict(op: Op, other: Op) -> bool:
    """Tell whether two kernels of an operator have types and a provider in common."""
    return bool(set(op.kernel.providers) & set(other.kernel.providers) and _inputs(op) & _inputs(other))


def _refuse_conflict(op: Op, other: Op) -> None:
    if _overlap(op, other) and _conflict(op, other):
        raise RegistrationError(
            f"{op!r} and {other!r} are kernels for the same operator, types and provider; "
            "give one of them another name, other types or another provider"
        )


def registered_ops() -> Iterator[Op]:
    """Give every registered kernel, in the order of registration."""
    return iter(tuple(_ops))


def find_ops(name: tuple[str, str], version: int | None = None) -> list[Op]:
    """Return an operator's kernels of the version that a model gets which imports ``version``.

    As in ONNX, that is the newest which is not newer than what the model imports; the newest of all where
    ``version`` is None.
    """
    named = [op for op in _ops if name in op.names and (version is None or op.version <= version)]
    newest = max((op.version for op in named), default=0)
    return [op for op in named if op.version == newest]
