"""examples/gelu: its README's output, and its kernel and its gradients where they could go wrong."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ort_ops import registry

from .readme import copy_of, load, masked, run_readme


@pytest.fixture(autouse=True)
def _registry_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_ops", list(registry._ops))


def test_its_commands_print_what_the_readme_shows(tmp_path: Path) -> None:
    ran = run_readme(copy_of("gelu", tmp_path))
    assert len(ran) == 2
    for each in ran:
        assert masked(each.printed) == masked(each.shown)
    assert ran[0].printed.count("verdict: equal") == 2
    first, last = (float(line.split()[-1]) for line in ran[0].printed.splitlines()[1:3])
    assert last < first / 100  # it has learnt


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(7, 3), (0, 3), ()])
def test_the_kernel_is_forward(shape: tuple[int, ...], dtype: type) -> None:
    x = np.asarray(np.random.default_rng(0).standard_normal(shape) * 5, dtype)
    y = load("kernel", "gelu").quick_gelu(x, alpha=1.702)
    expected = load("quick_gelu", "gelu").QuickGelu.apply(torch.from_numpy(x), 1.702).numpy()
    assert (y.dtype, y.shape) == (x.dtype, x.shape)
    np.testing.assert_allclose(y, expected, rtol=20 * np.finfo(dtype).eps)


def test_the_kernel_does_not_overflow() -> None:
    x = np.array([-1e4, -0.0, 1e4, np.inf, np.nan], np.float32)
    with np.errstate(all="raise", under="ignore"):  # pytest makes an error of a warning, too
        y = load("kernel", "gelu").quick_gelu(x, alpha=1.702)
    np.testing.assert_array_equal(y, np.array([0, 0, 1e4, np.inf, np.nan], np.float32))


def test_its_gradients_are_right_twice() -> None:
    function = load("quick_gelu", "gelu").QuickGelu
    x = torch.linspace(-5, 5, 11, dtype=torch.float64, requires_grad=True)
    for alpha in (1.0, 1.702):
        assert torch.autograd.gradgradcheck(function.apply, (x, alpha))
