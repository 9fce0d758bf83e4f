"""Which kernels a session is given: only those that its model uses and that can run there.

A registered kernel wins over the function body that a file may carry, even where the kernel can't run
(the wrong types, another provider), and then the model fails to load. So what can't run (fitting.py) isn't
registered.
"""

import contextvars
import functools
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import onnxruntime

from . import _bridge
from .errors import RegistrationError
from .fitting import leaves_out, runnable
from .kernel import set_select_hook
from .libraries import Library
from .model import Model
from .registry import Op, Overload, find_ops, registered_ops, split_name

__all__ = ["WANTED", "Plan", "Prefer", "giving", "offer", "plan_for", "refuse_leftovers", "wanted_entry"]

Prefer = Literal["kernel", "body"]

# Domains that another library registers: ours stay out unless a model or the user asks for them, since
# ONNX Runtime refuses a domain that is set twice.
FOREIGN_DOMAINS = frozenset({"ai.onnx.contrib", "com.microsoft.extensions"})

WANTED = "ort_ops.ops"
"""The config entry that names the operators to register, all of them where it isn't there, or is ``_ALL``."""

_ALL = "*"
_ROOM = 2000  # characters that any release of ONNX Runtime takes for an entry
_asked: list[str] = []
"""What was asked for by more names than an entry has room for; the entry says which of these it is."""

REGISTERED = "ort_ops.registered"
"""The config entry by which the bridge notes what it has registered: a place in ``_noted``."""

_offered: set[Op] = set()


def offer(op: Op, offered: bool = True) -> None:
    """Say whether plain onnxruntime is given a kernel though its domain is another library's."""
    if offered:
        _offered.add(op)
    else:
        _offered.discard(op)


@dataclass(frozen=True)
class Plan:
    """What is registered for one session, and why not more; keys are (domain, operator)."""

    overloads: tuple[tuple[tuple[str, str], Overload], ...] = ()
    reasons: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def without_bodies(self, model: Model, why: str) -> "Plan":
        """Return the plan in which every operator that has a function body is left to it."""
        kept = tuple((name, overload) for name, overload in self.overloads if name not in model.functions)
        left = {name: why for name, _ in self.overloads if name in model.functions}
        return Plan(kept, {**self.reasons, **left})

    def without_libraries(self, libraries: Mapping[str, Library], *, asked: bool) -> "Plan":
        """Return the plan in which the domains of libraries are left to them.

        Raises RegistrationError for a kernel in one that was ``asked`` for.
        """
        kept, reasons = [], dict(self.reasons)
        for (domain, name), overload in self.overloads:
            library = libraries.get(domain)
            if library is None:
                kept.append(((domain, name), overload))
                continue
            both = f"domain {domain!r} is taken by {library.path}"
            if asked:
                raise RegistrationError(
                    f"{domain}::{name} was asked for as the Python kernel {overload.op.kernel.where}, but "
                    f"{both}, and ONNX Runtime takes a domain from one library: leave it out of ops= for the "
                    "library's, or don't register the library for Python's"
                )
            reasons[domain, name] = both
        return Plan(tuple(kept), reasons)

    def by_domain(self) -> dict[str, list[tuple[tuple[str, str], Overload]]]:
        """Return what is registered of each domain."""
        found: dict[str, list[tuple[tuple[str, str], Overload]]] = {}
        for name, overload in self.overloads:
            found.setdefault(name[0], []).append((name, overload))
        return found


