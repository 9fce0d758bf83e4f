"""Bundles: what is in them, that they run by themselves, and that what is altered is refused unloaded."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import external_data_helper, helper, numpy_helper

import mylinear
import ort_ops
from ort_ops import deploy, inspection, parity
from ort_ops.errors import BundleError, ModelError
from ort_ops.model import weight_files

LIBRARY = Path(mylinear.get_library_path())
PLACED = f"libraries/{LIBRARY.name}"


def write_model(path: Path, *, weights: str = "") -> Path:
    """Write MYLINEAR of a constant weight behind a Relu; ``weights`` is a file beside it, for the weight."""
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    nodes = [
        helper.make_node("Relu", ["x"], ["h"]),
        helper.make_node("MYLINEAR", ["h", "w"], ["y"], domain="mylinear"),
    ]
    ends = [
        helper.make_tensor_value_info("x", 1, ["n", 3]),
        helper.make_tensor_value_info("y", 1, ["n", 2]),
    ]
    tensor = numpy_helper.from_array(weight, "w")
    if weights:
        path.parent.joinpath(weights).parent.mkdir(parents=True, exist_ok=True)
        path.parent.joinpath(weights).write_bytes(weight.tobytes())
        external_data_helper.set_external_data(tensor, weights, offset=0, length=weight.nbytes)
        tensor.ClearField("raw_data")
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [tensor])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("mylinear", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Return a bundle of a model with its weights beside it, and the library."""
    model = write_model(tmp_path / "model.onnx", weights="data/weights.bin")
    deploy.bundle(model, tmp_path / "bundle", libraries=[LIBRARY])
    return tmp_path / "bundle"


def test_a_bundle_is_whole_and_runs_by_itself(made: Path, tmp_path: Path) -> None:
    manifest = json.loads((made / "manifest.json").read_text())
    assert sorted(manifest["files"]) == [
        "README.md",
        PLACED,
        "model/data/weights.bin",
        "model/model.onnx",
    ]
    assert manifest["needs"] == [{"op": "mylinear::MYLINEAR", "nodes": 1, "by": PLACED}]
    assert manifest["opsets"] == {"": 17, "mylinear": 1}
    moved = tmp_path / "elsewhere"
    made.rename(moved)
    bundle = deploy.open_bundle(moved)
    session = bundle.session(["CPUExecutionProvider"])
    assert [(run.runner, run.kernel) for run in session.explain()] == [("library", str(moved / PLACED))]
    assert session.run(None, {"x": np.array([[1, -1, 2]], np.float32)})[0].tolist() == [[4.0, 13.0]]


