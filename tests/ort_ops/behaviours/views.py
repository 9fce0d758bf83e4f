"""Kernels that keep what they may not keep: views, tensors, the Call."""

import gc
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import ort_ops
from tests.ort_ops.models import DOMAIN

from .base import (
    ADVICE,
    GOOD,
    KEPT,
    attempt,
    behaviour,
    check,
    kernel,
    register,
    session_of,
)


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


@behaviour("next run right", "next run right")
def leaves_a_cycle_while_the_collector_is_off_or_at_work() -> None:
    def compute(x: Any) -> Any:
        cycle: list[Any] = [x]
        cycle.append(cycle)
        return x * 2

    class Slow:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            working.set()
            time.sleep(0.2)

    ort_ops.onnx_op(f"{DOMAIN}::Op", inputs=["float32"])(compute)
    session, working = session_of(), threading.Event()
    gc.disable()
    check(session)
    Slow()
    collector = threading.Thread(target=gc.collect)
    collector.start()
    assert working.wait(60)
    check(session)
    collector.join()


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


@behaviour("a Call was used after its kernel had returned", "next run right", "5 refused", needs="torch")
def a_call_is_kept() -> None:
    from ort_ops import _bridge

    calls: list[_bridge.Call] = []
    original = ort_ops.kernel.Kernel._run_call

    def keep(self: Any, provider: str, call: Any) -> None:
        calls.append(call)
        original(self, provider, call)

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


@behaviour("next run right", "next run right", needs="torch")
def a_run_is_started_in_a_mode_in_which_nothing_is_computed() -> None:
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    class Zeros(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return func(*args) * 0 if func is torch.Tensor.mul else func(*args, **(kwargs or {}))

    register(lambda x: x, array="torch")
    session = session_of()
    for mode in (FakeTensorMode(allow_non_fake_inputs=True), Zeros()):
        with mode:
            check(session)


@kernel("ResultError: returned a FakeTensor for output 0, which has no numbers", array="torch")
def returns_what_has_no_numbers(x: Any) -> Any:
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode(allow_non_fake_inputs=True).from_tensor(x.clone())


@kernel(
    "ResultError: returned a tensor whose memory was freed; expected one that has its numbers", array="torch"
)
def returns_a_tensor_without_memory(x: Any) -> Any:
    y = x * 2
    y.untyped_storage().resize_(0)
    return y