def plan_for(
    model: Model,
    providers: Sequence[str],
    prefer: Prefer = "kernel",
    ops: Iterable[str | Op] | None = None,
    others: Mapping[tuple[str, str], Sequence[Op]] | None = None,
    asked: Container[str] | None = None,
) -> Plan:
    """Choose the kernels for a model on some execution providers.

    ``asked`` are those that the caller named, None for all: the CPU that ONNX Runtime puts behind them runs
    no kernel in a function body's place. ``prefer="body"`` leaves every operator with a function body in the
    file to it; ``ops`` limits the choice to these operators (names, or what ``onnx_op`` returned); ``others``
    are kernels for operators that have no registered one that can run here. Raises RegistrationError where
    ``ops`` has a name for which no kernel is registered.
    """
    if isinstance(ops, str | Op):
        raise TypeError(f"ops={ops!r}; expected a list: ops=[...]")
    ops = None if ops is None else list(ops)
    _refuse_unknown(ops or (), others or {})
    if prefer not in get_args(Prefer):
        raise ValueError(f"prefer={prefer!r}; expected one of {', '.join(get_args(Prefer))}")
    choose = functools.partial(_plan_of, model, providers, providers if asked is None else asked, prefer)
    plan = choose(ops, lambda name: find_ops(name, model.opsets.get(name[0])))
    taken = {name for name, _ in plan.overloads}
    left = {name: each for name, each in (others or {}).items() if name not in taken}
    more = choose(None, lambda name: left.get(name, ()))
    reasons = {name: why for name, why in plan.reasons.items() if name not in dict(more.overloads)}
    return Plan((*plan.overloads, *more.overloads), {**more.reasons, **reasons})


def _refuse_unknown(ops: Iterable[str | Op], others: Container[tuple[str, str]]) -> None:
    there = {name for op in registered_ops() for name in op.names}
    for name in (split_name(op) for op in ops if not isinstance(op, Op)):
        if name not in there and name not in others:
            raise RegistrationError(f"ops= names {'::'.join(name)}, for which no kernel is registered")


def _plan_of(
    model: Model,
    providers: Sequence[str],
    asked: Container[str],
    prefer: Prefer,
    ops: Iterable[str | Op] | None,
    find: Callable[[tuple[str, str]], Sequence[Op]],
) -> Plan:
    allowed = None if ops is None else [op if isinstance(op, Op) else split_name(op) for op in ops]
    chosen: list[tuple[tuple[str, str], Overload]] = []
    reasons: dict[tuple[str, str], str] = {}
    for name in sorted(model.calls()):
        candidates = find(name)
        if not candidates:
            reasons |= _too_new(name, model)
            continue
        if allowed is not None:
            candidates = [op for op in candidates if op in allowed or name in allowed]
            if not candidates:
                reasons[name] = "its kernel is not among ops="
                continue
        if prefer == "body" and name in model.functions:
            reasons[name] = 'prefer="body"'
            continue
        refused = _refused_by_release(candidates, leaves_out(model, name))
        if refused and name in model.functions:
            reasons[name] = refused
            continue
        if refused:
            raise RegistrationError(refused)
        overloads, reason = runnable(model, name, candidates, providers, asked)
        chosen += [(name, overload) for overload in overloads]
        if reason:
            reasons[name] = reason
    return Plan(tuple(chosen), reasons)


def _too_new(name: tuple[str, str], model: Model) -> dict[tuple[str, str], str]:
    versions = [op.version for op in registered_ops() if name in op.names]
    imported = model.opsets.get(name[0])
    if imported is None or min(versions, default=imported) <= imported:
        return {}
    domain = name[0] or "ai.onnx"
    return {name: f"its kernel is of version {min(versions)}, the model imports {domain} {imported}"}


def _refused_by_release(ops: Iterable[Op], some_left_out: bool) -> str:
    return next((why for op in ops if (why := op.needs_release(some_left_out))), "")


def refuse_leftovers(plan: Plan, model: Model, options: onnxruntime.SessionOptions) -> None:
    """Raise RegistrationError where options have a kernel from before that this plan leaves out.

    ONNX Runtime can take nothing out of them, and would run it all the same.
    """
    try:
        there = _noted[int(options.get_session_config_entry(REGISTERED))]
    except Exception:  # nothing of ours was registered
        return
    planned = {name for name, _ in plan.overloads}
    given = {
        (name, overload.op.kernel.where) for name, overload in (_given[i] for _, ids in there for i in ids)
    }
    for name, where in sorted(given):
        if name in model.calls() - planned:
            raise RegistrationError(
                f"this SessionOptions has the kernel {where} of {'::'.join(name)} from before, "
                f"which is to be left out here ({plan.reasons.get(name, 'it fits no node')}); give each "
                "session a SessionOptions of its own"
            )


_noted: list[tuple[tuple[str, tuple[int, ...]], ...]] = []
"""What a SessionOptions may have had registered: domains, and the ids of what the bridge was given for each.

An entry of a SessionOptions has no room for these: ONNX Runtime takes 8,192 characters.
"""


