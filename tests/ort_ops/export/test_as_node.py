"""An operator of torch.library is one node in the files of both exporters."""

from collections.abc import Iterator
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto
from torch import Tensor

from ort_ops.errors import ExportError, SchemaError
from ort_ops.export import as_node, export
from ort_ops.export import node as node_module
from tests.ort_ops.releases import TORCH

from .functions import Calls, x
from .test_nodes import attributes


@torch.library.custom_op("ort_ops_test::blend", mutates_args=())
def blend(
    x: Tensor,
    mask: Tensor | None,
    others: list[Tensor],
    alpha: float = 0.5,
    sizes: list[int] | None = None,
    mode: str = "mean",
    exact: bool = False,
) -> Tensor:
    return x * alpha + sum(others)


@blend.register_fake
def _(x: Tensor, *rest: Any, **more: Any) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("ort_ops_test::halves", mutates_args=())
def halves(x: Tensor, at: int) -> tuple[Tensor, Tensor]:
    return x[:at].clone(), x[at:].clone()


@halves.register_fake
def _(x: Tensor, at: int) -> tuple[Tensor, Tensor]:
    return x.new_empty((at, *x.shape[1:])), x.new_empty((x.shape[0] - at, *x.shape[1:]))


@torch.library.custom_op("ort_ops_test::typed", mutates_args=())
def typed(x: Tensor, to: torch.dtype = torch.float16, weights: list[float] | None = None) -> Tensor:
    return x.to(to)


@typed.register_fake
def _(x: Tensor, to: torch.dtype = torch.float16, weights: list[float] | None = None) -> Tensor:
    return torch.empty_like(x, dtype=to)


@torch.library.custom_op("ort_ops_test::write", mutates_args=("x",))
def write(x: Tensor, by: float) -> None:
    x.mul_(by)


@torch.library.custom_op("ort_ops_test::several", mutates_args=())
def several(x: Tensor) -> list[Tensor]:
    return [x + 1, x + 2]


_LIBRARY = torch.library.Library("ort_ops_test_overloads", "DEF")
for _form, _computed in (
    ("f(Tensor x) -> Tensor", lambda x: x + 1),
    ("f.scaled(Tensor x, float s) -> Tensor", lambda x, s: x * s),
    ("f.at(Tensor x, int n, int m=1) -> Tensor", lambda x, n, m=1: x / n),
    ("f.less(Tensor x, Tensor y, *, bool exact=False) -> Tensor", lambda x, y, exact=False: x - y),
    ("f.named(Tensor x, str mode) -> Tensor", lambda x, mode: x),
    ("f.each(Tensor x, int[] sizes) -> Tensor", lambda x, sizes: x),
    ("f.times(Tensor x, float[] factors) -> Tensor", lambda x, factors: x),
    ("f.all(Tensor x, Tensor[] others) -> Tensor", lambda x, others: x),
    ("either(Tensor x, float s) -> Tensor", lambda x, s: x * s),
    ("either.less(Tensor x, Tensor y) -> Tensor", lambda x, y: x - y),
):
    _LIBRARY.define(_form)
    _name = _form.partition("(")[0]
    _LIBRARY.impl(_name, _computed, "CompositeExplicitAutograd")
    _qualified = f"ort_ops_test_overloads::{_name}"
    torch.library.register_fake(_qualified, lambda x, *rest, **more: torch.empty_like(x), lib=_LIBRARY)


def overloaded(model: Any, x: Tensor) -> Tensor:
    f = torch.ops.ort_ops_test_overloads.f
    y = f.less(f.at(f.scaled(f.default(x), 2.0), 4), x, exact=True)
    return f.all(f.times(f.each(f.named(y, "a"), [1, 2]), [0.5]), [x, x])  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def _no_nodes_are_left() -> Iterator[None]:
    yield
    node_module._nodes.clear()


@pytest.mark.parametrize("dynamo", [True, False])
def test_arguments_are_inputs_and_attributes(dynamo: bool) -> None:
    as_node("ort_ops_test::blend", "my::Blend")

    def call(model: Any, x: Tensor) -> Tensor:
        return torch.ops.ort_ops_test.blend(x, None, [x + 1, x + 2], 0.25, [1, 2], exact=True)

    program = export(Calls(call).eval(), (x(3, 4),), dynamo=dynamo, verbose=False)
    (node,) = [node for node in program.model_proto.graph.node if node.domain == "my"]
    assert node.op_type == "Blend"
    assert [bool(name) for name in node.input] == [True, False, True, True]
    assert {name: value for name, _, value in attributes(node)} == {
        "alpha": 0.25,
        "sizes": (1, 2),
        "mode": b"mean",
        "exact": 1,
    }


