"""What the causal Conformer remembers between two windows of frames.

    window of factor * (C + 1) - 1 feature frames     ....................|...
    hop factor * C                                    -> C output frames  | look-ahead of the subsampling
    attention                                         left old frames, C new ones

The last window of a recording may be shorter: it gives the frames that the whole recording has there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from firstwords.encoders.conformer.config import ConformerConfig
from firstwords.errors import ConfigError


class ConformerCache(NamedTuple):
    """What one layer remembers."""

    keys_values: Float[Tensor, "batch left keysvalues"]
    gated: Float[Tensor, "batch before inner"]  # kernel - 1 frames before the convolution


class ConformerState(NamedTuple):
    """Tensors only, so that a step exports as it is. Sizes tell the left context."""

    layers: tuple[ConformerCache, ...]
    processed: Int[Tensor, " batch"]  # output frames so far


def start_state(
    config: ConformerConfig,
    widths: Sequence[tuple[int, int]],
    rows: int,
    *,
    chunk: int,
    left: int,
    like: Tensor,
) -> ConformerState:
    """All zeros; ``chunk`` and ``left`` in output frames, dtype and device of ``like``.

    ``widths`` of the two tensors that each layer remembers.
    """
    if not config.causal:
        raise ConfigError(
            "This Conformer is not causal, so it cannot stream.", mend="Train with encoder.causal = true."
        )
    if chunk < 1 or left < chunk or left % chunk:
        raise ConfigError(
            f"left = {left} is not a positive multiple of chunk = {chunk} frames.",
            mend=f"For example left = {4 * max(1, chunk)}.",
        )
    layers = tuple(
        ConformerCache(like.new_zeros(rows, left, pairs), like.new_zeros(rows, config.kernel - 1, gated))
        for pairs, gated in widths
    )
    return ConformerState(layers, torch.zeros(rows, dtype=torch.int64, device=like.device))
