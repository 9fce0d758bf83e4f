"""Kernels on torch tensors and DLPack arrays where ONNX Runtime runs them: its buffers, device and stream.

What is the same on the CPU is run there, too.
"""

from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

import ort_ops
from ort_ops.dtypes import DTYPES, DType
from ort_ops.errors import KernelError, ProviderError, ResultError
from ort_ops.providers import CPU, CUDA

from .models import DOMAIN, builtin, function, model, node, one_node, tensor

torch: Any = pytest.importorskip("torch")
torch_arrays: Any = ort_ops.torch_arrays

on_cuda = pytest.mark.cuda
DEVICES = ["cpu", pytest.param("cuda", marks=on_cuda)]
PROVIDERS = {"cpu": CPU, "cuda": CUDA}
X = np.arange(6, dtype=np.float32).reshape(2, 3)
op = ort_ops.onnx_op
# The types that both DLPack and ONNX Runtime's copies to a GPU know.
BIT_TYPES = [dtype for dtype in DTYPES if dtype.name != "string" and dtype.onnx < 17]


def register(function: Any, *, array: Any = "torch", **options: Any) -> None:
    """Register a kernel that serves either provider, float32 unless said."""
    kinds = {"inputs": ["float32"], "outputs": ["float32"]} | options
    op(f"{DOMAIN}::Op", providers=[CPU, CUDA], array=array, **kinds)(function)


def make(device: str, data: bytes | None = None, **options: Any) -> ort_ops.InferenceSession:
    """Return a session all of whose nodes are on the device."""
    provider = (PROVIDERS[device], options) if options else PROVIDERS[device]
    session = ort_ops.InferenceSession(data or one_node("Op"), providers=[provider])
    assert [run.provider for run in session.explain()] == [PROVIDERS[device]] * len(session.explain())
    if hasattr(session, "get_provider_graph_assignment_info"):
        parts = session.get_provider_graph_assignment_info()
        assert {part.ep_name for part in parts if part.get_nodes()} == {PROVIDERS[device]}
    return session


# --- what a kernel is given ----------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(2, 3), (), (0,), (3, 0, 5), (1, 1, 7)], ids=str)
@pytest.mark.parametrize("dtype", BIT_TYPES, ids=lambda dtype: dtype.name)
def test_every_type_and_shape_is_a_tensor_on_the_device(
    dtype: DType, shape: tuple[int, ...], device: str
) -> None:
    seen: list[Any] = []

    def kernel(x: Any) -> Any:
        seen.append((x.device.type, str(x.dtype).removeprefix("torch."), tuple(x.shape)))
        return x.clone()

    register(kernel, inputs=[dtype.name], outputs=[dtype.name])
    size = int(np.prod(shape)) * dtype.numpy.itemsize
    raw = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    x = (raw % 2 if dtype.name == "bool" else raw).view(dtype.numpy).reshape(shape)
    (y,) = make(device, one_node("Op", dtype.name)).run(None, {"x": x})
    assert (y.dtype, y.shape, y.tobytes()) == (x.dtype, x.shape, x.tobytes())
    assert seen == [(device, dtype.name, shape)]


@pytest.mark.parametrize("device", DEVICES)
def test_out_is_the_outputs_buffer(device: str) -> None:
    places = []

    def kernel(x: Any, *, out: Any) -> None:
        places.append(out.data_ptr())
        torch.neg(x, out=out)

    register(kernel)
    session = make(device, model([node("Op")], [tensor("x", shape=["n"])], [tensor("y", shape=["n"])]))
    binding = session.bind({"x": torch.arange(5.0, device=device)})
    assert torch.equal(binding.run()["y"], -torch.arange(5.0, device=device))
    assert places[-1] == binding.outputs["y"].data_ptr()


@pytest.mark.parametrize("device", DEVICES)
def test_several_inputs_and_outputs_and_an_absent_one(device: str) -> None:
    def kernel(x: Any, y: Any = None, *zs: Any, factor: float = 2.0) -> Any:
        assert y is None
        return factor * x, torch.stack(zs).sum(0).to(torch.int64)

    register(kernel, inputs=["float32"] * 3, outputs=["float32", "int64"])
    whole = node("Op", ["x", "", "x", "x"], ["y", "z"], factor=3.0)
    session = make(device, model([whole], outputs=[tensor("y"), tensor("z", "int64")]))
    y, z = session.run(None, {"x": X})
    np.testing.assert_array_equal(y, 3 * X)
    np.testing.assert_array_equal(z, (2 * X).astype(np.int64))