@pytest.mark.parametrize("dynamo", [True, False])
def test_several_results_and_equal_calls(dynamo: bool) -> None:
    as_node("ort_ops_test::halves.default", "my::Halves")

    def call(model: Any, x: Tensor) -> Any:
        return (*torch.ops.ort_ops_test.halves(x, 1), *torch.ops.ort_ops_test.halves(x, 1))

    program = export(Calls(call).eval(), (x(3, 4),), dynamo=dynamo, verbose=False)
    nodes = [node for node in program.model_proto.graph.node if node.domain == "my"]
    assert [len(node.output) for node in nodes] == [2, 2]


@pytest.mark.parametrize("dynamo", [True, False])
def test_a_dtype_is_onnxs_number_and_an_empty_list_is_of_its_type(dynamo: bool) -> None:
    as_node("ort_ops_test::typed", "my::Typed")

    def call(model: Any, x: Tensor) -> Tensor:
        return torch.ops.ort_ops_test.typed(torch.ops.ort_ops_test.typed(x), torch.bfloat16, [])

    program = export(Calls(call).eval(), (x(3, 4),), dynamo=dynamo, verbose=False)
    found = [attributes(node) for node in program.model_proto.graph.node if node.domain == "my"]
    kinds = onnx.AttributeProto
    assert found == [
        (("to", kinds.INT, TensorProto.FLOAT16),),
        (("to", kinds.INT, TensorProto.BFLOAT16), ("weights", kinds.FLOATS, ())),
    ]


@pytest.mark.parametrize("dynamo", [True, False])
def test_an_operator_that_the_exporter_knows_is_a_node_all_the_same(dynamo: bool) -> None:
    as_node("aten::gelu", "my::Gelu")
    model = Calls(lambda model, x: torch.nn.functional.gelu(x)).eval()
    program = export(model, (x(3, 4),), dynamo=dynamo, verbose=False, opset_version=20)
    assert [f"{node.domain}::{node.op_type}" for node in program.model_proto.graph.node] == ["my::Gelu"]


@pytest.mark.parametrize("dynamo", [True, False])
def test_each_overload_is_its_own_node(dynamo: bool) -> None:
    for overload in ("default", "scaled", "at", "less", "named", "each", "times", "all"):
        as_node(f"ort_ops_test_overloads::f.{overload}", f"my::{overload.title()}")
    program = export(Calls(overloaded).eval(), (x(3, 4),), dynamo=dynamo, verbose=False)
    nodes = [node for node in program.model_proto.graph.node if node.domain == "my"]
    assert [(node.op_type, len(node.input)) for node in nodes] == [
        ("Default", 1),
        ("Scaled", 1),
        ("At", 1),
        ("Less", 2),
        ("Named", 1),
        ("Each", 1),
        ("Times", 1),
        ("All", 3),
    ]
    found = [{name: value for name, _, value in attributes(node)} for node in nodes]
    assert found == [
        *({}, {"s": 2.0}, {"n": 4, "m": 1}, {"exact": 1}),
        *({"mode": b"a"}, {"sizes": (1, 2)}, {"factors": (0.5,)}, {}),
    ]


@pytest.mark.parametrize("dynamo", [True, False])
def test_an_overload_that_is_no_node_is_not_taken_for_one_that_is(dynamo: bool) -> None:
    as_node("ort_ops_test_overloads::f", "my::F")
    says = "f.scaled" if dynamo else r"f\.scaled is called, and only default of it was declared"
    with pytest.raises(Exception, match=says):
        export(Calls(overloaded).eval(), (x(3, 4),), dynamo=dynamo, verbose=False)


def test_the_older_exporter_guesses_no_overload() -> None:
    as_node("ort_ops_test_overloads::either", "my::Either")
    model = Calls(lambda model, x: torch.ops.ort_ops_test_overloads.either.default(x, 2.0)).eval()
    with pytest.raises(ExportError, match=r"may be those of (default or less|less or default)"):
        export(model, (x(3, 4),), dynamo=False, verbose=False)
    (node,) = export(model, (x(3, 4),), verbose=False).model.graph
    assert (node.op_type, len(node.inputs)) == ("Either", 1)


@pytest.mark.parametrize("dynamo", [True, False])
def test_an_overload_of_pytorchs_own_is_a_node(dynamo: bool) -> None:
    as_node("aten::mul.Tensor", "my::Mul")
    program = export(Calls(lambda model, x: x * 2).eval(), (x(3, 4),), dynamo=dynamo, verbose=False)
    assert [node.op_type for node in program.model.graph if node.domain == "my"] == ["Mul"]


