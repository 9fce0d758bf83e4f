"""Everything that mylinear raises on purpose.

::

    MyLinearError
    ├── OperandError      (ValueError)  operands of MYLINEAR that don't fit each other
    ├── DataError         (ValueError)  a table that can't be trained on
    └── CheckpointError   (ValueError)  a checkpoint that is cut short or belongs to another run
"""


class MyLinearError(Exception):
    """The root of the tree above."""


class OperandError(MyLinearError, ValueError):
    """Operands of MYLINEAR whose ranks, sizes, dtypes or devices don't fit each other."""


class DataError(MyLinearError, ValueError):
    """Training data that is missing, malformed or too small."""


class CheckpointError(MyLinearError, ValueError):
    """A checkpoint that is cut short, damaged, or was written by another run."""