@pytest.mark.parametrize("device", DEVICES)
def test_the_callers_autocast_and_inference_mode_are_the_callers(device: str) -> None:
    register(lambda x: x @ x.T)
    session = make(device)
    with torch.autocast(device), torch.inference_mode():
        (y,) = session.run(None, {"x": X})
    np.testing.assert_array_equal(y, X @ X.T)


# --- where it runs -------------------------------------------------------------------------------------


@pytest.fixture
def streams() -> list[int]:
    """Register a kernel; returns the streams that it runs on."""
    seen: list[int] = []

    def kernel(x: Any) -> Any:
        seen.append(torch.cuda.current_stream().cuda_stream)
        return x + 1

    register(kernel)
    return seen


@on_cuda
def test_it_runs_on_onnx_runtimes_own_stream(streams: list[int]) -> None:
    session = make("cuda")
    for _ in range(2):
        np.testing.assert_array_equal(session.run(None, {"x": X})[0], X + 1)
    assert len(set(streams)) == 1
    assert streams[0] not in (0, torch.cuda.default_stream().cuda_stream)


@on_cuda
def test_it_runs_on_the_stream_that_onnx_runtime_is_given(streams: list[int]) -> None:
    mine = torch.cuda.Stream()
    session = make("cuda", user_compute_stream=str(mine.cuda_stream))
    np.testing.assert_array_equal(session.run(None, {"x": X})[0], X + 1)
    assert streams == [mine.cuda_stream]


def test_cudas_default_stream_is_no_stream_of_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Call:
        def __init__(self, handle: int) -> None:
            self.stream = lambda: handle

    given: list[tuple[Any, ...]] = []
    cuda = SimpleNamespace(
        ExternalStream=lambda handle, device: given.append((handle, device)),
        default_stream=lambda device: given.append(("default", device)),
        current_device=lambda: 1,
    )
    monkeypatch.setattr(torch_arrays, "_stream_of", torch_arrays._stream_of.__wrapped__)  # nothing is kept
    monkeypatch.setattr(torch_arrays, "torch", SimpleNamespace(cuda=cuda, device=torch.device))
    for handle in (0, 7):
        torch_arrays._stream(cast(Any, Call(handle)), [None])
    assert given == [("default", torch.device("cuda", 1)), (7, torch.device("cuda", 1))]


@on_cuda
def test_it_runs_on_each_device_that_there_is() -> None:
    seen = []

    def kernel(x: Any) -> Any:
        seen.append((x.device.index, torch.cuda.current_device()))
        return x + torch.ones(3, device="cuda")  # made on the device at hand

    register(kernel)
    devices = range(torch.cuda.device_count())
    for index in devices:
        (y,) = make("cuda", device_id=str(index)).run(None, {"x": X})
        np.testing.assert_array_equal(y, X + 1)
    assert seen == [(index, index) for index in devices]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("array", ["torch", "dlpack"])
def test_it_is_in_order_with_the_nodes_around_it(array: Any, device: str) -> None:
    # Long products before and after: who doesn't wait for them reads what was there before.
    register(lambda x: torch.from_dlpack(x) * 2, array=array)
    names = ["x", "w"]
    nodes = [builtin("MatMul", names, ["a"]), node("Op", ["a"], ["b"]), builtin("MatMul", ["b", "w"], ["y"])]
    size = 2048 if device == "cuda" else 64
    ends = [tensor(name, shape=[size, size]) for name in (*names, "y")]
    session = make(device, model(nodes, ends[:2], ends[2:]))
    turn = torch.eye(size, device=device).roll(1, 0)
    binding = session.bind({"x": torch.zeros(size, size, device=device), "w": turn})
    for i in range(10):
        binding.inputs["x"].fill_(i)
        binding.inputs["x"][0] = 1 - i
        expected = 2 * (binding.inputs["x"].roll(-2, 1))
        assert torch.equal(binding.run()["y"], expected)


