"""One node of a file as a model of its own, run by ONNX Runtime on the CPU."""

from collections.abc import Sequence
from typing import Any

import onnx
import onnx_ir as ir
import onnxruntime
from onnx import NodeProto, helper

from ort_ops.dtypes import from_numpy
from ort_ops.providers import CPU
from ort_ops.session import InferenceSession

__all__ = ["run_single"]


def run_single(model: ir.Model, node: NodeProto, inputs: Sequence[Any]) -> list[Any]:
    """Compute one node on arrays of the dtypes that it takes; None stands for an absent input.

    Raises what ONNX Runtime raises where it has no kernel for the node.
    """
    feed = {
        f"in_{place}": value for place, value in enumerate(inputs) if value is not None and node.input[place]
    }
    alone = NodeProto()
    alone.CopyFrom(node)
    alone.input[:] = [f"in_{place}" if f"in_{place}" in feed else "" for place in range(len(node.input))]
    outputs = [name for name in node.output if name]
    graph = helper.make_graph(
        [alone],
        "node",
        [helper.make_tensor_value_info(name, from_numpy(a.dtype).onnx, a.shape) for name, a in feed.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
    )
    imports = [helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
    proto = helper.make_model(
        graph,
        opset_imports=imports,
        functions=[ir.to_proto(function) for function in model.functions.values()],
        ir_version=min(model.ir_version, onnx.IR_VERSION),
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = InferenceSession(proto.SerializeToString(), options, [CPU])
    results = dict(zip(outputs, session.run(outputs, feed), strict=True))
    return [results.get(name) for name in node.output]
