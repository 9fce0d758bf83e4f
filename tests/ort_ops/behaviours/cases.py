"""Kernels that misbehave, and what becomes of the process: ``python -m tests.ort_ops.behaviours.cases NAME``.

Each behaviour prints what it saw. Those declared by ``kernel`` are one kernel that fails where its input
says so: the run raises what is declared, and the next run of the same session has to be right.
"""

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime

import ort_ops
from tests.ort_ops.models import DOMAIN, function, model, node, one_node, tensor

GOOD = np.ones((2, 3), np.float32)
BAD = np.zeros((2, 3), np.float32)


@dataclass(frozen=True)
class Behaviour:
    """What a behaviour does, what it prints, and the exit code of its process."""

    run: Callable[[], None]
    says: tuple[str, ...]
    code: int = 0


BEHAVIOURS: dict[str, Behaviour] = {}


def behaviour(*says: str, code: int = 0) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def add(run: Callable[[], None]) -> Callable[[], None]:
        BEHAVIOURS[run.__name__] = Behaviour(run, says, code)
        return run

    return add


def register(compute: Callable[[Any], Any], outputs: int = 1, **options: Any) -> None:
    """Register a kernel that doubles its input, but for one that holds a zero, which ``compute`` gets."""

    @ort_ops.onnx_op(f"{DOMAIN}::Op", inputs=["float32"], outputs=["float32"] * outputs, **options)
    def op(x: Any) -> Any:
        if not bool((x == 0).any()):
            return x * 2 if outputs == 1 else (x * 2,) * outputs
        return compute(x)


def session_of(outputs: int = 1, plain: bool = False, threads: int = 0) -> Any:
    names = [f"y{i}" for i in range(outputs)]
    data = model([node("Op", outputs=names)], outputs=[tensor(name) for name in names])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    if not plain:
        return ort_ops.InferenceSession(data, options)
    ort_ops.register(options)
    return onnxruntime.InferenceSession(data, options)


def attempt(session: Any, x: Any = BAD) -> BaseException | None:
    """Run, print the error with the names of our own places cut away, and return it."""
    try:
        session.run(None, {"x": x})
    except BaseException as error:
        text = str(error).splitlines()[0].partition("failed: ")
        print(f"{type(error).__name__}: {text[2] or text[0]}")
        return error
    print("no error")
    return None


def check(session: Any) -> None:
    """Print whether a run of the same session is right."""
    ok = all((y == GOOD * 2).all() for y in session.run(None, {"x": GOOD}))
    print("next run right" if ok else "NEXT RUN WRONG")


