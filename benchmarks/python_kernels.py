"""What does a Python kernel cost in ONNX Runtime? Run: python -m benchmarks.python_kernels."""

from benchmarks.kernels import cost, memory, spinning, threads
from benchmarks.kernels.row import COLUMNS
from benchmarks.report import SPREAD, environment, write

QUESTION = "What does a Python kernel cost in ONNX Runtime?"
NOTE = f"""\
Kernels are NumPy functions, `extensions` is onnxruntime-extensions, and both are beside ONNX Runtime's own
nodes. {SPREAD}
Of products the rounds are single runs. Threads are ONNX Runtime's intra-op threads; inter-op
it has 1, NumPy's BLAS one a core. Graph optimisation is off.

- a node: what 100 further nodes add to a chain of one, by 100. The copy of its result is part of it.
- a run: of one node, from NumPy to NumPy.
- peak memory: what a first run adds at its peak, in a process of its own.
- product: (1024, 1024) by (1024, 1024), float32, in NumPy. ONNX Runtime's threads spin while they wait
  for the next node that is shared among them, and then take the cores from a kernel's BLAS; OpenBLAS's spin
  as well, and take them from ONNX Runtime. `spin 50 µs` is session.intra_op.spin_duration_us=50, and
  `no spinning` is session.intra_op.allow_spinning=0, config entries both.
"""
PACKAGES = ("onnxruntime", "onnxruntime-extensions", "numpy")


def main() -> None:
    rows = [row for part in (cost, memory, threads, spinning) for row in part.rows()]
    raw = [{"what": row.what, "case": row.case, "threads": row.threads, **row.raw} for row in rows]
    cells = [row.cells for row in rows]
    print(write("python_kernels", QUESTION, NOTE, COLUMNS, cells, raw, environment(PACKAGES)))


if __name__ == "__main__":
    main()
