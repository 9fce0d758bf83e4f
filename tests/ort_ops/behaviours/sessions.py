"""Sessions, their ends, and the threads and processes around them."""

import gc
import os
import sys
import threading
import time
from typing import Any

import numpy as np
import onnxruntime
from onnx import numpy_helper

import ort_ops
from tests.ort_ops.models import DOMAIN, builtin, function, model, node, one_node, tensor

from .base import (
    BAD,
    GOOD,
    attempt,
    behaviour,
    check,
    register,
    session_of,
)
from .exceptions import raises


@behaviour("next run right")
def the_process_ends_with_sessions_alive() -> None:
    register(lambda x: x)
    globals()["alive"] = [session_of() for _ in range(3)]
    check(globals()["alive"][0])


@behaviour("a kernel runs")
def the_process_ends_while_a_daemon_thread_is_in_a_kernel() -> None:
    inside = threading.Event()

    def compute(x: Any) -> Any:
        inside.set()
        time.sleep(0.2)
        return x

    register(compute)
    session = session_of()

    def work() -> None:
        while True:
            session.run(None, {"x": BAD})

    threading.Thread(target=work, daemon=True).start()
    inside.wait()
    print("a kernel runs")


@behaviour("at exit", "next run right")
def a_session_runs_at_exit() -> None:
    import atexit

    register(lambda x: x)
    session = session_of()
    atexit.register(lambda: (print("at exit"), check(session)))


@behaviour("left", code=3)
def sys_exit_in_a_kernel_ends_the_program_as_asked() -> None:
    register(lambda x: sys.exit(3))
    try:
        session_of().run(None, {"x": BAD})
    finally:
        print("left")


@behaviour("next run right", "deleted")
def a_kernel_deletes_its_own_session() -> None:
    sessions: list[Any] = []

    def compute(x: Any) -> Any:
        sessions.clear()
        gc.collect()
        return x

    register(compute)
    sessions.append(session_of())
    check(sessions[0])
    sessions[0].run(None, {"x": BAD})
    print("deleted" if not sessions else "STILL THERE")


@behaviour("old 2.0", "new 3.0", "old 2.0")
def an_operator_is_replaced_under_a_live_session() -> None:
    def define(factor: int) -> Any:
        @ort_ops.onnx_op(f"{DOMAIN}::Op", inputs=["float32"])
        def op(x: Any) -> Any:
            return x * np.float32(factor)

        return session_of()

    old = define(2)
    new = define(3)
    gc.collect()
    for name, session in (("old", old), ("new", new), ("old", old)):
        print(name, session.run(None, {"x": GOOD})[0][0, 0])


@behaviour("KernelError: ValueError: inner", "KernelError", "next run right")
def a_nested_session_fails() -> None:
    def compute(x: Any) -> Any:
        inner.run(None, {"x": np.zeros(1, np.float32)})

    @ort_ops.onnx_op(f"{DOMAIN}::Inner", inputs=["float32"])
    def fails(x: Any) -> Any:
        raise ValueError("inner")

    register(compute)
    inner = ort_ops.InferenceSession(one_node("Inner"))
    session = session_of()
    try:
        session.run(None, {"x": BAD})
    except ort_ops.errors.KernelError as error:
        cause = error.__cause__
        assert cause is not None
        print("KernelError:", str(cause.__cause__ and "ValueError: " + str(cause.__cause__)))
        print(type(cause).__name__)
    check(session)


@behaviour("next run right", "KernelError: ValueError: first", "next run right")
def an_infer_function_fails_and_the_next_session_is_made() -> None:
    register(lambda x: x)

    @ort_ops.onnx_op(f"{DOMAIN}::Other", inputs=["float32"], outputs=["float32"])
    def other(x: Any) -> Any:
        raise ValueError("first")

    @other.infer
    def shape(x: Any) -> Any:
        raise ValueError("in infer")

    check(session_of())
    try:
        ort_ops.InferenceSession(one_node("Other"))
    except ValueError:
        other.infer(lambda x: x)
    attempt(ort_ops.InferenceSession(one_node("Other")))
    check(session_of())


