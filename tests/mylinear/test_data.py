import sys

import numpy as np
import pytest
import torch

from mylinear import MyLinear
from mylinear.data import Digits, Line, TableTask
from mylinear.errors import DataError
from mylinear.sampling import minibatch, split
from mylinear.table import Table, read_table


def table(rows=40, features=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, features)) * 10.0 ** np.arange(features) + 100
    return Table(tuple(f"f{i}" for i in range(features)), "y", x, x.sum(1, keepdims=True) * 2 + 7)


def tasks():
    return [Line(), Digits(), TableTask(table())]


@pytest.mark.parametrize("task", tasks(), ids=lambda task: task.name)
def test_batch_is_a_pure_function_of_step_and_seed(task):
    forward = [task.batch(step, 3) for step in range(50)]
    for step in reversed(range(50)):  # in another order, and by another object
        again = type(task)(*([task.table] if task.name == "csv" else [])).batch(step, 3)
        assert all(torch.equal(got, expected) for got, expected in zip(again, forward[step], strict=True))
    assert not torch.equal(task.batch(0, 3)[0], task.batch(0, 4)[0])
    assert not torch.equal(task.batch(0, 3)[0], task.batch(1, 3)[0])


@pytest.mark.parametrize("task", tasks(), ids=lambda task: task.name)
def test_a_model_takes_a_batch_and_the_loss_is_a_scalar(task):
    x, target = task.batch(0)
    y = task.make_model()(x)
    assert x.dtype == y.dtype == task.dtype
    assert task.loss(y, target).shape == ()
    if task.name != "digits":
        assert y.shape == target.shape  # nothing is left to broadcasting


def test_line_is_the_recipe():
    task = Line()
    model = task.make_model()
    assert isinstance(model, MyLinear)
    assert [tuple(p.shape) for p in model.parameters()] == [(1, 2), (1,)]
    assert (task.dtype, task.steps) == (torch.float64, 300)
    assert (task.sgd.lr, task.sgd.momentum, task.sgd.weight_decay) == (0.01, 0.9, 5e-4)
    x = torch.cat([task.batch(step)[0] for step in range(300)])
    assert x.shape == (300, 2)
    assert ((x >= 0) & (x < 1)).all()
    assert len(torch.unique(x)) == 600  # every x is a fresh one
    (first, second), target = task.batch(7)[0][0], task.batch(7)[1]
    torch.testing.assert_close(target, (2 * first + 3 * second + 4).reshape(1, 1))


@pytest.mark.parametrize(("rows", "size"), [(64, 16), (37, 8), (5, 64), (1, 1)])
def test_every_row_comes_once_an_epoch(rows, size):
    batches = -(-rows // size)
    for epoch in range(3):
        steps = range(epoch * batches, (epoch + 1) * batches)
        seen = np.concatenate([minibatch(rows, size, 0, step) for step in steps])
        assert sorted(seen) == list(range(rows))


@pytest.mark.parametrize("rows", [10, 11, 1797])
def test_split_holds_out_a_fifth_and_loses_nothing(rows):
    train, held_out = split(rows)
    assert len(held_out) == rows // 5
    assert sorted([*train, *held_out]) == list(range(rows))


def test_digits_are_the_1797_images_scaled_to_0_and_1():
    parts = Digits()._parts
    assert sum(len(x) for x, _ in parts) == 1797
    assert all((x.min(), x.max()) == (0, 1) for x, _ in parts)
    assert all(sorted(set(target.tolist())) == list(range(10)) for _, target in parts)


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"pip install 'ort-ops\[report\]'"):
        Digits().batch(0)


def solved(task):
    """A model with the least-squares answer in standardised columns."""
    x, y = task._train
    answer = np.linalg.lstsq(np.c_[x.numpy(), np.ones(len(x))], y.numpy(), rcond=None)[0]
    model = task.make_model()
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(answer[:-1].T))
        model.bias.copy_(torch.from_numpy(answer[-1]))
    return model


def test_finish_folds_the_standardisation_into_weight_and_bias():
    task = TableTask(table())
    model = solved(task)
    task.finish(model)
    torch.testing.assert_close(model.weight, torch.full((1, 3), 2.0, dtype=torch.float64))
    torch.testing.assert_close(model.bias, torch.tensor([7.0], dtype=torch.float64), rtol=1e-8, atol=1e-8)
    found = task.evaluate(model)
    assert found.metrics["r2"] == pytest.approx(1)
    assert found.metrics["rmse"] == pytest.approx(0, abs=1e-8)
    assert "'y'" in found.lines[0]


