import subprocess
import sys

import numpy as np
import pytest

from mylinear.errors import DataError

matplotlib = pytest.importorskip("matplotlib")
from mylinear.plot import plot_losses  # noqa: E402, needs matplotlib


def pixels(path):
    from matplotlib.image import imread

    return imread(path)


@pytest.mark.parametrize(
    "losses",
    [np.geomspace(10, 1e-6, 300), np.array([3.0, 2.0, 1.0]), [0.5], [0.0, 1.0, 0.0], np.full(41, 2.5)],
    ids=["ordinary", "odd", "one", "zeros", "constant"],
)
def test_a_picture_of_the_stated_size_with_a_curve_in_it(losses, tmp_path):
    plot_losses(losses, tmp_path / "loss.png")
    image = pixels(tmp_path / "loss.png")
    assert image.shape[:2] == (720, 1280)
    curve = np.abs(image[..., :3] - np.array([0x0B, 0x69, 0xA3]) / 255).max(-1) < 0.02
    assert curve.sum() > 20


@pytest.mark.parametrize(
    "losses",
    [[], [0.0, 0.0], [1.0, float("nan")], [1.0, float("inf")], [[1.0], [2.0]]],
    ids=["none", "only_zeros", "nan", "inf", "two_dimensions"],
)
def test_what_has_no_curve_is_refused(losses, tmp_path):
    with pytest.raises(DataError, match="expected one row of finite numbers"):
        plot_losses(losses, tmp_path / "loss.png")
    assert not (tmp_path / "loss.png").exists()


LOADED = "import sys; import {module}; print(any(name.split('.')[0] == 'matplotlib' for name in sys.modules))"


@pytest.mark.parametrize(("module", "loads"), [("mylinear.training", "False"), ("mylinear.plot", "True")])
def test_only_plot_loads_matplotlib(module, loads):
    command = [sys.executable, "-c", LOADED.format(module=module)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == loads


def test_pyplot_is_not_loaded():
    command = [sys.executable, "-c", "import sys, mylinear.plot; print('matplotlib.pyplot' in sys.modules)"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "False"
