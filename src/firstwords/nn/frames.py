"""What encoders do with frames before and between their layers: zeroing, masking, striding, splicing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from firstwords.tensors import Padded, is_full, is_traced, real_frames, zero_padding


def enter(frames: Padded) -> Padded:
    """Zeros as padding, and at least one frame in the tensor: convolutions and LSTMs refuse none."""
    values, lengths = zero_padding(frames)
    return Padded(F.pad(values, (0, 0, 0, 1)) if values.shape[1] == 0 else values, lengths)


def mask_of(lengths: Int[Tensor, " batch"], time: int) -> Bool[Tensor, "batch time"] | None:
    """True on real frames; None where all are. Never None while a graph is captured: it shall serve all."""
    return None if is_full(lengths, time) else real_frames(lengths, time)


def strided(lengths: Int[Tensor, " batch"], stride: int) -> Int[Tensor, " batch"]:
    """Frames before a layer with this stride -> frames after it: every begun group gives one."""
    return (lengths + stride - 1) // stride


def splice(
    x: Float[Tensor, "batch time dim"], before: int, after: int, stride: int
) -> Float[Tensor, "batch frames spliced"]:
    """Output t = the frames t * stride - before … t * stride + after side by side, zeros beyond both ends.

    (B, T, D) -> (B, ceil(T / stride), (before + 1 + after) * D). Padding inside x must be zeroed before.
    """
    frames = (x.shape[1] + stride - 1) // stride
    if is_traced():  # unfold has no counterpart in ONNX
        padded = F.pad(x, (0, 0, before, after + stride))
        first = stride * torch.arange(frames, device=x.device)  # pyright: ignore[reportCallIssue, reportArgumentType]
        return padded[:, first[:, None] + torch.arange(before + 1 + after, device=x.device)].flatten(2)
    missing = (frames - 1) * stride + 1 + after - x.shape[1]
    padded = F.pad(x, (0, 0, before, max(missing, 0)))
    wide = padded.unfold(1, before + 1 + after, stride)[:, :frames]  # (B, frames, D, spliced): a view
    return wide.transpose(2, 3).flatten(2)
