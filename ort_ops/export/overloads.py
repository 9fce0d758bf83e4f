"""Which overload of an operator the TorchScript exporter writes: it knows them by one name."""

from collections.abc import Container, Sequence
from typing import Any

import torch

from ort_ops.errors import ExportError

__all__ = ["called"]


def called(name: str, arguments: Sequence[Any], declared: Container[str]) -> str:
    """Return which overload of an operator is called with these arguments.

    The exporter has made numbers constants like any tensor, and takes one overload for another itself, in a
    node's schema. Of PyTorch's own operators, whose overloads compute the same, one of the ``declared``.
    """
    namespace, _, rest = name.partition("::")
    packet = getattr(getattr(torch.ops, namespace), rest)
    overloads = packet.overloads()
    if len(overloads) == 1:
        return str(overloads[0])
    fit = [each for each in overloads if _fits(getattr(packet, each)._schema, arguments)]
    if namespace == "aten":
        fit.sort(key=lambda each: each not in declared)
    elif len(fit) != 1:
        raise ExportError(
            f"{name} is called with arguments that may be those of {' or '.join(fit) or 'no overload'}, and "
            "the TorchScript exporter says no more of them: give the overloads names of their own, or export "
            "by the newer exporter"
        )
    return str(fit[0]) if fit else ""


def _fits(schema: Any, arguments: Sequence[Any]) -> bool:
    """Tell whether a node's arguments, which are all that there are, may be those of an overload."""
    formals = [str(each.real_type) for each in schema.arguments]
    return len(formals) == len(arguments) and all(map(_fits_one, formals, arguments))


def _fits_one(formal: str, value: Any) -> bool:
    """Tell whether a value may be an argument of a type; numbers and texts are constants, sizes tensors."""
    node, kind = value.node(), value.type()
    if node.mustBeNone():
        return formal.startswith("Optional[")
    if formal.startswith("Optional["):
        formal = formal[len("Optional[") : -1]
    element = formal[len("List[") : -1] if formal.startswith("List[") else None
    if node.kind() == "onnx::Constant" and node.kindOf("value") != "t":
        return formal == "str" and node.kindOf("value") == "s"
    if node.kind() == "onnx::Constant":
        constant = node.t("value")
        number = _ELEMENTS.get(constant.dtype, "int")
        if formal == "Tensor":
            return True
        return constant.dim() == (element is not None) and _may_be(element or formal, number)
    if kind.kind() == "ListType":
        each = kind.getElementType()
        tensors = bool(each.isSubtypeOf(torch._C.TensorType.get()))
        return element is not None and _may_be(
            element, "Tensor" if tensors else _KIND.get(each.kind(), "int")
        )
    if kind.kind() == "TensorType":  # a size, too
        return formal == "Tensor" or (kind.dim() == 0 and _may_be(formal, "int"))
    return _may_be(formal, _KIND.get(kind.kind(), "int"))


_ELEMENTS = {torch.float64: "float", torch.float32: "float", torch.bool: "bool"}
_KIND = {"FloatType": "float", "BoolType": "bool", "StringType": "str"}


def _may_be(formal: str, found: str) -> bool:
    """Tell whether what is an int, a float, a bool, a str or a Tensor may be an argument of a type.

    Of whole numbers there are many: dtypes and layouts are some.
    """
    if found == "int":
        return formal not in ("float", "bool", "str", "Tensor", "Optional[Tensor]")
    if found == "Tensor":
        return formal in ("Tensor", "Optional[Tensor]")
    return formal == found or (found == "float" and formal == "number")
