"""A model on a GPU gives the file that it gives on the CPU, and its Functions' forward runs on the GPU."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from ort_ops.export import export, keep_functions
from ort_ops.providers import CPU, CUDA

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
PROVIDERS = {"cpu": CPU, "cuda": CUDA}
seen: list[str] = []


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, beta: Tensor) -> Tensor:
        seen.append(x.device.type)
        ctx.save_for_backward(x, beta)
        return x * torch.sigmoid(beta * x)

    @staticmethod
    def symbolic(g: Any, x: Any, beta: Any) -> Any:
        return g.op("test.cuda::Swish", x, beta)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 3)
        self.beta = nn.Parameter(torch.linspace(0.5, 2.0, 3))

    def forward(self, x: Tensor) -> Any:
        return Swish.apply(self.linear(x), self.beta)  # type: ignore[no-untyped-call]


def exported(device: str, *, dynamo: bool) -> Any:
    axes: dict[str, Any] = (
        {"dynamic_shapes": ({0: "batch"},)} if dynamo else {"dynamic_axes": {"x": {0: "batch"}}}
    )
    return export(
        Net().eval().to(device),
        (torch.ones(2, 4, device=device),),
        dynamo=dynamo,
        functions="attach",
        canonical=True,
        verbose=False,
        input_names=["x"],
        output_names=["y"],
        **axes,
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dynamo", [True, False])
def test_the_file_is_that_of_the_cpu(dynamo: bool, device: str) -> None:
    made, expected = (exported(each, dynamo=dynamo).model_proto for each in (device, "cpu"))
    assert made.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)
    assert [node.op_type for node in made.graph.node].count("Swish") == 1
    assert len(made.functions) == 1


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dynamo", [True, False])
def test_forward_runs_the_node_on_the_device(dynamo: bool, device: str) -> None:
    program = exported(device, dynamo=dynamo)
    session = program.session(providers=[PROVIDERS[device]])
    (run,) = session.explain()
    assert (run.runner, run.provider) == ("kernel", PROVIDERS[device])
    seen.clear()
    x = torch.linspace(-2, 2, 20).reshape(5, 4)
    (y,) = session.run(None, {"x": x.numpy()})
    assert seen == [device]
    with torch.no_grad():
        np.testing.assert_allclose(y, Net()(x), rtol=1e-2, atol=1e-2)  # Gemm may use TF32 there


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dynamo", [True, False])
def test_the_body_runs_on_the_device(dynamo: bool, device: str) -> None:
    content = exported(device, dynamo=dynamo).model_proto.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = onnxruntime.InferenceSession(content, options, providers=[PROVIDERS[device]])
    parts = session.get_provider_graph_assignment_info()
    assert {part.ep_name for part in parts if part.get_nodes()} == {PROVIDERS[device]}
    x = torch.linspace(-2, 2, 20).reshape(5, 4)
    (y,) = session.run(None, {"x": x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(y, Net()(x), rtol=1e-2, atol=1e-2)


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch warns about itself
@pytest.mark.parametrize("device", DEVICES)
def test_code_that_exports_by_itself_keeps_functions(device: str, tmp_path: Any) -> None:
    model, x = Net().eval().to(device), torch.ones(2, 4, device=device)
    with keep_functions():
        program = torch.onnx.export(model, (x,), tmp_path / "m.onnx", dynamo=True, verbose=False)
    assert program is not None
    assert [node.op_type for node in program.model.graph].count("Swish") == 1
