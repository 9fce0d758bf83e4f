"""Sessions of ONNX Runtime that run Python kernels, and what they say about who ran what."""

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, Self, TypedDict, Unpack

import onnxruntime

from . import _bridge
from .asynchronous import ErrorText, answering, let_go, outlive
from .binding import Binding
from .errors import KernelError, ProviderError, RegistrationError
from .explaining import NodeRun, Runners
from .failures import raise_failure
from .functions import function_ops
from .libraries import Library, config_entry, libraries_in
from .model import Model, read_model
from .namesakes import optimizers_to_leave_out, refuse_namesakes, refuse_vanished
from .providers import CPU, asked_providers, session_providers
from .registry import Op
from .results import hides
from .selection import WANTED, Plan, Prefer, giving, plan_for, refuse_leftovers, wanted_entry
from .tuning import Arena, Tuning, graph_options, with_entries
from .unrunnable import no_kernel_error
from .values import NO_ARRAYS, REFUSED_BY_RUN, native, to_numpy, to_value

__all__ = ["InferenceSession", "SessionArguments", "get_library_path", "register"]

_AS_IT_COMES = Tuning(threads=0)


def get_library_path() -> str:
    """Return the path for ``SessionOptions.register_custom_ops_library``."""
    return str(_bridge.__file__)


def register(session_options: onnxruntime.SessionOptions, ops: Iterable[str | Op] | None = None) -> None:
    """Register kernels with a SessionOptions of plain onnxruntime.

    ``ops`` are names such as ``"mylinear::MYLINEAR"``, or what ``onnx_op`` returned; None registers every
    kernel there is, but for those in domains of other libraries. A second call adds domains that are new.
    What the entry ``"ort_ops.ops"`` of the options said before goes.

    Raises RegistrationError where a name has no kernel, and where an earlier call registered other kernels of
    a domain, to which ONNX Runtime can't add.
    """
    if isinstance(ops, str | Op):
        raise TypeError(f"ops={ops!r}; expected a list: ops=[...]")
    wanted, before = wanted_entry(ops), config_entry(session_options, WANTED)
    if before != wanted and (before or ops is not None):
        session_options.add_session_config_entry(WANTED, wanted)
    try:
        session_options.register_custom_ops_library(get_library_path())
    except Exception as error:
        raise_failure(error)


class SessionArguments(TypedDict, total=False):
    """The arguments of ``InferenceSession`` that what makes sessions passes on to it."""

    provider_options: Sequence[dict[str, Any]] | None
    ops: Iterable[str | Op] | None
    prefer: Prefer
    functions: Iterable[type] | None
    trust: Iterable[str]
    disabled_optimizers: Sequence[str] | None


