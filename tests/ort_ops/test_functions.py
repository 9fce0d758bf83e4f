"""A file's custom nodes run by the Functions that the caller lets it name, and by no others."""

import importlib
import math
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

import ort_ops
from ort_ops.errors import KernelError, NoKernelError, RegistrationError
from ort_ops.functions import function_ops
from ort_ops.model import read_model
from ort_ops.recorded import Input, RecordedCall, UnrecordableError, function_name, record, restore

from .models import model as graph

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
Call: Any = ort_ops.torch_calls.Call

PACKAGE = """
import torch


class Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, by):
        return x * by

    @staticmethod
    def symbolic(g, x, by):
        return g.op("pkg::Scale", x, by_f=by)


class NotAFunction:
    pass
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "scalepkg").mkdir()
    (tmp_path / "scalepkg" / "__init__.py").write_text("")
    (tmp_path / "scalepkg" / "ops.py").write_text(textwrap.dedent(PACKAGE))
    monkeypatch.syspath_prepend(str(tmp_path))
    import scalepkg.ops  # type: ignore[import-not-found]

    yield scalepkg.ops
    for name in ("scalepkg", "scalepkg.ops"):
        sys.modules.pop(name, None)


@pytest.fixture
def model(package: Any) -> bytes:
    class Net(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return package.Scale.apply(package.Scale.apply(x, 2.0), 3.0)

    program = ort_ops.export.export(Net().eval(), (torch.rand(2, 3),), input_names=["x"], verbose=False)
    data: bytes = program.model_proto.SerializeToString()
    return data


X = np.ones((2, 3), np.float32)
CPU = ["CPUExecutionProvider"]


def test_a_file_names_no_code_by_itself(model: bytes) -> None:
    with pytest.raises(Exception, match="Scale") as caught:
        ort_ops.InferenceSession(model, providers=CPU)
    assert isinstance(caught.value, NoKernelError)
    assert "functions=[...]" in str(caught.value)
    assert "trust=['scalepkg'] (ort-ops --function scalepkg.ops:Scale, or --trust scalepkg)" in str(
        caught.value
    )


def test_functions_that_are_given_run_its_nodes(model: bytes, package: Any) -> None:
    session = ort_ops.InferenceSession(model, providers=CPU, functions=[package.Scale])
    np.testing.assert_array_equal(session.run(None, {"x": X})[0], X * 6)
    assert [run.kernel for run in session.explain()] == ["scalepkg.ops.Scale.forward"] * 2


def test_what_is_no_function_is_not_taken_for_one(model: bytes, package: Any) -> None:
    for each in (torch.nn.Linear, package.NotAFunction, "pkg::Scale", package.Scale.forward):
        with pytest.raises(TypeError, match=r"functions: .* is no torch\.autograd\.Function"):
            ort_ops.InferenceSession(model, providers=CPU, functions=[package.Scale, each])
    with pytest.raises(TypeError, match=r"functions=Scale; expected a list: \[Scale\]"):
        ort_ops.InferenceSession(model, providers=CPU, functions=package.Scale)


def test_options_with_functions_from_before_run_none_that_is_not_allowed(model: bytes, package: Any) -> None:
    options = onnxruntime.SessionOptions()
    for _ in range(2):
        session = ort_ops.InferenceSession(model, options, CPU, functions=[package.Scale])
        np.testing.assert_array_equal(session.run(None, {"x": X})[0], X * 6)
    with pytest.raises(RegistrationError, match=r"has the kernel scalepkg.ops.Scale.forward of pkg::Scale"):
        ort_ops.InferenceSession(model, options, CPU)


def test_sessions_of_one_model_share_what_runs_their_functions(model: bytes, package: Any) -> None:
    def ops() -> Any:
        return function_ops(read_model(model), [package.Scale], ())[0]

    assert ops()["pkg", "Scale"] is ops()["pkg", "Scale"]


class Counts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, counts: Any) -> Any:
        counts["more"][0].add_(1)
        counts["more"].append(0)
        counts["table"] += 1
        return x + counts["more"][0] + len(counts["more"]) + float(counts["table"][0])


def test_a_forward_that_changes_its_arguments_computes_the_same_in_each_run() -> None:
    table = np.array([10, 20], np.float32)
    recorded = [record(Input(0)), record({"more": [torch.tensor(2.0)], "table": table})]
    call = RecordedCall(function_name(Counts), recorded, {}, [1], [1])
    node = helper.make_node("Counts", ["x"], ["y"], "counts", domain="pkg")
    for key, value in call.metadata().items():
        node.metadata_props.add(key=key, value=value)
    session = ort_ops.InferenceSession(graph([node]), providers=CPU, functions=[Counts])
    for _ in range(3):
        np.testing.assert_array_equal(session.run(None, {"x": X})[0], X + 16)


@pytest.mark.parametrize("trusted", ["scalepkg", "scalepkg.ops"])
def test_functions_of_a_trusted_package_are_imported(model: bytes, trusted: str) -> None:
    for name in ("scalepkg", "scalepkg.ops"):
        sys.modules.pop(name, None)
    session = ort_ops.InferenceSession(model, providers=CPU, trust=[trusted])
    np.testing.assert_array_equal(session.run(None, {"x": X})[0], X * 6)


@pytest.mark.parametrize("trusted", ["scale", "scalepkg.op", "pkg", ""])
def test_a_package_of_a_similar_name_is_not_trusted(model: bytes, trusted: str) -> None:
    with pytest.raises(Exception, match="Scale"):
        ort_ops.InferenceSession(model, providers=CPU, trust=[trusted])


@pytest.mark.parametrize("name", ["scalepkg.ops:NotAFunction", "scalepkg.ops:missing", "scalepkg.gone:Scale"])
def test_what_is_no_function_is_refused(model: bytes, name: str) -> None:
    proto = onnx.load_from_string(model)
    for node in proto.graph.node:
        for entry in node.metadata_props:
            if entry.key == "ort_ops.function":
                entry.value = name
    with pytest.raises(Exception, match="Scale") as caught:
        ort_ops.InferenceSession(proto.SerializeToString(), providers=CPU, trust=["scalepkg"])
    assert name in str(caught.value)


OTHERS = """
import torch