def kernel(
    says: str, outputs: int = 1, **options: Any
) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    def add(compute: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def run() -> None:
            register(compute, outputs, **options)
            session = session_of(outputs)
            attempt(session)
            check(session)
            attempt(session)
            check(session)

        BEHAVIOURS[compute.__name__] = Behaviour(run, (says, "next run right") * 2)
        return compute

    return add


def lambdas(cases: Sequence[tuple[str, Callable[[Any], Any], str]], outputs: int = 1) -> None:
    for name, compute, says in cases:
        compute.__name__ = name
        kernel(says, outputs)(compute)


# --- wrong results ---------------------------------------------------------------------------------

ONE = "expected a NumPy array"
PAIR = "expected a tuple of 2: a NumPy array"

lambdas(
    [
        ("none", lambda x: None, f"ResultError: returned None; {ONE}; did the function forget its return?"),
        ("a_list", lambda x: x.tolist(), f"ResultError: returned a list; {ONE}"),
        ("a_number", lambda x: 1.0, f"ResultError: returned a float; {ONE}"),
        ("a_string", lambda x: "text", f"ResultError: returned a str; {ONE}"),
        ("a_generator", lambda x: (i for i in x), f"ResultError: returned a generator; {ONE}"),
        ("a_class", lambda x: np.ndarray, f"ResultError: returned a type; {ONE}"),
        ("not_implemented", lambda x: NotImplemented, f"ResultError: returned a NotImplementedType; {ONE}"),
        ("a_tuple", lambda x: (x, x), f"ResultError: returned a tuple of 2 (ndarray, ndarray); {ONE}"),
        (
            "objects",
            lambda x: np.array([None]),
            "ResultError: returned dtype object for output 0; expected float32: nothing is cast for you, so "
            "return result.astype('float32') if that is what you mean",
        ),
        (
            "another_dtype",
            lambda x: x.astype(np.float64),
            "ResultError: returned dtype float64 for output 0; expected float32: nothing is cast for you, so "
            "return result.astype('float32') if that is what you mean",
        ),
        (
            "the_same_size_in_another_dtype",
            lambda x: x.view(np.int32),
            "ResultError: returned dtype int32 for output 0; expected float32: nothing is cast for you, so "
            "return result.astype('float32') if that is what you mean",
        ),
        (
            "a_record",
            lambda x: np.zeros(3, [("a", "f4")]),
            "ResultError: returned dtype [('a', '<f4')] for output 0; expected float32: nothing is cast for "
            "you, so return result.astype('float32') if that is what you mean",
        ),
    ]
)
lambdas(
    [
        ("one_of_two", lambda x: x, f"ResultError: returned a ndarray; {PAIR}"),
        ("a_tuple_of_one", lambda x: (x,), f"ResultError: returned a tuple of 1 (ndarray); {PAIR}"),
        (
            "a_tuple_of_three",
            lambda x: (x, x, x),
            f"ResultError: returned a tuple of 3 (ndarray, ndarray, ndarray); {PAIR}",
        ),
        ("a_list_of_two", lambda x: [x, x], f"ResultError: returned a list; {PAIR}"),
        (
            "none_in_a_tuple",
            lambda x: (x, None),
            f"ResultError: returned a tuple of 2 (ndarray, NoneType); {PAIR}",
        ),
    ],
    outputs=2,
)

# --- exceptions ------------------------------------------------------------------------------------


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


@kernel("KernelError: UnspeakableError: <its text can't be made>")
def raises_what_has_no_text(x: Any) -> Any:
    class UnspeakableError(Exception):
        def __str__(self) -> str:
            raise ValueError

    raise UnspeakableError


@kernel("KernelError: ValueError: bad kernel size (ort_ops failure")
def raises_what_looks_like_our_mark(x: Any) -> Any:
    raise ValueError("bad kernel size (ort_ops failure 1) (ort_ops failure")


@kernel("KernelError: ExceptionGroup: several (2 sub-exceptions)")
def raises_a_group(x: Any) -> Any:
    raise ExceptionGroup("several", [ValueError(1), ExceptionGroup("more", [KeyError(2)])])


@kernel("KernelError: ValueError: round")
def raises_a_ring_of_causes(x: Any) -> Any:
    one, two = ValueError("round"), ValueError("trip")
    one.__cause__, two.__cause__ = two, one
    raise one


# --- views that are kept ---------------------------------------------------------------------------

KEPT: list[Any] = []
ADVICE = "kept a view of an input beyond its call, where its memory is freed; keep a copy (x.copy())"


@kernel(f"ResultError: {ADVICE}")
def keeps_an_input(x: Any) -> Any:
    KEPT.append(x)
    return x + 1


@kernel(f"ResultError: {ADVICE}")
def keeps_a_slice_of_a_transpose(x: Any) -> Any:
    KEPT.append(x.T[1:, ::-1])
    return x + 1


@kernel(f"ResultError: {ADVICE}")
def keeps_a_memoryview(x: Any) -> Any:
    KEPT.append(memoryview(x))
    return x + 1


@kernel("no error")
def leaves_a_cycle_that_the_collector_takes(x: Any) -> Any:
    cycle: list[Any] = [x]
    cycle.append(cycle)
    return x + 1


@kernel("no error")
def returns_its_input(x: Any) -> Any:
    return x


@kernel("KernelError: ValueError: carries its input")
def raises_with_an_input_in_hand(x: Any) -> Any:
    error = ValueError("carries its input")
    error.array = x  # type: ignore[attr-defined]
    raise error


@kernel("KernelError: RuntimeError: a thread of the kernel failed")
def raises_in_a_thread(x: Any) -> Any:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            raise ValueError("in the thread")
        except ValueError as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    raise RuntimeError("a thread of the kernel failed") from failures[0]


@behaviour("KernelError: ValueError: looked at", "cleared", "no input is held", "next run right")
def an_exceptions_frames_hold_no_input_after_the_session_is_gone() -> None:
    def compute(x: Any) -> Any:
        local = x[0]
        raise ValueError("looked at") from KeyError(local.sum())

    register(compute)
    session = session_of()
    error = attempt(session)
    del session
    gc.collect()
    assert error is not None
    assert error.__cause__ is not None
    frames, step = [], error.__cause__.__traceback__
    while step is not None:
        frames.append(step.tb_frame)
        step = step.tb_next
    print("cleared" if not any(frame.f_locals for frame in frames) else "HELD")
    held = [value for frame in frames for value in frame.f_locals.values() if isinstance(value, np.ndarray)]
    print("no input is held" if not held else "AN INPUT IS HELD")
    check(session_of())


# --- kernels that are handed the Call --------------------------------------------------------------


@behaviour("a Call was used after its kernel had returned", "next run right", "5 refused")
def a_call_is_kept() -> None:
    from ort_ops import _bridge

    calls: list[_bridge.Call] = []
    original = ort_ops.kernel.Kernel._run_call

    def keep(self: Any, call: Any) -> None:
        calls.append(call)
        original(self, call)

    ort_ops.kernel.Kernel._run_call = keep  # type: ignore[method-assign]
    register(lambda x: x, array="torch")
    session = session_of()
    attempts: list[Callable[[Any], Any]] = [
        lambda call: call.inputs(),
        lambda call: call.attributes(),
        lambda call: call.output(0, (2, 3)),
        lambda call: call.output_count(),
        lambda call: call.stream(),
    ]
    session.run(None, {"x": GOOD})
    refused = []
    for use in attempts:
        try:
            use(calls[0])
        except ValueError as error:
            refused.append(str(error))
    print(refused[0])
    check(session)
    print(len(refused), "refused")


@kernel("KernelError: ValueError: in torch", array="torch")
def raises_in_torch(x: Any) -> Any:
    raise ValueError("in torch")


@kernel(f"ResultError: {ADVICE}", array="torch")
def keeps_a_tensor(x: Any) -> Any:
    KEPT.append(x[0].numpy())
    return x + 1


@kernel(
    "ResultError: wrote into its input 0, which may be a weight of the model; work on a copy (x.clone())",
    array="torch",
)
def writes_into_a_tensor(x: Any) -> Any:
    return x.mul_(1)


# --- sessions and their ends -----------------------------------------------------------------------


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

    @ort_ops.onnx_op(f"{DOMAIN}::Other", inputs=["float32"])
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


# --- plain onnxruntime -----------------------------------------------------------------------------


@behaviour("raised", "says which node", "shows the kernel's line", "next run right")
def plain_onnxruntime_says_it_all_in_text() -> None:
    register(raises)
    session = session_of(plain=True)
    try:
        session.run(None, {"x": BAD})
    except Exception as error:
        print("raised")
        print("says which node" if "node 'Op' failed: ValueError: wrong" in str(error) else str(error))
        print("shows the kernel's line" if 'raise ValueError("wrong")' in str(error) else str(error))
    check(session)


@behaviour("KeyboardInterrupt", "next run right")
def plain_onnxruntime_is_interrupted() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background ignores it
    register(is_interrupted)
    session = session_of(plain=True)
    try:
        try:
            session.run(None, {"x": BAD})
        except Exception:
            time.sleep(5)  # the interrupt is on its way
    except KeyboardInterrupt:
        print("KeyboardInterrupt")
    check(session)


@behaviour("raised", "next run right")
def plain_onnxruntime_survives_sys_exit() -> None:
    register(exits)
    session = session_of(plain=True)
    try:
        session.run(None, {"x": BAD})
    except Exception:
        print("raised")
    check(session)


# --- threads ---------------------------------------------------------------------------------------


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


if __name__ == "__main__":
    BEHAVIOURS[sys.argv[1]].run()
