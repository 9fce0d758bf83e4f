"""Libraries of C++ operators, built by CMake as their authors would."""

import shutil
import subprocess
import sys
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


def run(*command: object) -> str:
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True)
    assert done.returncode == 0, f"{command[0]}: {done.stdout}\n{done.stderr}"
    return done.stdout
