"""What a library says of itself in a session's options, and how long it stays."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import helper

import ort_ops
from ort_ops.errors import NoKernelError, RegistrationError
from ort_ops.libraries import open_libraries

from .conftest import built

CPU = ["CPUExecutionProvider"]
NAMES = [chr(ord("A") + number) * 200 for number in range(12)]


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory, "libmany.so")


def of_nodes(names: list[str], domain: str = "test.many") -> bytes:
    values = ["x", *(f"v{i}" for i in range(len(names) - 1)), "y"]
    nodes = [
        helper.make_node(name, [values[i]], [values[i + 1]], domain=domain) for i, name in enumerate(names)
    ]
    ends = [helper.make_tensor_value_info(name, 1, ["n"]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(domain, 1)]
    data: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return data


def test_names_beyond_an_entrys_room_are_known_all_the_same(many: Path) -> None:
    assert open_libraries([many], ["test.many"]).domains["test.many"].operators == set(NAMES)
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(many))
    (y,) = onnxruntime.InferenceSession(of_nodes(NAMES), options, CPU).run(
        None, {"x": np.zeros(2, np.float32)}
    )
    assert y.tolist() == [66, 66]
    session = ort_ops.InferenceSession.tuned(of_nodes(NAMES[:1]), CPU, libraries=[many])
    assert [run.runner for run in session.explain()] == ["library"]


def test_kernels_of_as_many_names_are_registered() -> None:
    for name in NAMES:
        ort_ops.onnx_op(f"test.many.python::{name}")(lambda x: x + np.float32(1))
    options = onnxruntime.SessionOptions()
    ort_ops.register(options, [f"test.many.python::{name}" for name in NAMES])
    session = onnxruntime.InferenceSession(of_nodes(NAMES, "test.many.python"), options, CPU)
    assert session.run(None, {"x": np.zeros(1, np.float32)})[0].tolist() == [12]


def test_a_library_that_says_what_it_has_has_nothing_else(many: Path, library: Path) -> None:
    opened = open_libraries([many, library], ["test.elsewhere"])
    assert (opened.silent, dict(opened.domains)) == ((), {})
    with pytest.raises(NoKernelError, match="no kernel is registered for it"):
        ort_ops.InferenceSession.tuned(of_nodes(["Foo"], "test.elsewhere"), CPU, libraries=[many])


def test_two_libraries_of_one_domain_are_refused(many: Path, tmp_path: Path) -> None:
    other = tmp_path / "libother.so"
    shutil.copy(many, other)
    with pytest.raises(RegistrationError, match=r"libother\.so has operators of that domain, too"):
        ort_ops.InferenceSession.tuned(of_nodes(NAMES[:1]), CPU, libraries=[many, other])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_library_stays_loaded(many: Path) -> None:
    """Else ONNX Runtime would load it anew for each session, and what is never freed would be made anew."""
    program = (
        "import gc, sys, onnxruntime\n"
        "options = onnxruntime.SessionOptions()\n"
        "options.register_custom_ops_library(sys.argv[1])\n"
        "del options\n"
        "gc.collect()\n"
        "print(sys.argv[1] in open('/proc/self/maps').read())"
    )
    command = [sys.executable, "-c", program, str(many.resolve())]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "True\n"
