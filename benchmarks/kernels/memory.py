"""How far a run on 64 MiB raises the peak of the process: python -m benchmarks.kernels.memory NAME."""

import subprocess
import sys
from pathlib import Path

from benchmarks.kernels.cost import BIG, ONE_INPUT, runner
from benchmarks.kernels.row import Row

OUTPUT_MIB = BIG * 4 / (1 << 20)


def rows() -> list[Row]:
    return [_row(name, _grown_in_process(name)) for name in ONE_INPUT]


def _row(name: str, grown: float) -> Row:
    texts = (f"the output: {OUTPUT_MIB:.0f} MiB", f"{name}: {grown:.0f} MiB", f"{grown / OUTPUT_MIB:.2f}x")
    raw = {"name": name, "grown_mib": grown, "output_mib": OUTPUT_MIB}
    return Row("peak memory", "64 MiB float32", 1, *texts, "", raw)


def _grown_in_process(name: str) -> float:
    command = [sys.executable, "-m", __name__, name]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def grown(name: str) -> float:
    """Return how many MiB the first run adds to what this process holds, at its peak."""
    call = runner(ONE_INPUT[name], size=BIG)
    # Not of getrusage: ru_maxrss begins with that of the process which started this one.
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    call()
    return _status("VmHWM") - before


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    print(grown(sys.argv[1]))
