"""How a session uses the machine: threads, memory, CUDA graphs."""

import math
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import onnxruntime

from .errors import ProviderError
from .libraries import refuse_one_path, register_library
from .providers import CUDA, asked_providers

__all__ = ["Arena", "Tuning", "available_cores", "graph_options", "with_entries"]

Arena = Literal["keep", "shrink", "none"]
Provider = str | tuple[str, dict[str, Any]]

_TENSORRT = ("TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider")
_SHRINK, _GRAPH = "memory.enable_memory_arena_shrinkage", "gpu_graph_id"
_AS_NONE = {_SHRINK: "", _GRAPH: "0"}
_NO_CAPTURE = "-1"


@dataclass(frozen=True)
class Tuning:
    """How a session is tuned; see ``InferenceSession.tuned`` for what each choice means."""

    threads: int | None = None
    spinning: bool | None = None
    arena: Arena = "keep"
    cuda_graph: bool = False
    libraries: Sequence[str | os.PathLike[str]] = ()
    graph_optimization_level: onnxruntime.GraphOptimizationLevel = (
        onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    )

    def __post_init__(self) -> None:
        if self.arena not in get_args(Arena):
            raise ValueError(f"arena={self.arena!r}; expected one of {', '.join(get_args(Arena))}")
        if self.cuda_graph and self.arena == "shrink":
            raise ValueError(
                'arena="shrink" gives back memory that captured CUDA graphs write into; '
                'expected "keep" or "none"'
            )

    def options(self, *, may_spin: bool = True) -> onnxruntime.SessionOptions:
        """Return new session options; threads spin, where nothing is said of it, if they may."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = available_cores() if self.threads is None else self.threads
        spinning = may_spin if self.spinning is None else self.spinning
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
        options.enable_cpu_mem_arena = self.arena != "none"
        options.graph_optimization_level = self.graph_optimization_level
        refuse_one_path(self.libraries)
        for library in self.libraries:
            # A bare name would be looked for where the system has its libraries.
            path = os.path.abspath(library) if os.path.exists(library) else os.fspath(library)
            register_library(options, path)
        return options

    def providers(self, providers: Sequence[Provider] | None) -> list[Provider] | None:
        """Return providers with the options of CUDA's; raises ProviderError where it is not among them."""
        asked_providers(providers)  # raises TypeError for a text
        if not self.cuda_graph and self.arena == "keep":
            return None if providers is None else list(providers)
        there = onnxruntime.get_available_providers()
        # onnxruntime-gpu has TensorRT's, too, which can't be named where its libraries aren't installed.
        asked = [name for name in there if name not in _TENSORRT] if providers is None else providers
        if self.cuda_graph and not any(_name(provider) == CUDA for provider in asked):
            raise ProviderError(
                f"CUDA graphs need the {CUDA}; the providers are {', '.join(map(_name, asked))}"
            )
        return [self._with_options(provider) if _name(provider) == CUDA else provider for provider in asked]

    def _with_options(self, provider: Provider) -> Provider:
        options: dict[str, Any] = {}
        if self.cuda_graph:
            options["enable_cuda_graph"] = "1"
        if self.arena != "keep":
            options["arena_extend_strategy"] = "kSameAsRequested"
        return _name(provider), options | ({} if isinstance(provider, str) else provider[1])

    def run_entries(self, providers: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
        """Return the entries that the options of each run have on a session's providers, by their options."""
        entries: dict[str, str] = {}
        if self.arena == "shrink":
            gpu = [f"gpu:{providers[CUDA].get('device_id', '0')}"] if CUDA in providers else []
            entries[_SHRINK] = ";".join(["cpu:0", *gpu])
        if self.cuda_graph:  # buffers that are given once would be captured with it
            entries[_GRAPH] = _NO_CAPTURE
        return entries


def graph_options(number: int) -> onnxruntime.RunOptions:
    """Return the options of runs that are captured as CUDA graph ``number``, and replayed."""
    options = onnxruntime.RunOptions()
    options.add_run_config_entry(_GRAPH, str(number))
    return options


def with_entries(options: onnxruntime.RunOptions, entries: Mapping[str, str]) -> onnxruntime.RunOptions:
    """Return run options that have these entries, but for those that they have of their own.

    Those of another session of ours, that they had before, go: ONNX Runtime takes no entry out, so that they
    get the values that stand for none.
    """
    with _lock:
        given = _given.setdefault(options, {})
        for key, value in list(given.items()):
            if value is not None and value != entries.get(key):
                if _entry(options, key) == value:  # else it is the user's own since
                    options.add_run_config_entry(key, _AS_NONE[key])
                    given[key] = None
                else:
                    del given[key]
        for key, value in entries.items():
            there = _entry(options, key)
            if there is None or (key in given and given[key] is None and there == _AS_NONE[key]):
                options.add_run_config_entry(key, value)
                given[key] = value
    return options


_lock = threading.Lock()
_given: "weakref.WeakKeyDictionary[onnxruntime.RunOptions, dict[str, str | None]]" = (
    weakref.WeakKeyDictionary()
)
"""The entries that run options have of ours, None where they had one."""


def _entry(options: onnxruntime.RunOptions, key: str) -> str | None:
    try:
        return str(options.get_run_config_entry(key))
    except Exception:  # it is not there
        return None


def _name(provider: Provider) -> str:
    return provider if isinstance(provider, str) else provider[0]


def available_cores() -> int:
    """Return how many physical cores this process may use: by its affinity, and by its control group's quota.

    ONNX Runtime itself counts those of the machine, so that a session in a container of two cores on a
    machine of sixty-four has sixty-four threads.
    """
    try:
        allowed = os.sched_getaffinity(0)
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1
    cores = {_siblings(cpu) for cpu in allowed}
    return max(1, math.ceil(min(len(cores), _quota())))


def _siblings(cpu: int) -> str:
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    return _read(path) or str(cpu)


def _quota() -> float:
    """Return how many cores' time the control groups grant, in version 2 or 1; infinity for no limit."""
    least = math.inf
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = Path("/sys/fs/cgroup", "" if not controllers else "cpu")
        for folder in (root / group.lstrip("/"), *(root / group.lstrip("/")).parents):
            if controllers:
                quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
            else:
                quota, _, period = _read(folder / "cpu.max").partition(" ")
            if quota.isdigit() and period.isdigit():  # no limit is "max" or -1
                least = min(least, int(quota) / int(period))
            if folder == root:
                break
    return least


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
