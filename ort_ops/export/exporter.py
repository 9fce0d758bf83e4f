"""``torch.onnx.export`` that keeps Functions: as a function, and around code that calls it by itself."""

import contextlib
import io
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypedDict, Unpack

import torch
from torch.autograd import Function

from .bodies import BodyMaker
from .keeping import Kept, keeping, one_at_a_time
from .options import CUSTOM_DOMAIN, Functions, Options
from .program import Program
from .quiet import quiet

__all__ = ["TorchOptions", "export", "keep_functions", "uncompiled"]


class TorchOptions(TypedDict, total=False):
    """The options of ``torch.onnx.export`` that go through to it."""

    kwargs: dict[str, Any] | None
    export_params: bool
    verbose: bool | None
    input_names: Any
    output_names: Any
    opset_version: int | None
    dynamic_axes: Any
    dynamic_shapes: Any
    keep_initializers_as_inputs: bool
    custom_translation_table: dict[Any, Any] | None
    external_data: bool
    report: bool
    optimize: bool
    verify: bool
    profile: bool
    dump_exported_program: bool
    artifacts_dir: str | os.PathLike[str]
    training: Any
    operator_export_type: Any
    do_constant_folding: bool
    export_modules_as_functions: Any
    autograd_inlining: bool
    fallback: bool


def export(
    model: Any,
    args: Any = (),
    f: str | os.PathLike[str] | io.BytesIO | None = None,
    *,
    dynamo: bool = True,
    custom_opsets: Mapping[str, int] | None = None,
    default_domain: str = CUSTOM_DOMAIN,
    domains: Mapping[str, str] | None = None,
    functions: Functions = "keep",
    bodies: Mapping[type[Function], BodyMaker] | None = None,
    overloads: bool = False,
    fakes: Mapping[type[Function], Callable[..., Any]] | None = None,
    canonical: bool = False,
    **options: Unpack[TorchOptions],
) -> Program:
    """Export a model with each Function that has a ``symbolic`` as the nodes which that writes.

    ``model``, ``args``, ``f`` and the other options are those of ``torch.onnx.export``; ``dynamo`` chooses
    between its two exporters, and both write the same nodes. A compiled module is exported as what it was
    made of.

    custom_opsets: the versions of custom domains; 1 where none is given.
    default_domain: where a node goes that ``symbolic`` writes without a domain and that ONNX doesn't know,
        which makes a file invalid; ``"keep"`` leaves it.
    domains: for domains that ``symbolic`` writes, those that the nodes get instead.
    functions: ``"attach"`` gives each operator whose nodes stand for whole calls a function body derived from
        forward, by which a stock ONNX Runtime runs the file, while a registered kernel still takes over;
        ``"inline"`` writes the plain operators instead. A node for which the operator's one body is not
        right becomes plain operators, too; with ``overloads=True`` an overload, which ONNX Runtime before
        1.27 computes wrong without a word. Where forward has no ONNX form ``"attach"`` warns, and ``calls``
        says why; ``"inline"`` raises.
    bodies: for some Functions, what makes the function body instead (see ``BodyMaker``).
    fakes: for a Function whose forward can't run without values or numbers for its sizes, a function of the
        same arguments (without the ctx) that returns tensors of the right dtype and shape.
    canonical: bring the file into one form: nodes named by type and count, values by their node, initializers
        as in the state_dict and in the order of their use, nothing unused in it, no exporter's notes (which
        have local paths in them), shapes as ONNX infers them with the symbols of the inputs. Where both
        exporters write the same nodes, the files are then equal, byte by byte.

    Raises ExportError where a call would be lost, where forward runs neither on fake nor on real tensors,
    where ``symbolic`` raises or doesn't give what forward returns, and where ``"inline"`` would leave a node;
    with ``canonical`` where a parameter has the name of an input or an output. What PyTorch's exporters raise
    comes through.
    """
    keeping_functions = keep_functions(
        custom_opsets=custom_opsets,
        default_domain=default_domain,
        domains=domains,
        functions=functions,
        bodies=bodies,
        overloads=overloads,
        fakes=fakes,
        canonical=canonical,
    )
    with one_at_a_time, keeping_functions as kept, quiet():
        passed: Any = {**options, **({} if dynamo else {"custom_opsets": custom_opsets})}
        torch.onnx.export(uncompiled(model), args, f, dynamo=dynamo, **passed)  # type: ignore[arg-type]
    return kept.programs[-1]


def uncompiled(model: Any) -> Any:
    """Return the module that a compiled one (torch.compile) was made of; another as it is.

    A compiled one takes any arguments, so that dynamic_shapes don't fit, and can't be traced.
    """
    return model._orig_mod if isinstance(model, torch._dynamo.OptimizedModule) else model


@contextlib.contextmanager
def keep_functions(
    *,
    custom_opsets: Mapping[str, int] | None = None,
    default_domain: str = CUSTOM_DOMAIN,
    domains: Mapping[str, str] | None = None,
    functions: Functions = "keep",
    bodies: Mapping[type[Function], BodyMaker] | None = None,
    overloads: bool = False,
    fakes: Mapping[type[Function], Callable[..., Any]] | None = None,
    canonical: bool = False,
) -> Iterator[Kept]:
    """Make every ``torch.onnx.export`` inside keep Functions, as ``export`` does; its arguments, too.

    For code that exports by itself. Like ``torch.no_grad`` it is for the thread that enters it. What torch
    looks like outside is as before, whatever happens inside; one thread at a time exports.
    """
    wanted = Options(
        custom_opsets=custom_opsets or {},
        default_domain=default_domain,
        domains=domains or {},
        functions=functions,
        bodies=bodies or {},
        overloads=overloads,
        fakes=fakes or {},
        canonical=canonical,
    )
    with keeping(wanted) as kept:
        yield kept
