import re
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper

import ort_ops
from ort_ops.errors import NoKernelError, RegistrationError
from ort_ops.inspection import inspect_model
from ort_ops.model import read_model
from ort_ops.providers import CPU, CUDA
from ort_ops.selection import Plan, _everything, plan_for

from .models import DOMAIN, builtin, function, model, node, one_node, tensor

OP = (DOMAIN, "Op")
BODY = function("Op", ["a"], ["b"], builtin("Neg", ["a"], ["b"]))


def register(kind: Any = None, op: str = "Op", name: str = "kernel", **options: Any) -> ort_ops.registry.Op:
    def kernel(x): ...

    kernel.__qualname__ = f"{op}.{name}"
    inputs = None if kind is None else [kind]
    return ort_ops.onnx_op(f"{DOMAIN}::{op}", inputs=inputs, **options)(kernel)


def chosen(plan: Plan) -> list[tuple[str, tuple[int, ...]]]:
    return [(overload.provider, overload.signature.inputs) for _, overload in plan.overloads]


def test_only_what_the_model_calls_is_chosen() -> None:
    register()
    register(op="Other")
    assert [name for name, _ in plan_for(read_model(one_node("Op")), [CPU]).overloads] == [OP]


def test_only_the_types_that_some_node_has_and_any_comes_last() -> None:
    register("float32", name="a")
    register("float64", name="b")
    register(name="any")
    plan = plan_for(read_model(one_node("Op", "float64")), [CPU])
    assert chosen(plan) == [(CPU, (11,)), (CPU, (0,))]


def test_an_unknown_type_may_be_any_of_them() -> None:
    register("float32", name="a")
    register("float64", name="b")
    two = model([builtin("Neg", ["x"], ["v"]), node("Op", ["v"])])
    assert chosen(plan_for(read_model(two), [CPU])) == [(CPU, (1,)), (CPU, (11,))]


def test_a_type_that_no_kernel_takes_leaves_the_body() -> None:
    register("float64")
    plan = plan_for(read_model(model([node("Op")], functions=[BODY])), [CPU])
    assert plan.overloads == ()
    assert plan.reasons == {OP: "no kernel takes the element types of node 'Op'"}


def test_more_outputs_than_a_kernel_has_leave_the_body() -> None:
    register()
    body = function("Op", ["a"], ["b", "c"], builtin("Split", ["a"], ["b", "c"], num_outputs=2))
    made, outputs = node("Op", outputs=["y", "z"]), [tensor("y"), tensor("z")]
    plan = plan_for(read_model(model([made], outputs=outputs, functions=[body])), [CPU])
    assert (plan.overloads, plan.reasons) == ((), {OP: "no kernel has the 2 outputs of node 'Op'"})
    (nodes,) = inspect_model(model([made], outputs=outputs), [CPU]).custom
    assert nodes.runner == "nobody"
    assert "it has 2 outputs, " in nodes.reason


def register_scale(*kinds: Any) -> None:
    def kernel(x, *, by=1.0): ...

    ort_ops.onnx_op(f"{DOMAIN}::Op", inputs=kinds or None)(kernel)


MISSPELT = "node 'Op' has the attribute 'bye', which .*kernel doesn't have; expected one of by"


def test_an_attribute_that_the_kernel_lacks_leaves_the_body() -> None:
    register_scale()
    plan = plan_for(read_model(model([node("Op", bye=2.0)], functions=[BODY])), [CPU])
    assert plan.overloads == ()
    assert re.match(MISSPELT, plan.reasons[OP])
    assert len(plan_for(read_model(model([node("Op", by=2.0)], functions=[BODY])), [CPU]).overloads) == 1


def test_an_attribute_that_the_kernel_lacks_is_an_error_without_a_body() -> None:
    register_scale()
    data = one_node("Op", bye=2.0)
    with pytest.raises(NoKernelError, match=MISSPELT):
        ort_ops.InferenceSession(data, providers=[CPU])
    (nodes,) = inspect_model(data, [CPU]).custom
    assert nodes.runner == "nobody"
    assert re.match(MISSPELT, nodes.reason)


def test_an_input_as_an_attribute_is_told_from_a_misspelt_one() -> None:
    register()
    with pytest.raises(NoKernelError, match=r"has the attribute 'x', which .*kernel takes as an input"):
        ort_ops.InferenceSession(one_node("Op", x=2.0), providers=[CPU])


