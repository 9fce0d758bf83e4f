"""Models of transformers, of random weights, with a Function for activation: right ones are called right.

Each is a few layers of its architecture. A file with one weight off by a thousandth is called wrong, and a
node that reads the weight is blamed.
"""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import Function

from ort_ops.export import export
from ort_ops.parity import ExitCode, Verdict, check, locate
from ort_ops.parity.verdict import GOOD

from .nodes import custom_nodes

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import transformers
    from transformers.activations import ACT2FN

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own, and torch's of it

BOTH = pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
LAYERS = 2
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "hidden_act": "ours",
}
TEXT = {**SMALL, "vocab_size": 99, "max_position_embeddings": 64}
GROUPED = {**TEXT, "num_key_value_heads": 2, "pad_token_id": 0}
IMAGE = {**SMALL, "image_size": 32, "patch_size": 8}


class SquaredReLU(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.relu(x).square()

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("ours::SquaredReLU", x)


class Activation(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = SquaredReLU.apply(x)
        return result


ACT2FN["ours"] = Activation


class Called(nn.Module):
    """A model with its inputs by position, and its first result."""

    def __init__(self, model: nn.Module, names: Sequence[str], options: dict[str, Any]) -> None:
        super().__init__()
        self.model, self.names, self.options = model, names, options

    def forward(self, *inputs: Tensor) -> Any:
        given = dict(zip(self.names, inputs, strict=True))
        return self.model(**given, **self.options).to_tuple()[0]


Made = tuple[nn.Module, tuple[Tensor, ...]]
TOKENS = torch.tensor([[5, 17, 88, 3, 41, 60, 9], [11, 4, 72, 30, 55, 6, 7]])
KEPT = torch.tensor([[1] * 7, [1] * 5 + [0] * 2])


def text(kind: str, config: str, **options: Any) -> Made:
    """Return a model of tokens and of which of them there are."""
    made = getattr(transformers, kind)(getattr(transformers, config)(**options))
    causal = {"use_cache": False} if "Causal" in kind or "LMHead" in kind else {}
    return Called(made, ("input_ids", "attention_mask"), causal), (TOKENS, KEPT)


def image(kind: str, config: str, size: int = 32, **options: Any) -> Made:
    made = getattr(transformers, kind)(getattr(transformers, config)(**options))
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, size, size)).astype(np.float32))
    return Called(made, ("pixel_values",), {}), (x,)


def translation() -> Made:
    config = transformers.BartConfig(
        d_model=32,
        encoder_layers=LAYERS,
        decoder_layers=LAYERS,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        vocab_size=99,
        activation_function="ours",
    )
    made = transformers.BartForConditionalGeneration(config)
    return Called(made, ("input_ids", "decoder_input_ids"), {"use_cache": False}), (TOKENS, TOKENS[:, :5])


def speech() -> Made:
    config = transformers.Wav2Vec2Config(
        **SMALL,
        conv_dim=(16, 16, 16),
        conv_stride=(5, 2, 2),
        conv_kernel=(10, 3, 3),
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        vocab_size=40,
    )
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 800)).astype(np.float32))
    return Called(transformers.Wav2Vec2ForCTC(config), ("input_values",), {}), (x,)


def windows() -> Made:
    options = {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [1, 2], "num_heads": [2, 4]}
    return image(
        "SwinForImageClassification",
        "SwinConfig",
        **options,
        window_size=4,
        hidden_act="ours",
        attn_implementation="eager",
    )


