"""What the causal Zipformer remembers between two windows of frames, and what chunks may see.

    window of 2 C + 13 frames at 100 Hz    ........................|.............
    hop 2 C                                -> C frames at 50 Hz    |3 of look-ahead
    attention of a stack with factor f     left / f old frames, C / f new ones

The last windows of a recording say by their lengths where it ends; what lies beyond counts as in a whole
pass. (The reference fills them up with log-mel silence, ln 1e-10, and reads on into it.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from firstwords.encoders.zipformer.config import ZipformerConfig
from firstwords.encoders.zipformer.frontend import LOOK_AHEAD
from firstwords.encoders.zipformer.layer import LayerCache
from firstwords.errors import ConfigError

EXTRA_FRAMES = 7 + 2 * LOOK_AHEAD  # a window is so much longer than its hop
PADDING_VALUE = -23.025850929940457  # ln(1e-10), with which the reference ends a stream


class ZipformerState(NamedTuple):
    """Tensors only, so that a step exports as it is. Sizes tell the left context."""

    stacks: tuple[tuple[LayerCache, ...], ...]
    before: Float[Tensor, "batch 3 bins channels"]  # inside the front end, at 50 Hz
    processed: Int[Tensor, " batch"]  # frames at 50 Hz so far


def window(chunk: int) -> int:
    """Frames at 100 Hz that one step reads for ``chunk`` frames at 50 Hz; it advances by 2 * chunk."""
    return 2 * chunk + EXTRA_FRAMES


def nearest_context(config: ZipformerConfig, chunk: int, left: int | None) -> tuple[int, int]:
    """The nearest chunk that fits every stack, and the nearest whole number of such chunks to the left."""
    if left is None:
        left = max(config.left_contexts)
        left = 4 * chunk if left < 0 else left
    unit = math.lcm(*config.downsampling, config.output_downsampling)
    chunk = max(1, round(chunk / unit)) * unit
    chunks = max(1, round(left / chunk), -(-config.look_back // chunk))
    return chunk, chunks * chunk


def start_state(
    config: ZipformerConfig,
    widths: Sequence[Sequence[tuple[int, ...]]],
    rows: int,
    *,
    chunk: int,
    left: int,
    front: tuple[int, int],
    like: Tensor,
) -> ZipformerState:
    """All zeros; ``chunk`` and ``left`` in frames at 50 Hz, dtype and device of ``like``.

    Args:
        widths: of the six tensors that each layer of each stack remembers, in the order of ``LayerCache``.
        front: bins and channels inside the front end.
    """
    if not config.causal:
        raise ConfigError(
            "This Zipformer is not causal, so it cannot stream.", mend="Train with encoder.causal = true."
        )
    for factor, kernel in zip(config.downsampling, config.kernels, strict=True):
        if chunk < 1 or chunk % factor or left % factor:
            raise ConfigError(
                f"chunk = {chunk} and left = {left} must be positive multiples of {factor}.",
                mend=f"Multiples of {max(config.downsampling)} fit every stack.",
            )
        if left < kernel // 2 * factor:
            raise ConfigError(
                f"left = {left} is shorter than the convolutions look back, {kernel // 2 * factor} frames.",
                mend=f"Use left = {64 * -(-(kernel // 2 * factor) // 64)} or more.",
            )
    stacks: list[tuple[LayerCache, ...]] = []
    for i, factor in enumerate(config.downsampling):
        frames = (left // factor,) * 4 + (config.kernels[i] // 2,) * 2
        stacks.append(
            tuple(
                LayerCache(*(like.new_zeros(rows, n, width) for n, width in zip(frames, sizes, strict=True)))
                for sizes in widths[i]
            )
        )
    before = like.new_zeros(rows, LOOK_AHEAD, *front)
    return ZipformerState(tuple(stacks), before, torch.zeros(rows, dtype=torch.int64, device=like.device))
