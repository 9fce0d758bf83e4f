"""What ONNX Runtime computes on its way through a file: the tensors that its optimiser leaves.

A tensor inside of a fused kernel is not there; asking for it would take the kernel apart, and something else
would be looked at than what runs.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray
from onnx import NodeProto

from ort_ops.session import InferenceSession
from ort_ops.tuning import Tuning

from .runs import Setting, make_session

__all__ = ["Results", "Tapped"]

_INLINE = 1024  # bytes up to which a weight stays in the file


class Tapped:
    """A file with the surviving tensors as outputs besides its own; it is in a folder of its own."""

    def __init__(
        self,
        model: ir.Model,
        setting: Setting,
        libraries: Sequence[str | os.PathLike[str]],
        options: Mapping[str, Any],
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ort_ops.")
        self._setting, self._libraries, self._options = setting, libraries, options
        try:
            self._tap(model)
        except BaseException:
            self.close()
            raise

    def _tap(self, model: ir.Model) -> None:
        plain = Path(self._folder.name, "plain.onnx")
        ir.save(model, plain, external_data="weights", size_threshold_bytes=_INLINE)
        optimised = Path(self._folder.name, "optimised.onnx")
        self._session(plain, optimised)
        survived = _results(onnx.load(optimised, load_external_data=False))
        os.unlink(optimised)
        proto = onnx.load(plain, load_external_data=False)
        own = [output.name for output in proto.graph.output]
        self.names = [name for name in _results(proto) if name in survived or name in own]
        proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self.names if name not in own)
        tapped = Path(self._folder.name, "tapped.onnx")
        onnx.save(proto, tapped)
        self.session = self._session(tapped)

    def close(self) -> None:
        """Remove the folder."""
        self._folder.cleanup()

    def run(self, feed: Mapping[str, Any], sizes: Mapping[str, int], memory: int) -> "Results":
        """Return what a run gives; ``sizes`` are the bytes of each result, where they are known."""
        return Results(self, feed, sizes, memory)

    def _session(self, path: Path, optimised: Path | None = None) -> InferenceSession:
        tuning = _Saving(**vars(self._setting.tuning(self._libraries)), optimised=optimised)
        session = make_session(str(path), self._setting, tuning, self._options)
        Path(self._folder.name, "optimised.weights").unlink(missing_ok=True)
        return session


@dataclass(frozen=True)
class _Saving(Tuning):
    """How a session is tuned that saves the graph as ONNX Runtime optimised it."""

    optimised: Path | None = None

    def options(self, *, may_spin: bool = True) -> onnxruntime.SessionOptions:
        options = super().options(may_spin=may_spin)
        options.log_severity_level = 3
        if self.optimised is not None:
            options.optimized_model_filepath = str(self.optimised)
            key = "session.optimized_model_external_initializers_file_name"
            options.add_session_config_entry(key, "optimised.weights")
        return options


class Results:
    """The values of a run, those of each node to be asked for before those of the next, in the file's order.

    The file is run as often as ``memory`` bytes of results at a time ask for.
    """

    def __init__(
        self, tapped: Tapped, feed: Mapping[str, Any], sizes: Mapping[str, int], memory: int
    ) -> None:
        self._session, self._feed = tapped.session, dict(feed)
        self._chunks = _chunks(tapped.names, sizes, memory)
        self._names = frozenset(tapped.names)
        self._values: dict[str, NDArray[Any]] = {}
        self._node: NodeProto | None = None
        self._given: dict[str, NDArray[Any]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def of(self, node: NodeProto) -> Mapping[str, NDArray[Any]]:
        """Return a node's results by name, those that survive, and let go of those of the node before."""
        if node is not self._node:
            self._node = node
            self._given = {name: self._take(name) for name in node.output if name in self._names}
        return self._given

    def _take(self, name: str) -> NDArray[Any]:
        while name not in self._values:
            names = next(self._chunks)
            self._values = dict(zip(names, self._session.run(names, self._feed), strict=True))
        return self._values.pop(name)


def _chunks(names: Sequence[str], sizes: Mapping[str, int], memory: int) -> Iterator[list[str]]:
    chunk: list[str] = []
    left = memory
    for name in names:
        if chunk and sizes.get(name, 0) > left:
            yield chunk
            chunk, left = [], memory
        chunk.append(name)
        left -= sizes.get(name, 0)
    yield chunk


def _results(proto: onnx.ModelProto) -> list[str]:
    """Return the names of all results of nodes, in order."""
    return [name for node in proto.graph.node for name in node.output if name]
