"""Run the tests of ort_ops on a bridge with AddressSanitizer and UndefinedBehaviorSanitizer.

Run: python -m tests.environments.sanitizers. It needs GCC. Leaks are not looked for: Python has its own.
"""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.environments.environment import BUILD, build_wheel, make, run_tests, tell

NAME = "sanitizers"
# Reads a byte behind a buffer.
PLANTED = "import ctypes; ctypes.string_at(ctypes.create_string_buffer(64), 65)"
SETTINGS = ("cmake.define.ORT_OPS_SANITIZE=ON", "cmake.build-type=RelWithDebInfo", "install.strip=false")


def library(name: str) -> str:
    done = subprocess.run(["gcc", f"-print-file-name={name}"], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def environ() -> dict[str, str]:
    """Return what a process needs so that a sanitized library can be loaded into a Python that isn't."""
    log = BUILD / NAME / "report"  # of each process that ends with one: report.PID
    return {
        # libstdc++ too: what is interposed is looked up once, when the process starts.
        "LD_PRELOAD": " ".join(library(name) for name in ("libasan.so", "libstdc++.so.6")),
        "ASAN_OPTIONS": f"detect_leaks=0:allocator_may_return_null=1:log_path={log}",
        "UBSAN_OPTIONS": f"print_stacktrace=1:log_path={log}",
        "CXXFLAGS": "-fsanitize=address,undefined -g",  # of the libraries that tests build
        "PYTHONMALLOC": "malloc",  # so that each object of Python's is an allocation that is watched
    }


def is_sanitized(wheel: Path) -> bool:
    """Return whether the libraries in a wheel call the sanitizers: only then do the tests show anything."""
    with zipfile.ZipFile(wheel) as archive:
        codes = [archive.read(name) for name in archive.namelist() if name.endswith(".so")]
    calls = (b"__asan_report_load", b"__ubsan_handle")
    return len(codes) == 2 and all(call in code for code in codes for call in calls)


def take_reports() -> list[str]:
    """Return what processes have reported so far, and forget it."""
    paths = sorted((BUILD / NAME).glob("report.*"))
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in paths]
    for path in paths:
        path.unlink()
    return texts


def main() -> int:
    python = make(NAME)
    wheel = build_wheel(python, NAME, *SETTINGS)
    take_reports()
    subprocess.run([python, "-c", PLANTED], env=os.environ | environ(), check=False, capture_output=True)
    if not is_sanitized(wheel) or not any("heap-buffer-overflow" in text for text in take_reports()):
        print("the sanitizers are not at work: a fault that was planted is not reported")
        return 1
    code = tell([run_tests(NAME, python, wheel, environ())])
    reports = take_reports()
    print(*reports, f"{len(reports)} reports of the sanitizers", sep="\n")
    return 1 if reports else code


if __name__ == "__main__":
    sys.exit(main())
