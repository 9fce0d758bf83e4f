import os

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mylinear import MyLinear, checkpoint
from mylinear.checkpoint import Run
from mylinear.errors import CheckpointError

RUN = Run("line", 3)
SIZES = [(2, 1), (5, 3), (0, 2)]


def trained(steps=3, sizes=(2, 1), dtype=torch.float32):
    """A model, its optimizer and its losses after some steps."""
    model = MyLinear(*sizes, dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(torch.ones(4, sizes[0], dtype=dtype)).square().sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model, optimizer, np.array(losses, dtype=np.float64)


def state(model, optimizer):
    momentum = [optimizer.state[parameter].get("momentum_buffer") for parameter in model.parameters()]
    return [*model.state_dict().values(), *(buffer for buffer in momentum if buffer is not None)]


def same(first, second):
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "run.safetensors"
    checkpoint.save(path, RUN, *trained())
    return path


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_what_was_saved_is_loaded(sizes, dtype, steps, tmp_path):
    model, optimizer, losses = trained(steps, sizes, dtype)
    checkpoint.save(tmp_path / "c", RUN, model, optimizer, losses)
    fresh = trained(0, sizes, dtype)
    got = checkpoint.load(tmp_path / "c", RUN, *fresh[:2])
    assert same(state(*fresh[:2]), state(model, optimizer))
    np.testing.assert_array_equal(got, losses)
    assert os.listdir(tmp_path) == ["c"]


def test_metadata_say_whose_it_is(saved):
    with safe_open(saved, framework="pt") as file:
        metadata = file.metadata()
    assert metadata == {
        "format": "mylinear-checkpoint-1",
        "task": "line",
        "seed": "3",
        "step": "3",
        "model": '{"weight": ["float32", 1, 2], "bias": ["float32", 1]}',
    }


def refused(path, message, run=RUN, **kw):
    model, optimizer, _ = trained(2, **kw)
    before = [tensor.clone() for tensor in state(model, optimizer)]
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path, run, model, optimizer)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert same(state(model, optimizer), before)  # nothing half loaded


def test_a_file_cut_short_is_refused_wherever_it_is_cut(saved):
    data = saved.read_bytes()
    for length in (0, 1, 8, 9, len(data) // 2, len(data) - 1):
        saved.write_bytes(data[:length])
        refused(saved, "expected a whole safetensors file")
    saved.write_bytes(data)
    checkpoint.load(saved, RUN, *trained()[:2])


def test_what_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "text").write_text("not a checkpoint, whatever its name says")
    save_file({"weight": torch.zeros(1)}, tmp_path / "other")
    refused(tmp_path / "missing", "expected a whole safetensors file")
    refused(tmp_path, "expected a whole safetensors file")
    refused(tmp_path / "text", "expected a whole safetensors file")
    refused(tmp_path / "other", "format is missing; expected mylinear-checkpoint-1")


def test_another_run_is_refused(saved):
    refused(saved, "task is line; expected digits", run=Run("digits", 3))
    refused(saved, "seed is 3; expected 4", run=Run("line", 4))
    refused(saved, 'model is {"weight": ["float32", 1, 2]', sizes=(3, 1))
    refused(saved, '"weight": ["float64", 1, 2]', dtype=torch.float64)


def rewrite(path, change):
    """Save the file again after a change to its metadata and tensors."""
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(metadata, tensors)
    save_file(tensors, path, metadata=metadata)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, t: t.pop("model.bias"), "tensor model.bias is missing; expected float32 (1,)"),
        (lambda m, t: t.pop("momentum.weight"), "tensor momentum.weight is missing; expected float32 (1, 2)"),
        (lambda m, t: t.pop("losses"), "losses is missing at step 3"),
        (
            lambda m, t: t.update({"model.weight": torch.zeros(2, 1)}),
            "tensor model.weight is float32 (2, 1); expected float32 (1, 2)",
        ),
        (
            lambda m, t: t.update({"momentum.bias": torch.zeros(1).half()}),
            "tensor momentum.bias is float16 (1,); expected float32 (1,)",
        ),
        (lambda m, t: t.update(losses=torch.zeros(3)), "losses is float32 (3,) at step 3"),
        (lambda m, t: m.update(step="4"), "losses is float64 (3,) at step 4"),
        (lambda m, t: m.update(step="many"), "losses is float64 (3,) at step many"),
        (lambda m, t: m.pop("step"), "losses is float64 (3,) at step missing"),
    ],
)
def test_a_file_that_lacks_or_bends_something_is_refused(saved, change, message):
    rewrite(saved, change)
    refused(saved, message)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failing_write_keeps_the_old_file(saved, monkeypatch, failing):
    def fail(*args):
        raise OSError("no space left on device")

    before = saved.read_bytes()
    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="no space left"):
        checkpoint.save(saved, RUN, *trained(steps=5))
    monkeypatch.undo()
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]
    checkpoint.save(saved, RUN, *trained(steps=5))
    assert saved.read_bytes() != before


def test_tied_weights_can_be_saved(tmp_path):
    layer = MyLinear(2, 2)
    model = torch.nn.Sequential(layer, layer)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    checkpoint.save(tmp_path / "c", RUN, model, optimizer, np.empty(0))
    assert len(checkpoint.load(tmp_path / "c", RUN, model, optimizer)) == 0
