"""Runs that answer a callback, on a thread of ONNX Runtime's."""

import atexit
import collections
import math
import os
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from typing import Any, Self

from .failures import error_of

__all__ = ["ErrorText", "answering", "let_go", "outlive"]


class ErrorText(str):
    """What went wrong in a run, empty where nothing did; ``exception`` is what ``run`` would have raised.

    That is a KernelError with the kernel's own exception as its ``__cause__``, a RuntimeError with ONNX
    Runtime's text where no kernel failed, and None where nothing went wrong.
    """

    exception: BaseException | None

    def __new__(cls, text: str) -> Self:
        """Take the exception that ONNX Runtime's text speaks of; nobody else is given it then."""
        exception = (error_of(text) or RuntimeError(text)) if text else None
        self = super().__new__(cls, text if exception is None else str(exception))
        self.exception = exception
        return self


class _Answer:
    """What ONNX Runtime calls, or lets go, at the end of a run.

    It lets go where it can't make Python objects of the results, strings that aren't UTF-8.
    """

    def __init__(self, callback: Callable[[list[Any], Any, ErrorText], None], user_data: Any) -> None:
        self._callback, self._user_data, self._owed = callback, user_data, False

    def owe(self, owed: bool) -> None:
        """Say whether the run has started, so that the callback is owed an answer."""
        self._owed = owed

    def __call__(self, results: list[Any], user_data: Any, text: str) -> None:
        self._owed = False
        try:
            self._callback(results, user_data, ErrorText(text))
        except BaseException as error:
            threading.excepthook(
                threading.ExceptHookArgs(
                    (type(error), error, error.__traceback__, threading.current_thread())
                )
            )
        finally:
            _answered.append(time.monotonic())
            _in_flight.discard(weakref.ref(self))

    def __del__(self) -> None:
        if self._owed:
            self([], self._user_data, _NO_RESULTS)


_NO_RESULTS = (
    "ONNX Runtime could make no Python objects of the results (strings that aren't UTF-8?); call run"
)

_in_flight: set[weakref.ref[_Answer]] = set()
"""What has yet to be called. Each change is one step, which Ctrl-C can't leave half done."""

_answered: collections.deque[float] = collections.deque([-math.inf], maxlen=1)
"""When the last answer came, by the monotonic clock, in seconds."""

_CLEANING_UP = 0.1  # seconds, where microseconds are enough if a processor is free


def _wait() -> None:
    """Wait for runs when Python ends.

    CPython before 3.14 takes down a thread that asks for an interpreter that is going, and ONNX Runtime's
    would take the process with it. A run that never started has nobody who holds its answer. After an answer
    the thread asks for the interpreter again, to let go of what it was given.
    """
    while (
        any(answer() is not None for answer in tuple(_in_flight))
        or time.monotonic() < _answered[-1] + _CLEANING_UP
    ):
        time.sleep(0.005)


atexit.register(_wait)
os.register_at_fork(after_in_child=_in_flight.clear)  # its threads are the parent's


_ended: list[object] = []


def let_go() -> None:
    """Let go of sessions whose runs have ended, all but one of which the thread may still be at its end."""
    late = time.monotonic() > _answered[-1] + _CLEANING_UP and not _in_flight
    del _ended[: None if late else -1]


def outlive(session: object) -> None:
    """Keep a session whose run has just ended until another session is made, or the next run is started.

    Where the answer drops the last reference to it, ONNX Runtime's thread would end its own session. Up to
    1.25 the session's end also waits for that thread while it holds Python's lock, which the thread needs.
    """
    if not _ended or _ended[-1] is not session:
        _ended.append(session)


def answering(
    start: Callable[[Callable[[list[Any], Any, str], None]], None],
    callback: Callable[[list[Any], Any, ErrorText], None],
    user_data: Any,
) -> None:
    """Start a run whose answer goes to ``callback``, with an ErrorText for ONNX Runtime's text.

    ``start`` is given the callback that is ONNX Runtime's. What ``callback`` raises goes to
    ``threading.excepthook``, as from any thread: releases of ONNX Runtime differ in what they make of it.
    """
    let_go()
    answer = _Answer(callback, user_data)
    _in_flight.add(weakref.ref(answer))
    answer.owe(True)
    try:
        start(answer)
    except BaseException as error:
        answer.owe(False)
        # They would hold the answer of a run that hasn't started.
        traceback.clear_frames(error.__traceback__)
        raise
    finally:
        del answer
