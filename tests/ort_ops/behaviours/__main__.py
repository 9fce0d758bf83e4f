"""Runs one behaviour: ``python -m tests.ort_ops.behaviours NAME``."""

import sys

from . import asynchronous, bindings, exceptions, plain, results, sessions, types, views
from .base import BEHAVIOURS

MODULES = (asynchronous, bindings, exceptions, plain, results, sessions, types, views)

if __name__ == "__main__":
    BEHAVIOURS[sys.argv[1]].run()
