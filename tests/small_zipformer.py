"""A Zipformer small enough for tests: three stacks, three rates, unequal widths."""

from __future__ import annotations

from firstwords.encoders.zipformer.config import ZipformerConfig

SMALL = ZipformerConfig(
    dims=(24, 32, 20),
    layers=(1, 2, 1),
    downsampling=(1, 2, 4),
    feedforward=(32, 40, 32),
    heads=(2, 4, 2),
    query_head_dim=(8, 8, 8),
    position_head_dim=(4, 4, 4),
    value_head_dim=(6, 6, 6),
    kernels=(7, 9, 5),
    unmasked_dims=(16, 16, 16),
    embed_channels=(4, 8, 8),
)
