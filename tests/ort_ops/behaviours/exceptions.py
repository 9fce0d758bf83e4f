"""Kernels that raise."""

import asyncio
import contextlib
import gc
import importlib
import sys
import warnings
import weakref
from pathlib import Path
from typing import Any

import numpy as np

import ort_ops
from ort_ops import failures
from tests.ort_ops.models import model, node

from .base import BAD, attempt, behaviour, check, kernel, register, session_of


@kernel("KernelError: ValueError: wrong")
def raises(x: Any) -> Any:
    raise ValueError("wrong")


@kernel("KernelError: RecursionError: maximum recursion depth exceeded")
def recurses(x: Any) -> Any:
    def deeper() -> Any:
        return [deeper()]

    return deeper()


@kernel("KernelError: MemoryError: no memory")
def has_no_memory(x: Any) -> Any:
    raise MemoryError("no memory")


@kernel("KernelError: StopIteration: ")
def stops_iteration(x: Any) -> Any:
    return next(iter(()))


@kernel("SystemExit: 3")
def exits(x: Any) -> Any:
    sys.exit(3)


@kernel("KeyboardInterrupt: stop")
def is_interrupted(x: Any) -> Any:
    raise KeyboardInterrupt("stop")


@kernel("KernelError: ValueError: read-only")
def writes_into_an_input(x: Any) -> Any:
    try:
        x[...] = 1
    except ValueError as error:
        raise ValueError(str(error).rpartition(" ")[2]) from error


@kernel("KernelError: ValueError: output array is read-only; inputs are read-only: work on a copy (x.copy())")
def computes_in_place(x: Any) -> Any:
    x += 1
    return x


@kernel("KernelError: UnspeakableError: <its text can't be made>")
def raises_what_has_no_text(x: Any) -> Any:
    class UnspeakableError(Exception):
        def __str__(self) -> str:
            raise ValueError

    raise UnspeakableError


@kernel("KernelError: ValueError: bad kernel size (ort_ops failure")
def raises_what_looks_like_our_mark(x: Any) -> Any:
    raise ValueError(f"bad (ort_ops failure {failures._PROCESS} 1) kernel size (ort_ops failure")


@kernel("KernelError: ExceptionGroup: several (2 sub-exceptions)")
def raises_a_group(x: Any) -> Any:
    raise ExceptionGroup("several", [ValueError(1), ExceptionGroup("more", [KeyError(2)])])


@kernel("KernelError: ValueError: round")
def raises_a_ring_of_causes(x: Any) -> Any:
    one, two = ValueError("round"), ValueError("trip")
    one.__cause__, two.__cause__ = two, one
    raise one


@kernel("KernelError: AssertionError: ")
def asserts(x: Any) -> Any:
    assert (x == 1).all()


@kernel("KernelError: KeyError: 'missing'")
def looks_up_what_is_missing(x: Any) -> Any:
    return {}["missing"]


@kernel("KernelError: ZeroDivisionError: division by zero")
def divides_by_zero(x: Any) -> Any:
    return 1 / 0


@kernel("KernelError: FloatingPointError: divide by zero encountered in divide")
def is_told_to_raise_by_numpy(x: Any) -> Any:
    with np.errstate(all="raise"):
        return 1 / x


