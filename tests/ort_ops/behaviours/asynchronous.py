"""Runs that answer a callback."""

import atexit
import os
import threading
import time
from typing import Any

import numpy as np
import onnxruntime

import ort_ops
from tests.ort_ops.models import DOMAIN, model, node, tensor

from .base import BAD, GOOD, attempt, behaviour, check, register, session_of

DONE = threading.Event()


def say(results: list[Any], user_data: Any, err: Any) -> None:
    """Print how a run went, and let ``start`` go on."""
    exception = err.exception
    cause = exception and exception.__cause__
    print(user_data, len(results), repr(exception).partition("(")[0], repr(cause))
    DONE.set()


def start(session: Any, x: Any, callback: Any = say, name: str = "y0") -> None:
    DONE.clear()
    session.run_async([name], {"x": x}, callback, "data")
    assert DONE.wait(60)


def raises(x: Any) -> Any:
    raise ValueError("wrong")


@behaviour(
    "data 0 KernelError ValueError('wrong')",
    "data 1 None None",
    "KernelError: ValueError: wrong",
    "data 0 RuntimeError None",
    "next run right",
)
def an_asynchronous_run_fails() -> None:
    register(raises)
    session = session_of(threads=2)
    start(session, BAD)
    start(session, GOOD)
    attempt(session)
    start(session, GOOD, name="no_such_output")
    check(session)


@behaviour("str '' False", "kernel tests. ValueError: wrong True")
def its_error_is_a_text_as_onnxruntime_has_it() -> None:
    def callback(results: Any, user_data: Any, err: str) -> None:
        where, _, what = err.partition("failed: ")
        print("str ''" if err == "" else f"{where[:13]} {what}", isinstance(err, str) and bool(err))
        DONE.set()

    register(raises)
    session = session_of(threads=2)
    start(session, GOOD, callback)
    start(session, BAD, callback)


@behaviour("no failure is kept", "100 causes, each its own")
def failures_of_asynchronous_runs_are_not_mixed_up() -> None:
    def compute(x: Any) -> Any:
        raise ValueError(int(x[0, 1]))

    causes: list[bool] = []

    def callback(results: Any, number: int, err: Any) -> None:
        causes.append(str(err.exception.__cause__) == str(number))
        if len(causes) == 100:
            DONE.set()

    register(compute)
    session = session_of(threads=4)
    for number in range(100):
        session.run_async(["y0"], {"x": np.array([[0, number]], np.float32)}, callback, number)
    assert DONE.wait(60)
    print("no failure is kept" if not ort_ops.failures._failures else "KEPT")
    print(f"{causes.count(True)} causes, each its own")


@behaviour("data 0 KeyboardInterrupt None", "data 0 SystemExit None", "next run right")
def an_asynchronous_run_is_interrupted() -> None:
    def compute(x: Any) -> Any:
        raise KeyboardInterrupt if x[0, 1] else SystemExit

    register(compute)
    session = session_of(threads=2)
    start(session, np.array([[0, 1]], np.float32))
    start(session, np.array([[0, 0]], np.float32))
    check(session)


@behaviour("ValueError('in the callback')", "data 1 None None", "next run right")
def a_callback_raises() -> None:
    def callback(results: Any, user_data: Any, err: Any) -> None:
        raise ValueError("in the callback")

    def hook(arguments: Any) -> None:
        print(repr(arguments.exc_value))
        DONE.set()

    threading.excepthook = hook
    register(raises)
    session = session_of(threads=2)
    start(session, GOOD, callback)
    start(session, GOOD)
    check(session)


@behaviour("left", "data 1 None None")
def the_program_ends_while_a_run_is_in_flight() -> None:
    def compute(x: Any) -> Any:
        time.sleep(0.2)
        return x

    register(compute)
    globals()["alive"] = session = session_of(threads=2)
    session.run_async(["y0"], {"x": BAD}, say, "data")
    print("left")


@behaviour("child ended with 0", "data 1 None None")
def the_process_forks_while_a_run_is_in_flight() -> None:
    started, release = threading.Event(), threading.Event()

    def compute(x: Any) -> Any:
        started.set()
        release.wait(60)
        return x

    register(compute)
    session = session_of(threads=2)
    session.run_async(["y0"], {"x": BAD}, say, "data")
    # CPython 3.11 forks into a deadlock where another thread is just making itself known to it.
    assert started.wait(60)
    child = os.fork()
    if child == 0:
        atexit._run_exitfuncs()  # don't wait: the run is the parent's
        os._exit(0)  # ONNX Runtime would wait for its own threads, which aren't there
    print("child ended with", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    release.set()


@behaviour("NotImplementedError: run_async can't be had with 'y0', a tensor(bfloat16)", "left")
def a_type_without_arrays_is_refused() -> None:
    @ort_ops.onnx_op(f"{DOMAIN}::Op", inputs=["float32"], outputs=["bfloat16"])
    def op(x: Any) -> Any:
        return x

    session = ort_ops.InferenceSession(
        model([node("Op", outputs=["y0"])], outputs=[tensor("y0", "bfloat16")])
    )
    try:
        session.run_async(["y0"], {"x": GOOD}, say, "data")
    except NotImplementedError as error:
        print("NotImplementedError:", str(error).partition(":")[0])
    print("left")


@behaviour("refused", "left")
def a_session_without_threads_refuses_to_start_a_run() -> None:
    register(raises)
    try:
        session_of(threads=1).run_async(["y0"], {"x": GOOD}, say, "data")
    except Exception as error:
        print("refused" if "at least one thread" in str(error) else error)
    print("left")


@behaviour("interrupted", "interrupted", "left", "data 1 None None")
def ctrl_c_comes_while_a_run_is_started() -> None:
    """Before ONNX Runtime has it, and after: the program's end waits for the second run alone."""
    register(lambda x: x)
    globals()["alive"] = session = session_of(threads=2)
    original = onnxruntime.InferenceSession.run_async

    def before(*arguments: Any) -> None:
        raise KeyboardInterrupt

    def after(*arguments: Any) -> None:
        original(*arguments)
        raise KeyboardInterrupt

    # It answers behind what is printed here.
    slow = lambda *arguments: (left.wait(60), say(*arguments))  # noqa: E731
    left = threading.Event()
    for run in (before, after):
        onnxruntime.InferenceSession.run_async = run
        try:
            session.run_async(["y0"], {"x": GOOD}, slow, "data")
        except KeyboardInterrupt:
            print("interrupted")
    print("left", flush=True)
    left.set()


@behaviour("data 0 RuntimeError None", "left")
def a_result_is_no_utf8() -> None:
    """ONNX Runtime makes no array of it, and calls nobody."""

    @ort_ops.onnx_op(f"{DOMAIN}::Op", inputs=["float32"], outputs=["string"])
    def op(x: Any) -> Any:
        return np.array(["\udcff"], object)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    data = model([node("Op", outputs=["y0"])], outputs=[tensor("y0", "string")])
    start(ort_ops.InferenceSession(data, options), GOOD)
    print("left")
