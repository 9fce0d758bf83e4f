"""Model repositories for Triton, by Triton's own schema of their configuration."""

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest
from onnx import helper

from ort_ops import deploy
from ort_ops.errors import BundleError

from .test_bundle import LIBRARY, write_model


def parsed(folder: Path) -> Any:
    """Return config.pbtxt as a ModelConfig of the schema that tritonclient ships, loaded without gRPC."""
    text_format = pytest.importorskip("google.protobuf.text_format")
    package = importlib.util.find_spec("tritonclient")
    if package is None or package.submodule_search_locations is None:
        pytest.skip("tritonclient is missing")
    path = Path(package.submodule_search_locations[0], "grpc", "model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    schema = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(schema)
    return text_format.Parse((folder / "config.pbtxt").read_text(), schema.ModelConfig())


@pytest.fixture
def bundle(tmp_path: Path) -> deploy.Bundle:
    model = write_model(tmp_path / 'a "model".onnx', weights="data/weights.bin")
    deploy.bundle(model, tmp_path / "bundle", libraries=[LIBRARY])
    return deploy.open_bundle(tmp_path / "bundle")


def test_a_repository_says_what_triton_needs(bundle: deploy.Bundle, tmp_path: Path) -> None:
    folder = deploy.write_triton(bundle, tmp_path / "models", max_batch=8, batches=[4, 8], delay_us=100)
    config = parsed(folder)
    assert (config.name, config.backend, config.max_batch_size) == ('a "model"', "onnxruntime", 8)
    assert config.default_model_filename == 'a "model".onnx'
    (x,), (y,) = config.input, config.output
    schema = type(x).DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_name
    assert (x.name, x.data_type, list(x.dims)) == ("x", schema["TYPE_FP32"].number, [3])
    assert (y.name, list(y.dims)) == ("y", [2])
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 8]
    assert config.dynamic_batching.max_queue_delay_microseconds == 100
    (library,) = config.model_operations.op_library_filename
    assert Path(library).read_bytes() == LIBRARY.read_bytes()
    assert (folder / "1" / config.default_model_filename).is_file()
    assert (folder / "1" / "data" / "weights.bin").is_file()


def test_a_repository_is_there_whole_or_not_at_all(
    bundle: deploy.Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, to: Path) -> None:
        to.write_bytes(b"a part")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", full)
        with pytest.raises(OSError, match="No space left"):
            deploy.write_triton(bundle, tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []
    deploy.write_triton(bundle, tmp_path / "models")


def test_a_repository_may_be_for_another_path_and_gpus(bundle: deploy.Bundle, tmp_path: Path) -> None:
    folder = deploy.write_triton(
        bundle, tmp_path / "models", name="linear", root="/models/", instances=2, gpu=True
    )
    config = parsed(folder)
    assert list(config.input[0].dims) == [-1, 3]
    assert config.model_operations.op_library_filename[0] == f"/models/linear/libraries/{LIBRARY.name}"
    assert config.instance_group[0].count == 2
    assert config.instance_group[0].kind == type(config.instance_group[0]).KIND_GPU
    assert not config.HasField("dynamic_batching")
    with pytest.raises(BundleError, match="is there already"):
        deploy.write_triton(bundle, tmp_path / "models", name="linear")


@pytest.mark.parametrize(
    ("kind", "shape", "max_batch", "said"),
    [
        (1, None, 0, "has no rank"),
        (1, [2, 3], 4, "expected a first dimension that is free, to batch"),
        (1, [], 4, "expected a first dimension that is free, to batch"),
        (17, ["n"], 0, "for which Triton has no type"),
    ],
)
def test_what_triton_can_not_serve_is_an_error(
    kind: int, shape: Any, max_batch: int, said: str, tmp_path: Path
) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    ends = [helper.make_tensor_value_info(name, kind, shape) for name in "xy"]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    deploy.bundle(tmp_path / "model.onnx", tmp_path / "bundle")
    with pytest.raises(BundleError, match=said):
        deploy.write_triton(deploy.open_bundle(tmp_path / "bundle"), tmp_path / "models", max_batch=max_batch)
    assert not (tmp_path / "models").exists()


def test_tensors_without_further_dimensions_are_reshaped(tmp_path: Path) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    ends = [helper.make_tensor_value_info(name, 1, ["n"]) for name in "xy"]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    deploy.bundle(tmp_path / "model.onnx", tmp_path / "bundle")
    folder = deploy.write_triton(deploy.open_bundle(tmp_path / "bundle"), tmp_path / "models", max_batch=4)
    (x,) = parsed(folder).input
    assert (list(x.dims), x.HasField("reshape"), list(x.reshape.shape)) == ([1], True, [])


def test_what_the_manifest_does_not_name_is_left_out(bundle: deploy.Bundle, tmp_path: Path) -> None:
    (bundle.model.parent / "secret").write_text("not checked")
    (bundle.model.parent / "link").symlink_to(tmp_path)
    folder = deploy.write_triton(bundle, tmp_path / "models")
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    model = "1/" + bundle.model.name
    assert found == sorted(["1/data/weights.bin", model, "config.pbtxt", f"libraries/{LIBRARY.name}"])
