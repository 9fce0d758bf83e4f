"""Graphs of one custom operator, which ``OrtPyFunction.from_customop`` runs."""

import itertools
from typing import Any

from ort_ops.errors import RegistrationError
from ort_ops.registry import find_ops
from ort_ops.schema import Formal

from .models import load_onnx
from .opdef import default_opset_domain, split_op_type

__all__ = ["CustomOp", "CustomOpConverter", "SingleOpGraph"]


class CustomOp:
    """The inputs and outputs of an operator, named after its class; subclass it for one of your own."""

    @classmethod
    def op_type(cls) -> str:
        """Return the operator's name: that of the class which is derived from CustomOp itself."""
        return next(c.__name__ for c in cls.__mro__ if CustomOp in c.__bases__)

    @classmethod
    def get_inputs(cls) -> list[Any] | None:
        """Return the inputs, as ``io_def`` makes them."""
        return None

    @classmethod
    def get_outputs(cls) -> list[Any] | None:
        """Return the outputs, as ``io_def`` makes them."""
        return None

    @classmethod
    def input_default_values(cls) -> dict[str, Any] | None:
        """Return values by input name for inputs that a caller may leave out."""
        return None

    @classmethod
    def serialize_attr(cls, attrs: dict[str, Any]) -> dict[str, Any]:
        """Return attributes as a node can hold them."""
        return attrs

    @staticmethod
    def io_def(name: str, elem_type: int, shape: Any, doc_string: str = "") -> Any:
        """Return a ValueInfoProto: ``onnx.helper.make_tensor_value_info``."""
        return load_onnx("CustomOp").helper.make_tensor_value_info(name, elem_type, shape, doc_string)


class CustomOpConverter:
    """What turns keyword arguments into a node's attributes; subclass it with ``__call__``."""


class SingleOpGraph:
    """Builds graphs of one node."""

    _ids = itertools.count(1)

    @classmethod
    def get_next_id(cls) -> int:
        """Return a number that was not returned before."""
        return next(cls._ids)

    @classmethod
    def build_graph(cls, op_class: type[CustomOp] | str, *args: Any, cvt: Any = None, **kwargs: Any) -> Any:
        """Return the GraphProto of one operator; ``kwargs`` are its attributes.

        ``op_class`` is a subclass of CustomOp, or the op_type of a kernel that ``onnx_op`` registered.
        ``cvt``, or a CustomOpConverter as the first argument, is called with ``kwargs`` to give them.
        """
        if cvt is None and args and isinstance(args[0], CustomOpConverter):
            cvt = args[0]
        attributes = kwargs if cvt is None else cvt(**kwargs)
        domain = default_opset_domain()
        if isinstance(op_class, str):
            domain, name = split_op_type(op_class)
            inputs, outputs = _registered_ends(domain, name)
        else:
            name = op_class.op_type()
            inputs, outputs = op_class.get_inputs() or [], op_class.get_outputs() or []
            attributes = op_class.serialize_attr(attributes)
        helper = load_onnx("SingleOpGraph").helper
        names = [[end.name for end in ends] for ends in (inputs, outputs)]
        node = helper.make_node(name, *names, name=f"{name}_{cls.get_next_id()}", domain=domain, **attributes)
        return helper.make_graph([node], f"og_{name}_{cls.get_next_id()}", inputs, outputs)


def _registered_ends(domain: str, name: str) -> tuple[list[Any], list[Any]]:
    ops = find_ops((domain, name))
    if not ops:
        raise RegistrationError(
            f"{name!r} is no operator of domain {domain!r} that has a Python kernel; the C++ operators "
            "(tokenizers, image decoders, ...) are in onnxruntime-extensions"
        )
    schema = ops[0].kernel.schema
    return [_end(formal) for formal in schema.inputs], [_end(formal) for formal in schema.outputs]


def _end(formal: Formal) -> Any:
    return CustomOp.io_def(formal.name, formal.types[0] if formal.types else 0, None)
