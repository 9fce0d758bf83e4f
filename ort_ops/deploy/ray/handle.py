"""Requests to an application, sent again where the replica that had them died."""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from numpy.typing import NDArray
from ray.exceptions import RayActorError
from ray.serve.handle import DeploymentHandle

from .replica import Outputs
from .requests import Request

__all__ = ["Handle"]


class Handle:
    """A handle of an application that loses no request to a replica that dies.

    ``Handle(serve.run(application(folder)))``. Ray itself sends again what a replica had not accepted yet. A
    request that it had accepted may have run when the replica died, and fails with ``RayActorError``; here it
    is sent again, up to ``retries`` times, after ``backoff_s`` seconds and twice as long each time. So it is
    **executed at least once**: a kernel that keeps state, or writes somewhere, may do so twice.

    max_batch: how many requests may go as one call of Ray's; 0 for a call each. Ray spends milliseconds on
        a call, whatever is in it: with a ``max_batch``, up to ``calls`` are on their way at once, and what
        comes meanwhile gathers for the next. That is worth it where requests are many and small; the
        application's own ``max_batch`` then says how many of their rows run together.

    Errors of the model or of a kernel are not tried again: they are raised as what they are in the replica,
    whose traceback they have as a note. Handles may be shared by threads; ``close``, or leaving ``with``,
    ends the one that a handle has of its own.
    """

    def __init__(
        self,
        handle: DeploymentHandle[Any],
        *,
        retries: int = 6,
        backoff_s: float = 0.05,
        max_batch: int = 0,
        calls: int = 4,
    ) -> None:
        self._handle = handle.options(method_name="answer")
        self._retries, self._backoff_s = retries, backoff_s
        self._max_batch = max_batch
        self._loop = asyncio.new_event_loop()
        self._waiting: asyncio.Queue[tuple[Request, asyncio.Future[Outputs]]] = asyncio.Queue()
        self._callers = [
            self._loop.create_task(self._keep_calling()) for _ in range(calls if max_batch else 0)
        ]
        self._closing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._loop.run_forever, name="ort_ops.Handle", daemon=True)
        self._thread.start()

    def submit(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, NDArray[Any]]
    ) -> "Future[list[NDArray[Any]]]":
        """Send a request with ``InferenceSession.run``'s arguments; returns a future of what that returns.

        Raises RuntimeError where the handle is closed.
        """
        with self._closing:
            if self._closed:
                raise RuntimeError("this handle is closed")
            return asyncio.run_coroutine_threadsafe(self._answer((output_names, input_feed)), self._loop)

    def run(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, NDArray[Any]],
        *,
        timeout_s: float | None = None,
    ) -> list[NDArray[Any]]:
        """Run the model on some replica, as ``InferenceSession.run`` does.

        timeout_s: how long it may take with all that is sent again; TimeoutError where it takes longer.
        """
        future = self.submit(output_names, input_feed)
        try:
            return future.result(timeout_s)
        finally:
            future.cancel()

    async def run_async(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, NDArray[Any]]
    ) -> list[NDArray[Any]]:
        """Run the model on some replica, to be awaited."""
        return await asyncio.wrap_future(self.submit(output_names, input_feed))

    def close(self) -> None:
        """End the handle's thread; requests on their way are cancelled."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            cancelled = asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop)
        cancelled.result()  # of what was submitted before; what is now is refused
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> "Handle":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _answer(self, request: Request) -> Outputs:
        if self._max_batch:
            future = self._loop.create_future()
            self._waiting.put_nowait((request, future))
            outputs: Outputs = await future
            return outputs
        (answer,) = await self._call([request])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _keep_calling(self) -> None:
        """Send what waits, again and again."""
        while True:
            taken = [await self._waiting.get()]
            while len(taken) < self._max_batch and not self._waiting.empty():
                taken.append(self._waiting.get_nowait())
            try:
                answers = await self._call([request for request, _ in taken])
            except Exception as error:
                answers = [error] * len(taken)
            for (_, future), answer in zip(taken, answers, strict=True):
                if future.cancelled():
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

    async def _call(self, requests: list[Request]) -> list[Outputs | Exception]:
        """Send requests as one call, and again while the replica that has them dies."""
        for attempt in range(self._retries):
            try:
                return await self._send(requests)
            except RayActorError:
                await asyncio.sleep(self._backoff_s * 2**attempt)
        return await self._send(requests)

    async def _send(self, requests: list[Request]) -> list[Outputs | Exception]:
        answers: list[Outputs | Exception] = await self._handle.remote(requests)
        return answers

    async def _cancel_all(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
