"""Arrays bound to a session that aren't what they say, or are changed afterwards."""

from typing import Any

import numpy as np

import ort_ops
from tests.ort_ops.models import DOMAIN, builtin, model, node, tensor

from .base import behaviour


def session() -> Any:
    return ort_ops.InferenceSession(model([builtin("Neg", ["x"], ["y"])]))


def say(run: Any, *arguments: Any) -> None:
    try:
        print(run(*arguments)["y"])
    except ValueError as error:
        print(f"{type(error).__name__}: {error}")


MOVED = "ValueError: 'x' has other memory or another shape than when it was bound; bind anew"


@behaviour("[-1. -1.]", MOVED, MOVED, MOVED)
def a_bound_array_is_resized() -> None:
    for size in (2, 1, 1 << 20, 0):
        x = np.ones(2, np.float32)
        binding = session().bind({"x": x})
        x.resize(size, refcheck=False)
        say(binding.run)


@behaviour(MOVED, MOVED, needs="torch")
def a_bound_tensor_has_other_memory() -> None:
    import torch

    x = torch.ones(2)
    binding = session().bind({"x": x})
    x.data = torch.zeros(2)
    say(binding.run)
    x = torch.ones(2)
    binding = session().bind({"x": x})
    x.resize_(1 << 20)
    say(binding.run)


NEGATES = "ValueError: 'x' is a view that negates what lies in memory; give x.resolve_neg()"


@behaviour(NEGATES, NEGATES, needs="torch")
def a_tensor_that_negates_is_bound() -> None:
    import torch

    say(session().bind, {"x": torch.tensor([1 + 2j]).conj().imag})
    say(session().bind, {"x": torch._neg_view(torch.ones(2))})


@behaviour(
    *(
        f"ValueError: 'x' is a {kind} without memory; expected a torch.Tensor"
        for kind in ("FakeTensor", "Wrapper")
    ),
    needs="torch",
)
def a_tensor_without_memory_is_bound() -> None:
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    class Wrapper(torch.Tensor):
        """As libraries for quantisation make them: the numbers are somewhere else."""

        __torch_dispatch__ = None  # type: ignore[assignment]

    with FakeTensorMode():
        fake = torch.ones(2)
    wrapper = torch.Tensor._make_wrapper_subclass(Wrapper, (2,), dtype=torch.float32)  # type: ignore[attr-defined]
    for x in (fake, wrapper):
        say(session().bind, {"x": x})


@behaviour("numpy right", "dlpack right", "torch right", needs="torch")
def an_output_is_bound_to_an_inputs_memory() -> None:
    """A result that is a view of the input is read whole before the buffer is written."""
    kinds: list[Any] = ["numpy", "dlpack", "torch"]
    for kind in kinds:
        op = ort_ops.onnx_op(f"{DOMAIN}::Op", inputs=["float32"], outputs=["float32"], array=kind)
        op(lambda x: x.T if hasattr(x, "T") else np.from_dlpack(x).T)
        a = np.arange(36, dtype=np.float32).reshape(6, 6)
        right = a.T.copy()
        ort_ops.InferenceSession(model([node("Op")])).bind({"x": a}, {"y": a}).run()
        print(kind, "right" if (a == right).all() else "WRONG")


@behaviour("numpy right right", "dlpack right right", "torch right right", needs="torch")
def one_of_two_outputs_is_bound_to_an_inputs_memory() -> None:
    kinds: list[Any] = ["numpy", "dlpack", "torch"]
    data = model([node("Op", outputs=["y", "z"])], outputs=[tensor("y"), tensor("z")])
    for kind in kinds:

        def compute(x: Any) -> Any:
            array = x if hasattr(x, "shape") else np.from_dlpack(x)
            return array + 1, array[::-1] if isinstance(array, np.ndarray) else array.flip(0)

        ort_ops.onnx_op(f"{DOMAIN}::Op", inputs=["float32"], outputs=["float32"] * 2, array=kind)(compute)
        a, z = np.arange(4, dtype=np.float32), np.zeros(4, np.float32)
        ort_ops.InferenceSession(data).bind({"x": a}, {"y": a, "z": z}).run()
        right = (bool((a == [1, 2, 3, 4]).all()), bool((z == [3, 2, 1, 0]).all()))
        print(kind, *("right" if each else "WRONG" for each in right))
