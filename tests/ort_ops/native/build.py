"""Libraries of C++ operators, built by CMake as their authors would."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import ort_ops

BIN = Path(sys.executable).parent


def build(source: Path, to: Path, *options: str) -> Path:
    """Configure and build a project that finds ort_ops; returns the directory with what it made."""
    cmake = shutil.which("cmake", path=str(BIN)) or shutil.which("cmake")
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if cmake is None or compiler is None:
        pytest.skip(f"{'CMake' if cmake is None else 'a C++ compiler'} is missing")
    found = f"-Dort_ops_DIR={ort_ops.get_cmake_dir()}"
    run(cmake, "-S", source, "-B", to, found, "-DCMAKE_BUILD_TYPE=Release", *options)
    run(cmake, "--build", to)
    return to


@contextmanager
def shared_folder(factory: pytest.TempPathFactory, name: str) -> Iterator[Path]:
    """Give a folder that is one for all of xdist's workers, to one of them at a time."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def run(*command: object) -> str:
    # nvcc ends over a sanitizer that is preloaded for Python.
    environ = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, env=environ)
    assert done.returncode == 0, f"{command[0]}: {done.stdout}\n{done.stderr}"
    return done.stdout
