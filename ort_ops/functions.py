"""A torch Function as a kernel: a node that stands for a whole call of it, run by the Function's own forward.

An exporter records in a node's metadata which Function was called and with what besides the node's inputs
(recorded.py). A file can't name code to run by itself: the caller says which Functions, or which packages, it
may name.
"""

import contextlib
import functools
import importlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import ort_ops

from .callables import name_of
from .kernel import Kernel
from .model import Model, Node
from .providers import CPU, CUDA
from .recorded import CALL, FUNCTION, MAIN, REASON, RecordedCall, function_name, is_named
from .registry import Op
from .schema import Formal, OpSchema

if TYPE_CHECKING:  # the package loads it when it is first asked for, and torch with it
    import ort_ops.torch_calls

__all__ = ["checked_functions", "find_function", "function_ops", "refuse_ambiguous"]


def function_ops(
    model: Model, functions: Iterable[type] | None, trust: Iterable[str]
) -> tuple[dict[tuple[str, str], tuple[Op, ...]], dict[tuple[str, str], str]]:
    """Return the kernels for each operator of which every node stands for a call that may be run.

    ``functions`` are the Functions that the file may name, ``trust`` packages that it may import them from.
    Also returns, for the other operators of which some node records a call, why they get no kernel.
    """
    if isinstance(trust, str):
        raise TypeError(f"trust={trust!r}; expected a list of packages: [{trust!r}]")
    allowed = checked_functions(functions)
    packages = tuple(trust)
    ops: dict[tuple[str, str], tuple[Op, ...]] = {}
    reasons: dict[tuple[str, str], str] = {}
    for name in sorted({node.op for node in model.nodes if FUNCTION in node.metadata}):
        nodes = [node for node in model.nodes if node.op == name]
        try:
            ops[name] = _make_ops(name, nodes, allowed, packages)
        except ValueError as error:
            reasons[name] = str(error)
    return ops, reasons


def checked_functions(functions: Iterable[type] | None) -> tuple[type, ...]:
    """Return Functions as a tuple; raises TypeError for what is none, which would run no node."""
    if isinstance(functions, type):
        raise TypeError(f"functions={functions.__qualname__}; expected a list: [{functions.__qualname__}]")
    given = tuple(functions or ())
    for each in given:
        if not ort_ops.torch_calls.is_function(each):
            raise TypeError(f"functions: {each!r} is no torch.autograd.Function, and only these run nodes")
    return given


def find_function(name: str, allowed: Sequence[type], packages: Sequence[str]) -> type:
    """Return the Function of a recorded name; raises ValueError where the caller didn't allow it.

    What a script recorded as its own, ``"__main__:F"``, is the ``F`` that is allowed, of whatever module.
    """
    fitting: dict[str, type] = {}
    for function in allowed:
        if is_named(function, name) and fitting.setdefault(function_name(function), function) is not function:
            raise ValueError(f"the file names {name} for it, which two of functions=[...] are: pass only one")
    if name in fitting:
        return fitting[name]
    if len(fitting) > 1:
        raise ValueError(
            f"the file names {name} for it, which {' and '.join(sorted(fitting))} may be: pass only one"
        )
    if fitting:
        return next(iter(fitting.values()))
    module, _, qualified = name.partition(":")
    if module == MAIN:  # the script may be one of them
        there: dict[type, str] = {}
        for each in packages:
            with contextlib.suppress(ValueError):
                there.setdefault(_import(f"{each}:{qualified}"), each)
        if len(there) > 1:
            raise ValueError(
                f"the file names {name} for it, which {' and '.join(there.values())} have: trust only one"
            )
        if there:
            return next(iter(there))
    for each in packages:
        if module == each or module.startswith(f"{each}."):
            return _import(name)
    raise ValueError(f"the file names {name} for it, which may run with {_remedy(name, allowed)}")


def _import(name: str) -> type:
    module, _, qualified = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in qualified.split("."):
            if isinstance(found, ModuleType) and found.__name__ != module:
                break  # what another module holds isn't looked at: its __getattr__ may run code
            found = getattr(found, part)
    except Exception as error:  # whatever a module raises
        raise ValueError(f"the file names {name} for it, which can't be imported: {error!r}") from error
    if not ort_ops.torch_calls.is_function(found):
        raise ValueError(f"the file names {name} for it, which is no torch.autograd.Function")
    function: type = found
    if function_name(function) != name:
        raise ValueError(f"the file names {name} for it, which is {function_name(function)}: another's")
    return function


def _remedy(name: str, allowed: Sequence[type]) -> str:
    """Say how a Function could be allowed, and what was instead."""
    module, _, qualified = name.partition(":")
    given = f", not with {', '.join(map(function_name, allowed))}" if allowed else ""
    if module == MAIN:
        return (
            f"functions=[...] of the {qualified} in the script that exported it{given} "
            f"(ort-ops --function SCRIPT:{qualified}, the script's name without .py)"
        )
    package = module.partition(".")[0]
    return f"functions=[...] or trust=[{package!r}]{given} (ort-ops --function {name}, or --trust {package})"


