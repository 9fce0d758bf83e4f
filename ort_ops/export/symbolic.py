"""What a Function's ``symbolic`` writes: the method run on a graph of its own, and the nodes it left there.

``symbolic`` is written for the TorchScript exporter, so it is given that exporter's own graph context, and
that exporter's own passes and serializer make ONNX nodes of what it wrote: one reading of ``g.op``, of
``parse_args`` and of ``symbolic_helper`` for both exporters.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from onnx import defs
from torch import Tensor
from torch.onnx import _constants
from torch.onnx._internal.torchscript_exporter import jit_utils
from torch.onnx._internal.torchscript_exporter._globals import GLOBALS
from torch.onnx.errors import SymbolicValueError
from torch.utils import _pytree as pytree

from ort_ops.errors import ExportError

from .arguments import as_they_were
from .calls import Call, Slot
from .graph_op import checked
from .own import own_method

__all__ = ["MARK", "MISSING", "Whole", "Written", "missing", "run_symbolic", "write"]

MARK = "ort_ops_call"
"""An attribute that ties a node to its call, and keeps equal calls apart where an exporter merges nodes."""

MISSING = ("ort_ops", "Missing")
"""A node in the place of a result for which ``symbolic`` returned None; a file must not keep it."""


@dataclass(frozen=True)
class Whole:
    """How one node stands for a whole call.

    ``tensors`` gives, for each tensor of the call in order, the index of the node's input that it is, or its
    value where that is known and no input; ``sizes`` the same for the integers. The node's outputs are the
    call's first results, in order. ``standard`` says that it is an operator of ONNX itself.
    """

    tensors: tuple[int | Tensor, ...]
    sizes: tuple[int, ...]
    inputs: int
    outputs: int
    standard: bool = False


@dataclass(frozen=True)
class Written:
    """What ``symbolic`` wrote for one call, on a graph of its own.

    ``model`` has the nodes; its graph's inputs are the call's tensors and sizes, its outputs the results.
    ``types`` are the element types and shapes that ``symbolic`` set, by the name of the value. ``whole`` says
    how the node stands for the call, or in words why none does.
    """

    model: onnx.ModelProto
    types: Mapping[str, "torch._C.JitType"]
    whole: Whole | str


def write(
    call: Call,
    types: Sequence["torch._C.TensorType"],
    constants: Mapping[int, Tensor],
    literals: Set[int],
    sizes: Sequence[Any],
    opset: int,
) -> Written:
    """Run a call's ``symbolic`` at an opset.

    ``types`` are those of the call's tensors, ``constants`` the values of those that are known, by index;
    ``literals`` are those among them that the model makes as it runs, the others being its buffers. ``sizes``
    are integers, or None for one that is a value of the graph. Beyond the last opset that the TorchScript
    exporter knows ``symbolic`` writes for that one: 24 and 25 add types and operators, and change none.
    """
    opset = min(opset, _constants.ONNX_MAX_OPSET)
    try:
        return _write(call, types, constants, literals, sizes, opset)
    except ExportError as error:
        # parse_args wants the value of a buffer; handing it over from the start would hide from symbolic
        # that it is an input.
        if literals == constants.keys() or not isinstance(error.__cause__, SymbolicValueError):
            raise
        return _write(call, types, constants, set(constants), sizes, opset)


def _write(
    call: Call,
    types: Sequence["torch._C.TensorType"],
    constants: Mapping[int, Tensor],
    by_value: Set[int],
    sizes: Sequence[Any],
    opset: int,
) -> Written:
    graph = torch._C.Graph()
    with _exporting(opset):
        # The pass over a graph forgets what was inferred for values of the same names in the one before.
        torch._C._jit_pass_onnx_graph_shape_type_inference(graph, {}, opset)
        g = jit_utils.GraphContext(
            graph=graph,
            block=graph.block(),
            opset=opset,
            original_node=None,  # type: ignore[arg-type]
            params_dict={},
            env={},
            values_in_env=set(),
            new_nodes=[],
        )
        tensors, replaced = [], {}
        for index, kind in enumerate(types):
            value = graph.addInput()
            value.setType(kind)
            if index in by_value:
                replaced[index] = value
                value = g.op("Constant", value_t=constants[index])
            tensors.append(value)
        numbers = [_number(graph, size) for size in sizes]
        del g.new_nodes[:]
        outputs, whole = run_symbolic(call, g, tensors, numbers, constants)
        for index, value in replaced.items():  # what reads the constant reads the input
            tensors[index].replaceAllUsesWith(value)
        for position, output in enumerate(outputs):
            if output is None:
                output = missing(g, call, position)
            elif output.node().kind() == "prim::Param" or output in outputs[:position]:
                output = g.op("Identity", output)
            graph.registerOutput(output)
        named = {value.debugName(): value.type() for node in graph.nodes() for value in node.outputs()}
        return Written(_to_model(graph, opset), named, whole)


def run_symbolic(
    call: Call, g: Any, tensors: Sequence[Any], sizes: Sequence[Any], constants: Mapping[int, Tensor]
) -> tuple[list[Any], Whole | str]:
    """Call ``symbolic`` on a graph context; returns a value for each result, and what stands for the call.

    The custom nodes that it wrote bear the call's key in the attribute MARK. Raises ExportError where it
    raises, or doesn't give a value for each tensor that forward returns.
    """
    positional, keywords = call.arguments(tensors, sizes)
    before = len(g.new_nodes)
    own = own_method(call.function, "symbolic")
    g.op = checked(g.op)
    try:
        with as_they_were(call.leaves):
            returned = own(g, *positional, **keywords)
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(
            f"{call.name}: symbolic raised {type(error).__name__}: {_in_a_line(error)}"
        ) from error
    outputs = list(pytree.tree_flatten(returned, is_leaf=lambda leaf: leaf is None)[0])
    for output in outputs:
        if output is not None and not isinstance(output, torch._C.Value):
            raise ExportError(
                f"{call.name}: symbolic returned a {type(output).__name__}; expected what g.op returns"
            )
    if call.results is not None:
        leaves = call.results[0]
        expected = sum(isinstance(leaf, Slot) for leaf in leaves)
        if len(outputs) == len(leaves):  # one value for whatever forward returns, None for None
            outputs = [output for output, leaf in zip(outputs, leaves, strict=True) if isinstance(leaf, Slot)]
        if len(outputs) != expected:
            raise ExportError(
                f"{call.name}: symbolic returned {len(outputs)} values for the {expected} tensors that "
                "forward returns; expected one for each, None where the model doesn't use it"
            )
    new_nodes = g.new_nodes[before:]
    for node in new_nodes:
        if not is_known(node.kind()):
            node.i_(MARK, call.number)
    return outputs, _find_whole(new_nodes, tensors, sizes, constants, outputs)


def missing(g: Any, call: Call, index: int) -> Any:
    """Return a value for a result that has none; of a file that uses it ``finish`` says that."""
    return g.op("::".join(MISSING), index_i=index, **{f"{MARK}_i": call.number})


def _in_a_line(error: Exception) -> str:
    """Return what an exception says, without the graph that torch appends to some."""
    return " ".join(str(error).partition("[Caused by the value")[0].split())[:300]


def _find_whole(
    nodes: Sequence[Any],
    tensors: Sequence[Any],
    sizes: Sequence[Any],
    constants: Mapping[int, Tensor],
    outputs: Sequence[Any],
) -> Whole | str:
    """Say how a node stands for the call whose ``symbolic`` wrote these nodes, or why none does."""
    computing = [node for node in nodes if node.kind() not in ("onnx::Constant", "prim::Constant")]
    if len(computing) != 1:
        kinds = ", ".join(node.kind().replace("onnx::", "") for node in computing) or "nothing"
        return f"symbolic writes {kinds}: no one node stands for the call"
    node = computing[0]
    named = list(outputs)
    while named and named[-1] is None:  # the node doesn't give what the model doesn't use
        named.pop()
    if named != list(node.outputs()):
        return f"the results are not the outputs of {node.kind()}, in order"
    inputs = list(node.inputs())
    free = [i for i, value in enumerate(inputs) if not value.node().mustBeNone()]
    places: list[int | Tensor] = []
    for index, value in enumerate((*tensors, *sizes)):
        place = next((i for i in free if inputs[i] == value), None)
        if place is not None:
            free.remove(place)
            places.append(place)
        elif index in constants:
            places.append(constants[index])
        else:
            return f"{node.kind()} is not given argument {index} of the call's tensors and sizes"
    free = [i for i in free if inputs[i].node().kind() != "onnx::Constant"]  # which say what forward knows
    if free:
        twice = inputs[free[0]] in (*tensors, *sizes)
        what = "an argument that is given to it twice" if twice else "no argument of the call"
        return f"input {free[0]} of {node.kind()} is {what}"
    numbers = tuple(place for place in places[len(tensors) :] if isinstance(place, int))
    return Whole(
        tuple(places[: len(tensors)]), numbers, len(inputs), len(named), standard=is_known(node.kind())
    )


def is_known(kind: str) -> bool:
    """Tell whether a node of the kind ``domain::Name`` is an operator of ONNX itself, or no operator."""
    domain, _, name = kind.partition("::")
    return domain in ("prim", "aten") or (domain == "onnx" and defs.has(name))


def _number(graph: Any, size: Any) -> Any:
    """Return an integer as it is, or a new scalar input of the graph for one that is a value."""
    if size is not None:
        return size
    value = graph.addInput()
    value.setType(torch._C.TensorType.get().with_dtype(torch.int64).with_sizes([]))
    return value


def _to_model(graph: Any, opset: int) -> onnx.ModelProto:
    """Make ONNX nodes of a graph as the TorchScript exporter does after it has run every ``symbolic``."""
    torch._C._jit_pass_onnx_scalar_type_analysis(graph, True, opset)
    torch._C._jit_pass_onnx_peephole(graph, opset, False)
    torch._C._jit_pass_dce_allow_deleting_nodes_with_side_effects(graph)
    for position, value in enumerate(graph.inputs()):
        value.setDebugName(f"ort_ops_input_{position}")
    proto = graph._export_onnx(
        {}, opset, {}, False, torch._C._onnx.OperatorExportTypes.ONNX, True, True, {}, True, "", {}
    )[0]
    return onnx.load_from_string(proto)


@contextlib.contextmanager
def _exporting(opset: int) -> Iterator[None]:
    """Set what the TorchScript exporter's helpers look at, and put it back."""
    names = ("in_onnx_export", "export_onnx_opset_version", "operator_export_type", "onnx_shape_inference")
    before = {name: getattr(GLOBALS, name) for name in names}
    try:
        GLOBALS.in_onnx_export = True
        GLOBALS.export_onnx_opset_version = opset
        GLOBALS.operator_export_type = torch._C._onnx.OperatorExportTypes.ONNX
        GLOBALS.onnx_shape_inference = True
        yield
    finally:
        for name, value in before.items():
            setattr(GLOBALS, name, value)
