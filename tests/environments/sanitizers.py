"""Run the tests of ort_ops on a bridge with AddressSanitizer and UndefinedBehaviorSanitizer.

Run: python -m tests.environments.sanitizers. It needs GCC. Leaks are not looked for: Python has its own.
"""

import subprocess
import sys

from tests.environments.environment import BUILD, build_wheel, make, run_tests, tell

NAME = "sanitizers"
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
        "PYTHONMALLOC": "malloc",  # so that each object of Python's is an allocation that is watched
    }


def main() -> int:
    python = make(NAME)
    wheel = build_wheel(python, NAME, *SETTINGS)
    for old in (BUILD / NAME).glob("report.*"):
        old.unlink()
    code = tell([run_tests(NAME, python, wheel, environ())])
    reports = sorted((BUILD / NAME).glob("report.*"))
    for report in reports:
        print(report.read_text(encoding="utf-8", errors="replace"))
    return 1 if reports else code


if __name__ == "__main__":
    sys.exit(main())
