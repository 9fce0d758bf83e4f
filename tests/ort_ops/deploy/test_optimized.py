"""The optimised graph of a bundle: it answers as the original, and is left alone where it doesn't fit."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import external_data_helper, helper, numpy_helper
from onnxruntime import GraphOptimizationLevel as Level

import ort_ops
from ort_ops import deploy, parity
from ort_ops.deploy import opening, optimizing, processor
from ort_ops.errors import BundleError, ProviderError
from ort_ops.model import read_model, weight_files

from .test_bundle import LIBRARY, alter, write_model

CPU = "CPUExecutionProvider"
Floats = NDArray[np.float32]


def write_convolutions(path: Path, *, outside: bool = False) -> Path:
    """Write Conv, Relu, Conv of 24 channels: to be fused, and laid out in blocks of 8 or 16 channels."""
    values = np.random.default_rng(0)
    shapes = {"w": (24, 3, 3, 3), "v": (24, 24, 3, 3)}
    weights = [
        numpy_helper.from_array(values.normal(size=shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"], pads=[1] * 4),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["y"], pads=[1] * 4),
    ]
    ends = [helper.make_tensor_value_info(name, 1, ["n", size, 5, 7]) for name, size in (("x", 3), ("y", 24))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if outside:
        external_data_helper.convert_model_to_external_data(model, location="weights", size_threshold=0)
    onnx.save(model, path)
    return path


def register_doubled() -> None:
    """Register a kernel of MYLINEAR, and no other, whose answers are twice as large."""
    ort_ops.registry._ops = []

    @ort_ops.onnx_op("mylinear::MYLINEAR")
    def doubled(x: Floats, weight: Floats, bias: Floats | None = None) -> Floats:
        return np.asarray(2 * x @ weight.T, np.float32)


def edit(folder: Path, change: Callable[[Any], object]) -> None:
    """Change a bundle's manifest."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Return a bundle of convolutions with their optimised graph."""
    deploy.bundle(write_convolutions(tmp_path / "model.onnx"), tmp_path / "bundle", optimized=True)
    return tmp_path / "bundle"


@pytest.mark.parametrize("outside", [False, True])
def test_the_optimised_graph_gives_the_same_bits(outside: bool, tmp_path: Path) -> None:
    model = write_convolutions(tmp_path / "model.onnx", outside=outside)
    manifest = deploy.bundle(model, tmp_path / "made" / "bundle", optimized=True)
    (tmp_path / "made" / "bundle").rename(tmp_path / "moved")
    for path in tmp_path.glob("[!m]*"):
        path.unlink()
    bundle = deploy.open_bundle(tmp_path / "moved")
    assert ("optimized/model.onnx.weights" in manifest.files) is outside
    assert bundle.graph() == deploy.Graph(tmp_path / "moved/optimized/model.onnx", optimized=True)
    calls = read_model(bundle.graph().path).calls()
    assert ("", "Relu") not in calls
    if "avx" in processor.this_processor().instructions:
        assert ("com.microsoft.nchwc", "Conv") in calls
    session = bundle.session()
    plain = onnxruntime.InferenceSession(bundle.model, providers=[CPU])
    for batch in (0, 1, 3):
        x = np.random.default_rng(1).normal(size=(batch, 3, 5, 7)).astype(np.float32)
        (got,), (expected,) = session.run(None, {"x": x}), plain.run(None, {"x": x})
        assert got.shape == (batch, 24, 5, 7)
        assert got.tobytes() == expected.tobytes()


def test_weights_of_a_large_file_go_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_convolutions(tmp_path / "model.onnx")
    monkeypatch.setattr(optimizing, "_OUTSIDE", model.stat().st_size)
    deploy.bundle(model, tmp_path / "bundle", optimized=True)
    assert weight_files(tmp_path / "bundle/optimized/model.onnx") == {"model.onnx.weights"}
    session = deploy.open_bundle(tmp_path / "bundle").session()
    assert session.run(None, {"x": np.ones((1, 3, 5, 7), np.float32)})


