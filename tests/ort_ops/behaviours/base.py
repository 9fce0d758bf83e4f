"""Kernels that misbehave, and what becomes of the process: ``python -m tests.ort_ops.behaviours NAME``.

Each behaviour prints what it saw. Those declared by ``kernel`` are one kernel that fails where its input
says so: the run raises what is declared, and the next run of the same session has to be right.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime

import ort_ops
from tests.ort_ops.models import DOMAIN, model, node, tensor

GOOD = np.ones((2, 3), np.float32)
BAD = np.zeros((2, 3), np.float32)


@dataclass(frozen=True)
class Behaviour:
    """What a behaviour does, what it prints, and the exit code of its process."""

    run: Callable[[], None]
    says: tuple[str, ...]
    code: int = 0
    needs: str = ""  # a package


BEHAVIOURS: dict[str, Behaviour] = {}


def behaviour(
    *says: str, code: int = 0, needs: str = ""
) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def add(run: Callable[[], None]) -> Callable[[], None]:
        BEHAVIOURS[run.__name__] = Behaviour(run, says, code, needs)
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

        needs = "torch" if options.get("array") == "torch" else ""
        BEHAVIOURS[compute.__name__] = Behaviour(run, (says, "next run right") * 2, needs=needs)
        return compute

    return add


def lambdas(cases: Sequence[tuple[str, Callable[[Any], Any], str]], outputs: int = 1) -> None:
    for name, compute, says in cases:
        compute.__name__ = name
        kernel(says, outputs)(compute)


KEPT: list[Any] = []
ADVICE = (
    "kept a view of an input or of out beyond its call, where its memory is freed; keep a copy (x.copy())"
)
