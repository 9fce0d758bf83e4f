"""The one form of files: what both exporters write is then the same, byte by byte."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from ort_ops.errors import ExportError
from ort_ops.export import Program, export, keep_functions
from ort_ops.export.quiet import quiet

from .functions import CASES, Calls, Case, MaybeBias, Split, Twice, x
from .test_nodes import by_us

BOTH = pytest.mark.parametrize("dynamo", [True, False])

# Of these the exporters write different nodes, or the TorchScript one knows no shape.
DIFFERENT = {
    "a slice by its own size": "Shape and Squeeze instead of Shape and Gather",
    "a forward that works in place": "a copy, written as a product with one",
    "several custom nodes": "no shape behind a node that doesn't stand for a call",
}
OUTPUTS = {"several outputs": ["y", "z", "n"], "one of several outputs": ["y"]}


def to_bytes(program: Program) -> bytes:
    return program.model_proto.SerializeToString(deterministic=True)


@pytest.mark.filterwarnings("ignore:.* has no function body:UserWarning")
@pytest.mark.parametrize("functions", ["keep", "attach"])
@pytest.mark.parametrize("case", [case for case in CASES if case.torchscript], ids=str)
def test_both_exporters_write_the_same_bytes(case: Case, functions: Any) -> None:
    programs = [
        by_us(
            case,
            dynamo=dynamo,
            canonical=True,
            functions=functions,
            output_names=OUTPUTS.get(case.name, ["y"]),
        )
        for dynamo in (True, False)
    ]
    assert (to_bytes(programs[0]) == to_bytes(programs[1])) is (case.name not in DIFFERENT)


def free(dynamo: bool) -> dict[str, Any]:
    names = {"input_names": ["x"], "output_names": ["y"], "verbose": False}
    shapes: dict[str, Any] = (
        {"dynamic_shapes": ({0: "batch"},)} if dynamo else {"dynamic_axes": {"x": {0: "batch"}}}
    )
    return {**names, **shapes, "canonical": True}


class Layers(nn.Module):
    """A tied weight, equal biases, torch's own layers and a branch of nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.unused = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        nn.init.ones_(self.first.bias)
        nn.init.ones_(self.second.bias)
        self.register_buffer("scale", torch.tensor([1.0, 2.0, 3.0, 4.0]))

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(Twice.apply(torch.relu(self.first(x))))
        self.unused(y)
        return MaybeBias.apply(y, self.scale) + 1.5


@BOTH
def test_initializers_have_their_names_in_the_state_dict_in_the_order_of_use(dynamo: bool) -> None:
    model = Layers().eval()
    graph = export(model, (x(3, 4),), dynamo=dynamo, **free(dynamo)).model_proto.graph
    assert [i.name for i in graph.initializer] == [
        *("first.weight", "first.bias", "second.bias", "scale", "Add_0_input_1"),
    ]
    state = model.state_dict()
    for initializer in graph.initializer[:-1]:
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(initializer), state[initializer.name])


@BOTH
def test_nodes_and_values_are_named_by_type_and_count(dynamo: bool) -> None:
    graph = export(Layers().eval(), (x(3, 4),), dynamo=dynamo, **free(dynamo)).model_proto.graph
    names = ["Gemm_0", "Relu_0", "Twice_0", "Gemm_1", "MaybeBias_0", "Add_0"]
    assert [node.name for node in graph.node] == names
    assert [list(node.output) for node in graph.node] == [[name] for name in names[:-1]] + [["y"]]


def test_both_exporters_write_one_file_for_a_model_with_layers_of_torch() -> None:
    torch.manual_seed(0)
    model = Layers().eval()
    first, second = (export(model, (x(3, 4),), dynamo=dynamo, **free(dynamo)) for dynamo in (True, False))
    assert to_bytes(first) == to_bytes(second)
    session = first.session(providers=["CPUExecutionProvider"])
    given = x(5, 4)
    np.testing.assert_allclose(
        session.run(None, {"x": given.numpy()})[0], model(given).detach(), rtol=1e-5, atol=1e-6
    )


@BOTH
def test_results_have_the_shapes_of_forward_with_the_symbols_of_the_inputs(dynamo: bool) -> None:
    def call(model: Any, x: Tensor) -> Tensor:
        first, _, _ = Split.apply(Twice.apply(x))
        return torch.relu(MaybeBias.apply(first, model.weight)).transpose(0, 1)

    graph = export(Calls(call).eval(), (x(3, 4),), dynamo=dynamo, **free(dynamo)).model_proto.graph
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.output)
    }
    assert [shapes[name] for name in ("Twice_0", "Split_0", "MaybeBias_0", "Relu_0")] == [["batch", 4]] * 4
    assert shapes["y"] == [4, "batch"]


@BOTH
def test_nothing_says_where_the_file_was_written_but_what_its_nodes_stand_for(dynamo: bool) -> None:
    program = export(Layers().eval(), (x(3, 4),), dynamo=dynamo, functions="attach", **free(dynamo))
    content = to_bytes(program)
    for trace in (os.path.dirname(torch.__file__), os.path.dirname(__file__), ".py", "torch"):
        assert trace.encode() not in content
    nodes = {node.name: node for node in program.model_proto.graph.node}
    keys = {entry.key for entry in nodes["Twice_0"].metadata_props}
    assert keys == {"ort_ops.function", "ort_ops.call"}
    assert [call.nodes for call in program.calls] == [("Twice_0",), ("MaybeBias_0",)]


