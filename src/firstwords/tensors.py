"""Padded batches: values with their lengths, and the masks that follow from them.

Axis legend of the whole project: B batch, S samples, T frames, D width, H heads, M mels, C chunk,
U tokens, V vocabulary, K beam. Sequences are batch-first, (B, T, D). A mask is True on real frames.

    lengths [3, 1]  ->  mask  1 1 1
                              1 0 0
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor


class Padded(NamedTuple):
    """Sequences of several lengths in one tensor; a tuple, so loaders, DDP and torch.export understand it."""

    values: Shaped[Tensor, "batch time ..."]
    lengths: Int[Tensor, " batch"]


def is_captured() -> bool:
    """A graph is being captured, by torch.export or by tracing for ONNX: all done must suit every size."""
    return torch.compiler.is_compiling() or is_traced()


def is_traced() -> bool:
    """A graph is being traced for ONNX, which has no counterpart of some operations."""
    return torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]


def split_evenly(x: Shaped[Tensor, "*rest width"], parts: int) -> tuple[Tensor, ...]:
    """Equal parts of the last axis. (Of ``chunk``, tracing for ONNX writes a computation of the sizes.)"""
    return x.split((int(x.shape[-1]) // parts,) * parts, dim=-1)


def real_frames(lengths: Int[Tensor, " batch"], time: int | torch.SymInt) -> Bool[Tensor, "batch time"]:
    """True where a frame lies inside its sequence; ``time`` is symbolic while exporting."""
    frames = torch.arange(time, device=lengths.device)  # pyright: ignore[reportCallIssue, reportArgumentType]
    return frames[None, :] < lengths[:, None]


def is_full(lengths: Int[Tensor, " batch"], time: int) -> bool:
    """Every sequence fills the batch. While a graph is being captured: never, so that it serves all."""
    return not is_captured() and bool((lengths >= time).all())


def pad(sequences: Sequence[Shaped[Tensor, "_ ..."]], value: float = 0.0, *, least: int = 0) -> Padded:
    """A list of sequences -> one Padded batch, filled up with ``value`` to the longest, or to ``least``."""
    lengths = torch.tensor([len(sequence) for sequence in sequences], dtype=torch.int64)
    values = torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True, padding_value=value)
    missing = least - values.shape[1]
    if missing > 0:
        filling = values.new_full((values.shape[0], missing, *values.shape[2:]), value)
        values = torch.cat([values, filling], dim=1)
    return Padded(values, lengths)


def zero_padding(batch: Padded) -> Padded:
    """The same batch with everything beyond each length set to zero."""
    mask = real_frames(batch.lengths, batch.values.shape[1])
    mask = mask.reshape(mask.shape + (1,) * (batch.values.dim() - 2))
    return Padded(batch.values.masked_fill(~mask, 0), batch.lengths)
