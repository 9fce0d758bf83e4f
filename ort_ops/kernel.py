"""A kernel: the function, what it declares, and what the bridge is given of it."""

import functools
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import ort_ops

from . import _bridge
from .callables import name_of, parameters_of
from .dlpack_arrays import run_on_dlpack
from .dtypes import DTYPES
from .errors import ResultError
from .failures import DEBUG, collect, discard, fail
from .inference import Infer
from .packing import pack, unpack
from .providers import CUDA
from .results import hides, reject
from .schema import OpSchema, Signature

if TYPE_CHECKING:  # the package loads it when it is first asked for, and torch with it
    import ort_ops.torch_arrays

__all__ = ["ArrayKind", "Kernel", "set_select_hook"]

ArrayKind = Literal["numpy", "torch", "dlpack"]

_CHARACTERISTIC = {"required": 0, "optional": 1, "variadic": 2}
_ATTRIBUTE_TYPE = {
    "int": 1,
    "list[int]": 2,
    "float": 3,
    "list[float]": 4,
    "str": 5,
    "list[str]": 6,
    "tensor": 8,
    "bool": 100,
    "list[bool]": 101,
    "bytes": 102,  # the bridge's own, for what ONNX has no word for
}


@dataclass(frozen=True)
class Kernel:
    """A Python function that computes an operator on some execution providers.

    ``function`` takes one array a input (None where an optional input is absent) and the attributes by
    keyword, and returns one array an output (a tuple where there are several). ``array`` says what kind
    of arrays: NumPy's, torch's on the provider's device, or objects that speak DLPack. ``by_node`` has nodes
    by name and what is run for each, where ``function`` takes the name of its node first. ``any_attributes``
    says that a node may have others than the schema's, of which the kernel is told nothing.
    """

    function: Callable[..., Any]
    schema: OpSchema
    providers: tuple[str, ...]
    array: ArrayKind
    by_node: tuple[tuple[str, str], ...] = ()
    any_attributes: bool = False

    @property
    def where(self) -> str:
        """Return the module and name of the function, for messages and to tell a redefinition."""
        return ", ".join(dict.fromkeys(name for _, name in self.by_node)) or name_of(self.function)

    def bridge_op(
        self,
        domain: str,
        name: str,
        provider: str,
        signature: Signature,
        infer: Callable[..., Any] | None,
        asked: Container[str],
        told: int,
    ) -> _bridge.Op:
        """Return what ONNX Runtime is given for one name, provider and combination of types.

        ``infer`` serves ``out=``, and ONNX Runtime while it makes a session, for ``told`` outputs; it is
        given the attributes that are ``asked`` for.
        """
        inputs = [_characteristic(f.optional, f.variadic) for f in self.schema.inputs]
        return _bridge.Op(
            domain=domain,
            name=name,
            provider=provider,
            kernel_name=self.where,
            inputs=list(zip(signature.inputs, inputs, strict=True)),
            # A node may leave out what it has no use for, but for the first.
            outputs=[(t, _characteristic(i > 0, False)) for i, t in enumerate(signature.outputs)],
            attributes=[
                (a.name, _ATTRIBUTE_TYPE[a.kind], a.required, a.name in asked) for a in self.schema.attributes
            ],
            function=self.function if self.array == "numpy" else functools.partial(self._run_call, provider),
            infer=None if infer is None else self._infer(infer, f"{domain}::{name}", signature, asked),
            told=told,
            by_call=self.array != "numpy",
            takes_out=self.schema.takes_out,
            node_names=dict(self.by_node),
        )

    def _infer(
        self, function: Callable[..., Any], op: str, signature: Signature, asked: Container[str]
    ) -> Infer:
        defaults = {p.name: p.default for p in parameters_of(self.function) if p.name in asked}
        where = f"{op}: the infer function of {self.where}"
        return Infer(function, self.schema, signature, defaults, where)

    def _run_call(self, provider: str, call: _bridge.Call) -> None:
        on_cuda = provider == CUDA
        function = functools.partial(self.function, call.node()) if self.by_node else self.function
        outputs, takes_out = len(self.schema.outputs), self.schema.takes_out
        if self.array == "torch":
            ort_ops.torch_arrays.run_on_torch(function, outputs, takes_out, on_cuda, call, debug=DEBUG)
        elif on_cuda:
            ort_ops.torch_arrays.run_on_dlpack_on_cuda(function, outputs, takes_out, call)
        else:
            run_on_dlpack(function, outputs, takes_out, call, call.inputs())


def _characteristic(optional: bool, variadic: bool) -> int:
    return _CHARACTERISTIC["variadic" if variadic else "optional" if optional else "required"]


def set_select_hook(
    select: Callable[[str | None, str | None], tuple[list[tuple[str, list[_bridge.Op]]], str]],
) -> None:
    """Hand the bridge the functions that it calls; ``select`` says which operators are registered."""
    dtypes: list[Any] = [None] * (max(dtype.onnx for dtype in DTYPES) + 1)
    for dtype in DTYPES:
        dtypes[dtype.onnx] = dtype.numpy
    _bridge.set_hooks(fail, collect, discard, hides, reject, select, ResultError, pack, unpack, DEBUG, dtypes)