class Clashing(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.register_parameter(name, nn.Parameter(torch.full((4,), 3.0)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(MaybeBias.apply(x, getattr(self, self.name)))


@BOTH
@pytest.mark.parametrize("name", ["x", "y"])
def test_a_parameter_named_as_an_input_or_output_is_refused(name: str, dynamo: bool) -> None:
    with pytest.raises(ExportError, match=f"a parameter is named '{name}'"):
        export(Clashing(name).eval(), (x(3, 4),), dynamo=dynamo, **free(dynamo))


@BOTH
def test_a_parameter_named_as_a_node_keeps_its_name(dynamo: bool) -> None:
    model = Clashing("MaybeBias_0").eval()
    program = export(model, (x(3, 4),), dynamo=dynamo, **free(dynamo))
    (first, _) = program.model_proto.graph.node
    assert (first.name, list(first.input), list(first.output)) == (
        *("MaybeBias_0", ["x", "MaybeBias_0"], ["MaybeBias_0_"]),
    )
    session = program.session(providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": x(3, 4).numpy()})[0], model(x(3, 4)).detach())


class Branches(nn.Module):
    """Values of branches that read a parameter and a value of the graph around them."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        y = Twice.apply(x)
        return torch.cond(
            x.sum() > 0, lambda x, y: Twice.apply(x) + self.weight, lambda x, y: torch.relu(y) * x, (x, y)
        )


def test_branches_are_named_by_their_node() -> None:
    model = Branches().eval()
    program = export(model, (x(3, 4),), functions="attach", **free(True))
    names = [node.name for node in program.model.graph.all_nodes()]
    assert len(set(names)) == len(names)
    assert all(
        name.rpartition("_")[0] in ("Twice", "ReduceSum", "Greater", "If", "Add", "Relu", "Mul")
        for name in names
    )
    onnx.checker.check_model(program.model_proto, full_check=True)
    session = program.session(providers=["CPUExecutionProvider"])
    for given in (x(3, 4) - 1, x(3, 4) + 1):
        with quiet():
            expected = model(given).detach()
        np.testing.assert_allclose(session.run(None, {"x": given.numpy()})[0], expected)


@BOTH
@pytest.mark.parametrize("functions", ["keep", "attach"])
def test_nodes_are_written_in_another_domain(dynamo: bool, functions: Any, tmp_path: Path) -> None:
    program = export(
        Calls(lambda model, x: Twice.apply(x)).eval(),
        (x(3, 4),),
        tmp_path / "model.onnx",
        dynamo=dynamo,
        functions=functions,
        domains={"my": "org.example", "unused": "other"},
        custom_opsets={"org.example": 3},
        verbose=False,
    )
    assert {node.domain for node in program.model.graph} == {"org.example"}
    assert dict(program.model.opset_imports).keys() == {"", "org.example"}
    assert program.model.opset_imports["org.example"] == 3
    assert {function.domain for function in program.model.functions.values()} <= {"org.example"}
    if functions == "attach":
        onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert program.session().run(None, {program.model.graph.inputs[0].name: x(3, 4).numpy()})


@BOTH
def test_the_default_domain_has_no_function_bodies(dynamo: bool) -> None:
    with pytest.warns(UserWarning, match="no function body: a file can't have functions in ONNX's default"):
        program = export(
            Calls(lambda model, x: Twice.apply(x)).eval(),
            (x(3, 4),),
            dynamo=dynamo,
            functions="attach",
            domains={"my": ""},
            default_domain="keep",
            verbose=False,
        )
    assert not program.model.functions
    assert [call.no_body for call in program.calls] == [
        "a file can't have functions in ONNX's default domain"
    ]


def test_calls_that_a_model_makes_by_itself_are_counted() -> None:
    def call(model: Any, x: Tensor) -> Tensor:
        return x * 2 if torch.compiler.is_exporting() else Twice.apply(Twice.apply(x))

    model = Calls(call).eval()
    with keep_functions() as kept, quiet():
        model(x(3, 4))
        assert kept.made == {Twice: 2}
        torch.onnx.export(model, (x(3, 4),), dynamo=True, verbose=False)
    assert kept.made == {Twice: 2}
    assert kept.programs[0].calls == ()


@BOTH
def test_a_failure_leaves_the_file_that_was_there(
    dynamo: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"the file before")

    def save(self: Any, destination: Path, **options: Any) -> None:
        destination.write_bytes(b"half of")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch.onnx.ONNXProgram, "save", save)
    with pytest.raises(OSError, match="no space left"):
        export(Calls(lambda model, x: Twice.apply(x)).eval(), (x(3, 4),), path, dynamo=dynamo, verbose=False)
    assert path.read_bytes() == b"the file before"
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


class Numbered(nn.Module):
    """Has a parameter that is called as the newer exporter calls its constants."""

    def __init__(self) -> None:
        super().__init__()
        self.val = nn.Parameter(torch.rand(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return ((x @ self.val) * 0.3 + 0.7).clamp(0.2, 1.5)


@BOTH
def test_a_constant_is_not_given_a_parameters_name(dynamo: bool) -> None:
    model = Numbered().eval()
    program = export(model, (torch.rand(2, 3),), dynamo=dynamo, canonical=True, verbose=False)
    weights = {each.name: numpy_helper.to_array(each) for each in program.model_proto.graph.initializer}
    named = weights.get("val")
    assert named is None or np.array_equal(named, model.val.detach().numpy())
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    given = torch.rand(2, 3)
    (y,) = session.run(None, {session.get_inputs()[0].name: given.numpy()})
    np.testing.assert_allclose(y, model(given).detach().numpy(), rtol=1e-5)
