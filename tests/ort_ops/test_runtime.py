import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from ort_ops.errors import MissingRuntimeError, UnsupportedPythonError
from ort_ops.runtime import require_gil, require_one_runtime


def plant(folder: Path, *distributions: str) -> None:
    for name in distributions:
        info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (folder / "onnxruntime").mkdir()
    (folder / "onnxruntime" / "__init__.py").touch()


def test_the_one_here_is_accepted() -> None:
    require_one_runtime()


def test_none_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingRuntimeError, match=r"pip install 'ort-ops\[cpu\]'"):
        require_one_runtime()


def test_importing_without_a_runtime_says_so() -> None:
    program = """
import importlib.util as u
find = u.find_spec
u.find_spec = lambda name: None if name == "onnxruntime" else find(name)
import ort_ops
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "MissingRuntimeError: ort_ops needs ONNX Runtime; install one of the two" in done.stderr


def test_two_in_one_folder_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path, "onnxruntime", "onnxruntime-gpu")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "onnxruntime")
    with pytest.raises(MissingRuntimeError, match=r"onnxruntime and onnxruntime-gpu.*pip uninstall"):
        require_one_runtime()


def test_another_one_in_another_folder_is_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path / "unused", "onnxruntime-gpu")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "unused")])
    assert importlib.metadata.version("onnxruntime-gpu") == "1.0"
    require_one_runtime()


@pytest.mark.parametrize("enabled", [True, False])
def test_a_python_without_its_lock_is_refused(enabled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: enabled, raising=False)
    if enabled:
        require_gil()
        return
    with pytest.raises(UnsupportedPythonError, match="leave out PYTHON_GIL=0"):
        require_gil()


def test_importing_without_the_lock_says_so() -> None:
    program = "import sys; sys._is_gil_enabled = lambda: False; import ort_ops"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "UnsupportedPythonError: ort_ops needs the global interpreter lock" in done.stderr