def test_the_readme_names_what_is_there_in_every_language(made: Path) -> None:
    text = (made / "README.md").read_text()
    for language in ("Python", "C", "C++", "C#", "Java", "Rust (ort)"):
        section = text.partition(f"## {language}\n")[2].partition("\n## ")[0]
        assert PLACED in section
        assert "model/model.onnx" in section
    code = text.partition("```python\n")[2].partition("```")[0]
    done = subprocess.run([sys.executable, "-c", code], cwd=made, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_a_function_body_runs_says_so(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.onnx")
    proto = onnx.load(model)
    body = helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)
    imports = [helper.make_opsetid("", 17)]
    proto.functions.append(helper.make_function("mylinear", "MYLINEAR", ["x", "w"], ["y"], [body], imports))
    onnx.save(proto, model)
    manifest = deploy.bundle(model, tmp_path / "b")
    assert manifest.needs[0].by == "function body"
    assert deploy.open_bundle(tmp_path / "b").session().run(None, {"x": np.ones((1, 3), np.float32)})


def test_a_model_in_orts_own_format_is_refused(tmp_path: Path) -> None:
    """What is in it isn't known: no needs, no inputs, no weights."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.optimized_model_filepath = str(tmp_path / "model.ort")
    options.register_custom_ops_library(str(LIBRARY))
    onnxruntime.InferenceSession(write_model(tmp_path / "model.onnx"), options)
    with pytest.raises(ModelError, match=r"model\.ort is in ORT's own format"):
        deploy.bundle(tmp_path / "model.ort", tmp_path / "bundle", libraries=[LIBRARY])
    with pytest.raises(ModelError, match="is in ORT's own format"):
        inspection.inspect_model(tmp_path / "model.ort")


def alter(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def link(path: Path) -> None:
    kept = path.with_name(path.name + ".kept")
    path.rename(kept)
    path.symlink_to(kept)


def link_folder(path: Path) -> None:
    kept = path.parent.with_name(path.parent.name + ".kept")
    path.parent.rename(kept)
    path.parent.symlink_to(kept)


@pytest.mark.parametrize("name", ["model/model.onnx", "model/data/weights.bin", PLACED, "README.md"])
@pytest.mark.parametrize(
    ("change", "said"), [(alter, "is altered"), (Path.unlink, "is missing"), (link, "is a link")]
)
def test_a_file_that_is_altered_missing_or_a_link_is_refused(
    made: Path, name: str, change: Callable[[Path], None], said: str
) -> None:
    deploy.open_bundle(made)
    change(made / name)
    with pytest.raises(BundleError, match=rf"{Path(name).name} {said}"):
        deploy.open_bundle(made)


def test_a_folder_that_is_a_link_is_refused(made: Path) -> None:
    link_folder(made / PLACED)
    with pytest.raises(BundleError, match="is a link"):
        deploy.open_bundle(made)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model", "../model.onnx", "no SHA-256 of it"),
        ("libraries", ["libraries/other.so"], "no SHA-256 of it"),
        ("files", {"../outside.so": "0" * 64}, "no plain path inside"),
        ("files", {"/tmp/outside.so": "0" * 64}, "no plain path inside"),
        ("files", {"libraries/../../outside.so": "0" * 64}, "no plain path inside"),
        ("files", {"C:\\outside.dll": "0" * 64}, "no plain path inside"),
        ("files", {"": "0" * 64}, "no plain path inside"),
        ("files", {}, "no SHA-256 of it"),
        ("files", {"model/model.onnx": 5}, "where a text belongs"),
        ("format", 2, "is of format 2"),
        ("needs", [{"op": "x"}], "is no manifest"),
        ("unknown", 1, "is no manifest"),
    ],
)
def test_a_manifest_that_is_none_or_leads_outside_is_refused(
    made: Path, key: str, value: Any, said: str
) -> None:
    manifest = json.loads((made / "manifest.json").read_text())
    manifest[key] = value
    (made / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=said):
        deploy.open_bundle(made)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("needs", [{"op": ["x"], "nodes": 1, "by": "function body"}]),
        ("needs", [{"op": "x", "nodes": "1", "by": "function body"}]),
        ("opsets", 17),
        ("ir_version", "8"),
        ("versions", None),
        ("libraries", {PLACED: 1}),
    ],
)
def test_a_manifest_with_other_types_than_it_should_have_is_refused(made: Path, key: str, value: Any) -> None:
    manifest = json.loads((made / "manifest.json").read_text())
    (made / "manifest.json").write_text(json.dumps(manifest | {key: value}))
    with pytest.raises(BundleError, match="is no manifest"):
        deploy.open_bundle(made)


def test_a_manifest_that_is_a_link_or_a_pipe_is_refused(made: Path) -> None:
    deploy.open_bundle(made)
    link(made / "manifest.json")
    with pytest.raises(BundleError, match="is a link, or no file"):
        deploy.open_bundle(made)
    (made / "manifest.json").unlink()
    os.mkfifo(made / "manifest.json")  # reading it would wait for ever
    with pytest.raises(BundleError, match="is a link, or no file"):
        deploy.open_bundle(made)


@pytest.mark.parametrize("weights", ["new.bin", "../../outside.bin", "data/../../../outside.bin", "/outside"])
def test_weights_that_the_manifest_does_not_name_are_refused(made: Path, weights: str) -> None:
    """A file that nobody hashed would change what the model computes."""
    (made / "model" / "new.bin").write_bytes(bytes(24))
    proto = onnx.load(made / "model" / "model.onnx", load_external_data=False)
    proto.graph.initializer[0].external_data[0].value = weights
    (made / "model" / "model.onnx").write_bytes(proto.SerializeToString())
    manifest = json.loads((made / "manifest.json").read_text())
    manifest["files"]["model/model.onnx"] = parity.digest(made / "model" / "model.onnx")
    (made / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(
        BundleError, match=f"has weights in '{weights}', of which the manifest has no SHA-256"
    ):
        deploy.open_bundle(made)


def varint(number: int) -> bytes:
    made = b""
    while number >= 0x80:
        made, number = made + bytes([number & 0x7F | 0x80]), number >> 7
    return made + bytes([number])


@pytest.mark.parametrize("bit", [32, 33, 34])
def test_weights_under_a_key_of_more_bits_are_seen(bit: int, tmp_path: Path) -> None:
    """ONNX Runtime reads 32 bits of a field's key: the others hide none from it."""
    write_model(tmp_path / "model.onnx", weights="w.bin")
    content, plain = (tmp_path / "model.onnx").read_bytes(), varint(13 << 3 | 2)
    entry = onnx.load(tmp_path / "model.onnx", load_external_data=False).graph.initializer[0].external_data[0]
    field = plain + varint(entry.ByteSize()) + entry.SerializeToString()
    tensor = onnx.load(tmp_path / "model.onnx", load_external_data=False).graph.initializer[0]
    raw = tensor.SerializeToString()
    assert field in raw
    assert raw in content
    hidden = raw.replace(field, varint((13 << 3 | 2) | 1 << bit) + field[len(plain) :])
    grown = len(hidden) - len(raw)
    graph = onnx.load(tmp_path / "model.onnx", load_external_data=False).graph.SerializeToString()
    changed = graph.replace(varint(len(raw)) + raw, varint(len(hidden)) + hidden)
    assert len(changed) >= len(graph) + grown
    altered = content.replace(varint(len(graph)) + graph, varint(len(changed)) + changed)
    (tmp_path / "hidden.onnx").write_bytes(altered)
    assert "w.bin" in weight_files(tmp_path / "hidden.onnx")


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "\udcff"])
def test_what_is_no_manifest_is_refused(made: Path, text: str) -> None:
    (made / "manifest.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(BundleError):
        deploy.open_bundle(made)
    (made / "manifest.json").unlink()
    with pytest.raises(BundleError, match=r"is no bundle: manifest.json is missing"):
        deploy.open_bundle(made)


def test_nothing_of_an_altered_bundle_is_loaded(made: Path) -> None:
    """A library that would write a file when it is loaded doesn't, in a process of its own."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("a C compiler is missing")
    trace, source = made.parent / "loaded", made.parent / "evil.c"
    source.write_text(
        "#include <stdio.h>\n__attribute__((constructor)) static void loaded(void)"
        f' {{ fclose(fopen("{trace}", "w")); }}\n'
    )
    subprocess.run([compiler, "-shared", "-fPIC", source, "-o", made / PLACED], check=True)
    program = (
        "import sys\nfrom ort_ops import deploy\nbundle = deploy.open_bundle(sys.argv[1])\nbundle.session()"
    )
    done = subprocess.run([sys.executable, "-c", program, made], capture_output=True, text=True)
    assert "is altered" in done.stderr
    assert not trace.exists()
    manifest = json.loads((made / "manifest.json").read_text())
    manifest["files"][PLACED] = parity.digest(made / PLACED)
    (made / "manifest.json").write_text(json.dumps(manifest))
    subprocess.run([sys.executable, "-c", program, made], capture_output=True)
    assert trace.exists()  # so loading it would have been seen


def test_what_can_not_be_bundled_is_an_error(tmp_path: Path) -> None:
    model = write_model(tmp_path / "inner" / "model.onnx") if (tmp_path / "inner").mkdir() is None else None
    assert model is not None
    outside = write_model(tmp_path / "inner" / "outside.onnx", weights="../weights.bin")
    with pytest.raises(BundleError, match="outside of its own folder"):
        deploy.bundle(outside, tmp_path / "bundle")
    with pytest.raises(BundleError, match="two libraries are of one name"):
        deploy.bundle(model, tmp_path / "bundle", libraries=[LIBRARY, LIBRARY])
    with pytest.raises(FileNotFoundError):
        deploy.bundle(model, tmp_path / "bundle", libraries=[tmp_path / "missing.so"])
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(ModelError):
        deploy.bundle(tmp_path / "text.onnx", tmp_path / "bundle")
    with pytest.raises(BundleError, match=r"no plain path"):
        deploy.bundle(write_model(tmp_path / "a\\b.onnx"), tmp_path / "bundle", libraries=[LIBRARY])
    assert not (tmp_path / "bundle").exists()
    deploy.bundle(model, tmp_path / "bundle", libraries=[LIBRARY])
    with pytest.raises(BundleError, match="is there already"):
        deploy.bundle(model, tmp_path / "bundle", libraries=[LIBRARY])


def test_kernels_that_cannot_run_a_node_are_none(tmp_path: Path) -> None:
    def kernel(x: np.float32) -> Any:
        return x

    ort_ops.onnx_op("tests.bundled::Op")(kernel)
    path = tmp_path / "model.onnx"
    for kind, attributes, said in (
        (6, {}, r"can't take \(int32\)"),
        (1, {"alpha": 1.0}, "has the attribute 'alpha'"),
        (1, {}, ""),
    ):
        ends = [helper.make_tensor_value_info(name, kind, ["n"]) for name in "xy"]
        node = helper.make_node("Op", ["x"], ["y"], domain="tests.bundled", **attributes)
        imports = [helper.make_opsetid("", 17), helper.make_opsetid("tests.bundled", 1)]
        graph = helper.make_graph([node], "g", ends[:1], ends[1:])
        path.write_bytes(helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString())
        if said:
            with pytest.raises(BundleError, match=f"nobody runs tests.bundled::Op .*{said}"):
                deploy.bundle(path, tmp_path / "bundle")
        else:
            assert deploy.bundle(path, tmp_path / "bundle").needs[0].by == "Python kernel"


def test_folders_and_libraries_may_be_named_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_model(tmp_path / 'm".onnx')
    shutil.copy(LIBRARY, tmp_path / "libhere.so")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "bundle")
    deploy.bundle(model, "link", libraries=["libhere.so"])
    bundle = deploy.open_bundle("bundle")
    assert [path.name for path in bundle.libraries] == ["libhere.so"]
    assert 'InferenceSession("model/m\\".onnx"' in (bundle.folder / "README.md").read_text()
    with pytest.raises(BundleError, match="inside of the bundle"):
        deploy.write_triton(bundle, "bundle")
    with pytest.raises(BundleError, match="no name of a folder"):
        deploy.write_triton(bundle, "models", name="../x")


def test_a_bundle_where_safetensors_is_missing_names_the_extra(made: Path) -> None:
    program = (
        "import sys\nsys.modules['safetensors'] = None\nfrom ort_ops import deploy\n"
        "deploy.open_bundle(sys.argv[1])"
    )
    done = subprocess.run([sys.executable, "-c", program, made], capture_output=True, text=True)
    assert "bundles, need safetensors: pip install 'ort-ops[cli]'" in done.stderr


def test_a_bundle_without_answers_says_so(made: Path) -> None:
    with pytest.raises(BundleError, match="has no golden answers"):
        deploy.open_bundle(made).replay()


@pytest.mark.parametrize(
    "content", ['{"format": 1, "files": []}', "[" * 100_000, '{"format": 1, "files": {"a": 1}}']
)
def test_a_manifest_of_another_form_is_no_crash(content: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(BundleError, match="is no manifest of a bundle"):
        deploy.open_bundle(tmp_path)


def test_a_library_that_does_not_load_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.so").write_bytes(b"no library")
    with pytest.raises(BundleError, match=r"broken.so is no library of custom operators that loads here"):
        deploy.bundle(
            write_model(tmp_path / "model.onnx"), tmp_path / "out", libraries=[tmp_path / "broken.so"]
        )


def test_a_bundle_stays_the_one_that_was_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the program goes, and whatever is there by that name."""
    model = write_model(tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    deploy.bundle(model, tmp_path / "bundle", libraries=[mylinear.get_library_path()])
    opened = deploy.open_bundle("bundle")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert opened.model == tmp_path / "bundle" / "model" / "model.onnx"
    opened.session()