def test_a_kernel_that_lacks_an_attribute_leaves_what_another_takes() -> None:
    register_scale("float32")
    register("float64", name="bare")
    nodes = [node("Op", by=2.0), node("Op", ["d"], ["z"])]
    ends = [tensor("x"), tensor("d", "float64")], [tensor("y"), tensor("z", "float64")]
    plan = plan_for(read_model(model(nodes, *ends)), [CPU])
    assert (chosen(plan), plan.reasons) == ([(CPU, (1,)), (CPU, (11,))], {})
    nodes[1].attribute.extend(nodes[0].attribute)
    nodes[1].name = "double"
    plan = plan_for(read_model(model(nodes, *ends)), [CPU])
    assert chosen(plan) == [(CPU, (1,))]
    assert plan.reasons[OP].startswith("node 'double' has the attribute 'by', which ")
    assert plan_for(read_model(model(nodes, *ends, functions=[BODY])), [CPU]).overloads == ()
    with pytest.raises(NoKernelError, match="node 'double' has the attribute 'by'"):
        ort_ops.InferenceSession(model(nodes, *ends), providers=[CPU])


def test_one_node_that_is_not_covered_leaves_all_to_the_body() -> None:
    register("float32")
    nodes = [node("Op"), node("Op", ["d"], ["z"])]
    ins, outs = [tensor("x"), tensor("d", "float64")], [tensor("y"), tensor("z", "float64")]
    assert plan_for(read_model(model(nodes, ins, outs, functions=[BODY])), [CPU]).overloads == ()
    assert chosen(plan_for(read_model(model(nodes, ins, outs)), [CPU])) == [(CPU, (1,))]


def test_a_provider_that_the_session_lacks_leaves_the_body() -> None:
    register(providers=[CUDA], array="torch")
    read = read_model(one_node("Op"))
    assert plan_for(read, [CPU]).reasons == {OP: f"its kernels run on {CUDA}; this session has {CPU}"}
    assert chosen(plan_for(read, [CUDA, CPU])) == [(CUDA, (0,))]


def test_the_cpu_behind_what_is_asked_for_leaves_the_body() -> None:
    register()
    with_body = read_model(model([node("Op")], functions=[BODY]))
    plan = plan_for(with_body, [CUDA, CPU], asked=[CUDA])
    assert (plan.overloads, plan.reasons) == ((), {OP: f"its kernels run on {CPU}, which wasn't asked for"})
    assert len(plan_for(with_body, [CUDA, CPU], asked=[CUDA, CPU]).overloads) == 1
    assert len(plan_for(read_model(one_node("Op")), [CUDA, CPU], asked=[CUDA]).overloads) == 1


def test_a_provider_that_is_asked_for_alone_runs_the_body_and_no_kernel_on_the_cpu() -> None:
    azure = "AzureExecutionProvider"  # which has no kernels of the standard's
    if azure not in onnxruntime.get_available_providers():
        pytest.skip(f"this onnxruntime has no {azure}")
    register()
    with_body = model([node("Op")], functions=[BODY])
    for providers, runner in (([azure], "function body"), ([azure, CPU], "kernel"), (None, "kernel")):
        (run,) = ort_ops.InferenceSession(with_body, providers=providers).explain()
        (nodes,) = inspect_model(with_body, providers).custom
        assert run.runner == nodes.runner == runner


def test_prefer_body_needs_a_body() -> None:
    register()
    with_body = read_model(model([node("Op")], functions=[BODY]))
    assert plan_for(with_body, [CPU], "body").reasons == {OP: 'prefer="body"'}
    assert len(plan_for(read_model(one_node("Op")), [CPU], "body").overloads) == 1


def test_ops_limits_the_choice_by_name_or_by_kernel() -> None:
    op, other = register(), register(op="Other")
    read = read_model(one_node("Op"))
    for allowed in ([op], [f"{DOMAIN}::Op"], [op, other]):
        assert len(plan_for(read, [CPU], ops=allowed).overloads) == 1
    for allowed in ([], [other], [f"{DOMAIN}::Other"]):
        assert plan_for(read, [CPU], ops=allowed).reasons == {OP: "its kernel is not among ops="}


