"""What is in the file besides the nodes: domains, versions, types, names, and where it is written."""

import contextlib
import io
import logging
import re
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
from torch import Tensor
from torch.autograd import Function

from ort_ops.errors import ExportError
from ort_ops.export import Moved, export, keep_functions
from tests.ort_ops.releases import ORT

from .functions import CASES, Calls, MaybeBias, Split, Twice, x
from .test_nodes import by_us

BY_NAME = {case.name: case for case in CASES}
BOTH = pytest.mark.parametrize("dynamo", [True, False])


@BOTH
def test_an_operator_without_a_domain_is_moved_and_the_program_says_so(dynamo: bool) -> None:
    program = by_us(BY_NAME["no domain"], dynamo=dynamo)
    assert program.moved == (Moved("TIMESFIVE", "custom"),)
    assert program.model.opset_imports["custom"] == 1
    onnx.checker.check_model(program.model_proto)


@BOTH
def test_an_operator_without_a_domain_goes_where_it_is_asked_to(dynamo: bool) -> None:
    program = by_us(BY_NAME["no domain"], dynamo=dynamo, default_domain="my.own")
    assert [node.domain for node in program.model.graph] == ["my.own"]
    kept = by_us(BY_NAME["no domain"], dynamo=dynamo, default_domain="keep")
    assert [node.domain for node in kept.model.graph] == [""]
    assert kept.moved == ()
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(kept.model_proto)


@BOTH
@pytest.mark.parametrize("by", ["export", "keep_functions", "torch"])
def test_versions_of_domains_are_honoured(dynamo: bool, by: str) -> None:
    case = BY_NAME["one node"]
    if by == "export":
        program = by_us(case, dynamo=dynamo, custom_opsets={"my": 7, "unused": 2})
    else:
        import torch

        from ort_ops.export.quiet import quiet

        given: Any = {"custom_opsets": {"my": 7}}
        with keep_functions(**(given if by == "keep_functions" else {})) as kept, quiet():
            more = given if by == "torch" else {}
            torch.onnx.export(case.model(), case.inputs, io.BytesIO(), dynamo=dynamo, verbose=False, **more)
        (program,) = kept.programs
    assert dict(program.model.opset_imports).keys() == {"", "my"}
    assert program.model.opset_imports["my"] == 7


