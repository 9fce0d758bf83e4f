"""A session on one provider, and who ran its nodes."""

import contextlib
import itertools
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import onnxruntime
from numpy.typing import NDArray

from ort_ops.errors import NoKernelError, ParityError
from ort_ops.providers import CPU, parse_provider, session_providers
from ort_ops.session import InferenceSession
from ort_ops.tuning import Tuning

__all__ = ["LEVELS", "Run", "Setting", "make_run", "make_session", "of_runtime", "refusals", "settings"]

# Where ONNX Runtime's exceptions are, which have no base of their own.
_RUNTIME = "onnxruntime.capi.onnxruntime_pybind11_state"

_LEVELS = {
    "disable": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
LEVELS = tuple(_LEVELS)
"""The optimisation levels of ONNX Runtime."""


@dataclass(frozen=True)
class Setting:
    """How a file is run: on a provider, at an optimisation level, by so many threads; None is the default."""

    provider: str
    level: str | None = None
    threads: int | None = None

    def tuning(self, libraries: Sequence[str | os.PathLike[str]]) -> Tuning:
        """Return what a session with this level, these threads and libraries is made with."""
        level = _LEVELS[self.level or "all"]
        return Tuning(self.threads or 0, libraries=libraries, graph_optimization_level=level)

    def __str__(self) -> str:
        level = f" level={self.level}" if self.level is not None else ""
        threads = f" threads={self.threads}" if self.threads is not None else ""
        return f"{self.provider}{level}{threads}"


def settings(
    providers: Sequence[str], levels: Sequence[str | None] = (None,), threads: Sequence[int | None] = (None,)
) -> list[Setting]:
    """Return each provider at each level, by each number of threads.

    Raises TypeError for one where a list is expected, and for a provider that is no text; ParityError for an
    empty list, a level that there isn't, and no number of threads; ProviderError for a provider that isn't
    there.
    """
    for name, given in (("provider", providers), ("level", levels), ("number of threads", threads)):
        if isinstance(given, str | int):
            raise TypeError(f"{given!r} is one {name}; expected a list: [{given!r}]")
        if given is None:
            raise TypeError(f"None is no list of a {name}; expected one, such as ['cpu']")
    providers, levels, threads = list(providers), list(levels), list(threads)
    for name, given in (("provider", providers), ("level", levels), ("number of threads", threads)):
        if not given:
            raise ParityError(f"no {name} was given; expected one at least")
    for provider in providers:
        if not isinstance(provider, str):
            raise TypeError(f"{provider!r} is no provider; expected a text, such as 'cuda:use_tf32=0'")
        session_providers([parse_provider(provider)])
    for level in levels:
        if level is not None and level not in LEVELS:
            raise ParityError(f"{level!r} is no optimisation level; expected one of {', '.join(LEVELS)}")
    for count in threads:
        if count is not None and (not isinstance(count, Integral) or isinstance(count, bool) or count < 1):
            raise ParityError(f"{count!r} is no number of threads; expected 1 or more, or None")
    return [Setting(*each) for each in itertools.product(providers, levels, threads)]


@dataclass(frozen=True)
class Run:
    """A session, and how it runs."""

    setting: Setting
    session: InferenceSession

    def outputs(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the file; returns its outputs by name. Raises ParityError where ONNX Runtime refuses to."""
        names = [output.name for output in self.session.get_outputs()]
        with refusals("the run fails"):
            return dict(zip(names, self.session.run(names, dict(feed)), strict=True))

    @property
    def on_cpu(self) -> bool:
        """Tell whether it is the CPU provider."""
        return parse_provider(self.setting.provider)[0] == CPU

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
    """Make a session; raises what ``make_session`` raises."""
    return Run(setting, make_session(source, setting, setting.tuning(libraries), options))


def make_session(
    source: str | bytes, setting: Setting, tuning: Tuning, options: Mapping[str, Any]
) -> InferenceSession:
    """Make a session; raises ParityError where ONNX Runtime refuses to, ProviderError without a provider."""
    with refusals("no session could be made"):
        return InferenceSession(source, tuning, [parse_provider(setting.provider)], **options)


@contextlib.contextmanager
def refusals(what: str) -> Iterator[None]:
    """Raise ParityError, in one line that begins with ``what``, for an exception of ONNX Runtime's own."""
    try:
        yield
    except Exception as error:
        if not of_runtime(error) and not isinstance(error, NoKernelError):
            raise
        lines = [str(error).strip().partition("\n")[0], *getattr(error, "__notes__", ())]
        raise ParityError(f"{what}: {'; '.join(lines)}") from error


def of_runtime(error: BaseException | None) -> bool:
    """Tell whether an exception is ONNX Runtime's own, as where a session can't be made."""
    return type(error).__module__ == _RUNTIME