class InferenceSession(onnxruntime.InferenceSession):  # type: ignore[misc] # onnxruntime has no types
    """An ``onnxruntime.InferenceSession`` with the kernels registered that its model uses.

    Takes onnxruntime's arguments, and: ``ops``, the operators (names, or what ``onnx_op`` returned) that
    may get a kernel, None for all; ``prefer="body"`` to let a function body in the file run where there is
    one; ``functions``, the torch Functions, and ``trust``, the packages with them, that the file may name
    for its custom nodes. Such a node is run by its Function's own forward (see ``ort_ops.export``), unless a
    kernel is registered for it. A kernel is registered only where it can run (element types, attributes, a
    provider asked for); else the body runs, and ``explain()`` says so. On the CPU that ONNX Runtime puts
    behind the providers that are asked for, a kernel runs where the file has no body. Without
    ``sess_options``, a session with Python kernels on the CPU keeps ONNX Runtime's threads from spinning
    (``session.intra_op.allow_spinning`` is 0), which would take the cores from the kernels' own threads.

    Raises ProviderError where a provider is asked for that isn't there, unless the list itself names the
    CPU as what to fall back to; RegistrationError where two libraries claim a domain, or ``ops`` names what
    has no kernel; TypeError for ``functions`` that are none; NoKernelError where nobody can run a node (it is
    ONNX Runtime's own exception, too); ModelError for a file that is no model. ``run`` raises KernelError
    where a kernel failed, with the kernel's own exception as its cause, and ``KeyboardInterrupt`` and
    ``SystemExit`` as they are; ``run_async`` gives them to its callback. bfloat16 and float8 arrays (of
    ml_dtypes) go in and come out, which plain onnxruntime refuses.
    """

    def __init__(
        self,
        path_or_bytes: str | os.PathLike[str] | bytes,
        sess_options: onnxruntime.SessionOptions | Tuning | None = None,
        providers: Sequence[str | tuple[str, dict[str, Any]]] | None = None,
        provider_options: Sequence[dict[str, Any]] | None = None,
        *,
        ops: Iterable[str | Op] | None = None,
        prefer: Prefer = "kernel",
        functions: Iterable[type] | None = None,
        trust: Iterable[str] = (),
        disabled_optimizers: Sequence[str] | None = None,
    ) -> None:
        let_go()  # of sessions that ended on a thread of ONNX Runtime's
        self._model = read_model(path_or_bytes)
        refuse_namesakes(self._model)
        names, asked = session_providers(providers), asked_providers(providers)
        others, refused = function_ops(self._model, functions, trust)
        plan = plan_for(self._model, names, prefer, ops, others, asked)
        plan = Plan(plan.overloads, {**refused, **plan.reasons})
        self._tuning = tuning = sess_options if isinstance(sess_options, Tuning) else _AS_IT_COMES
        given = None if isinstance(sess_options, Tuning) else sess_options
        if given is not None and not isinstance(given, onnxruntime.SessionOptions):
            raise TypeError(f"sess_options={given!r}; expected an onnxruntime.SessionOptions")
        # Options that are made anew say whose a domain is once its library is registered with them.
        registered = tuning.options() if tuning.libraries else given
        self._libraries = libraries_in(registered, self._model.opsets)
        plan = plan.without_libraries(self._libraries, asked=ops is not None)
        if given is not None:
            refuse_leftovers(plan, self._model, given)
        arguments = (providers, provider_options)
        by_node = {name for name, overload in plan.overloads if overload.op.kernel.by_node}
        self._left_out = optimizers_to_leave_out(self._model, disabled_optimizers, by_node)
        try:
            self._create(path_or_bytes, sess_options, plan, arguments)
        except (KernelError, RegistrationError):
            raise
        except Exception as error:
            # With a kernel registered the body of its operator is out of reach. A model that loads
            # without our kernels has to load with them in the process.
            fallback = plan.without_bodies(self._model, f"with its kernel the session fails: {error}")
            if given is not None or fallback.overloads == plan.overloads:
                # ONNX Runtime takes nothing out of options.
                note = _BODIES if fallback.overloads != plan.overloads else ""
                _raise_explained(error, self._model, plan, self._libraries, note)
            plan = fallback
            try:
                self._create(path_or_bytes, sess_options, plan, arguments)
            except Exception as second:
                _raise_explained(second, self._model, plan, self._libraries)
        self._plan = plan
        self._graphs = itertools.count(1)
        self._settle(providers)
        self._types = {i.name: i.type for i in self.get_inputs()}
        outputs = self.get_outputs()
        self._refused = {t.name for t in (*self.get_inputs(), *outputs) if t.type in REFUSED_BY_RUN}
        self._gives_refused = any(t.name in self._refused for t in outputs)

    @classmethod
    def tuned(
        cls,
        path_or_bytes: str | os.PathLike[str] | bytes,
        providers: Sequence[str | tuple[str, dict[str, Any]]] | None = None,
        *,
        threads: int | None = None,
        spinning: bool | None = None,
        arena: Arena = "keep",
        cuda_graph: bool = False,
        libraries: Sequence[str | os.PathLike[str]] = (),
        **arguments: Unpack[SessionArguments],
    ) -> Self:
        """Return a session that uses this machine as it is told; benchmarks/serving.py measures the choices.

        threads: of each run, the calling one among them; None for the physical cores that this process may
            use, by its affinity and its control group's quota. ONNX Runtime itself takes the machine's, and
            binds threads to cores that the process's affinity leaves out.
        spinning: whether threads spin while they wait for the next node, which is faster, and takes cores
            from all else; None for yes, unless Python kernels run on the CPU.
        arena: ``"keep"`` the memory of the largest run for the next, ``"shrink"`` to what one run needs after
            each, or have ``"none"`` on the CPU, where each run takes its memory from the system.
        cuda_graph: let runs of a ``bind`` be captured as a CUDA graph and replayed. The model's nodes have to
            be on CUDA, all of them, and shapes fixed; runs without ``bind`` go as always. The first run of a
            binding computes three times before it captures, so that no output may lie in an input's memory.
        libraries: of custom operators, to be registered.
        arguments: the other ones of this class, but for ``sess_options``.

        Raises ProviderError for ``cuda_graph`` without CUDA's provider, ValueError for another ``arena``, or
        one that shrinks with ``cuda_graph``.
        """
        tuning = Tuning(threads, spinning, arena, cuda_graph, libraries)
        return cls(path_or_bytes, tuning, tuning.providers(providers), **arguments)

    def bind(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any] | None = None) -> Binding:
        """Bind inputs and outputs to arrays, NumPy's or torch's, that every ``run`` of the binding then uses.

        inputs: an array for each, contiguous and of the model's dtype, on the CPU or a CUDA device. outputs:
        likewise; None for new ones like the first input, of the shapes that a run with these inputs gives.
        One may be an input's array, for a model that is made for it: what reads the input once the output
        is written reads the output.

        Raises ValueError where ONNX Runtime could not use an array as it is; with ``cuda_graph`` also for one
        that isn't on a CUDA device.
        """
        return Binding(self, inputs, outputs, self._capture if self._tuning.cuda_graph else None)

    def _capture(self) -> onnxruntime.RunOptions:
        """Return the options of runs that are captured as a CUDA graph of their own."""
        return graph_options(next(self._graphs))

    def _create(
        self,
        model: str | os.PathLike[str] | bytes,
        given: onnxruntime.SessionOptions | Tuning | None,
        plan: Plan,
        arguments: tuple[Any, Any],
    ) -> None:
        self._records_assignment = isinstance(given, Tuning | None)
        options: Any = given
        if self._records_assignment:
            # ONNX Runtime's threads spin while they wait, and take the cores from a kernel's BLAS: 1.8 times
            # the time of a NumPy product behind a MatMul on two cores, against 1.06 without spinning, which
            # costs built-in nodes 5 % (MatMul) to 70 % (small Tanh): benchmarks/results/python_kernels.md.
            may_spin = all(overload.provider != CPU for _, overload in plan.overloads)
            options = self._tuning.options(may_spin=may_spin)
            # For explain(); releases that don't know the entry make nothing of it.
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        providers, provider_options = arguments

        def make() -> None:
            if plan.overloads:
                giving(plan, lambda: options.register_custom_ops_library(get_library_path()))
            super(InferenceSession, self).__init__(
                model,
                options,
                providers,
                provider_options,
                disabled_optimizers=self._left_out,
                enable_fallback=0,
            )

        self._watch(make)
        refuse_vanished(self._model, model, {name for name, _ in plan.overloads}, self._made)

    def _create_inference_session(
        self, providers: Any, provider_options: Any, disabled_optimizers: Any = None
    ) -> None:
        # onnxruntime's own set_providers forgets which optimizers were left out.
        super()._create_inference_session(providers, provider_options, disabled_optimizers or self._left_out)

    def _watch(self, make: Callable[[], None]) -> None:
        """Let ONNX Runtime make its session, and note which kernels it makes, as this class's own."""
        kernels, errors, failure = _bridge.logged(make)
        try:
            if errors:  # of functions that infer shapes, without which ONNX Runtime may then fail by itself
                raise errors[0] from (errors[0].__cause__ or failure)
            if isinstance(failure, Exception):
                raise_failure(failure)
            if failure is not None:
                raise failure
        finally:
            del errors, failure  # else an exception would hold this frame, which holds the exception
        # Nodes may share a name, or have none: what runs the one of them runs the other, too, or is listed.
        self._kernels: dict[tuple[str, str, str], set[tuple[str, str]]] = {}
        self._made = Counter((domain, op, node) for domain, op, node, _, _ in kernels)
        for domain, op, node, provider, name in kernels:
            self._kernels.setdefault((domain, op, node), set()).add((provider, name))

    def set_providers(
        self,
        providers: Sequence[str | tuple[str, dict[str, Any]]] | None = None,
        provider_options: Sequence[dict[str, Any]] | None = None,
    ) -> None:
        """Make the session anew on other execution providers; raises ProviderError as making one does.

        How it is tuned stays, and what is registered: which kernels there are was chosen for the providers
        that it was made for.
        """
        session_providers(providers)
        tuned = self._tuning.providers(providers) if provider_options is None else providers
        make = super().set_providers
        self._watch(lambda: make(tuned, provider_options))
        self._settle(providers)

    def _settle(self, asked: Sequence[str | tuple[str, dict[str, Any]]] | None) -> None:
        """See that the providers that were asked for are there; note what each run of them is to be told."""
        self._refuse_silent_fallback(asked)
        self._run_entries = self._tuning.run_entries(self.get_provider_options())
        self._run_options = (
            with_entries(onnxruntime.RunOptions(), self._run_entries) if self._run_entries else None
        )

    def _refuse_silent_fallback(self, asked: Sequence[str | tuple[str, dict[str, Any]]] | None) -> None:
        there = self.get_providers()
        names = [] if asked is None else asked_providers(asked)
        missing = [name for name in names if name not in there]
        if missing and CPU not in names:
            raise ProviderError(
                f"{', '.join(missing)} was asked for, but the session could only be made for "
                f"{', '.join(there)}; install what the provider needs (onnxruntime.preload_dlls() loads "
                "CUDA's libraries where pip's packages have them), or name the CPUExecutionProvider too"
            )

    def run(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        run_options: onnxruntime.RunOptions | None = None,
    ) -> list[Any]:
        """Run the model; see ``onnxruntime.InferenceSession.run`` and this class for what it raises."""
        try:
            run_options = self._with_entries(run_options)
            input_feed = native(_without_masks(input_feed))
            if self._refused and self._goes_by_values(output_names, input_feed):
                return self._run_by_values(output_names, input_feed, run_options)
            return super().run(output_names, input_feed, run_options)  # type: ignore[no-any-return]
        except Exception as error:
            raise_failure(error)

    def run_with_ort_values(
        self, output_names: Any, input_dict_ort_values: Any, run_options: Any = None
    ) -> Any:
        """Run with OrtValues, and with the errors of ``run``."""
        try:
            options = self._with_entries(run_options)
            return super().run_with_ort_values(output_names, input_dict_ort_values, options)
        except Exception as error:
            raise_failure(error)

    def run_with_ortvaluevector(self, run_options: Any, *arguments: Any) -> None:
        """Run with vectors of OrtValues, and with the errors of ``run``."""
        try:
            super().run_with_ortvaluevector(self._with_entries(run_options), *arguments)
        except Exception as error:
            raise_failure(error)

    def run_with_iobinding(self, iobinding: Any, run_options: Any = None) -> None:
        """Run with bound inputs and outputs, and with the errors of ``run``."""
        try:
            super().run_with_iobinding(iobinding, self._with_entries(run_options))
        except Exception as error:
            raise_failure(error)

    def run_async(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        callback: Callable[[list[Any], Any, ErrorText], None],
        user_data: Any,
        run_options: onnxruntime.RunOptions | None = None,
    ) -> None:
        """Run on a thread of ONNX Runtime's, which calls ``callback(results, user_data, err)`` at the end.

        ``err`` is empty, or a text with what ``run`` would have raised: ``if err: raise err.exception``. What
        the callback raises goes to ``threading.excepthook``. The program's end waits for runs in flight.
        Strings that aren't UTF-8 are such an error here: ONNX Runtime makes no array of them.
        Raises NotImplementedError for bfloat16, float8 and 4-bit types, for which ONNX Runtime would never
        call back.
        """
        for end in (*self.get_inputs(), *self.get_outputs()):
            if end.type in NO_ARRAYS:
                raise NotImplementedError(
                    f"run_async can't be had with {end.name!r}, a {end.type}: ONNX Runtime has no NumPy "
                    "array for it; call run in a thread of your own"
                )
        names = output_names or [output.name for output in self.get_outputs()]
        run = super().run_async
        # ONNX Runtime 1.22 reads the arrays, and doesn't hold them.
        held = dict(native(_without_masks(input_feed)))

        def answered(results: list[Any], user_data: Any, err: ErrorText) -> None:
            held.clear()
            try:
                callback(results, user_data, err)
            finally:
                outlive(self)

        options = self._with_entries(run_options)
        answering(lambda answer: run(names, held, answer, user_data, options), answered, user_data)

    def _with_entries(self, given: onnxruntime.RunOptions | None) -> onnxruntime.RunOptions | None:
        """Return the options of a run: this session's, or what is given, which gets their entries, too."""
        return self._run_options if given is None else with_entries(given, self._run_entries)

    def _goes_by_values(self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any]) -> bool:
        """Tell whether a run takes or gives what ONNX Runtime has no NumPy arrays of."""
        gives = self._gives_refused if not output_names else not self._refused.isdisjoint(output_names)
        return gives or not self._refused.isdisjoint(input_feed)

    def _run_by_values(self, output_names: Any, input_feed: Mapping[str, Any], run_options: Any) -> list[Any]:
        wanted = output_names or [output.name for output in self.get_outputs()]
        values = {
            name: to_value(name, array, self._types.get(name, "")) for name, array in input_feed.items()
        }
        return [to_numpy(v) for v in super().run_with_ort_values(wanted, values, run_options)]

    def explain(self) -> tuple[NodeRun, ...]:
        """Say for each custom node of the model who runs it, and why no kernel does where none does."""
        runners = Runners(self._model, self._plan, self._libraries, self._kernels, self._assigned())
        return tuple(runners.explain())

    def _assigned(self) -> Sequence[str]:
        """Return the providers that built-in nodes are on, or may be on where ONNX Runtime doesn't say."""
        there: Sequence[str] = self.get_providers()
        known = self._records_assignment and hasattr(self, "get_provider_graph_assignment_info")
        if len(there) == 1 or not known:
            return there
        return sorted({part.ep_name for part in self.get_provider_graph_assignment_info()})


def _without_masks(feed: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a run is fed with; raises ValueError for masked elements."""
    for name, array in feed.items():
        if hides(array):
            raise ValueError(
                f"input {name!r} has masked elements, and a tensor has no mask; say what they are: "
                "give x.filled(value)"
            )
    return feed


_BODIES = (
    'the file has function bodies for its custom nodes: prefer="body" runs them, and without sess_options '
    "this session would have"
)


def _raise_explained(
    error: Exception, model: Model, plan: Plan, libraries: Mapping[str, Library], note: str = ""
) -> NoReturn:
    """Raise why nobody can run a node where the error is about that; else the error, with notes."""
    said = no_kernel_error(error, model, plan, libraries)
    notes = [f"{domain}::{name}: {why}" for (domain, name), why in plan.reasons.items() if name in str(error)]
    for each in filter(None, [*(notes if said is None else ()), note]):
        (said or error).add_note(each)
    if said is None:
        raise error
    raise said from error