def _make_ops(
    name: tuple[str, str], nodes: Sequence[Node], allowed: Sequence[type], packages: Sequence[str]
) -> tuple[Op, ...]:
    """Return kernels that run each node's call; the same ones for the same calls.

    What ONNX Runtime was once given is never freed, so sessions of one model share it.
    """
    recorded: dict[str, RecordedCall] = {}
    functions = {}
    for node in nodes:
        call = RecordedCall.of_node(node)
        if call is None:
            if not {FUNCTION, REASON} <= node.metadata.keys():
                raise ValueError(f"node {node.name!r} records no call")
            named, reason = node.metadata[FUNCTION], node.metadata[REASON]
            raise ValueError(f"it was written for a call of {named}, which can't run it: {reason}")
        if node.in_function is not None or not node.name or node.name in recorded:
            raise ValueError(f"node {node.name!r} can't be told from others of its operator")
        recorded[node.name] = call
        functions[node.name] = find_function(call.function, allowed, packages)
    key = name, tuple((node.name, node.metadata[CALL], functions[node.name]) for node in nodes)
    if key not in _made:
        _made[key] = _ops_of(name, recorded, functions)
    return _made[key]


_made: dict[Any, tuple[Op, ...]] = {}


def _ops_of(
    name: tuple[str, str], recorded: Mapping[str, RecordedCall], functions: Mapping[str, type]
) -> tuple[Op, ...]:
    """Return a kernel for all nodes; where their results are of several types, one for each of inputs'."""
    calls = {node: _call_of(node, functions[node], call) for node, call in recorded.items()}
    names = tuple((node, f"{name_of(call.function)}.forward") for node, call in calls.items())

    def compute(outputs: int, node: str, *inputs: Any) -> Any:
        if node not in calls:
            raise LookupError(
                f"no node of the file has the name {node!r}, by which its call is told: "
                "ONNX Runtime gave it another"
            )
        results = calls[node](inputs)
        if outputs == len(results) == 1:
            return results[0]
        return (*results, *(None,) * (outputs - len(results)))  # a node may have fewer than another

    made = []
    for outputs, schema in _schemas(list(recorded.values())):
        function = functools.partial(compute, len(outputs))
        # A node's attributes are what its symbolic wrote; the call is in its metadata.
        kernel = Kernel(function, schema, (CPU, CUDA), "torch", by_node=names, any_attributes=True)
        made.append(Op(kernel, (name,), 1))
    return tuple(made)


def refuse_ambiguous(calls: Sequence[RecordedCall]) -> None:
    """Raise ValueError for the calls of one operator of which kernels can't be told apart."""
    for _ in _schemas(calls):
        pass


def _call_of(node: str, function: type, recorded: RecordedCall) -> Any:
    try:
        return ort_ops.torch_calls.Call(function, recorded)
    except Exception as error:
        raise ValueError(f"what node {node!r} records of its call can't be read: {error!r}") from error


def _schemas(calls: Sequence[RecordedCall]) -> Iterator[tuple[tuple[int, ...], OpSchema]]:
    """Give schemas that the nodes of an operator fit, each with the types of its outputs.

    Where all give the same, a node may have fewer outputs than another, and inputs are of any type.
    """
    groups: dict[tuple[int, ...], list[RecordedCall]] = {}
    for call in sorted(calls, key=lambda call: -len(call.outputs)):
        outputs = tuple(call.outputs)
        fitting = [each for each in groups if each[: len(outputs)] == outputs]
        fitting.sort(key=lambda each: all(other.inputs != call.inputs for other in groups[each]))
        groups.setdefault(next(iter(fitting), outputs), []).append(call)
    if len(groups) == 1:
        ((outputs, group),) = groups.items()
        yield outputs, _schema([call.inputs for call in group], outputs, typed=False)
        return
    forms = {(len(outputs), *map(bool, call.inputs)) for outputs, group in groups.items() for call in group}
    if len(forms) > 1:
        raise ValueError(
            "its nodes give results of different types, and have different numbers of inputs or results, "
            "which kernels of one operator can't; write it under several names"
        )
    given = [(outputs, types) for outputs, group in groups.items() for types in _input_types(group)]
    for (outputs, types), (others, other_types) in itertools.combinations(given, 2):
        if outputs != others and all(
            0 in pair or pair[0] == pair[1] for pair in zip(types, other_types, strict=False)
        ):
            raise ValueError(
                "its nodes give results of different types for inputs of the same, which one kernel can't; "
                "write a kernel for it (@ort_ops.onnx_op)"
            )
    for outputs, types in given:
        yield outputs, _schema([types], outputs, typed=True)


def _input_types(calls: Sequence[RecordedCall]) -> list[tuple[int, ...]]:
    return list(dict.fromkeys(tuple(call.inputs) for call in calls))


def _schema(calls: Sequence[Sequence[int]], outputs: Sequence[int], *, typed: bool) -> OpSchema:
    """Return a schema for nodes with inputs of these types; not typed, with as many inputs of any type."""
    inputs = []
    for index, types in enumerate(itertools.zip_longest(*calls, fillvalue=0)):
        declared = tuple(t for t in types if t) if typed else ()
        inputs.append(Formal(f"input_{index}", declared, optional=0 in types))
    given = [Formal(f"output_{i}", (element_type,)) for i, element_type in enumerate(outputs)]
    return OpSchema(tuple(inputs), tuple(given), ())