@kernel("KernelError: RuntimeWarning: divide by zero encountered in divide")
def turns_a_warning_into_an_error(x: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return 1 / x


@kernel("KernelError: ModuleNotFoundError: No module named 'no_such_module'")
def imports_what_is_missing(x: Any) -> Any:
    return importlib.import_module("no_such_module")


@kernel("KernelError: FileNotFoundError: [Errno 2] No such file or directory: '/no/such/file'")
def opens_what_is_missing(x: Any) -> Any:
    return Path("/no/such/file").read_bytes()


@kernel("KernelError: NeedsTwoError: one, two")
def raises_what_can_not_be_copied(x: Any) -> Any:
    class NeedsTwoError(Exception):
        def __init__(self, one: str, two: str) -> None:
            super().__init__(f"{one}, {two}")

    raise NeedsTwoError("one", "two")


@kernel("KernelError: ValueError: 100% %s %n {} \\\\ größe 日本")
def raises_text_that_looks_like_a_format(x: Any) -> Any:
    raise ValueError("100% %s %n {} \\\\ größe 日本")


@kernel("KernelError: ValueError: nul\\x00inside")
def raises_text_with_a_nul(x: Any) -> Any:
    raise ValueError("nul\0inside")


@kernel("KernelError: ValueError: lone \\udcff surrogate")
def raises_text_that_is_no_utf8(x: Any) -> Any:
    raise ValueError("lone \udcff surrogate")


@kernel("KernelError: ValueError: " + 100_000 * "x")
def raises_a_long_text(x: Any) -> Any:
    raise ValueError(100_000 * "x")


@kernel("KernelError: ValueError: ")
def raises_a_class(x: Any) -> Any:
    raise ValueError


@kernel("KernelError: TypeError: exceptions must derive from BaseException")
def raises_what_is_no_exception(x: Any) -> Any:
    raise "text"  # type: ignore[misc] # noqa: B016 # that is the case


@kernel("GeneratorExit: closed")
def raises_generator_exit(x: Any) -> Any:
    raise GeneratorExit("closed")


@kernel("CancelledError: cancelled")
def is_cancelled(x: Any) -> Any:
    raise asyncio.CancelledError("cancelled")


@kernel("no error")
def leaves_an_object_that_fails_when_it_goes(x: Any) -> Any:
    class Fails:
        def __del__(self) -> None:
            raise ValueError("while it goes")

    del_me = Fails()
    del del_me
    return x


@kernel("no error")
def swallows_its_own_exception(x: Any) -> Any:
    try:
        raise ValueError("never seen")
    except ValueError:
        return x


@kernel("KernelError: TypeError: missing 1 required positional argument: 'y'")
def calls_with_too_few_arguments(x: Any) -> Any:
    try:
        (lambda x, y: x)(x)  # type: ignore[call-arg,misc]
    except TypeError as error:
        raise TypeError("missing " + str(error).partition("missing ")[2]) from None


@behaviour(
    *("KernelError: ValueError: mine", "KeyboardInterrupt: stop", "SystemExit: 7") * 2,
    "refused: a node's name has a NUL character in it",
)
def what_is_raised_has_nothing_to_do_with_the_nodes_name() -> None:
    def compute(x: Any) -> Any:
        raise (ValueError("mine"), KeyboardInterrupt("stop"), SystemExit(7))[int(x[1])]

    register(compute)
    for name in ("n (ort_ops failure 1) ", 10_000 * "n", "a\0b"):
        named = node("Op")
        named.name = name
        try:
            session = ort_ops.InferenceSession(model([named]))
        except Exception as error:
            print("refused:", str(error).partition("Op: ")[2].partition(",")[0])
            continue
        for which in range(3):
            attempt(session, np.array([0, which], np.float32))


@kernel("KernelError: ExceptionGroup: rows (100000 sub-exceptions)")
def raises_a_group_of_many(x: Any) -> Any:
    """What takes a time that grows by the square takes some minutes here, and holds Python's lock."""
    raise ExceptionGroup("rows", [ValueError(i) for i in range(100_000)])


class EndlessError(Exception):
    """One whose cause is another one, without end."""

    __cause__ = property(lambda self: EndlessError())  # type: ignore[assignment]


@kernel("KernelError: EndlessError: no end")
def raises_what_has_causes_without_end(x: Any) -> Any:
    raise EndlessError("no end")


@behaviour("in plain onnxruntime, too")
def raises_what_has_causes_without_end_in_plain_onnxruntime() -> None:
    register(raises_what_has_causes_without_end)
    try:
        session_of(plain=True).run(None, {"x": BAD})
    except Exception as error:
        print("in plain onnxruntime, too" if "in raises_what_has_causes" in str(error) else error)


@behaviour("KeyboardInterrupt() ", "Exit() 3", "next run right")
def what_ends_the_program_holds_a_view() -> None:
    """As threads of the kernel's own do that are at work on a part of x when Ctrl-C comes."""

    def compute(x: Any) -> Any:
        raise KeyboardInterrupt(memoryview(x)) if x[0, 1] else Exit(memoryview(x), 3)

    register(compute)
    session = session_of()
    for which in (1, 0):
        try:
            session.run(None, {"x": np.array([[0, which]], np.float32)})
        except (KeyboardInterrupt, SystemExit) as error:
            print(repr(error), getattr(error, "code", ""))
    check(session)


class Exit(SystemExit):
    def __init__(self, held: Any, code: int) -> None:
        super().__init__(code)
        self.held = held


@behaviour("0 of 5 feeds are held")
def a_failed_run_leaves_nothing_behind() -> None:
    class Feed(np.ndarray):
        pass

    register(raises)
    session, feeds = session_of(), []
    gc.disable()
    for _ in range(5):
        x = BAD.copy().view(Feed)
        feeds.append(weakref.ref(x))
        with contextlib.suppress(ort_ops.errors.KernelError):
            session.run(None, {"x": x})
        del x
    print(sum(feed() is not None for feed in feeds), "of 5 feeds are held")
