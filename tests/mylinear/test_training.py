import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from mylinear.data import Digits, Line, TableTask
from mylinear.errors import CheckpointError, DataError
from mylinear.table import Table
from mylinear.training import train


def table_task():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(203, 3)) * [1, 50, 0.01] + [5, -100, 0]
    y = x @ [[3.0], [-0.5], [200.0]] + 12 + rng.normal(size=(203, 1)) * 0.1
    return TableTask(Table(("a", "b", "c"), "y", x, y))


TASKS = [Line(), Digits(), table_task()]
each_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)


def bits(result):
    return [result.losses.tobytes(), *(p.detach().cpu().numpy().tobytes() for p in result.model.parameters())]


def test_line_comes_within_a_tenth():
    for seed in range(5):
        result = train(Line(), seed=seed)
        assert result.metrics["weight_error"] < 0.1
        assert result.metrics["bias_error"] < 0.1
        weight, bias = (parameter.detach().cpu() for parameter in result.model.parameters())
        assert (weight - torch.tensor([[2.0, 3.0]])).abs().max() < 0.1
        assert abs(bias.item() - 4) < 0.1
    assert not np.allclose(train(Line(), steps=0).model.bias.item(), 4, atol=0.1)  # it was the training


def test_digits_are_read_better_than_95_percent():
    result = train(Digits())
    assert result.metrics["accuracy"] > 0.95
    assert train(Digits(), steps=0).metrics["accuracy"] < 0.3


def test_a_table_is_fitted_as_well_as_least_squares_fits_it():
    task = table_task()
    result = train(task)
    assert result.metrics["r2"] > 0.999
    assert result.metrics["rmse"] < 0.12  # the noise in the table is 0.1
    weight, bias = (parameter.detach().cpu().numpy() for parameter in result.model.parameters())
    np.testing.assert_allclose(weight, [[3.0, -0.5, 200.0]], rtol=0.02)
    np.testing.assert_allclose(bias, 12, rtol=0.02)


def test_many_correlated_columns_do_not_diverge():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 1)) + 0.01 * rng.normal(size=(100, 300))
    task = TableTask(Table(tuple(map(str, range(300))), "y", x, x.sum(1, keepdims=True)))
    assert train(task, steps=300).metrics["r2"] > 0.9


@each_task
def test_two_runs_are_equal_to_the_bit_and_another_seed_is_not(task):
    first, second, other = (train(task, steps=60, seed=seed, device="cpu") for seed in (1, 1, 2))
    assert bits(first) == bits(second)
    assert bits(first) != bits(other)


def test_the_callers_generator_is_left_as_it_was():
    torch.manual_seed(11)
    before = torch.get_rng_state()
    train(Digits(), steps=3)
    assert torch.equal(torch.get_rng_state(), before)


class PlannedInterruptionError(Exception):
    pass


def interrupt_at(wanted):
    def on_step(step, steps, loss):
        if step == wanted:
            raise PlannedInterruptionError

    return on_step


@each_task
@pytest.mark.parametrize("step", [1, 10, 47, 60])  # an epoch of digits is 45 steps, of the table 3
def test_a_resumed_run_ends_with_the_same_bits(task, step, tmp_path):
    path = tmp_path / "run.safetensors"
    whole = train(task, steps=60, seed=5, device="cpu")
    with pytest.raises(PlannedInterruptionError):
        train(
            task,
            steps=60,
            seed=5,
            device="cpu",
            checkpoint=path,
            checkpoint_every=1,
            on_step=interrupt_at(step),
        )
    resumed = train(task, steps=60, seed=5, device="cpu", checkpoint=path, resume=True)
    assert resumed.resumed_at == step
    assert bits(resumed) == bits(whole)
    assert resumed.metrics == whole.metrics


