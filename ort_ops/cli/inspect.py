"""``ort-ops inspect``: what is in a model file, and who would run its custom nodes here."""

from pathlib import Path
from typing import Annotated

import typer

from ort_ops.dtypes import type_name
from ort_ops.inspection import CustomNodes, Inspection, inspect_model
from ort_ops.model import Value
from ort_ops.providers import parse_provider

from .arguments import check_provider, import_modules, library_paths, look_here, resolve_functions
from .console import cell, console, say, table
from .options import Functions, Kernels, Libraries, Prefer, Trust

__all__ = ["inspect"]

_COLOURS = {"nobody": "red", "not needed": "dim"}


def inspect(
    model: Annotated[Path, typer.Argument(help="An ONNX file.")],
    kernels: Kernels = None,
    provider: Annotated[
        list[str] | None,
        typer.Option(
            help="cpu, cuda, ...; may be given again. All there are, if not.", parser=check_provider
        ),
    ] = None,
    prefer: Prefer = "kernel",
    library: Libraries = None,
    function: Functions = None,
    trust: Trust = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show a model's custom nodes, who would run each here, opsets, types and dynamic dimensions.

    Exits with 0 also where nobody would run a node; "runnable" in the JSON says it.
    """
    import_modules(kernels or ())
    look_here()
    found = inspect_model(
        model,
        [parse_provider(text) for text in provider] if provider else None,
        prefer=prefer,
        functions=resolve_functions(function),
        trust=trust or (),
        libraries=library_paths(library),
    )
    if json:
        print(found.to_json())
    else:
        _print(model, found)


def _print(model: Path, found: Inspection) -> None:
    opsets = ", ".join(f"{domain} {version}" for domain, version in found.opsets.items())
    custom = sum(nodes.count for nodes in found.custom if not nodes.inside)
    count = f"{found.node_count} node{'s' * (found.node_count != 1)}"
    say(f"{model}: IR {found.ir_version}, opsets {opsets}")
    say(f"{count}, {custom or 'none'} of them custom; types: {', '.join(found.dtypes) or 'none stated'}")
    if found.custom:
        say()
        _print_custom(found)
    say()
    _print_ends(found)


def _print_custom(found: Inspection) -> None:
    rows = table("custom nodes", "count", "inputs", "run by")
    for nodes in found.custom:
        kernel = " or ".join(Path(path).name for path in nodes.libraries) or nodes.kernel
        where = f"on {nodes.provider.removesuffix('ExecutionProvider')}" if nodes.provider else ""
        who = " ".join(filter(None, (nodes.runner, kernel, where)))
        shown = [_name(nodes), str(nodes.count), ", ".join(nodes.dtypes)]
        rows.add_row(*map(cell, shown), cell(who, _COLOURS.get(nodes.runner, "green")))
    console.print(rows)
    for nodes in found.custom:
        if nodes.reason:
            runner = "nobody here" if nodes.runner == "nobody" else nodes.runner
            say(f"{_name(nodes)}: {runner}, {nodes.reason}")
    if not found.runnable:
        say("nobody runs some of them: a session can't be made here", "red")


def _name(nodes: CustomNodes) -> str:
    return f"{nodes.op} in {nodes.inside}" if nodes.inside else nodes.op


def _print_ends(found: Inspection) -> None:
    rows = table("", "name", "type", "shape")
    for what, values in (("input", found.inputs), ("output", found.outputs)):
        for value in values:
            rows.add_row(*map(cell, (what, value.name, _type(value), _shape(value))))
    console.print(rows)
    for symbol, places in found.dynamic_dims.items():
        say(f"dynamic: {symbol or 'without a name'} ({', '.join(places)})")


def _type(value: Value) -> str:
    return type_name(value.element_type) if value.kind in ("tensor", "") else value.kind


def _shape(value: Value) -> str:
    if value.shape is None:
        return "any" if value.kind == "tensor" else ""
    return f"({', '.join('?' if dim is None else str(dim) for dim in value.shape)})"
