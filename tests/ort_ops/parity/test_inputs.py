"""The forms in which inputs may be given, and what is said of others."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from ort_ops.errors import ParityError
from ort_ops.export import export
from ort_ops.parity import Verdict, check, locate, record

from .models import uniform


class Lists(nn.Module):
    def forward(self, xs: list[Tensor]) -> Tensor:
        return xs[0] + xs[1] * 2


class Dictionaries(nn.Module):
    def forward(self, xs: dict[str, Tensor], xs_more: Tensor) -> Tensor:
        return xs["a"] + xs["b_c"] * 2 - xs_more


class Deep(nn.Module):
    def forward(self, xs: Any, y: Tensor) -> Tensor:
        return xs[0][0] + xs[1] * 2 - y


def exported(model: nn.Module, args: Any, path: Path, **options: Any) -> Path:
    export(model, args, path, verbose=False, **options)
    return path


FORMS: list[Callable[[Any], Any]] = [
    lambda x: x,
    lambda x: (x,),
    lambda x: [x, (x,)],
    lambda x: {"input": x},
    lambda x: [{"input": x}, {"input": x[::-1]}],
]


@pytest.mark.parametrize("form", FORMS)
def test_arrays_are_taken_for_tensors(form: Callable[[Any], Any], tmp_path: Path) -> None:
    model = nn.Linear(4, 2).eval()
    path = exported(model, (uniform(3, 4),), tmp_path / "model.onnx")
    array = uniform(3, 4).numpy()
    array.flags.writeable = False
    assert check(model, path, form(array)).verdict is Verdict.EQUAL
    assert locate(model, path, form(array)).node is None
    assert record(model, path, tmp_path / "golden.safetensors", form(array)).verdict is Verdict.EQUAL


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
def test_arrays_keep_their_dtype(dtype: Any, tmp_path: Path) -> None:
    array = uniform(3, 4).numpy().astype(dtype)
    model = nn.Identity().eval()
    given = uniform(3, 4).to(getattr(torch, array.dtype.name))
    path = exported(model, (given,), tmp_path / "model.onnx")
    assert check(model, path, (array,)).rows[0].verdict is Verdict.EQUAL


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.array(["a"]), r"an input is an array of <U1, which torch doesn't have"),
        (np.zeros((3, 4), ml_dtypes.float8_e4m3fn), r"an array of float8_e4m3fn, which torch doesn't have"),
        (object(), r"input 'input' is a object; expected a tensor, a NumPy array or a number"),
        (("text",), r"input 'input' is a str; expected a tensor"),
        ([uniform(3, 4), uniform(3, 4)[0:0].tolist()], r"0 inputs were given .*a list has several of these"),
    ],
)
def test_what_is_no_tensor_is_refused_in_one_line(given: Any, message: str, tmp_path: Path) -> None:
    model = nn.Linear(4, 2).eval()
    path = exported(model, (uniform(3, 4),), tmp_path / "model.onnx")
    with pytest.raises(ParityError, match=message) as caught:
        check(model, path, given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "args"),
    [
        (Lists(), ([uniform(3), uniform(1)],)),
        (Dictionaries(), ({"a": uniform(3), "b_c": uniform(1)}, uniform(3, 1))),
        (Deep(), (((uniform(3),), uniform(1)), uniform(3, 1))),
    ],
)
def test_the_files_names_reach_into_lists_and_dictionaries(
    model: nn.Module, args: Any, tmp_path: Path
) -> None:
    path = exported(model.eval(), args, tmp_path / "model.onnx")
    names = [value.name for value in onnx.load(path).graph.input]
    by_name = dict(zip(names, torch.utils._pytree.tree_leaves(args), strict=True))
    for inputs in (args, by_name, dict(reversed(by_name.items())), None):
        report = check(model, path, inputs)
        assert report.verdict is Verdict.EQUAL
        assert {row.elements for row in report.rows} <= {report.rows[0].elements}


def test_names_that_say_nothing_of_a_list_are_refused(tmp_path: Path) -> None:
    model = Lists().eval()
    args = ([uniform(3), uniform(1)],)
    path = exported(model, args, tmp_path / "model.onnx", input_names=["left", "right"])
    with pytest.raises(ParityError, match=r"forward takes xs, and the file's input 'left' is of none"):
        check(model, path, {"left": uniform(3), "right": uniform(1)})
    with pytest.raises(ParityError, match=r"the model fails on inputs made up"):
        check(model, path)
    assert check(model, path, args).verdict is Verdict.EQUAL


class Optional(nn.Module):
    """Has parameters that may be left out."""

    def forward(
        self, x: Tensor, mask: Tensor | None = None, y: Tensor | None = None, scale: float = 1.0
    ) -> Tensor:
        r = scale * x
        r = r if mask is None else r * mask
        return r if y is None else r - 2 * y


@pytest.mark.parametrize("order", ["xy", "yx"])
def test_inputs_are_those_that_the_file_names_as_parameters_of_forward(order: str) -> None:
    x, y = uniform(3, 4), uniform(4, 4)[:3]
    model = Optional().eval()
    given = {name: {"x": x, "y": y}[name] for name in order}
    program = export(model, (), kwargs=given, verbose=False)
    assert [value.name for value in program.model_proto.graph.input] == list(order)
    for inputs in (None, given, {"x": x, "y": y}, (x, None, y)):
        report = check(model, program.model_proto, inputs)
        assert report.verdict is Verdict.EQUAL
        assert bool(report.notes) == (inputs is None)


def test_a_note_says_what_made_up_inputs_leave_at_its_default() -> None:
    model = Optional().eval()
    file = export(model, (uniform(3, 4),), kwargs={"scale": 2.0}, verbose=False).model_proto
    report = check(model, file)
    assert report.verdict is Verdict.EXPORT_WRONG
    (note,) = report.notes
    assert note.endswith("left at forward's defaults: scale=1.0")
    assert check(model, file, {"x": uniform(3, 4), "scale": 2.0}).verdict is Verdict.EQUAL


class Ignoring(nn.Module):
    """Doesn't use what it is given."""

    def forward(self, x: Tensor, unused: Tensor, y: Tensor) -> Tensor:
        return x - 2 * y


@pytest.mark.parametrize("names", [["x", "unused", "y"], ["a", "b", "c"]])
def test_an_input_that_the_older_exporter_leaves_out_is_given_to_the_model_alone(names: list[str]) -> None:
    model, args = Ignoring().eval(), (uniform(3), uniform(2), uniform(4)[:3])
    file = export(model, args, dynamo=False, input_names=names, verbose=False).model_proto
    assert [value.name for value in file.graph.input] == [names[0], names[2]]
    if names[0] == "x":
        assert check(model, file, args).verdict is Verdict.EQUAL
        assert check(model, file, dict(zip(names, args, strict=True))).verdict is Verdict.EQUAL
    else:
        with pytest.raises(
            ParityError, match=r"3 inputs were given but the file takes 2: a, c; .*input_names"
        ):
            check(model, file, args)


class Positional(nn.Module):
    """Takes its arguments by their places alone."""

    def forward(self, x: Tensor, /, *others: Tensor) -> Tensor:
        return x + sum(others)


@pytest.mark.parametrize("names", [["x"], ["x", "others"]])
def test_inputs_are_made_up_for_what_takes_no_names(names: list[str]) -> None:
    model, args = Positional().eval(), tuple(uniform(3, 4) for _ in names)
    file = export(model, args, input_names=names, verbose=False).model_proto
    assert check(model, file).verdict is Verdict.EQUAL