def test_ops_names_what_has_a_kernel() -> None:
    op = register()
    read = read_model(one_node("Op"))
    for names in (["no::Such"], [op, f"{DOMAIN}::Missing"]):
        with pytest.raises(RegistrationError, match=r"ops= names .*::\w+, for which no kernel is registered"):
            plan_for(read, [CPU], ops=names)


def test_the_version_is_the_newest_that_the_model_imports() -> None:
    first, third = register(name="a"), register(name="b", version=3)
    for imported, expected in ((1, first), (2, first), (3, third), (9, third)):
        plan = plan_for(read_model(model([node("Op")], version=imported)), [CPU])
        assert [overload.op for _, overload in plan.overloads] == [expected]


def test_a_model_that_imports_an_older_version_is_told() -> None:
    register(version=3)
    with pytest.raises(NoKernelError, match=f"its kernel is of version 3, the model imports {DOMAIN} 2"):
        ort_ops.InferenceSession(model([node("Op")], version=2))


def test_without_bodies_keeps_what_has_none() -> None:
    register()
    register(op="Bare")
    read = read_model(model([node("Op", outputs=["v"]), node("Bare", ["v"])], functions=[BODY]))
    left = plan_for(read, [CPU]).without_bodies(read, "why")
    assert [name for name, _ in left.overloads] == [(DOMAIN, "Bare")]
    assert left.reasons == {OP: "why"}


def test_plain_onnxruntime_gets_everything_but_what_is_in_domains_of_others() -> None:
    register(np.float32)

    @ort_ops.onnx_op("ai.onnx.contrib::Theirs")
    def theirs(x): ...

    names = {name for name, _ in _everything(None).overloads}
    assert OP in names
    assert ("ai.onnx.contrib", "Theirs") not in names
    assert [n for n, _ in _everything("ai.onnx.contrib::Theirs").overloads] == [("ai.onnx.contrib", "Theirs")]
    assert _everything("").overloads == ()


def test_a_name_without_a_kernel_is_refused() -> None:
    with pytest.raises(RegistrationError, match=r"names test\.domain::Missing, for which no kernel"):
        _everything(f"{DOMAIN}::Missing")


def test_a_release_without_computed_types_says_so_or_leaves_the_body(monkeypatch: pytest.MonkeyPatch) -> None:
    @ort_ops.onnx_op(f"{DOMAIN}::Op")
    def kernel(x, y=None): ...

    assert kernel.needs_release(leaves_out=True) is None  # a kernel for each type of x
    kernel.infer(lambda x, y: x)
    monkeypatch.setattr(ort_ops.registry, "RELEASE", (1, 22))
    assert kernel.needs_release(leaves_out=False) is None
    monkeypatch.setattr(ort_ops.registry, "RELEASE", (1, 21))
    with pytest.raises(RegistrationError, match=r"needs ONNX Runtime 1\.22.*share a type variable"):
        plan_for(read_model(one_node("Op")), [CPU])
    plan = plan_for(read_model(model([node("Op")], functions=[BODY])), [CPU])
    assert (plan.overloads, "1.22" in plan.reasons[OP]) == ((), True)
    assert OP not in [name for name, _ in _everything(None).overloads]
    with pytest.raises(RegistrationError, match=r"1\.22"):
        _everything(f"{DOMAIN}::Op")


