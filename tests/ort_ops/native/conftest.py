"""Libraries of operators on <ort_ops/op.hpp>, and sessions with them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
from onnx.parser import parse_model

from .build import build, shared_folder

HERE = Path(__file__).parent
Session = Callable[..., onnxruntime.InferenceSession]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory, "liboperators.so")


@pytest.fixture(scope="session")
def mistakes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory, "libmistakes.so")


@pytest.fixture(scope="session")
def forms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory, "libforms.so")


def built(factory: pytest.TempPathFactory, name: str) -> Path:
    with shared_folder(factory, "operators") as folder:
        return folder / name if (folder / name).exists() else build(HERE, folder) / name


@pytest.fixture
def session(library: Path) -> Session:
    return partial(session_with, library)


def session_with(library: Path, graph: str | onnx.ModelProto, **options: Any) -> onnxruntime.InferenceSession:
    model = parse(graph) if isinstance(graph, str) else graph
    session_options = onnxruntime.SessionOptions()
    session_options.log_severity_level = 3
    session_options.register_custom_ops_library(str(library))
    return onnxruntime.InferenceSession(model.SerializeToString(), session_options, **options)


def parse(graph: str) -> onnx.ModelProto:
    head = '<ir_version: 8, opset_import: ["": 17, "test.native": 1, "test.other": 2]>'
    return parse_model(f"{head} {graph.replace('n.', 'test.native.')}")
