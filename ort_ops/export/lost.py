"""Calls that became no nodes: an error, but for those on which nothing depends.

The TorchScript exporter drops what nothing reads, and sometimes more. So the model is run with a call's
results spoilt, and what it gives then is compared.
"""

import contextlib
import inspect
import re
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from ort_ops.errors import ExportError

from .calls import Call, Slot
from .capture import shown_functions, under_transform
from .own import own_method
from .record import Record

__all__ = [
    "LostValueError",
    "fixed_size",
    "is_unused",
    "refuse_lost",
    "refuse_traced_through",
    "refuse_untraceable",
    "spoilt",
    "transformed",
]

_APPLY: Any = Function.apply.__func__.__code__  # type: ignore[attr-defined]
_TRANSFORMS = torch._functorch.autograd_function.__file__


def refuse_lost(calls: Sequence[Call], why: str) -> None:
    """Raise ExportError where calls were lost."""
    if calls:
        names = ", ".join(dict.fromkeys(call.name for call in calls))
        raise ExportError(f"{len(calls)} calls of {names} did not become nodes: {why}")


def fixed_size(calls: Sequence[Call]) -> ExportError | None:
    """Return what to say where one of the calls can't be captured since its forward fixes a size."""
    for call in calls:
        for (tensor, axis), size in call.fixed.items():
            return ExportError(
                f"{call.name}: as torch traces it, forward holds only where dimension {axis} of its tensor "
                f"{tensor} is {size}, and that is to vary; expected dynamic_shapes without it or, where "
                "forward takes any size, fakes={...} with a function that gives its results' shapes"
            )
    return None


def transformed(error: BaseException | None) -> ExportError | None:
    """Return what to say of an error that calls of a Function end in under a transform of torch.func.

    PyTorch's dispatcher raises it before anything of the Function runs; its frames have the class.
    """
    while error is not None:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        called: list[Any] = [frame.f_locals.get("cls") for frame in frames if frame.f_code is _APPLY]
        among = any(frame.f_code.co_filename == _TRANSFORMS for frame in frames)
        if among and called and called[-1] in shown_functions():
            return under_transform(called[-1])
        error = error.__cause__ or error.__context__
    return None


def refuse_traced_through(program: ExportedProgram) -> None:
    """Raise ExportError where a program that was captured elsewhere has what a forward computes with.

    Nothing in the program names the Function; the stack traces of its nodes lead through its forward.
    """
    frames: dict[tuple[str, str], set[int]] = {}
    for node in _nodes_of(program):
        for file, line, name in _FRAME.findall(node.meta.get("stack_trace") or ""):
            frames.setdefault((file, name), set()).add(int(line))
    found = [function.__qualname__ for function in shown_functions() if _is_among(function, frames)]
    if found:
        raise ExportError(
            f"the exported program computes through {', '.join(found)}, and no node can stand for that; "
            "expected a program that was captured in a block of keep_functions, or the module itself"
        )


class LostValueError(ExportError):
    """The TorchScript exporter lost a value of a forward that it traced into."""


def refuse_untraceable(calls: Sequence[Call], error: Exception) -> None:
    """Raise ExportError where the TorchScript exporter can't take a call, which it says in C++'s words."""
    if not calls:
        return
    if str(error).startswith("outerNode->outputs()"):
        beside = [call for call in calls if call.results and not all(_is_slot(r) for r in call.results[0])]
        name = f"{beside[0].name}: " if beside else ""
        raise ExportError(
            f"{name}the TorchScript exporter (dynamo=False) takes no None or number among what forward "
            "returns, and no tensor twice; expected tensors alone (x.clone() the second time), or dynamo=True"
        ) from error
    if not str(error).startswith(("unordered_map::at", "Argument passed to at()")):
        return
    nested = [call for call in calls if _nests_tensors(call)]
    if nested:
        raise ExportError(
            f"{nested[0].name}: the TorchScript exporter (dynamo=False) takes no tensors in lists, tuples "
            "or dictionaries; expected each as an argument of its own (*tensors), or dynamo=True"
        ) from error
    names = ", ".join(dict.fromkeys(call.name for call in calls))
    raise LostValueError(
        f"the TorchScript exporter (dynamo=False) lost a value in a call of {names} ({error}), as it does "
        "where forward adds 0 or multiplies by 1 (expected x.clone() there), divides 1 by x "
        "(x.reciprocal()), is given a size of an input, or a tensor inside of an object; expected one that "
        "doesn't, each Function of the model with a symbolic, or dynamo=True"
    ) from error


def _is_slot(leaf: Any) -> bool:
    return isinstance(leaf, Slot)


def _nests_tensors(call: Call) -> bool:
    """Tell whether a tensor is inside a list, a tuple or a dictionary that is an argument."""
    positional, keywords = pytree.tree_unflatten(call.leaves, call.structure)
    given = (*positional, *keywords.values())
    return sum(map(_is_slot, call.leaves)) > sum(map(_is_slot, given))


_FRAME = re.compile(r'File "(.+?)", line (\d+), in (\S+)')


def _nodes_of(program: ExportedProgram) -> Iterator[torch.fx.Node]:
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            yield from module.graph.nodes


def _is_among(function: type[Function], frames: Mapping[tuple[str, str], Set[int]]) -> bool:
    code = getattr(inspect.unwrap(own_method(function, "forward")), "__code__", None)
    if code is None:
        return False
    lines = {line for *_, line in code.co_lines() if line is not None}
    return not lines.isdisjoint(frames.get((code.co_filename, code.co_name), ()))


def is_unused(lost: list[Call], record: Record, model: Any, args: Any, keywords: Mapping[str, Any]) -> bool:
    """Tell whether as many calls of each Function as were lost don't matter to the model's output."""
    given = args if isinstance(args, tuple | list) else (args,)
    wanted, unused = Counter(call.name for call in lost), Counter[str]()
    likeliest_first = sorted(enumerate(record.calls), key=lambda each: each[1] not in lost)
    for place, call in likeliest_first:
        if call.name not in wanted:
            continue

        def spoil(spoilt: bool, place: int = place) -> None:
            record.spoilt, record.computed = place if spoilt else None, 0

        unused[call.name] += not _results_matter(lambda: model(*given, **keywords), spoil)
        if wanted <= unused:
            return True
    return False


def spoilt(tensor: Tensor) -> Tensor:
    """Return a tensor of other values."""
    if tensor.is_floating_point() or tensor.is_complex():
        return torch.full_like(tensor, float("nan"))
    return ~tensor if tensor.dtype == torch.bool else tensor + 1


def _results_matter(run: Callable[[], Any], spoil: Callable[[bool], Any]) -> bool:
    """Tell whether a model's output changes when the results of some calls are spoilt.

    ``run`` runs the model, ``spoil`` says whether the calls' results are. A model that then fails shows that
    they matter: it looks at them, or torch does, which wants a tensor back that is marked dirty.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        state = torch.get_rng_state()
        outputs = []
        for spoilt in (False, True):
            torch.set_rng_state(state)
            with contextlib.ExitStack() as undo:
                spoil(spoilt)
                undo.callback(spoil, False)
                try:
                    returned = run()
                except Exception:
                    return True
                outputs.append([leaf for leaf in pytree.tree_leaves(returned) if isinstance(leaf, Tensor)])
    return not all(_same(a, b) for a, b in zip(*outputs, strict=True))


def _same(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or not torch.equal(a.isnan(), b.isnan()):
        return False
    return torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))