def test_evaluation_is_that_of_scikit_learn():
    from sklearn.metrics import r2_score, root_mean_squared_error

    task = TableTask(table())
    model = task.make_model()
    held_out = task._rows[1]
    y = task.table.y[held_out]
    guess = model(torch.from_numpy(task.table.x[held_out])).detach().numpy()
    metrics = task.evaluate(model).metrics
    assert metrics["r2"] == pytest.approx(r2_score(y, guess))
    assert metrics["rmse"] == pytest.approx(root_mean_squared_error(y, guess))


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_constant_columns_divide_by_nothing(value):
    good = table()
    x = good.x.copy()
    x[:, 1] = value
    for y in (good.y, np.full_like(good.y, value)):
        task = TableTask(Table(good.features, good.target, x, y))
        model = solved(task)
        task.finish(model)
        assert all(parameter.isfinite().all() for parameter in model.parameters())
        metrics = task.evaluate(model).metrics
        assert np.isfinite(metrics["rmse"])
        assert ("r2" in metrics) == (y is good.y)  # R² of a constant target is undefined


def test_identity_differs_for_another_table_or_target():
    first, second = table(seed=0), table(seed=1)
    renamed = Table(("a", *first.features[1:]), first.target, first.x, first.y)
    assert len({TableTask(each).identity for each in (first, second, renamed)}) == 3
    assert TableTask(first).identity == TableTask(table(seed=0)).identity


ROWS = "\n".join(f"{i},{i * i},{3 * i + 1}" for i in range(12))


def test_read_table(tmp_path):
    # What a spreadsheet writes: a byte order mark, spaces after commas, CRLF, a blank line at the end.
    text = "\ufeffa, b ,y\n" + ROWS.replace(",", ", ") + "\n\n"
    path = tmp_path / "t.csv"
    path.write_bytes(text.replace("\n", "\r\n").encode())
    got = read_table(path, "b")
    assert (got.features, got.target) == (("a", "y"), "b")
    np.testing.assert_array_equal(got.x, [[i, 3 * i + 1] for i in range(12)])
    np.testing.assert_array_equal(got.y, [[i * i] for i in range(12)])
    assert isinstance(TableTask.from_csv(path, "b"), TableTask)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty; expected a header row"),
        ("a,b,y\n", "0 rows of data; expected 10 or more"),
        ("a,b,y\n" + "\n".join(ROWS.split("\n")[:9]), "9 rows of data; expected 10 or more"),
        (ROWS, "row 1 is all numbers; expected a header row"),
        ("a,b,c\n" + ROWS, "no column 'y'; expected one of 'a', 'b', 'c'"),
        ("a,a,y\n" + ROWS, "2 columns are named 'a'; expected distinct names"),
        ("y\n" + "1\n" * 12, "no column besides 'y'; expected at least one feature"),
        ("a,b,y\n" + ROWS + "\n1,,2", "row 14, column 'b': missing; expected a number"),
        ("a,b,y\n" + ROWS + "\n1,red,2", "row 14, column 'b': 'red'; expected a number"),
        ("a,b,y\n" + ROWS + "\n2024_01,2,3", "row 14, column 'a': '2024_01'; expected a number"),
        ("a,b,y\n" + ROWS + "\n1,2,nan", "row 14, column 'y': 'nan'; expected a finite number"),
        ("a,b,y\n" + ROWS + "\n-inf,2,3", "row 14, column 'a': '-inf'; expected a finite number"),
        ("a,b,y\n" + ROWS + "\n1e200,2,3", "row 14, column 'a': '1e200'; expected a finite number"),
        ("a,b,y\n" + ROWS + "\n1,2", "row 14 has 2 cells; expected 3"),
        ("a,b,y\n" + ROWS + "\n1,2,3,4", "row 14 has 4 cells; expected 3"),
        ('a,b,y\n"1', "unexpected end of data; expected a readable CSV file in UTF-8"),
    ],
)
def test_tables_that_cannot_be_trained_on_are_refused(text, message, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_table(path, "y")
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")


def test_files_that_cannot_be_read_are_refused(tmp_path):
    (tmp_path / "latin.csv").write_bytes("größe,y\n1,2\n".encode("latin-1"))
    for name in ("missing.csv", "latin.csv", "."):
        with pytest.raises(DataError, match="expected a readable CSV file in UTF-8"):
            read_table(tmp_path / name, "y")
