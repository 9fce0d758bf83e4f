"""What becomes of a kernel's exceptions, between the kernel that raises and the ``run`` that raises anew.

ONNX Runtime carries only a text across. The exception waits here under a number that the text bears.
"""

import itertools
import os
import re
import sys
import traceback
from collections import OrderedDict
from typing import NoReturn

from .errors import KernelError, RegistrationError, ResultError

__all__ = ["DEBUG", "discard", "error_of", "fail", "raise_failure"]

DEBUG = os.environ.get("ORT_OPS_DEBUG", "0") not in ("", "0")
"""Kernels get copies of their inputs, so that a failed one's frames can be kept for a debugger, and ``out=``
buffers of which every bit is set (NaN, -1), which shows what a kernel left unfilled."""

_KEPT = 64
_failures: OrderedDict[int, tuple[BaseException, str]] = OrderedDict()
_numbers = itertools.count(1)
_MARK = re.compile(r" \(ort_ops failure (\d+)\)")


def fail(error: BaseException, node: str, kernel_name: str, owned: bool) -> str:
    """Store a kernel's exception and return what ONNX Runtime is told.

    The frames are cleared: their locals are views of buffers that will be freed. ``owned`` says that an
    ``ort_ops.InferenceSession`` will raise the exception; plain onnxruntime can't, so the traceback goes
    into the text.
    """
    text = _plain("".join(traceback.format_exception(error)))
    for link in _chain(error) if not DEBUG else ():
        traceback.clear_frames(link.__traceback__)
    what = f"kernel {kernel_name} of node {node!r}" if node else kernel_name
    summary = _summary(error)
    number = next(_numbers)
    _failures[number] = error, f"{what} failed: {summary}"
    while len(_failures) > _KEPT:
        _failures.popitem(last=False)
    # The number stands before what may be long: ONNX Runtime cuts a text off after some 2,000 characters.
    message = f"{what} failed (ort_ops failure {number}): {summary}"
    return message if owned else f"{message}\n{text}"


def _summary(error: BaseException) -> str:
    try:
        said = str(error)
    except Exception:
        said = "<its text can't be made>"
    return _plain(said if isinstance(error, ResultError) else f"{type(error).__name__}: {said}")


def _plain(text: str) -> str:
    """Return text that goes through a C string whole, and has no mark of another failure in it."""
    text = text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    return _MARK.sub("", text)


def _chain(error: BaseException | None) -> list[BaseException]:
    links: list[BaseException] = []
    pending = [error]
    while pending:
        link = pending.pop()
        if link is not None and not any(link is seen for seen in links):
            links.append(link)
            pending += [link.__cause__, link.__context__]
    return links


def discard(text: str) -> None:
    """Deal with a view that outlived its run; ``text`` is that of the failure so far, or empty.

    A failed kernel's exception that holds such a view is thrown away for its text alone; where nothing
    has failed so far, the view is the failure.
    """
    advice = "kept a view of an input beyond its call, where its memory is freed; keep a copy (x.copy())"
    if not text:
        raise ResultError(advice)
    match = _MARK.search(text)
    if match and int(match[1]) in _failures:
        lost, what = _failures[int(match[1])]
        _failures[int(match[1])] = KernelError(f"{_summary(lost)} [the exception itself {advice}]"), what


def error_of(text: str) -> BaseException | None:
    """Return what is to be raised for a message of ONNX Runtime's; a failure is given out once.

    None where the message is not of a kernel's failure, or of one so long ago that it is forgotten.
    """
    match = _MARK.search(text)
    taken = _failures.pop(int(match[1]), None) if match else None
    if taken is None:
        return None
    failure, what = taken
    if not isinstance(failure, Exception) or isinstance(failure, RegistrationError):
        return failure
    error = ResultError(what) if isinstance(failure, ResultError) else KernelError(what)
    error.__cause__ = None if isinstance(failure, ResultError) else failure
    return error


def raise_failure(error: Exception) -> NoReturn:
    """Raise what a message of ONNX Runtime's is about, or the error as it is."""
    text = str(error)
    failure = error_of(text)
    if failure is None:
        if "takes a domain from one library" in text:
            raise RegistrationError(f"{text}; ops=[...] limits what ort_ops registers") from error
        if "already set in registry" in text:
            extensions = "onnxruntime_extensions" in sys.modules
            raise RegistrationError(
                f"ort_ops and {'onnxruntime-extensions' if extensions else 'another library'} both register "
                "one domain in this SessionOptions, which ONNX Runtime refuses; give the Python kernels a "
                "domain of their own ('my.domain::Name'), or leave theirs out (ops=[...] limits what ort_ops "
                "registers, ort_ops.compat.enable_py_op(False) what plain onnxruntime is given)"
            ) from error
        raise error
    raise failure
