"""Two layers against those of `transformers` (data/conformer.safetensors, made by make_conformer.py)."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from firstwords.encoders.conformer.config import ConformerConfig
from firstwords.encoders.conformer.encoder import ConformerLayer, View
from firstwords.nn.positions import distances

DATA = Path(__file__).parent / "data" / "conformer.safetensors"
NAMES = {  # theirs -> ours
    "ffn1_layer_norm": "feed_in_norm",
    "ffn1.intermediate_dense": "feed_in.in_proj",
    "ffn1.output_dense": "feed_in.out_proj",
    "self_attn_layer_norm": "attention_norm",
    "self_attn.linear_out": "attention.out_proj",
    "conv_module.layer_norm": "convolution_norm",
    "conv_module.depthwise_conv": "convolution.depthwise.conv",
    "conv_module.batch_norm": "convolution.norm",
    "ffn2_layer_norm": "feed_out_norm",
    "ffn2.intermediate_dense": "feed_out.in_proj",
    "ffn2.output_dense": "feed_out.out_proj",
    "final_layer_norm": "norm",
}


def ours(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of one layer under our names; biases that they do not have stay away."""
    found: dict[str, Tensor] = {}
    for name, value in theirs.items():
        module, _, kind = name.rpartition(".")
        if module in NAMES:
            found[f"{NAMES[module]}.{kind}"] = value
    attention = "self_attn"
    for kind in ("weight", "bias"):
        parts = [theirs[f"{attention}.linear_{part}.{kind}"] for part in "qkv"]
        found[f"attention.in_proj.{kind}"] = torch.cat(parts)
    found["attention.position_proj.weight"] = theirs[f"{attention}.linear_pos.weight"]
    found["attention.content_bias"] = theirs[f"{attention}.pos_bias_u"].flatten()
    found["attention.position_bias"] = theirs[f"{attention}.pos_bias_v"].flatten()
    found["convolution.in_proj.weight"] = theirs["conv_module.pointwise_conv1.weight"].squeeze(2)
    found["convolution.out_proj.weight"] = theirs["conv_module.pointwise_conv2.weight"].squeeze(2)
    return found


def test_two_layers_give_the_reference_output_and_gradient() -> None:
    tensors = load_file(DATA)
    config = ConformerConfig(dim=16, heads=2, feedforward=24, kernel=5, layers=2, convolution_norm="batch")
    x = tensors["in"][None].requires_grad_()
    view = View(distances(11, 11, 16, x), None, None)
    y = x
    for i in range(2):
        layer = ConformerLayer(config).eval()
        torch.nn.init.zeros_(layer.convolution.in_proj.bias)
        torch.nn.init.zeros_(layer.convolution.out_proj.bias)
        torch.nn.init.zeros_(layer.convolution.depthwise.conv.bias)  # type: ignore[arg-type]
        prefix = f"{i}."
        theirs = {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}
        missing, unexpected = layer.load_state_dict(ours(theirs), strict=False)
        assert unexpected == []
        assert {name for name in missing if not name.endswith("num_batches_tracked")} == {
            "convolution.in_proj.bias",
            "convolution.out_proj.bias",
            "convolution.depthwise.conv.bias",
        }
        y = layer(y, view)
    y.square().sum().backward()
    # two float32 programs that add in another order; values up to 3, gradients up to 20
    torch.testing.assert_close(y[0], tensors["out"], rtol=1e-5, atol=1e-5)
    assert x.grad is not None
    torch.testing.assert_close(x.grad[0], tensors["grad"], rtol=1e-5, atol=5e-5)