def test_what_somebody_else_registered_is_there_again() -> None:
    def own(g: Any, x: Any, *rest: Any) -> Any:
        return g.op("my::Own", x)

    as_node("ort_ops_test::typed", "my::Typed")
    model = Calls(lambda model, x: torch.ops.ort_ops_test.typed(x)).eval()
    register: Any = torch.onnx.register_custom_op_symbolic
    unregister: Any = torch.onnx.unregister_custom_op_symbolic
    register("ort_ops_test::typed", own, 9)
    try:
        export(model, (x(3, 4),), dynamo=False, verbose=False)
        node_module._nodes.clear()
        program = export(model, (x(3, 4),), dynamo=False, verbose=False)
    finally:
        unregister("ort_ops_test::typed", 9)
    assert [node.op_type for node in program.model.graph] == ["Own"]


@pytest.mark.parametrize(
    ("name", "says"),
    [("write", "writes into its argument 'x'"), ("several", r"returns List\[Tensor\]")],
)
def test_an_operator_that_no_node_can_stand_for_is_refused(name: str, says: str) -> None:
    with pytest.raises(ExportError, match=says):
        as_node(f"ort_ops_test::{name}", "my::Never")


def test_what_torch_does_not_know_is_refused() -> None:
    for name in ("ort_ops_test::missing", "missing", "ort_ops_test::blend.other", ""):
        with pytest.raises(ExportError, match="torch has no operator"):
            as_node(name, "my::Blend")
    with pytest.raises(SchemaError):
        as_node("ort_ops_test::blend", "Blend")


@pytest.mark.skipif(TORCH < (2, 13), reason="torch 2.9 fails before: while it decomposes the operator")
def test_an_attribute_that_depends_on_the_inputs_is_refused() -> None:
    as_node("ort_ops_test::halves", "my::Halves")

    def call(model: Any, x: Tensor) -> Any:
        return torch.ops.ort_ops_test.halves(x, x.shape[0] // 2)

    with pytest.raises(ExportError, match="at depends on the inputs"):
        export(Calls(call).eval(), (x(4, 4),), dynamic_shapes=({0: "n"},), verbose=False)


@pytest.mark.parametrize(
    ("size", "fixed"), [(lambda x: x.shape[0] // 2, False), (lambda x: x.shape[1], True)]
)
def test_the_older_exporter_freezes_no_size_that_is_to_vary(size: Any, fixed: bool) -> None:
    as_node("ort_ops_test::halves", "my::Halves")

    def call(model: Any, x: Tensor) -> Any:
        return torch.ops.ort_ops_test.halves(x, size(x))

    options: dict[str, Any] = {"dynamo": False, "input_names": ["x"], "verbose": False}
    model = Calls(call).eval()
    if not fixed:
        with pytest.raises(ExportError, match="halves: at depends on the inputs"):
            export(model, (x(4, 2),), dynamic_axes={"x": {0: "n"}}, **options)
        axes = None
    else:
        axes = {"x": {0: "n"}}
    (node,) = export(model, (x(4, 2),), dynamic_axes=axes, **options).model_proto.graph.node
    assert attributes(node) == (("at", onnx.AttributeProto.INT, 2),)


@pytest.mark.parametrize("dynamo", [True, False])
def test_a_node_of_an_operator_that_has_no_body_is_said(dynamo: bool) -> None:
    as_node("ort_ops_test::halves", "my::Halves")
    model = Calls(lambda model, x: torch.ops.ort_ops_test.halves(x, 1)).eval()
    options: dict[str, Any] = {"dynamo": dynamo, "verbose": False}
    with pytest.warns(
        UserWarning, match=r"my::Halves: node '.+' has no function body: .*as_node.* by a kernel"
    ):
        export(model, (x(4, 2),), functions="attach", **options)
    with pytest.raises(
        ExportError, match=r"my::Halves: node '.+' does not become plain operators: .*as_node"
    ):
        export(model, (x(4, 2),), functions="inline", **options)


@pytest.mark.parametrize("behind", ["list[Tensor] ys", "Tensor? mask"])
def test_inputs_that_a_node_would_not_tell_apart_are_refused(behind: str) -> None:
    with torch.library._scoped_library("ort_ops_test_lists", "DEF") as library:
        kind, name = behind.replace("list[Tensor]", "Tensor[]").split()
        library.define(f"behind(Tensor[] xs, {kind} {name}) -> Tensor")
        library.define("last(Tensor[] xs, Tensor y, float by) -> Tensor")
        with pytest.raises(ExportError, match=rf"takes '{name}' after 'xs', a list of tensors"):
            as_node("ort_ops_test_lists::behind", "my::Behind")
        node_module._check(torch.ops.ort_ops_test_lists.last.default._schema)