def test_it_is_optimised_once(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    levels = []

    class Session(ort_ops.InferenceSession):
        def __init__(self, path: Any, options: Any, providers: Any) -> None:
            levels.append((Path(path).parent.name, options.graph_optimization_level))
            super().__init__(path, options, providers)

    monkeypatch.setattr(opening, "InferenceSession", Session)
    options = onnxruntime.SessionOptions()
    deploy.open_bundle(made).session([CPU], options)
    assert options.graph_optimization_level == Level.ORT_ENABLE_ALL
    options.graph_optimization_level = Level.ORT_ENABLE_BASIC
    deploy.open_bundle(made).session([CPU], options)
    assert levels == [("optimized", Level.ORT_DISABLE_ALL), ("model", Level.ORT_ENABLE_BASIC)]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("onnxruntime", "1.0.0", f"is for ONNX Runtime 1.0.0, this is {onnxruntime.__version__}"),
        ("provider", "CUDAExecutionProvider", f"is for CUDAExecutionProvider, the session is on {CPU}"),
        ("processor", {"machine": "z80", "instructions": []}, "is for z80, this is"),
        ("instructions", lambda there: there[1:], "a processor that differs in "),
        ("instructions", lambda there: [*there, "avx99"], "a processor that differs in avx99$"),
    ],
)
def test_what_it_is_not_for_has_the_original(made: Path, key: str, value: Any, said: str) -> None:
    def change(manifest: Any) -> None:
        if key == "instructions":
            there = manifest["optimized"]["processor"]
            there[key] = value(there[key])
        else:
            manifest["optimized"][key] = value

    edit(made, change)
    bundle = deploy.open_bundle(made)
    graph = bundle.graph([CPU])
    assert (graph.path, graph.optimized) == (bundle.model, False)
    assert re.search(said, graph.reason)
    x = np.ones((1, 3, 5, 7), np.float32)
    plain = onnxruntime.InferenceSession(bundle.model, providers=[CPU])
    assert np.array_equal(bundle.session([CPU]).run(None, {"x": x})[0], plain.run(None, {"x": x})[0])


def test_a_body_gives_way_to_a_kernel_that_is_registered(tmp_path: Path) -> None:
    model = onnx.load(write_model(tmp_path / "model.onnx"))
    body = helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)
    imports = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("mylinear", "MYLINEAR", ["x", "w"], ["y"], [body], imports))
    onnx.save(model, tmp_path / "model.onnx")
    register_doubled()
    manifest = deploy.bundle(tmp_path / "model.onnx", tmp_path / "bundle", optimized=True)
    assert manifest.optimized is not None
    assert manifest.optimized.bodies == ["mylinear::MYLINEAR"]
    bundle = deploy.open_bundle(tmp_path / "bundle")
    feed = {"x": np.array([[1, -1, 2]], np.float32)}
    ort_ops.registry._ops = []
    assert bundle.graph().optimized
    assert bundle.session().run(None, feed)[0].tolist() == [[4.0, 13.0]]
    register_doubled()
    assert "the function body of mylinear::MYLINEAR, for which a kernel" in bundle.graph().reason
    assert bundle.session().run(None, feed)[0].tolist() == [[8.0, 26.0]]


def test_a_library_stays_in_it(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.onnx")
    deploy.bundle(model, tmp_path / "bundle", libraries=[LIBRARY], optimized="cpu")
    bundle = deploy.open_bundle(tmp_path / "bundle")
    assert bundle.graph().optimized
    session = bundle.session([CPU])
    assert [run.runner for run in session.explain()] == ["library"]
    assert session.run(None, {"x": np.array([[1, -1, 2]], np.float32)})[0].tolist() == [[4.0, 13.0]]


def test_a_python_kernel_has_to_be_registered(tmp_path: Path) -> None:
    ort_ops.registry._ops = []
    model = write_model(tmp_path / "model.onnx")
    with pytest.raises(BundleError, match="nobody runs mylinear::MYLINEAR"):
        deploy.bundle(model, tmp_path / "bundle", optimized=True)
    assert not (tmp_path / "bundle").exists()
    register_doubled()
    deploy.bundle(model, tmp_path / "bundle", optimized=True)
    bundle = deploy.open_bundle(tmp_path / "bundle")
    assert bundle.graph().optimized
    session = bundle.session()
    assert [run.runner for run in session.explain()] == ["kernel"]
    assert session.run(None, {"x": np.array([[1, -1, 2]], np.float32)})[0].tolist() == [[8.0, 26.0]]


def test_what_can_not_be_optimised_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_convolutions(tmp_path / "model.onnx")
    with pytest.raises(ProviderError, match="NoneExecutionProvider is not in this onnxruntime"):
        deploy.bundle(model, tmp_path / "bundle", optimized="NoneExecutionProvider")
    proto = onnx.load(model)
    proto.graph.node[0].input[0] = "nothing"
    onnx.save(proto, tmp_path / "wrong.onnx")
    with pytest.raises(BundleError, match=r"can't optimise .*wrong.onnx for cpu"):
        deploy.bundle(tmp_path / "wrong.onnx", tmp_path / "bundle", optimized=True)
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "missing")
    with pytest.raises(BundleError, match="doesn't say which vector instructions"):
        deploy.bundle(model, tmp_path / "bundle", optimized=True)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["model.onnx", "wrong.onnx"]


