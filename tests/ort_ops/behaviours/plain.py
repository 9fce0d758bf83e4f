"""Plain onnxruntime, which knows nothing of ours but the text of an error."""

import re
import signal
import time
from typing import Any

from .base import BAD, behaviour, check, register, session_of
from .exceptions import exits, is_interrupted, raises


@behaviour("raised", "says which node", "shows the kernel's line", "next run right")
def plain_onnxruntime_says_it_all_in_text() -> None:
    register(raises)
    session = session_of(plain=True)
    try:
        session.run(None, {"x": BAD})
    except Exception as error:
        print("raised")
        print(
            "says which node" if re.search(r"node 'Op' failed: ValueError: wrong", str(error)) else str(error)
        )
        print("shows the kernel's line" if 'raise ValueError("wrong")' in str(error) else str(error))
    check(session)


def raises_at_length(x: Any) -> Any:
    try:
        raise RuntimeError("first " + 3000 * "x")
    except RuntimeError:
        raises(x)


@behaviour("says what", "shows the kernel's line", "next run right")
def plain_onnxruntime_says_where_at_the_end_of_a_long_text() -> None:
    """Up to 1.22 it cuts texts off."""
    register(raises_at_length)
    session = session_of(plain=True)
    try:
        session.run(None, {"x": BAD})
    except Exception as error:
        text = str(error)
        print("says what" if "node 'Op' failed: ValueError: wrong\n" in text else text)
        print("shows the kernel's line" if text.rstrip().endswith("\nValueError: wrong") else text)
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
