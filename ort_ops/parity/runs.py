"""A session on one provider, and who ran its nodes."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidGraph, NotImplemented

from ort_ops.providers import parse_provider
from ort_ops.session import InferenceSession

__all__ = ["LEVELS", "Run", "Setting", "make_run"]

_ASSIGNMENT = "session.record_ep_graph_assignment_info"


_LEVELS = {
    "disable": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
LEVELS = tuple(_LEVELS)
"""The optimisation levels of ONNX Runtime."""


NO_KERNELS = (InvalidGraph, NotImplemented)
"""What ONNX Runtime raises for a file with nodes that a provider can't run in their dtypes."""


@dataclass(frozen=True)
class Setting:
    """How a file is run: on a provider, at an optimisation level, by so many threads; None is the default."""

    provider: str
    level: str | None = None
    threads: int | None = None

    def options(self) -> onnxruntime.SessionOptions:
        """Return session options with this level and these threads."""
        made = onnxruntime.SessionOptions()
        if self.level is not None:
            made.graph_optimization_level = _LEVELS[self.level]
        if self.threads is not None:
            made.intra_op_num_threads = self.threads
        return made

    def __str__(self) -> str:
        level = f" level={self.level}" if self.level is not None else ""
        threads = f" threads={self.threads}" if self.threads is not None else ""
        return f"{self.provider}{level}{threads}"


@dataclass(frozen=True)
class Run:
    """A session, and how it runs."""

    setting: Setting
    session: InferenceSession

    def outputs(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the file; returns its outputs by name."""
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, dict(feed)), strict=True))

    @property
    def on_cpu(self) -> bool:
        """Tell whether it is the CPU provider."""
        return parse_provider(self.setting.provider)[0] == "CPUExecutionProvider"

    def ran(self) -> str:
        """Return how many nodes are on which provider, and who runs the custom ones."""
        custom = sorted({f"{run.op}: {run.runner}" for run in self.session.explain()})
        try:
            parts = self.session.get_provider_graph_assignment_info()
        except (AttributeError, RuntimeError):  # before ONNX Runtime 1.24
            return ", ".join([" or ".join(self.session.get_providers()), *custom])
        counts: Counter[str] = Counter()
        for part in parts:
            counts[part.ep_name] += len(part.get_nodes())
        nodes = [
            f"{count} on {name.removesuffix('ExecutionProvider')}" for name, count in sorted(counts.items())
        ]
        return ", ".join([*nodes, *custom])


def make_run(
    source: str | bytes,
    setting: Setting,
    libraries: Sequence[str | os.PathLike[str]],
    options: Mapping[str, Any],
) -> Run:
    """Make a session; raises ProviderError where its provider isn't there."""
    session_options = None
    if libraries or setting.level is not None or setting.threads is not None:
        session_options = setting.options()
        session_options.add_session_config_entry(_ASSIGNMENT, "1")
        for library in libraries:
            session_options.register_custom_ops_library(os.fspath(library))
    session = InferenceSession(source, session_options, [parse_provider(setting.provider)], **options)
    return Run(setting, session)