def test_what_stays_in_a_file_of_the_original_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As small weights do with ONNX Runtime 1.20, even where the original's file has our name."""
    model = write_convolutions(tmp_path / "model.onnx")
    monkeypatch.setattr(optimizing, "weight_files", lambda path: {"model.onnx.weights"})
    with pytest.raises(BundleError, match=r"small weights .* in model.onnx.weights of the original"):
        deploy.bundle(model, tmp_path / "bundle", optimized=True)


@pytest.mark.parametrize(
    ("text", "instructions"),
    [
        (
            "processor : 0\nflags\t\t: fpu sse4_1 avx avx512f smep fma\n\nflags : avx2",
            "avx avx512f fma sse4_1",
        ),
        ("Features\t: fp asimd asimdhp i8mm bf16 sve2 sme crc32", "asimd asimdhp bf16 i8mm sme sve2"),
        ("model name : unknown", ""),
        ("", ""),
    ],
)
def test_a_processor_is_what_its_vectors_are(
    text: str, instructions: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "cpuinfo")
    assert processor.this_processor().instructions == instructions.split()


def test_an_optimised_graph_that_is_altered_is_refused(made: Path) -> None:
    alter(made / "optimized" / "model.onnx")
    with pytest.raises(BundleError, match=r"optimized/model.onnx is altered"):
        deploy.open_bundle(made)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model", "../model.onnx", "no SHA-256 of it"),
        ("model", 5, "where a text belongs"),
        ("bodies", [None], "where a text belongs"),
        ("processor", {"machine": "x86_64"}, "is no manifest"),
        ("processor", {"machine": "x86_64", "instructions": [1]}, "where a text belongs"),
        ("unknown", 1, "is no manifest"),
    ],
)
def test_a_manifest_that_says_nonsense_of_it_is_refused(made: Path, key: str, value: Any, said: str) -> None:
    edit(made, lambda manifest: manifest["optimized"].update({key: value}))
    with pytest.raises(BundleError, match=said):
        deploy.open_bundle(made)


def test_a_bundle_without_one_is_as_before(made: Path) -> None:
    shutil.rmtree(made / "optimized")
    edit(made, lambda manifest: [manifest.pop("optimized"), manifest["files"].pop("optimized/model.onnx")])
    bundle = deploy.open_bundle(made)
    assert bundle.graph() == deploy.Graph(bundle.model)
    assert bundle.session().run(None, {"x": np.ones((1, 3, 5, 7), np.float32)})


def test_the_files_of_golden_answers_are_those_of_the_original(made: Path) -> None:
    """The optimised graph is no file of the model: its integrity is the manifest's affair alone."""
    manifest = deploy.open_bundle(made).manifest
    assert manifest.files["model/model.onnx"] == parity.digest(made / "model/model.onnx")
    assert manifest.files["optimized/model.onnx"] == parity.digest(made / "optimized/model.onnx")
    assert manifest.files["optimized/model.onnx"] != manifest.files["model/model.onnx"]


def test_golden_answers_are_those_of_the_original(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)).eval()
    file, golden = tmp_path / "model.onnx", tmp_path / "golden"
    ort_ops.export.export(model, (torch.zeros(1, 3),), file, verbose=False)
    parity.record(model, file, golden)
    deploy.bundle(file, tmp_path / "bundle", golden=golden, optimized=True)
    bundle = deploy.open_bundle(tmp_path / "bundle")
    assert bundle.golden_answers().manifest.samples > 0
    edit(bundle.folder, lambda content: content.update(optimized=None))  # whose file has the same name
    with pytest.raises(BundleError, match=r"golden answers of another model\.onnx"):
        deploy.open_bundle(bundle.folder).golden_answers()


def test_a_session_of_a_bundle_runs_the_body_where_the_kernel_is_refused(tmp_path: Path) -> None:
    model = onnx.load(write_model(tmp_path / "model.onnx"))
    body = helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)
    imports = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("mylinear", "MYLINEAR", ["x", "w"], ["y"], [body], imports))
    onnx.save(model, tmp_path / "model.onnx")
    deploy.bundle(tmp_path / "model.onnx", tmp_path / "bundle")

    @ort_ops.onnx_op("mylinear::MYLINEAR")
    def refused(x: Floats, weight: Floats, *, no_such_attribute: int) -> Floats:
        return x

    session = deploy.open_bundle(tmp_path / "bundle").session([CPU])
    assert [run.runner for run in session.explain()] == ["function body"]
