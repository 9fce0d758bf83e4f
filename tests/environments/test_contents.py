"""The check of what is in a wheel and in an sdist sees each fault that is planted."""

import tarfile
import zipfile

import pytest

from tests.environments import contents

NAME = "ort_ops-0.1.0-cp311-cp311-linux_x86_64.whl"
HEADER = "ort_ops/native/include/ort_ops/op.hpp"
LIBRARY = "mylinear/libmylinear_ort.so"


def files():
    """What a right wheel holds."""
    compiled = {"ort_ops/_bridge.cpython-311-x86_64-linux-gnu.so": b"", LIBRARY: b""}
    information = {f"ort_ops-0.1.0.dist-info/{name}": b"" for name in contents.METADATA}
    return contents.wheel_sources() | compiled | information


def problems(tmp_path, held):
    with zipfile.ZipFile(tmp_path / NAME, "w") as archive:
        for name, data in held.items():
            archive.writestr(name, data)
    return list(contents.wheel_problems(tmp_path / NAME, contents.wheel_sources()))


def test_a_right_wheel_has_no_problems(tmp_path):
    assert {"mylinear/py.typed", HEADER, "ort_ops/native/cmake/ort_ops-config.cmake"} <= files().keys()
    assert problems(tmp_path, files()) == []


@pytest.mark.parametrize("name", [HEADER, LIBRARY, "ort_ops/py.typed", "ort_ops-0.1.0.dist-info/RECORD"])
def test_what_is_missing_is_named(tmp_path, name):
    (problem, *_) = problems(tmp_path, {key: data for key, data in files().items() if key != name})
    assert name.rpartition("/")[2].partition(".")[0] in problem


@pytest.mark.parametrize("name", ["tests/cases.py", "mylinear/native/mylinear.cpp", "ort_ops/native/op.hpp"])
def test_what_does_not_belong_there_is_named(tmp_path, name):
    assert problems(tmp_path, files() | {name: b""}) == [f"{NAME}: {name} does not belong there"]


def test_what_is_of_another_time_is_named(tmp_path):
    (problem,) = problems(tmp_path, files() | {HEADER: b"older"})
    assert f"{HEADER} is not as in the working tree" in problem


def test_an_sdist_is_what_git_has(tmp_path):
    sdist = tmp_path / "ort_ops-0.1.0.tar.gz"
    for name in ("PKG-INFO", "README.md", "stray.py"):
        (tmp_path / name).write_bytes(b"new")
    with tarfile.open(sdist, "w:gz") as archive:
        for name in ("PKG-INFO", "README.md", "stray.py"):
            archive.add(tmp_path / name, f"ort_ops-0.1.0/{name}")
    assert list(contents.sdist_problems(sdist, {"README.md": b"new", "stray.py": b"new"})) == []
    assert list(contents.sdist_problems(sdist, {"README.md": b"old", "LICENSE": b""})) == [
        f"{sdist.name}: LICENSE is missing",
        f"{sdist.name}: stray.py does not belong there",
        f"{sdist.name}: README.md is not as in the working tree; make wheel builds it anew",
    ]
