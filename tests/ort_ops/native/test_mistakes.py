"""Operators on <ort_ops/op.hpp> whose authors err: each is told, and no process ends."""

from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from onnx import helper

import ort_ops

from .conftest import Session, parse, session_with

RELEASE = tuple(map(int, onnxruntime.__version__.split(".")[:2]))
NEEDS_PACKED = pytest.mark.skipif(RELEASE < (1, 23), reason="1.23 has sessions inside of kernels")


@pytest.fixture
def session(mistakes: Path) -> Session:
    return partial(session_with, mistakes)


def test_messages_have_numbers_of_8_bits_and_dimensions(session: Session) -> None:
    graph = "g (uint8[n, 3] x) => (float[m] y) { y = n.Say <early = 0> (x) }"
    with pytest.raises(Exception, match=r"Say: x is 0 and -5; expected none"):
        session(graph).run(None, {"x": np.zeros((1, 3), np.uint8)})
    with pytest.raises(Exception, match=r"Say: x is \(n, 3\); expected none"):
        session(graph.replace("= 0", "= 1"))


def test_an_output_that_is_not_allocated_is_an_error(session: Session) -> None:
    made = session("g (float[n] x) => (float[m] y, float[k] z) { y, z = n.Hasty (x) }")
    with pytest.raises(Exception, match=r"Hasty node.* output 1 was not allocated"):
        made.run(None, {"x": np.ones(2, np.float32)})
    made = session("g (float[n] x) => (float[m] y, float[k] z) { y, z = n.Spread (x) }")
    assert [len(each) for each in made.run(None, {"x": np.ones(2, np.float32)})] == [2, 2]
    with pytest.raises(Exception, match=r"Spread node.* output 0 was not allocated"):
        made.run(None, {"x": np.ones(0, np.float32)})


@pytest.mark.parametrize("outputs", [("", "y"), ("y", "")])
def test_a_node_that_leaves_out_one_of_many_outputs_is_refused(
    session: Session, outputs: tuple[str, str]
) -> None:
    model = parse("g (float[n] x) => (float[m] y) { y = n.Spread (x) }")
    model.graph.node[0].output[:] = outputs
    with pytest.raises(Exception, match=f"the node leaves output {outputs.index('')} out"):
        session(model).run(None, {"x": np.ones(2, np.float32)})


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (0, "output 0 has no room for a text; expected allocate_strings"),
        (1, "an output of a built-in operator is null; expected allocate"),
        pytest.param(2, "a tensor of a packed operator is null", marks=NEEDS_PACKED),
    ],
)
def test_what_is_written_before_there_is_room_is_an_error(session: Session, how: int, said: str) -> None:
    graph = f"g (float[n] x) => (string[m] t, float[k] y) {{ t, y = n.Early <how = {how}> (x) }}"
    with pytest.raises(Exception, match=said):
        session(graph).run(None, {"x": np.ones(2, np.float32)})


def test_what_a_shape_function_threw_is_forgotten_with_its_session(session: Session) -> None:
    graph = "g (float[n] x) => (float[m] y) { z = n.Unmade (x) y = n.Shapeless <bad = 1> (z) }"
    with pytest.raises(Exception, match="Unmade: refused"):
        session(graph)
    session("g (float[n] x) => (float[m] y) { y = n.Shapeless (x) }")


def test_structs_of_one_name_that_differ_in_more_than_types_are_refused(forms: Path) -> None:
    said = r'"Relu" of domain "test.forms" are \(x\) -> \(x\) from version 1 on and .* version 2'
    with pytest.raises(Exception, match=said):
        onnxruntime.SessionOptions().register_custom_ops_library(str(forms))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_halves_have_limits(mistakes: Path, dtype: Any) -> None:
    name, info = np.dtype(dtype).name, ml_dtypes.finfo(dtype)
    model = parse(f"g ({name}[n] x) => ({name}[m] y) {{ y = n.Limits (x) }}")
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(mistakes))
    (y,) = ort_ops.InferenceSession(model.SerializeToString(), options).run(None, {"x": np.ones(1, dtype)})
    numbers = (info.min, info.smallest_subnormal, info.tiny, info.eps, info.max, np.inf)
    assert y.astype(np.float64).tolist() == [float(each) for each in numbers]


def test_a_tensor_of_texts_is_an_attribute(session: Session) -> None:
    model = parse("g () => (string[n, m] y) { y = n.Texts () }")
    # As bytes, since onnx 1.17 takes texts for ASCII.
    tensor = helper.make_tensor("t", 8, (2, 1), [text.encode() for text in ("a", "ü" * 30)])
    model.graph.node[0].attribute.append(helper.make_attribute("texts", tensor))
    assert session(model).run(None, {})[0].tolist() == [["a"], ["ü" * 30]]


def test_more_memory_than_can_be_counted_is_an_error(session: Session) -> None:
    made = session("g (float[n] x) => (float[m] y) { y = n.Greedy (x) }")
    with pytest.raises(Exception, match="out of memory"):
        made.run(None, {"x": np.ones(2, np.float32)})


def test_compute_may_be_noexcept(session: Session) -> None:
    assert session("g () => (float y) { y = n.Sure () }").run(None, {})[0] == 1


def test_an_exception_may_say_nothing_or_nothing_that_can_be_read(session: Session) -> None:
    graph = "g (float[n] x) => (float[m] y) { y = n.Mumble <early = 0> (x) }"
    with pytest.raises(Exception, match="an exception without a text"):
        session(graph.replace("= 0", "= 1"))
    for size, said in ((1, "an exception without a text"), (2, r"Mumble: \?é\?\?\?😀\?\?$")):
        with pytest.raises(Exception, match=said):
            session(graph).run(None, {"x": np.ones(size, np.float32)})
