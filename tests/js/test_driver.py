import numpy as np
import pytest
import torch

import mylinear
from tests.js import __main__ as driver
from tests.js.cases import Case, encode
from tests.js.judge import judge


@pytest.fixture
def cases():
    """An ordinary, an odd and an empty batch of one small model."""
    model = mylinear.MyLinear(5, 3)
    made = []
    for batch in (8, 7, 0):
        x = torch.randn(batch, 5, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            expected = model(x).numpy()
        made.append(Case(f"batch {batch}", "", model, x.numpy(), expected, np.zeros(batch, np.int64)))
    return made


@pytest.fixture
def answers(cases):
    return {case.id: encode(case.expected) for case in cases}


def found(answers):
    return {"a build": {"versions": {"a": "1"}, "host": "here", "answers": answers}}


def test_right_answers_pass(cases, answers, capsys):
    assert judge(cases, answers).failures == ()
    assert driver.tell(cases, found(answers)) == 0
    assert (
        "float32: 45 elements, 0.0e+00 from PyTorch at most, 0 ULP, 0 of what is allowed"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("wrong", "failure"),
    [
        (lambda y: {"error": "out of memory"}, "batch 7: out of memory"),
        (lambda y: encode(y * np.float32(1.001)), "of 21 elements differ by more than allowed"),
        (lambda y: encode(np.where(y == y[2, 1], np.float32(np.nan), y)), "1 of 21 elements differ"),
        (lambda y: encode(y.astype(np.float64)), "batch 7: another dtype or shape"),
        (lambda y: encode(y[:-1]), "batch 7: another dtype or shape"),
        (lambda y: encode(y.T), "batch 7: another dtype or shape"),
    ],
)
def test_a_wrong_answer_fails(cases, answers, capsys, wrong, failure):
    answers["batch 7"] = wrong(cases[1].expected)
    assert driver.tell(cases, found(answers)) == 1
    assert failure in capsys.readouterr().out


def test_a_missing_answer_fails(cases, answers):
    del answers["batch 0"]
    assert judge(cases, answers).failures == ("batch 0: no answer",)


def test_nothing_compared_fails(cases, answers):
    assert judge([], {}).failures == ("nothing was compared",)
    assert judge(cases[2:], answers).failures == ("nothing was compared",)


def test_what_is_missing_is_named_and_nothing_left_out(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setattr(driver, "HOME", tmp_path)
    assert driver.main() == 3
    said = capsys.readouterr().err
    for part in ("Node.js is missing", "onnxruntime-node is missing", "onnxruntime-web is missing"):
        assert part in said
    assert "Chromium is missing: apt-get install chromium" in said