@behaviour("ours [2. 2. 2.]", "plain [2. 2. 2.]")
def a_node_leaves_out_an_input() -> None:
    @ort_ops.onnx_op(f"{DOMAIN}::Op", inputs=["float32"] * 3, outputs=["float32"])
    def op(x: Any, y: Any = None, z: Any = None) -> Any:
        return x + z if y is None else y

    op.infer(lambda x, y, z: x)
    data = model([node("Op", ["x", "", "x"])])
    options = onnxruntime.SessionOptions()
    ort_ops.register(options)
    sessions = (ort_ops.InferenceSession(data), onnxruntime.InferenceSession(data, options))
    for name, session in zip(("ours", "plain"), sessions, strict=True):
        print(name, session.run(None, {"x": np.ones(3, np.float32)})[0])


@behaviour("next run right", "child: next run right", "child ended with 0")
def a_session_is_used_after_a_fork() -> None:
    register(lambda x: x)
    session = session_of(threads=1)
    check(session)
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        print("child: ", end="")
        check(session)
        sys.stdout.flush()
        os._exit(0)
    print("child ended with", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def wide(count: int) -> bytes:
    """A model of ``count`` nodes side by side, summed."""
    nodes = [node("Op", outputs=[f"v{i}"]) for i in range(count)]
    for i, each in enumerate(nodes):
        each.name = f"Op{i}"
    total = node("Sum", [f"v{i}" for i in range(count)])
    total.domain = ""
    return model([*nodes, total])


@behaviour("16.0", "KernelError", "16.0")
def nodes_run_on_threads_of_onnxruntime() -> None:
    register(raises)
    options = onnxruntime.SessionOptions()
    options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    options.inter_op_num_threads = 4
    options.log_severity_level = 4
    session = ort_ops.InferenceSession(wide(8), options)
    for x in (GOOD, BAD, GOOD):
        try:
            print(session.run(None, {"x": x})[0][0, 0])
        except ort_ops.errors.KernelError as error:
            print(type(error).__name__)


@behaviour("200 right, 200 failed")
def threads_fail_side_by_side() -> None:
    register(raises)
    session = session_of()
    counts: list[bool] = []

    def work() -> None:
        for i in range(100):
            try:
                right = bool((session.run(None, {"x": GOOD if i % 2 else BAD})[0] == 2).all())
                counts.append(right and i % 2 == 1)
            except ort_ops.errors.KernelError as error:
                counts.append(not (str(error.__cause__) == "wrong" and i % 2 == 0))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"{counts.count(True)} right, {counts.count(False)} failed")


@behaviour("body", "body")
def a_model_that_ran_without_our_kernels_runs_with_them() -> None:
    negate = node("Neg", ["a"], ["b"])
    negate.domain = ""
    body = function("Op", ["a"], ["b"], negate)
    data = model([node("Op")], functions=[body])

    def run(session: Any) -> None:
        print("body" if session.run(None, {"x": GOOD})[0][0, 0] == -1 else "KERNEL")

    run(onnxruntime.InferenceSession(data))

    @ort_ops.onnx_op(f"{DOMAIN}::Op")
    def op(x: np.float64) -> np.float64:
        return x

    run(ort_ops.InferenceSession(data))


@behaviour("RegistrationError: node 'Sub' is of test.domain::Sub and has 1 inputs", "kernel")
def operators_are_named_as_onnxs_own() -> None:
    """ONNX Runtime may end the process over the first, and removes the second's nodes."""
    for name in ("Sub", "Identity"):
        ort_ops.onnx_op(f"{DOMAIN}::{name}")(lambda x: x * 2)
    try:
        ort_ops.InferenceSession(model([node("Sub")]))
    except ort_ops.errors.RegistrationError as error:
        print(f"RegistrationError: {str(error).partition(';')[0]}")
    negate = node("Neg", ["v"], ["y"])
    negate.domain = ""
    session = ort_ops.InferenceSession(model([node("Identity", outputs=["v"]), negate]))
    print("kernel" if (session.run(None, {"x": GOOD})[0] == -2).all() else "LEFT OUT")


