"""icefall Zipformer checkpoints -> ours. Names first; the whole model further down."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

from firstwords.encoders.zipformer.config import ZipformerConfig

_RENAME = (
    (r"^encoder_embed\.", "embed."),
    (r"^encoder\.encoders\.(\d+)\.encoder\.layers\.", r"stacks.\1.layers."),
    (r"^encoder\.encoders\.(\d+)\.", r"stacks.\1."),
    (r"^encoder\.downsample_output\.", "downsample_output."),
)
_UNUSED = re.compile(r"^stacks\.\d+\.layers\.\d+\.bypass_scale$")  # in every file, read by no code


def encoder_weights(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """icefall state dict -> (weights of our Zipformer, names left out)."""
    ours: dict[str, Tensor] = {}
    left_out: list[str] = []
    for name, value in weights.items():
        renamed = name
        for pattern, replacement in _RENAME:
            renamed = re.sub(pattern, replacement, renamed)
        if renamed == name or _UNUSED.match(renamed):
            left_out.append(name)
        else:
            ours[renamed] = value
    return ours, left_out


def encoder_config(weights: Mapping[str, Tensor], settings: Mapping[str, Any]) -> ZipformerConfig:
    e = cast("dict[str, Any]", settings["encoder"])
    c = cast("dict[str, Any]", settings["conv_embed"])
    causal = any("chunkwise_conv_scale" in n for n in weights)
    return ZipformerConfig.model_validate(
        {
            "dims": e["encoder_dim"],
            "layers": e["num_encoder_layers"],
            "downsampling": e["downsampling_factor"],
            "feedforward": e["feedforward_dim"],
            "heads": e["num_heads"],
            "query_head_dim": e["query_head_dim"],
            "position_head_dim": e["pos_head_dim"],
            "value_head_dim": e["value_head_dim"],
            "kernels": e["cnn_module_kernel"],
            "unmasked_dims": e["encoder_unmasked_dim"],
            "position_dim": e["pos_dim"],
            "embed_channels": tuple(c[f"layer{i}_channels"] for i in (1, 2, 3)),
            "causal": causal,
        }
    )