@pytest.mark.filterwarnings("ignore:.*treespec:FutureWarning")  # torch's own
@pytest.mark.parametrize("silent", [True, False])
def test_an_export_by_others_is_told_nothing_of_how_ours_works(
    silent: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import torch

    if not silent:  # torch would say something
        monkeypatch.setattr("ort_ops.export.keeping.registration_quiet", contextlib.nullcontext)
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    logger.addHandler(caplog.handler)
    case = BY_NAME["one node"]
    with keep_functions():
        torch.onnx.export(case.model(), case.inputs, io.BytesIO(), dynamo=True, verbose=False)
    logger.removeHandler(caplog.handler)
    assert ("Failed to infer the signature" in caplog.text) is not silent


@BOTH
@pytest.mark.parametrize(("opset", "ir"), [(18, 8), (20, 9), (21, 10)])
def test_the_ir_version_is_no_higher_than_needed(dynamo: bool, opset: int, ir: int) -> None:
    for functions in ("keep", "attach"):
        case = BY_NAME["one node"]
        program = by_us(case, dynamo=dynamo, opset_version=opset, functions=functions)
        assert program.model.opset_imports[""] == opset
        assert program.model.ir_version == ir


def test_an_old_opset_has_an_old_ir_version() -> None:
    assert by_us(BY_NAME["one node"], dynamo=False, opset_version=11).model.ir_version == 6
    attached = by_us(BY_NAME["one node"], dynamo=False, opset_version=11, functions="attach")
    assert attached.model.ir_version == 8  # the first with functions


@BOTH
def test_types_and_shapes_of_results_are_in_the_file(dynamo: bool) -> None:
    def call(model: Any, x: Tensor) -> Any:
        first, _, third = Split.apply(Twice.apply(x))
        return MaybeBias.apply(first, model.weight), third

    free: dict[str, Any] = (
        {"dynamic_shapes": ({0: "batch"},)} if dynamo else {"dynamic_axes": {"x": {0: "batch"}}}
    )
    program = export(Calls(call).eval(), (x(3, 4),), dynamo=dynamo, input_names=["x"], verbose=False, **free)
    for node in program.model.graph:
        for value in node.outputs:
            assert value.dtype is not None, (node, value)
            assert value.shape is not None
            assert value.shape.rank() == 2
            assert not isinstance(value.shape[0], int)  # the batch
            assert value.shape[1] == 4
    assert [str(output.dtype) for output in program.model.graph.outputs] == ["FLOAT", "INT64"]


@BOTH
def test_a_batch_of_one_is_not_taken_for_a_constant(dynamo: bool) -> None:
    def call(model: Any, x: Tensor) -> Tensor:
        return MaybeBias.apply(Twice.apply(x), model.weight)

    free: dict[str, Any] = (
        {"dynamic_shapes": ({0: "batch"},)} if dynamo else {"dynamic_axes": {"x": {0: "batch"}}}
    )
    program = export(Calls(call).eval(), (x(1, 4),), dynamo=dynamo, input_names=["x"], verbose=False, **free)
    session = program.session(providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": x(5, 4).numpy()})[0].shape == (5, 4)


@BOTH
@pytest.mark.parametrize("kind", ["path", "text", "buffer", "open"])
def test_the_file_is_the_program(dynamo: bool, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    given: dict[str, Any] = {"path": path, "text": str(path), "buffer": io.BytesIO()}
    case = BY_NAME["None for a tensor"]
    with contextlib.ExitStack() as stack:
        f = given[kind] if kind in given else stack.enter_context(path.open("wb"))
        program = export(
            case.model(),
            case.inputs,
            f,
            dynamo=dynamo,
            functions="attach",
            external_data=False,
            verbose=False,
        )
    data = f.getvalue() if kind == "buffer" else path.read_bytes()
    assert [node.name for node in onnx.load_from_string(data).graph.node] == [
        node.name for node in program.model_proto.graph.node
    ]
    onnxruntime.InferenceSession(data)
    assert sorted(p.name for p in tmp_path.iterdir()) == ([] if kind == "buffer" else ["model.onnx"])


def test_nodes_are_named_after_their_operator() -> None:
    def call(model: Any, x: Tensor) -> Any:
        return Twice.apply(Twice.apply(x)), *Split.apply(x)

    graph = export(Calls(call).eval(), (x(3, 4),), verbose=False).model_proto.graph
    assert [node.name for node in graph.node] == ["Twice_0", "Twice_1", "Split_0"]
    assert [name for node in graph.node for name in node.output] == [
        *("Twice_0", "Twice_1", "Split_0_0", "Split_0_1", "Split_0_2"),
    ]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"functions": "atach"}, "functions is 'atach'; expected one of 'keep', 'attach', 'inline'"),
        ({"custom_opsets": {"": 17}}, "custom_opsets has ONNX's own domain"),
        ({"custom_opsets": {"my": 0}}, "custom_opsets has 0 for 'my'"),
        ({"custom_opsets": {"my": "1"}}, "custom_opsets has '1' for 'my'"),
        ({"fakes": {"Twice": None}}, "fakes has 'Twice' for a key"),
        ({"bodies": {int: None}}, "bodies has <class 'int'> for a key"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: Any, says: str) -> None:
    with pytest.raises(ExportError, match=re.escape(says)):
        export(Calls(lambda model, x: Twice.apply(x)).eval(), (x(3, 4),), **options)


@BOTH
@pytest.mark.skipif(ORT > (1, 32), reason="not known to end the process over it")
def test_a_node_that_the_runtime_takes_for_its_own_is_refused(dynamo: bool, tmp_path: Path) -> None:
    def model(inputs: int) -> Any:
        return Calls(lambda model, x: Gathers.apply(x, inputs)).eval()

    path = tmp_path / "f.onnx"
    with pytest.raises(ExportError, match=r"my::Gather and has 1 inputs; .*give the operator another name"):
        export(model(1), (x(3, 4),), path, dynamo=dynamo, verbose=False)
    assert not path.exists()
    export(model(2), (x(3, 4),), path, dynamo=dynamo, verbose=False)


class Gathers(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, inputs: int) -> Tensor:
        return x * 2

    @staticmethod
    def symbolic(g: Any, x: Any, inputs: int) -> Any:
        return g.op("my::Gather", *([x] * inputs))


@pytest.mark.parametrize("functions", ["keep", "attach"])
def test_the_newest_opset_of_the_newer_exporter_will_do(functions: Any) -> None:
    model = Calls(lambda model, x: Twice.apply(x) + 1).eval()
    program = export(model, (x(3, 4),), opset_version=25, functions=functions, verbose=False)
    assert program.model.opset_imports[""] == 25
    assert [node.op_type for node in program.model.graph] == ["Twice", "Add"]
    onnx.checker.check_model(program.model_proto, full_check=True)