MODELS: dict[str, Callable[[], Made]] = {
    "Llama": lambda: text("LlamaForCausalLM", "LlamaConfig", **GROUPED),
    "Mistral": lambda: text("MistralForCausalLM", "MistralConfig", **GROUPED, sliding_window=4),
    "Qwen3": lambda: text("Qwen3ForCausalLM", "Qwen3Config", **GROUPED, head_dim=8),
    "Phi": lambda: text("PhiForCausalLM", "PhiConfig", **GROUPED),
    "Olmo2": lambda: text("Olmo2ForCausalLM", "Olmo2Config", **GROUPED),
    "Cohere": lambda: text("CohereForCausalLM", "CohereConfig", **GROUPED),
    "GPTNeoX": lambda: text("GPTNeoXForCausalLM", "GPTNeoXConfig", **TEXT),
    "GPT2": lambda: text(
        "GPT2LMHeadModel",
        "GPT2Config",
        n_embd=32,
        n_layer=LAYERS,
        n_head=4,
        vocab_size=99,
        activation_function="ours",
    ),
    "Bert": lambda: text("BertModel", "BertConfig", **TEXT),
    "ModernBert": lambda: text(
        "ModernBertModel", "ModernBertConfig", **TEXT, pad_token_id=0, hidden_activation="ours"
    ),
    "DebertaV2": lambda: text(
        "DebertaV2Model", "DebertaV2Config", **TEXT, relative_attention=True, pos_att_type=["p2c", "c2p"]
    ),
    "RoFormer": lambda: text("RoFormerModel", "RoFormerConfig", **TEXT),
    "Bart": translation,
    "Wav2Vec2": speech,
    "ViT": lambda: image("ViTForImageClassification", "ViTConfig", **IMAGE),
    "Dinov2": lambda: image(
        "Dinov2ForImageClassification", "Dinov2Config", **{**IMAGE, "intermediate_size": None}
    ),
    "Swin": windows,
    "ConvNext": lambda: image(
        "ConvNextForImageClassification",
        "ConvNextConfig",
        hidden_sizes=[8, 16],
        depths=[1, 1],
        num_stages=2,
        hidden_act="ours",
    ),
    "ResNet": lambda: image(
        "ResNetForImageClassification",
        "ResNetConfig",
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        hidden_act="ours",
    ),
}
NOT_BY_TORCHSCRIPT = {"Cohere", "Dinov2", "ModernBert"}  # it fails, or writes what no runtime can run


def exported(name: str, path: Path, *, dynamo: bool) -> Made:
    if not dynamo and name in NOT_BY_TORCHSCRIPT:
        pytest.skip("the TorchScript exporter can't, with or without a Function")
    torch.manual_seed(0)
    model, inputs = MODELS[name]()
    more = {"external_data": False} if dynamo else {}
    export(model.eval(), inputs, path, dynamo=dynamo, verbose=False, **more)
    return model, inputs


@BOTH
@pytest.mark.parametrize("name", MODELS)
def test_a_right_model_is_called_right(name: str, dynamo: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    model, inputs = exported(name, path, dynamo=dynamo)
    assert sum(custom_nodes(onnx.load(path)).values()) >= LAYERS
    report = check(model, path, inputs, functions=[SquaredReLU])
    assert {row.verdict for row in report.rows} <= GOOD, report
    found = locate(model, path, inputs, functions=[SquaredReLU])
    assert (found.node, found.exit_code) == (None, ExitCode.EQUAL)


@BOTH
@pytest.mark.parametrize("name", ["Llama", "DebertaV2", "Wav2Vec2", "Swin", "ResNet"])
def test_one_weight_off_by_a_thousandth_is_found(name: str, dynamo: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    model, inputs = exported(name, path, dynamo=dynamo)
    file = onnx.load(path)
    weights = [each for each in file.graph.initializer if len(each.dims) >= 2 and each.data_type == 1]
    weight = weights[len(weights) // 2]
    values = onnx.numpy_helper.to_array(weight).copy()
    place = np.unravel_index(np.abs(values).argmax(), values.shape)
    values[place] *= 1.001
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(file, path)
    assert check(model, path, inputs, functions=[SquaredReLU]).verdict is Verdict.EXPORT_WRONG
    found = locate(model, path, inputs, functions=[SquaredReLU])
    assert found.question == "export"
    readers = {node.name for node in file.graph.node if weight.name in node.input}
    assert readers & set(found.region), (weight.name, readers, found.region)
