"""A training batch and how utterances become one.

audio.values    (B, S) float32 samples, zero beyond audio.lengths
targets.values  (B, U) int64 piece ids, 0 beyond targets.lengths
ids             B utterance ids, for messages
keys            (B,) int64, one number per utterance and epoch: seeds of everything random about it
speeds          B speeds at which utterances of the corpus are played; 0 where the audio was put together
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from firstwords.tensors import Padded, pad


class Example(NamedTuple):
    """One utterance, loaded and augmented."""

    id: str
    samples: Tensor  # (S,) float32
    tokens: Tensor  # (U,) int64
    text: str  # normalized for training
    key: int
    speed: float = 0.0  # of an utterance of the corpus; 0: put together for this epoch


class Batch(NamedTuple):
    """What the training loop is fed with."""

    audio: Padded
    targets: Padded
    ids: tuple[str, ...]
    texts: tuple[str, ...]
    keys: Int[Tensor, " batch"]
    speeds: tuple[float, ...] = ()  # of every row, or of none


def collate(examples: Sequence[Example], *, samples: int = 0) -> Batch:
    """Examples -> Batch, filled up to ``samples`` or the longest, whichever is more."""
    return Batch(
        audio=pad([e.samples for e in examples], least=samples),
        targets=pad([e.tokens for e in examples]),
        ids=tuple(e.id for e in examples),
        texts=tuple(e.text for e in examples),
        keys=torch.tensor([e.key for e in examples], dtype=torch.int64),
        speeds=tuple(e.speed for e in examples),
    )