import scalepkg.ops


class Elsewhere(torch.autograd.Function):
    pass


def __getattr__(name):
    raise RuntimeError("code of another package ran")
"""


@pytest.mark.parametrize("name", ["ops:others.Elsewhere", "ops:others.more.Elsewhere", "ops:Elsewhere"])
def test_a_trusted_package_gives_no_other_packages_functions(
    model: bytes, package: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "others.py").write_text(OTHERS)
    others = importlib.import_module("others")
    monkeypatch.delitem(sys.modules, "others")
    monkeypatch.setattr(package, "others", others, raising=False)
    monkeypatch.setattr(package, "Elsewhere", others.Elsewhere, raising=False)
    proto = onnx.load_from_string(model)
    for node in proto.graph.node:
        for entry in node.metadata_props:
            if entry.key == "ort_ops.function":
                entry.value = f"scalepkg.{name}"
    with pytest.raises(NoKernelError, match=f"scalepkg.{name} for it, which is") as caught:
        ort_ops.InferenceSession(proto.SerializeToString(), providers=CPU, trust=["scalepkg"])
    assert "code of another package" not in str(caught.value)


INDEX = '{"args":[{"input":-1},2.0],"kwargs":{},"inputs":[1],"outputs":[1]}'
TYPE = '{"args":[{"input":0},2.0],"kwargs":{},"inputs":[1],"outputs":[2147483648]}'


@pytest.mark.parametrize("text", ["{", "[]", '{"args": 1}', "null", INDEX, TYPE])
def test_a_record_that_cannot_be_read_is_refused(model: bytes, package: Any, text: str) -> None:
    proto = onnx.load_from_string(model)
    for entry in proto.graph.node[0].metadata_props:
        if entry.key == "ort_ops.call":
            entry.value = text
    with pytest.raises(Exception, match="Scale") as caught:
        ort_ops.InferenceSession(proto.SerializeToString(), providers=CPU, functions=[package.Scale])
    assert "can't be read" in str(caught.value)


class OnADevice(torch.autograd.Function):
    """x·table + zeros made on a device, in what autocast makes of a product."""

    @staticmethod
    def forward(ctx: Any, x: Any, table: Any, options: Any) -> Any:
        return x @ table + torch.zeros(1, device=options["device"])

    @staticmethod
    def symbolic(g: Any, x: Any, table: Any, options: Any) -> Any:
        return g.op("pkg::OnADevice", x)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_a_call_that_was_recorded_elsewhere_runs_on_the_inputs_device(device: str) -> None:
    table = torch.full((3, 2), 1 + 2**-9)
    recorded = RecordedCall(
        "elsewhere:OnADevice",
        args=[record(Input(0)), record(table), record({"device": torch.device("cuda", 7)})],
        kwargs={},
        inputs=[1],
        outputs=[1],
        autocast=[("cpu" if device == "cuda" else "cuda", "bfloat16")],
    )
    (y,) = Call(OnADevice, recorded)((torch.ones(2, 3, device=device),))
    assert (y.device.type, y.dtype) == (device, torch.float32)  # of the sum, by the type of the zeros
    assert y.tolist() == [[3, 3]] * 2  # what bfloat16 makes of it


@pytest.mark.parametrize("autocast", [["cpu", "cuda"], ["cuda", "cpu"], ["cuda"]])
def test_a_call_under_several_autocasts_runs_under_its_devices(autocast: list[str]) -> None:
    dtypes = {"cpu": "bfloat16", "cuda": "float16"}
    pairs = [(device, dtypes[device]) for device in autocast]
    recorded = RecordedCall("m:Twice", [record(Input(0))], {}, [1], [1], autocast=pairs)

    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x @ x

    (y,) = Call(Twice, recorded)((torch.ones(2, 2),))
    assert y.dtype == (torch.bfloat16 if "cpu" in autocast else torch.float16)


class Both(torch.autograd.Function):
    """The sum, and what it was made of where that is asked for."""

    @staticmethod
    def forward(ctx: Any, x: Any, y: Any, both: bool) -> Any:
        return (x + y, y.clone()) if both else x + y

    @staticmethod
    def symbolic(g: Any, x: Any, y: Any, both: bool) -> Any:
        return g.op("pkg::Both", x, y, outputs=2 if both else 1)


@pytest.mark.parametrize("dynamo", [True, False])
def test_calls_with_fewer_results_than_others_run_beside_them(dynamo: bool) -> None:
    class Net(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            y, kept = Both.apply(x, x, True)
            return Both.apply(y, kept, False)

    program = ort_ops.export.export(
        Net().eval(), (torch.ones(2, 3),), input_names=["x"], verbose=False, dynamo=dynamo
    )
    session = program.session(providers=CPU)
    np.testing.assert_array_equal(session.run(None, {"x": X})[0], X * 3)
    report = ort_ops.parity.check(Net().eval(), program, (torch.ones(2, 3),), functions=[Both])
    assert report.verdict == "equal", str(report)


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x * x * x

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("pkg::Power", x)


class Square(torch.autograd.Function):
    """Under the name of the other."""

    fails = False

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        if Square.fails:
            raise ValueError("planted")
        return x * x

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("pkg::Power", x)


class Cast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, dtype: Any) -> Any:
        return x.to(dtype)

    @staticmethod
    def symbolic(g: Any, x: Any, dtype: Any) -> Any:
        return g.op("pkg::Cast", x)


class Applied(torch.nn.Module):
    def forward(self, x: Any) -> Any:
        return Cube.apply(x)


class Powers(torch.nn.Module):
    def forward(self, x: Any, h: Any) -> Any:
        return Cube.apply(x), Square.apply(h)


@pytest.mark.parametrize("dynamo", [True, False])
def test_calls_on_several_types_each_have_a_kernel_and_its_name(dynamo: bool) -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    program = ort_ops.export.export(
        Powers().eval(),
        (x, x.half()),
        input_names=["x", "h"],
        verbose=False,
        dynamo=dynamo,
        **(
            {"dynamic_shapes": ({0: "a"}, {0: "b"})}
            if dynamo
            else {"dynamic_axes": {"x": {0: "a"}, "h": {0: "b"}}}
        ),
    )
    session = program.session(providers=CPU)
    cubes, squares = session.run(None, {"x": x.numpy(), "h": x.half().numpy()})
    np.testing.assert_array_equal(cubes, x.numpy() ** 3)
    np.testing.assert_array_equal(squares, x.half().numpy() ** 2)
    assert [run.kernel.rpartition(".")[0] for run in session.explain()] == [
        f"{__name__}.Cube",
        f"{__name__}.Square",
    ]
    assert ort_ops.parity.check(Powers().eval(), program, (x, x.half())).verdict == "equal"


def test_a_failure_names_the_function_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.ones(3, 1)
    program = ort_ops.export.export(Powers().eval(), (x, x.half()), input_names=["x", "h"], verbose=False)
    session = program.session(providers=CPU)
    monkeypatch.setattr(Square, "fails", True)
    with pytest.raises(KernelError, match=r"kernel .*\.Square\.forward of node 'Power_1' failed: .*planted"):
        session.run(None, {"x": x.numpy(), "h": x.half().numpy()})


def test_a_program_and_a_bundle_take_the_arguments_of_a_session(tmp_path: Path) -> None:
    x = torch.ones(3, 1)
    model = torch.nn.Sequential(Applied())
    program = ort_ops.export.export(
        model.eval(), (x,), tmp_path / "m.onnx", functions="attach", input_names=["x"], verbose=False
    )
    ort_ops.deploy.bundle(tmp_path / "m.onnx", tmp_path / "bundle")
    bundle = ort_ops.deploy.open_bundle(tmp_path / "bundle")
    for session, runner in (
        (program.session(CPU), "kernel"),
        (program.session(CPU, prefer="body"), "function body"),
        (program.session(CPU, functions=()), "function body"),
        (bundle.session(CPU), "function body"),
        (bundle.session(CPU, functions=[Cube]), "kernel"),
    ):
        assert [run.runner for run in session.explain()] == [runner]


def test_results_of_several_types_for_inputs_of_one_are_no_kernels() -> None:
    class Net(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return Cast.apply(x, torch.float16), Cast.apply(x, torch.float64)

    program = ort_ops.export.export(Net().eval(), (torch.ones(2, 3),), input_names=["x"], verbose=False)
    assert ["results of different types" in call.reason for call in program.calls] == [True, True]
    with pytest.raises(NoKernelError, match="results of different types for inputs of the same"):
        program.session(providers=CPU)


class Sum(torch.autograd.Function):
    """Of one or two, with or without what it was made of."""

    @staticmethod
    def forward(ctx: Any, x: Any, y: Any, both: bool) -> Any:
        z = x if y is None else x + y
        return (z.clone(), x.clone()) if both else z.clone()

    @staticmethod
    def symbolic(g: Any, x: Any, y: Any, both: bool) -> Any:
        return g.op("pkg::Sum", x, *([] if y is None else [y]), outputs=2 if both else 1)


@pytest.mark.parametrize(
    ("second", "both", "reason"),
    [
        (False, False, ""),
        (True, False, "different numbers of inputs"),
        (False, True, "numbers of inputs or results"),
    ],
)
def test_kernels_of_one_operator_have_one_form(second: bool, both: bool, reason: str) -> None:
    class Net(torch.nn.Module):
        def forward(self, x: Any, h: Any) -> Any:
            return Sum.apply(x, None, False), Sum.apply(h, h if second else None, both)

    x = torch.ones(2, 3)
    program = ort_ops.export.export(Net().eval(), (x, x.half()), input_names=["x", "h"], verbose=False)
    assert all(reason in call.reason and bool(call.reason) == bool(reason) for call in program.calls)
    if reason:
        with pytest.raises(NoKernelError, match=reason):
            program.session(providers=CPU)
    else:
        assert len(program.session(providers=CPU).run(None, {"x": x.numpy(), "h": x.half().numpy()})) == 2


def test_a_registered_kernel_comes_first(model: bytes, package: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort_ops.registry, "_ops", list(ort_ops.registry._ops))  # as it is, after this

    @ort_ops.onnx_op("pkg::Scale")
    def scale(x, *, by: float):  # type: ignore[no-untyped-def]
        return x * np.float32(by) + 1

    session = ort_ops.InferenceSession(model, providers=CPU, functions=[package.Scale])
    np.testing.assert_array_equal(session.run(None, {"x": X})[0], (X * 2 + 1) * 3 + 1)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -(2**70),
        0.1,
        math.inf,
        "ä\0",
        b"\xff",
        2 + 3j,
        [1, (2.5, None)],
        {"a": [1], "b": ()},
        np.float64(0.1),
        torch.float16,
        torch.device("cpu"),
        torch.channels_last,
        torch.strided,
        torch.Size([2, 3]),
    ],
    ids=str,
)
def test_arguments_come_back_as_they_were(value: Any) -> None:
    import json

    back = restore(json.loads(json.dumps(record(value))))
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8, torch.bool])
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_tensors_come_back_as_they_were(dtype: Any, shape: tuple[int, ...]) -> None:
    tensor = (torch.rand(shape) > 0.5).to(dtype)
    back = restore(record(tensor))
    assert back.dtype == dtype
    assert torch.equal(back, tensor)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "bool", "complex64", ">i4"])
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_arrays_come_back_as_they_were(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(6).reshape(2, 3)[tuple(slice(size) for size in shape)].astype(dtype)
    array = array if shape else array[0, 1]
    back = restore(record(array))
    assert type(back) is type(array)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("value", [object(), np.array([object()]), np.array(["a"])], ids=["", "[]", "texts"])
def test_an_object_cannot_be_recorded(value: Any) -> None:
    with pytest.raises(UnrecordableError, match=r"object|ndarray"):
        record(value)


def test_a_node_without_a_record_has_none() -> None:
    from ort_ops.model import Node

    assert RecordedCall.of_node(Node("n", "d", "O", ())) is None


@pytest.fixture
def scripted(model: bytes) -> bytes:
    """Return the file as a script writes it that has the Function in itself."""
    file = onnx.load_from_string(model)
    for node in file.graph.node:
        for entry in node.metadata_props:
            if entry.key == "ort_ops.function":
                entry.value = "__main__:Scale"
    data: bytes = file.SerializeToString()
    return data


@pytest.mark.parametrize(
    "trust", [(), ("scalepkg.ops",), ("scalepkg", "scalepkg.ops"), ("__main__", "scalepkg.ops")]
)
def test_a_scripts_function_is_the_one_of_its_name(
    scripted: bytes, package: Any, trust: tuple[str, ...]
) -> None:
    functions = None if trust else [package.Scale]
    session = ort_ops.InferenceSession(scripted, providers=CPU, functions=functions, trust=trust)
    assert np.array_equal(session.run(None, {"x": X})[0], X * 6)


def test_a_scripts_function_is_no_other_one(scripted: bytes, package: Any) -> None:
    class Other(torch.autograd.Function):
        pass

    with pytest.raises(Exception, match="Scale") as caught:
        ort_ops.InferenceSession(scripted, providers=CPU, functions=[Other], trust=["json"])
    note = str(caught.value)
    assert "the file names __main__:Scale" in note
    assert (
        f"functions=[...] of the Scale in the script that exported it, not with {function_name(Other)}"
        in note
    )
    assert "ort-ops --function SCRIPT:Scale" in note


def test_a_scripts_function_may_be_only_one_of_those_given(scripted: bytes, package: Any) -> None:
    twin = type("Scale", (torch.autograd.Function,), {"__module__": "twin"})
    with pytest.raises(Exception, match="Scale") as caught:
        ort_ops.InferenceSession(scripted, providers=CPU, functions=[package.Scale, twin])
    assert "which scalepkg.ops:Scale and twin:Scale may be: pass only one" in str(caught.value)


def test_of_two_functions_of_one_name_none_is_chosen(model: bytes, package: Any) -> None:
    names = {"__module__": "scalepkg.ops", "__qualname__": "Scale"}
    twin = type("Scale", (torch.autograd.Function,), names)
    for functions in ([package.Scale, twin], [twin, package.Scale]):
        with pytest.raises(NoKernelError, match=r"two of functions=.* are: pass only one"):
            ort_ops.InferenceSession(model, providers=CPU, functions=functions)
    session = ort_ops.InferenceSession(model, providers=CPU, functions=[package.Scale, package.Scale])
    assert np.array_equal(session.run(None, {"x": X})[0], X * 6)


def test_of_two_trusted_modules_with_a_scripts_function_none_is_chosen(
    scripted: bytes, package: Any, tmp_path: Path
) -> None:
    (tmp_path / "twinpkg.py").write_text(textwrap.dedent(PACKAGE))
    with pytest.raises(NoKernelError, match=r"scalepkg.ops and twinpkg have: trust only one"):
        ort_ops.InferenceSession(scripted, providers=CPU, trust=["scalepkg.ops", "twinpkg"])


@pytest.mark.parametrize("first", ["with", "without"])
def test_a_node_that_records_nothing_beside_one_that_does_leaves_both_to_a_kernel(first: str) -> None:
    nodes = [helper.make_node("Op", [a], [b], f"node_{b}", domain="test.beside") for a, b in ("xy", "yz")]
    nodes[first == "without"].metadata_props.add(key="ort_ops.function", value="somewhere:F")
    ends = [[helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2])] for name in "xz"]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("test.beside", 1)]
    proto = helper.make_model(helper.make_graph(nodes, "g", *ends), opset_imports=opsets, ir_version=10)
    with pytest.raises(NoKernelError, match=f"node {nodes[0].name!r} records no call"):
        ort_ops.InferenceSession(proto.SerializeToString(), providers=CPU)


def test_nodes_in_branches_are_told_apart_though_a_condition_is_known(tmp_path: Path) -> None:
    """ONNX Runtime puts the nodes of a branch that it knows to be taken in the If's place, renamed."""
    from ort_ops.export import export

    class Times(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, by: float) -> Any:
            return x * by

        @staticmethod
        def symbolic(g: Any, x: Any, by: float) -> Any:
            return g.op("tests.functions::Times", x, by_f=by)

    class Branches(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.cond(
                x.shape[0] > 4, lambda x: Times.apply(x, 2.0) + 1, lambda x: Times.apply(x, 3.0), (x,)
            )

    sizes = ({0: torch.export.Dim("batch", min=2, max=64)},)
    program = export(Branches().eval(), (torch.rand(6, 3),), dynamic_shapes=sizes, verbose=False)
    for rows, factor, more in ((6, 2, 1), (3, 3, 0)):
        options = onnxruntime.SessionOptions()
        options.add_free_dimension_override_by_name("batch", rows)
        session = program.session(sess_options=options, providers=["CPUExecutionProvider"])
        (name,) = (each.name for each in session.get_inputs())
        (y,) = session.run(None, {name: np.ones((rows, 3), np.float32)})
        assert (y == factor + more).all()


def test_a_complex_number_of_numpys_is_one_again() -> None:
    for given in (np.complex128(1 + 2j), np.complex64(1j), 1j):
        assert type(restore(record(given))) is type(given)
