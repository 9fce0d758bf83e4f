"""``ort_ops::call``: the one operator of torch that stands for every call of a Function in a program.

It computes what the Function's forward computes, so that the program gives the right numbers, and names the
call by a key.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from .calls import find_call

__all__ = ["CALL", "calls_in"]


def _run(tensors: Sequence[Tensor], sizes: Sequence[int], key: str) -> list[Tensor]:
    return find_call(key).run(tensors, sizes)


def _run_fake(tensors: Sequence[Tensor], sizes: Sequence[Any], key: str) -> list[Tensor]:
    return find_call(key).run_fake(tensors, sizes)


_library: Any = torch.library.Library("ort_ops", "DEF")  # type: ignore[no-untyped-call]
_library.define("call(Tensor[] tensors, SymInt[] sizes, str key) -> Tensor[]")
_library.impl("call", _run, "CompositeExplicitAutograd")
_library.impl("call", _run, "BackendSelect")  # a call without tensors has no backend to go by
torch.library.register_fake("ort_ops::call", _run_fake, lib=_library)

CALL = torch.ops.ort_ops.call.default


def calls_in(program: ExportedProgram) -> list[str]:
    """Return the keys of the calls in a captured program, those in branches and loop bodies included."""
    return [
        str(node.args[2])
        for module in program.graph_module.modules()
        if isinstance(module, torch.fx.GraphModule)
        for node in module.graph.nodes
        if node.target is CALL
    ]
