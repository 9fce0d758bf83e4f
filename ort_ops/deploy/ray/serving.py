"""A bundle as a Ray Serve application."""

import asyncio
import os
from collections.abc import Sequence
from typing import Any

from ray import serve

from ort_ops.deploy.batchable import check_batchable
from ort_ops.model import read_model

from .batching import row_count, run_together
from .independence import ways_together
from .replica import Feed, Outputs, Replica, ReplicaSetting, prepare
from .requests import Request, portable

__all__ = ["application"]


def application(
    folder: str | os.PathLike[str],
    *,
    provider: str = "cpu",
    replicas: int = 1,
    threads: int = 1,
    modules: Sequence[str] = (),
    max_batch: int = 0,
    delay_us: int = 0,
    allow_reduced_precision: bool = False,
    verify_key: str | os.PathLike[str] | None = None,
    **deployment: Any,
) -> serve.Application:
    """Return an application for ``serve.run``, whose handle ``Handle`` takes.

    folder: the bundle's, by a path that every node has. provider: as ``--provider`` of the commands has it;
        off the CPU, each replica has a GPU of its own.
    replicas: how many; threads: cores of each. modules: imported in replicas, for the kernels they register.
    max_batch: how many rows may be put together along the first dimension; 0 for none. What waits while a
        batch runs is the next one; delay_us: for how many microseconds more a request may wait for others.
        The last bits of an answer may then depend on what it ran with.
    allow_reduced_precision: take answers that TF32 or a 16-bit type explains for right.
    verify_key: a PEM file with the public key that the bundle has to be signed with, by a path that every
        node has.
    deployment: more of what ``serve.deployment`` takes, such as ``health_check_period_s``, or
        ``autoscaling_config`` in place of ``replicas``.

    A replica takes requests once its files are what the manifest says and its session gives the golden
    answers; with ``max_batch``, put together in one run, and taken apart, too: rows that influence one
    another can't be batched. Later health checks replay the first one. Where one fails, Ray replaces the
    replica.

    Raises BundleError where the bundle is altered, has no golden answers, or can't be batched.
    """
    bundle, setting = prepare(folder, provider, threads, modules, allow_reduced_precision, verify_key)
    if max_batch:
        check_batchable(read_model(bundle.model))
    actor = deployment.pop("ray_actor_options", {})
    options = {
        "name": bundle.model.stem,
        "ray_actor_options": {**setting.resources, **actor},
        # Enough for a batch to gather while another runs.
        "max_ongoing_requests": max(2 * max_batch, 5),
        **({} if "autoscaling_config" in deployment else {"num_replicas": replicas}),
        **deployment,
    }
    made: serve.Application = serve.deployment(**options)(_Served).bind(setting, max_batch, delay_us * 1e-6)
    return made


def _rows(calls: list[list[Feed]]) -> int:
    return sum(row_count(feed) or 1 for feeds in calls for feed in feeds)


class _Served:
    """One replica, as Ray Serve calls it."""

    def __init__(self, setting: ReplicaSetting, max_batch: int, delay_s: float) -> None:
        self._replica = Replica(setting)
        self._max_batch = max_batch
        self._ways = [self._replica.run_each, *(ways_together(self._replica) if max_batch else ())]
        self._gather.set_max_batch_size(max(max_batch, 1))  # type: ignore[attr-defined]
        self._gather.set_batch_wait_timeout_s(delay_s)  # type: ignore[attr-defined]

    async def answer(self, requests: list[Request]) -> list[Outputs | Exception]:
        """Answer requests: what ``InferenceSession.run`` returns or raises for each."""
        feeds = [feed for _, feed in requests]
        gathered = self._max_batch and _rows([feeds]) <= self._max_batch
        answers = await (self._gather(feeds) if gathered else asyncio.to_thread(self._answer, feeds))
        return [
            portable(answer) if isinstance(answer, Exception) else self._chosen(names, answer)
            for (names, _), answer in zip(requests, answers, strict=True)
        ]

    @serve.batch(batch_size_fn=_rows)
    async def _gather(self, calls: list[list[Feed]]) -> list[list[Outputs | Exception]]:
        answers = iter(await asyncio.to_thread(self._answer, [feed for feeds in calls for feed in feeds]))
        return [[next(answers) for _ in feeds] for feeds in calls]

    def _answer(self, feeds: Sequence[Feed]) -> list[Outputs | Exception]:
        return run_together(feeds, self._replica.names, self._replica.run, self._max_batch)

    def _chosen(self, names: Sequence[str] | None, outputs: Outputs) -> Outputs | Exception:
        by_name = dict(zip(self._replica.names, outputs, strict=True))
        unknown = [name for name in names or () if name not in by_name]
        if unknown:
            return ValueError(f"the model has no output {', '.join(unknown)}; it has {', '.join(by_name)}")
        return [by_name[name] for name in names or by_name]

    async def check_health(self) -> None:
        """Replay golden answers; Ray asks before the first request, and then again and again."""
        await asyncio.to_thread(self._replica.check, *self._ways)
        self._ways = self._ways[:1]
