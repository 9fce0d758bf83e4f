"""What becomes of a kernel's exceptions, between the kernel that raises and the ``run`` that raises anew.

ONNX Runtime carries only a text across. The exception waits here under a number that the text bears.
"""

import contextlib
import gc
import itertools
import os
import re
import sys
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Iterator
from types import CellType, FunctionType, TracebackType
from typing import Any, NoReturn

import numpy as np

from .builtin import RELEASE
from .errors import KernelError, OrtOpsError, RegistrationError, ResultError

__all__ = ["DEBUG", "collect", "discard", "error_of", "fail", "raise_failure"]

DEBUG = os.environ.get("ORT_OPS_DEBUG", "0") not in ("", "0")
"""Kernels get copies of their inputs, so that a failed one's frames can be kept for a debugger, and ``out=``
buffers of which every bit is set (NaN, -1), which shows what a kernel left unfilled."""

_CUT_OFF = 1800
"""What ONNX Runtime up to 1.22 passes on of a kernel's text, in characters: 2,048 with its own before it."""
_KEPT = 64
"""Failures that wait for more than one run of each thread are nobody's any more, but for so many."""
_failures: OrderedDict[int, tuple[BaseException, str]] = OrderedDict()
_numbers = itertools.count(1)
_PROCESS = os.urandom(8).hex()
"""A part of each mark that no name in a model's file can have."""
_MARK = re.compile(rf"\(ort_ops failure {_PROCESS} (\d+)\) ")
_REGISTER = "ort_ops.register"
_READ_ONLY = re.compile(r"\b(array|destination|source) is read-only$")
"""What NumPy says where it is to write into an array that it may not."""


def fail(error: BaseException, node: str, kernel_name: str, owned: bool) -> str:
    """Store a kernel's exception and return what ONNX Runtime is told.

    The frames are cleared: their locals are views of buffers that will be freed. ``owned`` says that an
    ``ort_ops.InferenceSession`` will raise the exception; plain onnxruntime can't, so there the traceback
    goes into the text, and the exception goes. ``kernel_name`` is empty where it isn't a kernel that failed,
    but its registration, which raises it.
    """
    try:
        return _store(error, node, kernel_name, owned)
    except Exception as broken:  # the exception is itself so wrong that it can't be dealt with
        instead = KernelError(
            f"{object.__repr__(error)}, an exception that can't be handed on: "
            f"looking at it raised {object.__repr__(broken)}"
        ).with_traceback(vars(BaseException)["__traceback__"].__get__(error))
        return _store(instead, node, kernel_name, owned)
    except BaseException as interrupt:
        return _store(interrupt, node, kernel_name, owned)


def _store(error: BaseException, node: str, kernel_name: str, owned: bool) -> str:
    where = f"node {_plain(node)!r}" if node else "a node without a name"
    what = f"kernel {kernel_name} of {where}" if kernel_name else _REGISTER
    summary = _summary(error)
    if isinstance(error, ValueError) and _READ_ONLY.search(summary):
        summary += "; inputs are read-only: work on a copy (x.copy())"
    text = "" if owned else _plain(_formatted(error))
    for link in _chain(error):
        if DEBUG:
            _clear_own_frames(link.__traceback__)
        else:
            _let_go(link)
    if kernel_name and not owned:
        said = f"{what} failed: {summary}\n"
        return said + (text if RELEASE >= (1, 23) else _end_of(text, _CUT_OFF - len(said)))
    number = next(_numbers)
    _failures[number] = error, f"{what} failed: {summary}"
    while len(_failures) > _KEPT + threading.active_count():
        _failures.popitem(last=False)
    # The mark stands before what may be long, which ONNX Runtime cuts off.
    return f"(ort_ops failure {_PROCESS} {number}) {what} failed: {summary}"


def _end_of(text: str, size: int) -> str:
    """Return the last lines of a traceback, which say what was raised and where: about so many characters."""
    if len(text) <= size:
        return text
    return "  [...]\n" + text[-max(size, 0) :].partition("\n")[2]


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


_CAUSE, _CONTEXT = vars(BaseException)["__cause__"], vars(BaseException)["__context__"]