@on_cuda
def test_it_brings_no_copies_between_cpu_and_gpu_and_waits_for_nothing() -> None:
    from torch.profiler import ProfilerActivity, profile

    def seen_by(session: ort_ops.InferenceSession) -> Counter[str]:
        binding = session.bind({"x": torch.zeros(64, 64, device="cuda")})
        for _ in range(3):
            binding.run()
        activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
        with profile(
            activities=activities, acc_events=True
        ) as profiled:  # else PyTorch warns, once a process
            for _ in range(10):
                binding.run()
        return Counter(event.name for event in profiled.events())

    def waits(names: Counter[str]) -> Counter[str]:
        what = ("Synchronize", "Memcpy HtoD", "Memcpy DtoH", "cudaMalloc", "cudaFree", "cuMemAlloc")
        return Counter({name: n for name, n in names.items() if any(each in name for each in what)})

    ends = [tensor(name, shape=[64, 64]) for name in "xy"]
    builtin_node = seen_by(make("cuda", model([builtin("Neg", ["x"], ["y"])], ends[:1], ends[1:])))
    assert builtin_node, "the profiler saw nothing"

    def kernel(x: Any, *, out: Any) -> None:
        torch.neg(x, out=out)

    register(kernel)
    ours = seen_by(make("cuda", model([node("Op")], ends[:1], ends[1:])))
    assert any("neg" in name for name in ours)
    assert waits(ours) - waits(builtin_node) == Counter()
    assert not any(name.startswith("Memcpy DtoD") for name in ours - builtin_node)


def test_a_kernel_in_triton_is_compiled_where_there_is_no_gpu() -> None:
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from .doubling import double

    signature = {"x": "*fp32", "y": "*fp32", "count": "i32", "block": "constexpr"}
    source = ASTSource(fn=double, signature=signature, constexprs={"block": 1024})
    assert "cubin" in triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm


