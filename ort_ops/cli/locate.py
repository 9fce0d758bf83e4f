"""``ort-ops locate``: the first node of a file that is wrong."""

import math

from ort_ops import parity

from .arguments import refuse_overwriting, with_weights
from .console import cell, console, say, table
from .options import (
    Dims,
    File,
    Functions,
    Inputs,
    Json,
    Kernels,
    Libraries,
    Module,
    Prefer,
    Providers,
    Ranges,
    Seeds,
    Trust,
    load_inputs,
    load_model,
    session_arguments,
)

__all__ = ["largest_errors", "locate"]


def locate(
    file: File,
    module: Module,
    provider: Providers = None,
    inputs: Inputs = None,
    seeds: Seeds = 3,
    range_: Ranges = None,
    dim: Dims = None,
    library: Libraries = None,
    kernels: Kernels = None,
    function: Functions = None,
    trust: Trust = None,
    prefer: Prefer = "kernel",
    json_file: Json = None,
) -> int:
    """Find the first node that is wrong: in the file beside its model, or as ONNX Runtime computes it."""
    refuse_overwriting([json_file], [*with_weights(file), inputs, *(library or ())])
    arguments = session_arguments(
        kernels=kernels,
        function=function,
        trust=trust,
        library=library,
        range_=range_,
        dim=dim,
        prefer=prefer,
    )
    found = parity.locate(
        load_model(module),
        file,
        load_inputs(inputs),
        providers=provider or ["cpu"],
        seeds=seeds,
        **arguments,
    )
    _print(found)
    if json_file is not None:
        json_file.write_text(found.to_json() + "\n", encoding="utf-8")
    return int(found.exit_code)


def _print(found: "parity.Located") -> None:
    """Print what is wrong, or else the nodes of the largest errors."""
    rows = [row for row in found.rows if row.node == found.node and row.question == found.question]
    if found.node is None:
        rows = largest_errors(found)
    made = table("question", "node", "operator", "verdict")
    for name in ("error", "tolerance"):
        made.add_column(name, justify="right")
    for row in rows:
        numbers = [f"{row.error:.1e}", f"{row.tolerance:.1e}"] if row.question == "runtime" else ["", ""]
        made.add_row(
            cell(row.question), cell(row.node), cell(row.op), row.verdict.replace("_", " "), *numbers
        )
    console.print(made)
    if len(found.region) > 1:
        say(f"with what comes of it: {', '.join(found.region[1:])}")
    for question, share in found.matched.items():
        what = "have a counterpart in the model" if question == "export" else "were seen in the run"
        say(f"{share:.0%} of the nodes {what}")
    if found.node is not None:
        say(f"guilty: {found.node} ({found.question})", "red")
    elif found.exit_code is not parity.ExitCode.EQUAL:
        for output in found.unsettled:
            say(f"{output.output}: {output.verdict.replace('_', ' ')}, {output.reason}")
        say("no node can be blamed, and not all of them can be cleared", "yellow")
    else:
        say("no node is guilty", "green")


def largest_errors(found: "parity.Located") -> list["parity.NodeRow"]:
    """Return the nodes of a run whose errors take the largest shares of what is tolerated; five at most."""
    return sorted((row for row in found.rows if row.question == "runtime"), key=_share, reverse=True)[:5]


def _share(row: "parity.NodeRow") -> float:
    """Return how much of what is tolerated a row takes."""
    if not row.tolerance:
        return math.inf if row.error else 0.0
    return row.error / row.tolerance