def _chain(error: BaseException) -> list[BaseException]:
    """Return an exception, and all that it came from or is a group of.

    As they are stored: a class may have properties of these names, which may never end.
    """
    links: dict[int, BaseException] = {}
    pending: list[BaseException | None] = [error]
    while pending:
        link = pending.pop()
        if link is not None and id(link) not in links:
            links[id(link)] = link
            pending += [_CAUSE.__get__(link), _CONTEXT.__get__(link)]
            pending += (
                vars(BaseExceptionGroup)["exceptions"].__get__(link)
                if isinstance(link, BaseExceptionGroup)
                else ()
            )
    return list(links.values())


def _formatted(error: BaseException) -> str:
    """Return an exception's traceback as text, without its causes where a class makes them up."""
    kinds = {type(link) for link in _chain(error)}
    stored = all(kind.__cause__ is _CAUSE and kind.__context__ is _CONTEXT for kind in kinds)
    return "".join(traceback.format_exception(error) if stored else traceback.format_tb(error.__traceback__))


def _let_go(error: BaseException) -> None:
    """Clear an exception's frames, and give it copies of the arrays that it holds.

    Python itself gives one to an AttributeError: the object without that attribute, which is an input where a
    kernel misspells one of its methods. It is for suggestions of what was meant, and its type serves.
    """
    traceback.clear_frames(error.__traceback__)
    for cell in _cells(error.__traceback__):
        with contextlib.suppress(ValueError):  # it is empty
            cell.cell_contents = _own(cell.cell_contents)
    if any(_own(value) is not value for value in error.args):
        # An exception that is frozen has no other way.
        vars(BaseException)["args"].__set__(error, tuple(map(_own, error.args)))
    own = vars(error)
    own.update((name, _own(value)) for name, value in tuple(own.items()))
    if isinstance(error, AttributeError):
        error.obj = type(error.obj) if _is_borrowed(error.obj) else error.obj
    if isinstance(error, StopIteration):
        error.value = _own(error.value)


def _clear_own_frames(step: TracebackType | None) -> None:
    """Clear those frames of a traceback that are ort_ops's: they hold the buffers that were copied."""
    while step is not None:
        if step.tb_frame.f_globals.get("__name__", "").startswith("ort_ops."):
            with contextlib.suppress(RuntimeError):  # it still runs
                step.tb_frame.clear()
        step = step.tb_next


def _cells(step: TracebackType | None) -> Iterator[CellType]:
    """Give the variables of outer functions that a traceback's functions use; a cleared frame keeps those.

    Only of functions that nobody else has (a comprehension, a helper inside a kernel): what others refer to
    stays as it is.
    """
    while step is not None:
        for function in gc.get_referents(step.tb_frame):
            if isinstance(function, FunctionType) and sys.getrefcount(function) <= _OURS:
                yield from function.__closure__ or ()
        step = step.tb_next


