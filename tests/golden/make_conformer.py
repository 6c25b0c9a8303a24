"""Writes data/conformer.safetensors: two random Conformer layers of `transformers`, in eval mode.

Run it where `transformers` is installed (5.23.0 made the committed file). Kept are the weights, batch-norm
statistics included, the input (frames, width), the output, and the input's gradient of the summed squares.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import Wav2Vec2ConformerConfig
from transformers.models.wav2vec2_conformer import modeling_wav2vec2_conformer as reference

DIM, HEADS, HIDDEN, KERNEL, LAYERS, FRAMES = 16, 2, 24, 5, 2, 11


def main() -> None:
    torch.manual_seed(5)
    config = Wav2Vec2ConformerConfig(
        hidden_size=DIM,
        num_attention_heads=HEADS,
        intermediate_size=HIDDEN,
        conv_depthwise_kernel_size=KERNEL,
        hidden_act="swish",
        position_embeddings_type="relative",
        attn_implementation="eager",
    )
    layers = torch.nn.ModuleList(reference.Wav2Vec2ConformerEncoderLayer(config) for _ in range(LAYERS))
    with torch.no_grad():
        for value in layers.state_dict().values():
            if value.is_floating_point():
                value.add_(0.3 * torch.rand_like(value))
    layers.eval()
    x = torch.randn(1, FRAMES, DIM, requires_grad=True)
    positions = reference.Wav2Vec2ConformerRelPositionalEmbedding(config)(x)
    y = x
    for layer in layers:
        y = layer(y, relative_position_embeddings=positions)
    y.square().sum().backward()
    assert x.grad is not None
    kept = {name: value.clone() for name, value in layers.state_dict().items() if value.is_floating_point()}
    kept |= {"in": x.detach()[0], "out": y.detach()[0], "grad": x.grad[0]}
    save_file(kept, Path(__file__).parent / "data" / "conformer.safetensors")


if __name__ == "__main__":
    main()