@behaviour("Transpose kernel", "Shape kernel", "Expand kernel", "Cast RegistrationError", "Cast kernel")
def nodes_with_the_names_of_onnxs_own_are_not_taken_for_those() -> None:
    """An optimizer fuses, folds or removes them, or reads an input that the node hasn't."""
    for name in ("Transpose", "Shape", "Expand", "Cast"):
        op = ort_ops.onnx_op(f"{DOMAIN}::{name}", inputs=["float32"], outputs=["float32"])
        op(lambda x, *, perm=(0,): x * 3).infer(lambda x: x)
    w = numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")
    ends = [tensor("x", shape=(2, 3))], [tensor("y")]

    def run(op: str, *nodes: Any) -> None:
        try:
            y = ort_ops.InferenceSession(model(nodes, *ends, initializers=[w])).run(None, {"x": GOOD})[0]
        except ort_ops.errors.RegistrationError as error:
            print(op, "RegistrationError" if f"::{op}; ONNX Runtime" in str(error) else error)
        else:
            print(op, "kernel" if (y == 3).all() else "LEFT OUT")

    run("Transpose", node("Transpose", outputs=["v"], perm=[1, 0]), builtin("MatMul", ["v", "w"], ["y"]))
    for op in ("Shape", "Expand"):
        run(op, node(op, outputs=["v"]), builtin("Abs", ["v"], ["y"]))
    after = builtin("Cast", ["v"], ["y"], to=1)
    run("Cast", node("Cast", outputs=["v"]), after)
    run("Cast", node("Cast", outputs=["v"]), builtin("Abs", ["v"], ["y"]))


@behaviour("interrupted everywhere", "plain onnxruntime says all in text")
def ctrl_c_comes_while_a_session_is_made() -> None:
    """Before each line of it in turn; nothing of it may be left for the next session."""
    register(lambda x: x)
    ort_ops.onnx_op(f"{DOMAIN}::Other", inputs=["float32"], outputs=["float32"])(raises)
    left = lines = 0

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal left
        if "/ort_ops/" not in frame.f_code.co_filename:
            return None
        left -= event == "line"
        if left == 0:
            raise KeyboardInterrupt
        return trace

    interrupted = True
    while interrupted:
        lines += 1
        left, interrupted = lines, False
        sys.settrace(trace)
        try:
            session_of()
        except KeyboardInterrupt:
            interrupted = True
        finally:
            sys.settrace(None)
    print("interrupted everywhere" if lines > 100 else lines)
    options = onnxruntime.SessionOptions()
    ort_ops.register(options)
    try:
        onnxruntime.InferenceSession(one_node("Other"), options).run(None, {"x": GOOD})
    except Exception as error:
        print("plain onnxruntime says all in text" if 'raise ValueError("wrong")' in str(error) else error)


class SlowEnd:
    """Keeps the interpreter going down while a thread asks for it."""

    def __del__(self, sleep: Any = time.sleep) -> None:
        sleep(0.6)


def ends_while_a_daemon_thread_is_behind_a_kernel(compute: Any, make: Any = session_of) -> None:
    """``compute`` is given the input and a function that tells this thread to end, and then waits."""
    inside, sleep = threading.Event(), time.sleep
    vars(sys)["slow"] = SlowEnd()  # sys goes last

    def wait() -> None:
        inside.set()
        sleep(0.3)

    register(lambda x: compute(x, wait))
    session = make()

    def work() -> None:
        session.run(None, {"x": BAD})
        sleep(100)

    threading.Thread(target=work, daemon=True).start()
    inside.wait()
    print("behind a kernel")


@behaviour("behind a kernel")
def the_process_ends_while_a_result_goes() -> None:
    def compute(x: Any, wait: Any) -> Any:
        class Result(np.ndarray):
            def __del__(self) -> None:
                wait()

        return (x * 2).view(Result)

    ends_while_a_daemon_thread_is_behind_a_kernel(compute)


@behaviour("behind a kernel")
def the_process_ends_while_a_result_is_looked_at() -> None:
    def compute(x: Any, wait: Any) -> Any:
        class Masked(np.ndarray):
            @property
            def _mask(self) -> Any:
                wait()
                return np.ma.nomask

        return (x * 2).view(Masked)

    ends_while_a_daemon_thread_is_behind_a_kernel(compute)


@behaviour("behind a kernel")
def the_process_ends_while_variables_of_a_thread_of_onnxruntimes_go() -> None:
    """Python knows such a thread for the time of a call."""
    local = threading.local()

    def compute(x: Any, wait: Any) -> Any:
        class Variable:
            def __del__(self) -> None:
                wait()

        local.x = Variable()
        return x

    def make() -> Any:
        options = onnxruntime.SessionOptions()
        options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
        options.inter_op_num_threads = 4
        return ort_ops.InferenceSession(wide(8), options)

    ends_while_a_daemon_thread_is_behind_a_kernel(compute, make)