def _count_ours() -> int:
    """Return how many references there are, where ``_cells`` looks, to a function that nobody else has.

    The frame's, the list's and the variable's, and up to Python 3.13 the argument's.
    """
    try:
        (lambda: 1 // 0)()
    except ZeroDivisionError as error:
        step = error.__traceback__
        while step is not None:
            for function in gc.get_referents(step.tb_frame):
                if isinstance(function, FunctionType) and function.__name__ == "<lambda>":
                    return sys.getrefcount(function)
            step = step.tb_next
    raise AssertionError("a frame has no function")


_OURS = _count_ours()


def _own(value: Any) -> Any:
    """Return a copy of an array that views a buffer of a run, which will be freed; and all else as it is."""
    with contextlib.suppress(Exception):  # no memory, a GPU that has failed: then it stays, and is found
        if not _is_borrowed(value):
            return value
        if isinstance(value, np.ndarray):
            return value.copy()
        return value.detach().clone() if hasattr(value, "detach") else None
    return value


def _is_borrowed(value: Any) -> bool:
    """Tell whether an object is an array over memory of others, as those are that a kernel is given."""
    if isinstance(value, np.ndarray):
        while isinstance(value, np.ndarray):
            value = value.base
        return type(value).__name__ == "PyCapsule" and '"ort_ops.buffers"' in repr(value)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        with contextlib.suppress(Exception):  # it has no such storage
            return not value.untyped_storage().resizable()
    return type(value).__module__ == "nanobind"  # of a kernel on DLPack arrays


_TRIES = 1000
"""A collection in another thread is waited for so many milliseconds: in this one it may never end."""


def collect() -> None:
    """Collect what is left in cycles, also where the collector is off or at work in another thread."""
    ran: list[int] = []

    def note(phase: str, info: object) -> None:
        ran.append(threading.get_ident())

    gc.callbacks.append(note)
    try:
        for _ in range(_TRIES):
            gc.collect()  # which does nothing while another collection runs
            if threading.get_ident() in ran:
                return
            time.sleep(0.001)
    finally:
        gc.callbacks.remove(note)


def discard(text: str) -> None:
    """Deal with a view that outlived its run; ``text`` is that of the failure so far, or empty.

    A failed kernel's exception that holds such a view is thrown away for its text and its traceback, what is
    no error (KeyboardInterrupt, SystemExit) for a new one of its type; where nothing has failed so far, the
    view is the failure.
    """
    advice = (
        "kept a view of an input or of out beyond its call, where its memory is freed; keep a copy (x.copy())"
    )
    if not text:
        raise ResultError(advice)
    match = _MARK.search(text)
    if match and int(match[1]) in _failures:
        lost, what = _failures[int(match[1])]
        for link in _chain(lost):
            traceback.clear_frames(link.__traceback__)
        instead = (
            KernelError(f"{_summary(lost)} [the exception itself {advice}]")
            if isinstance(lost, Exception)
            else _anew(lost)
        )
        if _is_cleared(lost.__traceback__):
            instead.__traceback__ = lost.__traceback__
        _failures[int(match[1])] = instead, what


def _anew(lost: BaseException) -> BaseException:
    """Return a new exception of a type that asks for an end, not an error; SystemExit's with its code."""
    try:
        instead = type(lost).__new__(type(lost))
    except Exception:  # it can't be made of nothing
        instead = SystemExit() if isinstance(lost, SystemExit) else KeyboardInterrupt()
    if isinstance(instead, SystemExit) and isinstance(lost, SystemExit):
        instead.code = lost.code if isinstance(lost.code, int | str | None) else 1
    return instead


def _is_cleared(step: TracebackType | None) -> bool:
    """Tell whether no frame of a traceback has variables any more: one that still runs, in a thread, has."""
    while step is not None and not step.tb_frame.f_locals:
        step = step.tb_next
    return step is None


def error_of(text: str) -> BaseException | None:
    """Return what is to be raised for a message of ONNX Runtime's; a failure is given out once.

    None where the message is not of a kernel's failure, or of one so long ago that it is forgotten.
    """
    match = _MARK.search(text)
    taken = _failures.pop(int(match[1]), None) if match else None
    if taken is None:
        return None
    failure, what = taken
    if not isinstance(failure, Exception):
        return failure
    if what.startswith(_REGISTER) and isinstance(failure, OrtOpsError):
        return failure
    error = ResultError(what) if isinstance(failure, ResultError) else KernelError(what)
    error.__cause__ = None if isinstance(failure, ResultError) else failure
    return error


def raise_failure(error: Exception) -> NoReturn:
    """Raise what a message of ONNX Runtime's is about, or the error as it is."""
    try:
        raise _told_apart(error)
    finally:
        del error  # else the exception would hold this frame, which holds the exception


def _told_apart(error: Exception) -> BaseException:
    text = str(error)
    failure = error_of(text)
    told: RegistrationError | None = None
    if failure is not None:
        return failure
    if "takes a domain from one library" in text:
        told = RegistrationError(f"{text}; ops=[...] limits what ort_ops registers")
    elif "already set in registry" in text:
        extensions = "onnxruntime_extensions" in sys.modules
        told = RegistrationError(
            f"ort_ops and {'onnxruntime-extensions' if extensions else 'another library'} both register "
            "one domain in this SessionOptions, which ONNX Runtime refuses; give the Python kernels a "
            "domain of their own ('my.domain::Name'), or leave theirs out (ops=[...] limits what ort_ops "
            "registers, ort_ops.compat.enable_py_op(False) what plain onnxruntime is given)"
        )
    if told is None:
        return error
    told.__cause__ = error
    return told
