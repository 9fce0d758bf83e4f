"""The processor, as far as what ONNX Runtime makes of a graph depends on it."""

import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Processor", "this_processor"]

_CPUINFO = Path("/proc/cpuinfo")
# The vector and matrix instructions of x86-64 and of AArch64, by which ONNX Runtime chooses its kernels.
_VECTORS = re.compile(r"(sse4|avx|fma|f16c|amx|asimd|fphp|bf16|i8mm|sve|sme(?!p))\w*")


@dataclass(frozen=True)
class Processor:
    """A kind of processor: ``machine`` as in ``x86_64``, and its vector ``instructions``."""

    machine: str
    instructions: Sequence[str]


def this_processor() -> Processor:
    """Return that of this machine; its instructions are empty where the system doesn't list them."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    flags = next((line.partition(":")[2] for line in lines if re.match(r"(flags|Features)\s*:", line)), "")
    return Processor(platform.machine(), sorted({each for each in flags.split() if _VECTORS.fullmatch(each)}))
