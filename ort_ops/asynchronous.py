"""Runs that answer a callback, on a thread of ONNX Runtime's."""

import atexit
import os
import threading
from collections.abc import Callable
from typing import Any, Self

from .failures import error_of

__all__ = ["ErrorText", "answering", "outlive"]


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


class _InFlight:
    """How many runs have yet to answer. Python waits for them when it ends.

    CPython before 3.14 takes down a thread that asks for an interpreter that is going, and ONNX Runtime's
    would take the process with it.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._changed = threading.Condition()
        self._count = 0

    def add(self, change: int) -> None:
        with self._changed:
            self._count += change
            self._changed.notify_all()

    def wait(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._count == 0)


_in_flight = _InFlight()
atexit.register(_in_flight.wait)
os.register_at_fork(after_in_child=_in_flight.forget)  # its threads are the parent's


_ended: list[object] = []


def outlive(session: object) -> None:
    """Keep a session whose run has just ended until the next run is started, or for good.

    Where the answer drops the last reference to it, ONNX Runtime's thread would end its own session. Up to
    1.25 the session's end also waits for that thread while it holds Python's lock, which the thread needs.
    """
    if not _ended or _ended[-1] is not session:
        _ended.append(session)


def answering(
    start: Callable[[Callable[[list[Any], Any, str], None]], None],
    callback: Callable[[list[Any], Any, ErrorText], None],
) -> None:
    """Start a run whose answer goes to ``callback``, with an ErrorText for ONNX Runtime's text.

    ``start`` is given the callback that is ONNX Runtime's. What ``callback`` raises goes to
    ``threading.excepthook``, as from any thread: releases of ONNX Runtime differ in what they make of it.
    """

    def answer(results: list[Any], user_data: Any, text: str) -> None:
        try:
            callback(results, user_data, ErrorText(text))
        except BaseException as error:
            threading.excepthook(
                threading.ExceptHookArgs(
                    (type(error), error, error.__traceback__, threading.current_thread())
                )
            )
        finally:
            _in_flight.add(-1)

    del _ended[:-1]
    _in_flight.add(1)
    try:
        start(answer)
    except BaseException:
        _in_flight.add(-1)
        raise
