"""A kernel whose runs can be seen and made long, for replicas that are killed: tests::Marking, y = 2·x."""

import os
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ort_ops import onnx_op

LONG = 1000.0
"""The first element from which on a run is long, and leaves a file in ``$MARKS``, named after its process.

A second one, with ``.done`` behind the name, is there once it has ended.
"""


@onnx_op("tests::Marking")
def marking(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 2·x; x of negative infinity is refused."""
    first: Any = x.flat[0] if x.size else 0.0
    if first == -np.inf:
        raise ArithmeticError("an x of negative infinity")
    if first >= LONG:
        mark = Path(os.environ["MARKS"], f"{os.getpid()}-{uuid.uuid4().hex}")
        mark.touch()
        time.sleep(1.0)
        mark.with_suffix(".done").touch()
    return 2 * x
