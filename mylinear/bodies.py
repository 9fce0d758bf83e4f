"""MYLINEAR spelled in standard ONNX operators, so that a file runs where no MYLINEAR kernel is.

One function a file serves every MYLINEAR node in it: ONNX Runtime 1.18 to 1.26 computes function
overloads wrong without a word. So the body is chosen by what the nodes have in common:

=====================  ===============================  =========================================
x of every node        bias                             body
=====================  ===============================  =========================================
rank 2                 any                              Gemm(transB=1); its C may be absent
any rank               on every node                    Transpose, MatMul, Add
any rank               on no node                       Transpose, MatMul
any rank               on some                          Transpose, MatMul, Add of a bias row that
                                                        Gemm makes out of the bias or its absence
=====================  ===============================  =========================================

ONNX Runtime's CPU provider has no bfloat16 product, so bfloat16 goes through float32 and is rounded
once, at the end. Where only some nodes have a bias that is not possible, since ONNX has no operator
that casts a bfloat16 tensor or its absence: such a body stays in bfloat16, and needs a provider whose
Gemm takes it, which the CPU's does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from ort_ops.errors import ExportError

__all__ = ["OP_TYPE", "NodeKind", "function_body"]

OP_TYPE = "MYLINEAR"

_TRANSPOSE = "transposed = Transpose<perm = [1, 0]>({weight})"
# Gemm's C is the one place where standard ONNX takes a bias that may be absent, for rank 2 only:
# 0·0ᵀ + bias, shape (1, out), is the bias or zeros, exactly, and row 0 of it has shape (out).
_BIAS_ROW = (
    "first = Constant<value = int64[1] {{0}}>()",
    "one = Constant<value = int64[1] {{1}}>()",
    "sizes = Shape(weight)",
    "out = Gather<axis = 0>(sizes, first)",
    "column = Concat<axis = 0>(out, one)",
    "cell = Constant<value = int64[2] {{1, 1}}>()",
    "zeros_cell = ConstantOfShape(cell)",
    "zeros_column = ConstantOfShape(column)",
    "typed_cell = {cast_cell}",
    "typed_column = {cast_column}",
    "row = Gemm<transB = 1>(typed_cell, typed_column, bias)",
    "index = Constant<value = int64 {{0}}>()",
    "present = Gather<axis = 0>(row, index)",
)


@dataclass(frozen=True)
class NodeKind:
    """What the choice of a body asks about one MYLINEAR node.

    ``rank`` is x's, None where it is not known; ``elem_type`` is ONNX's number of the element type.
    """

    rank: int | None
    elem_type: int
    has_bias: bool


def function_body(kinds: Sequence[NodeKind], *, domain: str, opset: int) -> onnx.FunctionProto:
    """Build the one body that is right for every MYLINEAR node of a file.

    kinds: the file's MYLINEAR nodes, at least one.
    domain: the domain of the nodes, and so of the function.
    opset: the version of the default domain that the file, and so the body, imports.

    Raises ExportError when the opset has no Cast to bfloat16 (before 13), or no CastLike (before 15) for a
    file that mixes element types in a way that needs it.
    """
    types = {kind.elem_type for kind in kinds}
    if TensorProto.BFLOAT16 in types and opset < 13:
        raise ExportError(f"{OP_TYPE}: opset {opset} has no bfloat16; expected opset 13 or above")
    with_bias = {kind.has_bias for kind in kinds}
    bias = "bias" if True in with_bias else ""
    if TensorProto.BFLOAT16 in types and len(with_bias) == 1:
        lines = _through_wider(types, kinds, bias, opset)
    elif _all_matrices(kinds) or len(with_bias) == 1:
        lines = _product(kinds, "x", "weight", bias, "y")
    else:
        lines = _optional_bias(types, opset)
    return _function(lines, domain=domain, opset=opset, bias=bias)


def _function(lines: Sequence[str], *, domain: str, opset: int, bias: str) -> onnx.FunctionProto:
    inputs = "x, weight, bias" if bias else "x, weight"
    header = f'<domain: "{domain}", opset_import: ["": {opset}]>'
    return onnx.parser.parse_function(f"{header} {OP_TYPE} ({inputs}) => (y) {{ {' '.join(lines)} }}")


def _all_matrices(kinds: Sequence[NodeKind]) -> bool:
    return all(kind.rank == 2 for kind in kinds)


def _product(kinds: Sequence[NodeKind], x: str, weight: str, bias: str, y: str) -> list[str]:
    """Write y = x·weightᵀ + bias; ``bias`` is "" where no node has one."""
    if _all_matrices(kinds):
        inputs = ", ".join(name for name in (x, weight, bias) if name)
        return [f"{y} = Gemm<transB = 1>({inputs})"]
    transpose = _TRANSPOSE.format(weight=weight)
    if not bias:
        return [transpose, f"{y} = MatMul({x}, transposed)"]
    return [transpose, f"product = MatMul({x}, transposed)", f"{y} = Add(product, {bias})"]


def _through_wider(types: set[int], kinds: Sequence[NodeKind], bias: str, opset: int) -> list[str]:
    """Write the product in float32, or in float64 where a node has it, and cast back to x's type."""
    wide = TensorProto.DOUBLE if TensorProto.DOUBLE in types else TensorProto.FLOAT
    names = [name for name in ("x", "weight", bias) if name]
    casts = [f"wide_{name} = Cast<to = {wide}>({name})" for name in names]
    wide_bias = f"wide_{bias}" if bias else ""
    product = _product(kinds, "wide_x", "wide_weight", wide_bias, "wide_y")
    return [*casts, *product, f"y = {_cast_to(types, 'wide_y', 'x', opset)}"]


def _optional_bias(types: set[int], opset: int) -> list[str]:
    """Write the product for nodes of any rank of which only some have a bias."""
    cell = _cast_to(types, "zeros_cell", "weight", opset)
    column = _cast_to(types, "zeros_column", "weight", opset)
    row = [line.format(cast_cell=cell, cast_column=column) for line in _BIAS_ROW]
    product = [_TRANSPOSE.format(weight="weight"), "product = MatMul(x, transposed)"]
    return [*row, *product, "y = Add(product, present)"]


def _cast_to(types: set[int], value: str, like: str, opset: int) -> str:
    """Write the cast of ``value`` to the type of ``like``: by number where the file has one type only."""
    if len(types) == 1:
        return f"Cast<to = {next(iter(types))}>({value})"
    if opset < 15:
        names = ", ".join(sorted(TensorProto.DataType.Name(t) for t in types))
        raise ExportError(
            f"{OP_TYPE}: nodes of the types {names} need CastLike, which opset {opset} lacks; "
            "expected opset 15 or above, or one element type"
        )
    return f"CastLike({value}, {like})"