_given: dict[int, tuple[tuple[str, str], Overload]] = {}
"""Operator and overload of what ONNX Runtime was given, by the id of what the bridge has: never freed."""


_plan: contextvars.ContextVar[Plan | None] = contextvars.ContextVar("ort_ops_plan", default=None)


def giving(plan: Plan, register: Callable[[], object]) -> None:
    """Call ``register``, in which ``register_custom_ops_library`` registers this plan.

    In a context of its own: whatever interrupts this, no later call is given the plan.
    """

    def run() -> None:
        _plan.set(plan)
        register()

    contextvars.copy_context().run(run)


def wanted_entry(ops: Iterable[str | Op] | None) -> str:
    """Return what the entry ``WANTED`` has to say for operators to be registered, None for all."""
    if ops is None:
        return _ALL
    named = [[op] if isinstance(op, str) else ["::".join(name) for name in op.names] for op in ops]
    wanted = ",".join(name for names in named for name in names) or ","  # of none: a blank entry is none
    if len(wanted) <= _ROOM:
        return wanted
    if wanted not in _asked:
        _asked.append(wanted)
    return f"#{_asked.index(wanted)}"


def _everything(wanted: str | None) -> Plan:
    """Return what plain onnxruntime is given: all kernels, or those that ``ort_ops.ops`` names.

    Its models aren't known, so that any node may leave out an input.
    """
    names = None
    if wanted is not None and re.fullmatch(r"#\d+", wanted):
        wanted = _asked[int(wanted[1:])]
    if wanted is not None and wanted.strip() != _ALL:
        names = {split_name(name.strip()) for name in wanted.split(",") if name.strip()}
    newest: dict[tuple[str, str], list[Op]] = {}
    for op in registered_ops():
        for name in op.names:
            if names is None:
                if op in _offered or name[0] not in FOREIGN_DOMAINS:
                    # One that this release refuses would take every session with it: it has to be asked for.
                    newest[name] = [each for each in find_ops(name) if each.needs_release(True) is None]
            elif name in names:
                newest[name] = find_ops(name)
                if refused := _refused_by_release(newest[name], some_left_out=True):
                    raise RegistrationError(refused)
    missing = (names or set()) - set(newest)
    if missing:
        listed = ", ".join(f"{domain}::{name}" for domain, name in sorted(missing))
        raise RegistrationError(f"ort_ops.ops names {listed}, for which no kernel is registered")
    absent = set(onnxruntime.get_all_providers()) - set(onnxruntime.get_available_providers())
    overloads = [
        (name, overload)
        for name, ops in newest.items()
        for op in ops
        for overload in op.overloads(name, True)
        if overload.provider not in absent  # a kernel hides its operator's body even where it can't run
    ]
    return Plan(tuple(sorted(overloads, key=lambda pair: pair[1].signature.inputs.count(0))))


def _select(wanted: str | None, registered: str | None) -> tuple[list[tuple[str, list[_bridge.Op]]], str]:
    """Tell the bridge what to add to a SessionOptions; called by RegisterCustomOps.

    ``registered`` is what an earlier call returned for the same SessionOptions: ONNX Runtime refuses a
    domain that is set twice, so a second call adds only domains that are new.
    """
    plan = _plan.get() or _everything(wanted)
    there = dict(_noted[int(registered)]) if registered else {}
    added = []
    for domain, pairs in plan.by_domain().items():
        if domain not in there:
            given = {id(overload.bridge): (name, overload) for name, overload in pairs}
            _given.update(given)
            there[domain] = tuple(given)
            added.append((domain, [overload.bridge for _, overload in pairs]))
        elif not all(_is_served(*pair, there[domain]) for pair in pairs):
            raise RegistrationError(
                f"this SessionOptions has had domain {domain!r} registered with other operators, and ONNX "
                "Runtime can't add to it; give each session a SessionOptions of its own"
            )
    noted = tuple(there.items())
    if noted not in _noted:
        _noted.append(noted)
    return added, str(_noted.index(noted))


def _is_served(name: tuple[str, str], overload: Overload, ids: Iterable[int]) -> bool:
    """Tell whether what ONNX Runtime was given of an operator is all that it needs for an overload of it."""
    return any(name == other and given.serves(overload) for other, given in (_given[each] for each in ids))


set_select_hook(_select)