@on_cuda
def test_a_kernel_in_triton() -> None:
    from .doubling import double

    def kernel(x: Any, *, out: Any) -> None:
        double[(-(-x.numel() // 1024),)](x, out, x.numel(), block=1024)

    register(kernel)
    session = make("cuda", model([node("Op")], [tensor("x", shape=["n"])], [tensor("y", shape=["n"])]))
    for size in (1, 1000, 5000):
        x = np.random.default_rng(size).standard_normal(size).astype(np.float32)
        np.testing.assert_array_equal(session.run(None, {"x": x})[0], 2 * x)


# --- CUDA graphs ---------------------------------------------------------------------------------------


def captured(shape: list[Any]) -> ort_ops.InferenceSession:
    ends = [tensor(name, shape=shape) for name in "xy"]
    data = model([node("Op")], ends[:1], ends[1:])
    return ort_ops.InferenceSession.tuned(data, [CUDA], cuda_graph=True)


@on_cuda
def test_a_captured_kernel_is_replayed_without_python_in_memory_of_its_own() -> None:
    calls = []

    def kernel(x: Any) -> Any:
        calls.append(x.shape)
        return (x.double().exp() * 3).float()  # by way of tensors that torch makes

    register(kernel)
    session = captured(["n", 1024])
    bindings = [session.bind({"x": torch.zeros(rows, 1024, device="cuda")}) for rows in (64, 1024)]
    for binding in bindings:
        for _ in range(3):
            binding.run()
    count = len(calls)
    assert count > 0
    for _ in range(5):
        torch.cuda.empty_cache()  # what torch thinks nobody uses goes back, and to these
        others = [torch.full((1 << size,), 7.0, device="cuda") for size in range(8, 24)]
        for binding in bindings:
            x = binding.inputs["x"].normal_()
            assert torch.equal(binding.run()["y"], (x.double().exp() * 3).float())
        assert all(bool((other == 7).all()) for other in others)
    assert len(calls) == count


@on_cuda
def test_the_memory_of_a_captured_kernel_is_given_back_with_its_session() -> None:
    register(lambda x: (x.double() * 3).float())
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    session = captured([1 << 20])
    binding = session.bind({"x": torch.ones(1 << 20, device="cuda")})
    for _ in range(3):
        binding.run()
    assert float(binding.outputs["y"][0]) == 3
    del binding, session
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= before


@on_cuda
def test_a_kernel_on_dlpack_arrays_is_not_captured() -> None:
    register(lambda x: torch.from_dlpack(x) * 2, array="dlpack")
    binding = captured([8]).bind({"x": torch.ones(8, device="cuda")})

    def run_until_it_is_captured() -> None:
        for _ in range(3):
            binding.run()

    with pytest.raises(KernelError, match="can't be captured in a CUDA graph"):
        run_until_it_is_captured()


@on_cuda
def test_a_capture_that_failed_is_not_replayed() -> None:
    wrong = [True]

    def kernel(x: Any) -> Any:
        if wrong and torch.cuda.is_current_stream_capturing():
            raise ValueError("not now")
        return x * 2

    register(kernel)
    binding = captured([8]).bind({"x": torch.ones(8, device="cuda")})

    def run_as_often_as_it_takes() -> None:
        for _ in range(3):
            binding.run()

    for _ in range(2):
        with pytest.raises(KernelError, match="not now"):
            run_as_often_as_it_takes()
    wrong.clear()
    for value in range(6):
        binding.inputs["x"].fill_(value)
        assert binding.run()["y"].tolist() == [2 * value] * 8


# --- what is wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("array", ["torch", "dlpack"])
def test_an_exception_comes_out_and_the_session_goes_on(array: Any, device: str) -> None:
    def kernel(x: Any) -> Any:
        x = torch.from_dlpack(x)
        if bool((x < 0).any()):
            raise ValueError("negative")
        return x.sqrt()

    register(kernel, array=array)
    session = make(device)
    for _ in range(2):
        with pytest.raises(KernelError, match="of node 'Op' failed: ValueError: negative"):
            session.run(None, {"x": -X})
        np.testing.assert_array_equal(session.run(None, {"x": X * X})[0], X)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("result", "said"),
    [
        (lambda x: x.double(), r"returned torch\.float64 on .* for output 0; expected torch\.float32"),
        (lambda x: x.to("meta"), "returned torch.float32 on meta for output 0; expected torch.float32 on "),
        (lambda x: x.add_(1), "wrote into its input 0"),
        (lambda x: x.cpu().numpy(), "returned a ndarray; expected torch.Tensor"),
        (lambda x: None, "returned None; expected torch.Tensor"),
    ],
)
def test_a_result_that_is_none_is_refused(result: Any, said: str, device: str) -> None:
    register(lambda x: result(x))
    with pytest.raises(ResultError, match=said):
        make(device).run(None, {"x": X})


@on_cuda
def test_a_result_on_the_cpu_is_refused() -> None:
    register(lambda x: x.cpu())
    with pytest.raises(
        KernelError, match=r"returned torch\.float32 on cpu for output 0; expected .* on cuda:0"
    ):
        make("cuda").run(None, {"x": X})


@on_cuda
def test_a_kernel_for_the_cpu_alone_is_no_silent_way_back() -> None:
    @op(f"{DOMAIN}::Op")
    def kernel(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return x + 1

    body = function("Op", ["a"], ["b"], builtin("Neg", ["a"], ["b"]))
    by_body = make("cuda", model([node("Op")], functions=[body]))
    assert [run.runner for run in by_body.explain()] == ["function body"]
    np.testing.assert_array_equal(by_body.run(None, {"x": X})[0], -X)
    session = ort_ops.InferenceSession(one_node("Op"), providers=[CUDA])  # there is nothing else to run it
    assert [run.provider for run in session.explain()] == [CPU]
    np.testing.assert_array_equal(session.run(None, {"x": X})[0], X + 1)


def test_a_provider_that_can_not_be_had_is_an_error_not_the_cpu() -> None:
    if CUDA in onnxruntime.get_available_providers() and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    register(lambda x: x + 1)
    with pytest.raises(ProviderError, match=CUDA):
        ort_ops.InferenceSession(one_node("Op"), providers=[CUDA])
