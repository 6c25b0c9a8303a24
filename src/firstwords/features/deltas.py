"""Time derivatives of features by linear regression (Kaldi's `add-deltas`)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from firstwords.tensors import Padded, zero_padding

WINDOW = 2  # frames on either side


def add_deltas(frames: Padded, order: int = 2) -> Padded:
    """(B, T, D) frames -> (B, T, (1 + order) D): the frames, their slopes, the slopes' slopes.

    The slope at t is sum of k (x[t+k] - x[t-k]) over k = 1, 2, divided by 10. Beyond an utterance its first
    or last frame is repeated, so an utterance alone and in a batch give the same.
    """
    parts = [frames.values]
    for _ in range(order):
        parts.append(slope(Padded(parts[-1], frames.lengths)))
    return zero_padding(Padded(torch.cat(parts, dim=2), frames.lengths))


def slope(frames: Padded) -> Float[Tensor, "batch time dim"]:
    """The regression slope of each feature at each frame, per frame."""
    values, lengths = frames
    batch, time, dim = values.shape
    if time == 0:
        return values
    at = torch.arange(-WINDOW, time + WINDOW, device=values.device).expand(batch, -1)
    at = torch.minimum(at, lengths[:, None] - 1).clamp(min=0)
    around = values.gather(1, at[:, :, None].expand(-1, -1, dim))  # each utterance with repeated edges
    total = torch.zeros_like(values)
    for k in range(1, WINDOW + 1):
        later = around[:, WINDOW + k : WINDOW + k + time]
        total = total + k * (later - around[:, WINDOW - k : WINDOW - k + time])
    return total / (2 * sum(k * k for k in range(1, WINDOW + 1)))
