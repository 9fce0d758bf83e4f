"""What every replica holds: a session of a bundle, which gives the bundle's golden answers."""

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ort_ops import parity
from ort_ops.deploy.opening import Bundle, open_bundle
from ort_ops.errors import KernelError, ParityError
from ort_ops.parity import Report
from ort_ops.providers import CPU, parse_provider
from ort_ops.tuning import Tuning

__all__ = ["Feed", "Outputs", "Replica", "ReplicaSetting", "prepare"]

Feed = Mapping[str, NDArray[Any]]
Outputs = list[Any]


@dataclass(frozen=True)
class ReplicaSetting:
    """How replicas run a bundle.

    folder: the bundle's, by a path that every node has. provider: as ``--provider`` of the commands has it.
    threads: of one replica's session. modules: imported for the kernels that they register.
    allow_reduced_precision: take answers that TF32 or a 16-bit type explains for right. verify_key: a PEM
    file with the public key that the bundle has to be signed with, likewise.
    """

    folder: str
    provider: str = "cpu"
    threads: int = 1
    modules: Sequence[str] = ()
    allow_reduced_precision: bool = False
    verify_key: str | None = None

    @property
    def resources(self) -> dict[str, float]:
        """Return what Ray sets aside for one replica: a core a thread, and a GPU off the CPU provider."""
        on_cpu = parse_provider(self.provider)[0] == CPU
        return {"num_cpus": self.threads, "num_gpus": 0 if on_cpu else 1}


def prepare(
    folder: str | os.PathLike[str],
    provider: str,
    threads: int,
    modules: Sequence[str],
    allow_reduced_precision: bool,
    verify_key: str | os.PathLike[str] | None,
) -> tuple[Bundle, ReplicaSetting]:
    """Check a bundle here, before Ray is asked for anything; returns it, and how replicas run it.

    Raises BundleError where it is altered or has no golden answers.
    """
    bundle = open_bundle(folder, verify_key=verify_key)
    bundle.golden_answers()
    key = None if verify_key is None else os.path.abspath(verify_key)
    where = os.path.abspath(folder)
    return bundle, ReplicaSetting(where, provider, threads, tuple(modules), allow_reduced_precision, key)


class Replica:
    """A session of a bundle, whose files were checked before it was made.

    Raises BundleError where a file is not what the manifest says, and where there are no golden answers.
    """

    def __init__(self, setting: ReplicaSetting) -> None:
        for module in setting.modules:
            importlib.import_module(module)
        bundle = open_bundle(setting.folder, verify_key=setting.verify_key)
        self._golden = bundle.golden_answers()
        provider = parse_provider(setting.provider)
        self._on_cpu = provider[0] == CPU
        self._allow_reduced_precision = setting.allow_reduced_precision
        tuning = Tuning(setting.threads, spinning=False)  # other replicas want the cores
        self.session = bundle.session([provider], tuning)
        self.names = [output.name for output in self.session.get_outputs()]

    def run(self, feed: Feed) -> Outputs:
        """Run the model; returns all its outputs."""
        try:
            outputs: Outputs = self.session.run(self.names, dict(feed))
        except SystemExit as error:  # no request ends a replica
            raise KernelError(f"a kernel asked the process to end: SystemExit({error})") from error
        return outputs

    def run_each(self, feeds: Sequence[Feed]) -> list[Outputs]:
        """Run the model for each of several requests."""
        return [self.run(feed) for feed in feeds]

    def check(self, *ways: Callable[[Sequence[Feed]], list[Outputs]]) -> None:
        """Replay golden answers, in each of the ways of answering several requests.

        The first time all answers, later the first one. Raises ParityError where one is wrong.
        """
        golden = self._golden
        samples = range(golden.manifest.samples)
        feeds = [golden.feed(sample) for sample in samples]
        rows = [
            row
            for run in ways
            for sample, outputs in zip(samples, run(feeds), strict=True)
            for row in parity.judge_sample(
                golden, sample, dict(zip(self.names, outputs, strict=True)), on_cpu=self._on_cpu
            )
        ]
        report = Report(tuple(rows))
        if report.exit_code_for(allow_reduced_precision=self._allow_reduced_precision):
            raise ParityError(f"this replica doesn't give the bundle's golden answers:\n{report}")
        self._golden = golden.first()