def test_a_declared_first_input_gives_the_type_of_a_result_on_every_release(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @ort_ops.onnx_op(f"{DOMAIN}::Op", inputs=["float64", "int64"], outputs=[None, "bool", None])
    def kernel(x, y): ...

    monkeypatch.setattr(ort_ops.registry, "RELEASE", (1, 21))
    (overload,) = kernel.overloads(OP, leaves_out=False)
    assert (overload.signature.outputs, kernel.needs_release(False)) == ((11, 9, 11), None)
    kernel.infer(lambda x, y: (y, y, y))  # from here on the types are what it says
    assert "1.22" in (kernel.needs_release(False) or "")


LEAVES_OUT = [["x", "", "x"], ["x", ""], ["", "x"]]


@pytest.mark.parametrize("inputs", LEAVES_OUT, ids=str)
def test_a_release_that_fails_over_an_input_left_out_is_given_no_shape_function(
    inputs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @ort_ops.onnx_op(f"{DOMAIN}::Op", inputs=["float32"] * 3)
    def kernel(x=None, a=None, b=None): ...

    kernel.infer(lambda x, a, b: ort_ops.TensorType(np.dtype("float32"), None))
    body = function("Caller", ["a", "c"], ["b"], node("Op", ["a", "c"], ["b"]))
    leaving, called = model([node("Op", inputs)]), model([node("Caller", ["x"])], functions=[body])
    for release, expected in (((1, 23), False), ((1, 24), True)):
        monkeypatch.setattr(ort_ops.registry, "RELEASE", release)
        plans = plan_for(read_model(leaving), [CPU]), plan_for(read_model(called), [CPU]), _everything(None)
        assert [[bool(o.told) for n, o in plan.overloads if n == OP] for plan in plans] == [[expected]] * 3
        (given,) = plan_for(read_model(model([node("Op", ["x", "x"])])), [CPU]).overloads
        assert given[1].told


def test_a_computed_type_of_a_node_that_leaves_out_an_input_needs_another_release(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @ort_ops.onnx_op(f"{DOMAIN}::Op")
    def kernel(x, y=None, z=None): ...

    kernel.infer(lambda x, y, z: x)
    monkeypatch.setattr(ort_ops.registry, "RELEASE", (1, 23))
    leaving = read_model(model([node("Op", ["x", "", "x"])]))
    with pytest.raises(RegistrationError, match=r"needs ONNX Runtime 1\.24 where a node may leave out"):
        plan_for(leaving, [CPU])
    with pytest.raises(RegistrationError, match=r"1\.24"):
        _everything(f"{DOMAIN}::Op")
    assert OP not in [name for name, _ in _everything(None).overloads]
    assert len(plan_for(read_model(one_node("Op")), [CPU]).overloads) == 1
    monkeypatch.setattr(ort_ops.registry, "RELEASE", (1, 24))
    assert len(plan_for(leaving, [CPU]).overloads) == len(_everything(f"{DOMAIN}::Op").overloads) == 1


ZEROS = np.zeros(1)


@pytest.mark.parametrize("kind", ["list", "sparse"])
@pytest.mark.parametrize("name", ["values", "numbers"])
def test_an_attribute_that_no_operator_is_shown_is_not_taken_for_absent(name: str, kind: str) -> None:
    @ort_ops.onnx_op(f"{DOMAIN}::Op", inputs=["float32"])
    def kernel(x: Any, *, values: np.ndarray = ZEROS, numbers: list[int] = [1]) -> Any:  # type: ignore[type-arg] # noqa: B006
        return x

    tensor = helper.make_tensor("t", 1, [1], [5.0])
    sparse = helper.make_sparse_tensor(tensor, helper.make_tensor("i", 7, [1], [0]), [3])
    data = model([node("Op", **{name: [tensor] if kind == "list" else sparse})])
    with pytest.raises(NoKernelError, match=f"attribute '{name}' of a kind that ONNX Runtime shows no"):
        ort_ops.InferenceSession(data)


def test_options_that_were_registered_before_serve_a_node_with_fewer_outputs() -> None:
    @ort_ops.onnx_op(f"{DOMAIN}::Two", inputs=["float32"], outputs=["float32", "float32"])
    def two(x):
        return 2 * x, 3 * x

    for outputs in (["y"], ["y", "z"]):
        options = onnxruntime.SessionOptions()
        ort_ops.register(options)
        given = model([node("Two", outputs=outputs)])
        session = ort_ops.InferenceSession(given, options, providers=[CPU])
        assert session.run(None, {"x": np.ones(2, np.float32)})[0].tolist() == [2, 2]


def test_of_no_operators_none_is_registered() -> None:
    register("float32")
    options = onnxruntime.SessionOptions()
    ort_ops.register(options, [])
    with pytest.raises(Exception, match="not a registered function/op"):
        onnxruntime.InferenceSession(one_node("Op", "float32"), options)


def test_what_could_not_be_registered_leaves_nothing_half_registered() -> None:
    ours = register("float32")
    other = ort_ops.onnx_op("zz.taken::Op", inputs=["float32"])(lambda x: x)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("ort_ops.domain.zz.taken", "another library")
    with pytest.raises(RegistrationError, match="another library"):
        ort_ops.register(options, [ours, other])
    ort_ops.register(options, [ours])
    onnxruntime.InferenceSession(one_node("Op", "float32"), options)