def test_a_run_is_resumed_from_its_last_checkpoint_and_can_be_made_longer(tmp_path):
    path = tmp_path / "run.safetensors"
    with pytest.raises(PlannedInterruptionError):
        train(Line(), device="cpu", checkpoint=path, checkpoint_every=20, on_step=interrupt_at(59))
    resumed = train(Line(), device="cpu", resume=path)  # from a path, and writing no checkpoint
    assert resumed.resumed_at == 40
    train(Line(), steps=100, device="cpu", checkpoint=path)
    longer = train(Line(), device="cpu", resume=path)
    assert bits(longer) == bits(resumed) == bits(train(Line(), device="cpu"))


def test_momentum_is_part_of_what_is_resumed(tmp_path, monkeypatch):
    # A planted fault: a resume that forgets the momentum has to be seen by the comparison of bits.
    path = tmp_path / "run.safetensors"
    train(Line(), steps=20, device="cpu", checkpoint=path)
    load = train.__globals__["checkpoints"].load

    def forgetful(path, run, model, optimizer):
        losses = load(path, run, model, optimizer)
        optimizer.state.clear()
        return losses

    monkeypatch.setattr(train.__globals__["checkpoints"], "load", forgetful)
    resumed = train(Line(), steps=40, device="cpu", resume=path)
    assert bits(resumed) != bits(train(Line(), steps=40, device="cpu"))


def test_a_checkpoint_that_does_not_belong_to_the_run_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    train(Line(), steps=20, checkpoint=path)
    with pytest.raises(CheckpointError, match="seed is 0; expected 1"):
        train(Line(), steps=30, seed=1, resume=path)
    with pytest.raises(CheckpointError, match="task is line; expected digits"):
        train(Digits(), steps=30, resume=path)
    with pytest.raises(CheckpointError, match="at step 20 but the run is to end at 10"):
        train(Line(), steps=10, resume=path)
    with pytest.raises(CheckpointError, match="resume=True but no checkpoint"):
        train(Line(), resume=True)
    with pytest.raises(CheckpointError, match="expected a whole safetensors file"):
        train(Line(), checkpoint=tmp_path / "none", resume=True)


def test_on_step_sees_every_step():
    seen = []
    result = train(Line(), steps=7, on_step=lambda *args: seen.append(args))
    assert seen == [(step, 7, loss) for step, loss in zip(range(1, 8), result.losses, strict=True)]
    assert not result.model.training
    assert result.seconds > 0
    assert len(result.lines) == 2


def test_no_steps_give_the_untrained_model():
    result = train(Line(), steps=0)
    assert result.losses.shape == (0,)
    assert ((result.model.weight >= 0) & (result.model.weight <= 1)).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": -1}, "steps is -1; expected 0 or more"),
        ({"seed": -1}, "seed is -1; expected 0 or more"),
        ({"checkpoint_every": 0}, "checkpoint_every is 0; expected 1 or more"),
    ],
)
def test_counts_out_of_range_are_refused(wrong, message):
    with pytest.raises(DataError, match=message):
        train(Line(), **wrong)


def test_a_run_that_diverges_is_stopped_and_says_where():
    task = dataclasses.replace(Line(), sgd=dataclasses.replace(Line().sgd, lr=1e3))
    with pytest.raises(DataError, match=r"loss is (inf|nan) at step \d+"):
        train(task)


def test_the_loop_is_torchs_own_loop_written_out():
    task = Line()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = task.make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    for step in range(20):
        x, target = task.batch(step)
        optimizer.zero_grad()
        functional.mse_loss(functional.linear(x, model.weight, model.bias), target).backward()
        optimizer.step()
    result = train(task, steps=20, device="cpu")
    for got, expected in zip(result.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.cuda
@each_task
def test_cuda_trains_the_same_model_and_resumes(task, tmp_path):
    on_cpu, on_cuda = (train(task, steps=20, device=device) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(on_cuda.losses, on_cpu.losses, rtol=1e-3)
    train(task, steps=10, device="cuda", checkpoint=tmp_path / "c")
    resumed = train(task, steps=20, device="cuda", resume=tmp_path / "c")
    np.testing.assert_allclose(resumed.losses, on_cuda.losses, rtol=1e-5)
