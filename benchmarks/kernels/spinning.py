"""What ONNX Runtime's waiting threads do to a kernel's BLAS: python -m benchmarks.kernels.spinning.

An intra-op thread that waits for the next parallel node spins. Where a Python kernel comes next, its BLAS has
threads of its own, and finds the cores taken.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.kernels.row import Row, times_as_long
from benchmarks.kernels.sessions import DOMAIN, SIDE, WEIGHT, Step, product_seconds, session
from benchmarks.report import Seconds, in_processes

DEFAULT = "default"
SETTINGS = {
    DEFAULT: {},
    "spin 50 µs": {"session.intra_op.spin_duration_us": "50"},
    "no spinning": {"session.intra_op.allow_spinning": "0"},
}
MATMUL, PRODUCT = Step("MatMul", "", ("weight",)), Step("Product", DOMAIN)
SQUARE = (SIDE, SIDE)
OUTSIDE = "outside"
BLOCKS, RUNS = 3, 10
REST = 0.05  # seconds, in which threads that spin from the block before go to sleep
BLAS = {"OPENBLAS_THREAD_TIMEOUT": "4"}  # a thread of OpenBLAS spins for 2**4 cycles, the least


def rows() -> list[Row]:
    products, runs = [], {}
    for n in (1, 2):
        for case, steps in (("in a kernel", [PRODUCT]), ("in a kernel after MatMul", [MATMUL, PRODUCT])):
            found = in_processes(measure, steps, n)
            products += _beside("product", case, n, found["products"], OUTSIDE)
            runs = found["runs"]  # of the last, MatMul and a product on two threads
    blas = {f"{setting}, {'='.join(*BLAS.items())}": s for setting, s in _with_other_blas().items()}
    return [*products, *_beside("run", "MatMul and product", 2, runs | blas, DEFAULT), *_built_in()]


def measure(steps: Sequence[Step], threads: int, shape: tuple[int, ...] = SQUARE) -> dict[str, Seconds]:
    """Return what products took, inside the kernel and outside, and what runs took, in alternating blocks.

    Runs of one block follow each other at once: threads that spin from the last are still there.
    """
    made = {name: session(*steps, threads=threads, config=config) for name, config in SETTINGS.items()}
    x = np.full(shape, 0.5, np.float32)
    products: Seconds = {name: [] for name in (OUTSIDE, *made)}
    runs: Seconds = {name: [] for name in made}
    for _ in range(BLOCKS):
        if PRODUCT in steps:
            products[OUTSIDE] += _timed(lambda: x @ WEIGHT)
        for name, one in made.items():
            product_seconds.clear()
            runs[name] += _timed(lambda one=one: one.run(None, {"x": x}))
            products[name] += product_seconds[1:]
    return {"products": products, "runs": runs}


def _timed(call: Callable[[], object]) -> list[float]:
    """Return the seconds of RUNS calls, after a rest and a call that isn't counted."""
    time.sleep(REST)
    call()
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


def _beside(what: str, case: str, threads: int, seconds: Seconds, base: str) -> list[Row]:
    others = {name: values for name, values in seconds.items() if name != base}
    return [times_as_long(what, case, threads, (base, seconds[base]), each) for each in others.items()]


def _with_other_blas() -> Seconds:
    """Return what the run takes where NumPy's OpenBLAS, too, doesn't spin: it asks its environment once."""
    command = [sys.executable, "-m", __name__]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | BLAS)
    found: Seconds = json.loads(done.stdout)
    return found


def _built_in() -> list[Row]:
    """Return what the settings cost nodes of ONNX Runtime's own."""
    found = []
    for case, steps, shape in (
        ("50 Tanh on 1 MiB", [Step("Tanh")] * 50, (1 << 18,)),
        ("20 MatMul of 64 rows", [MATMUL] * 20, (64, SIDE)),
    ):
        runs = in_processes(measure, steps, 2, shape)["runs"]
        found += _beside("run of built-in nodes", case, 2, runs, DEFAULT)
    return found


if __name__ == "__main__":
    print(json.dumps(measure([MATMUL, PRODUCT], 2)["runs"]))
