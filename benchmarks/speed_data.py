"""What speed.py measures on: random features that look like speech, and features that can be learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from firstwords.tensors import Padded, pad

ROWS, SECONDS, MELS, PIECES, TOKENS_PER_SECOND = 8, 10, 80, 500, 12
SPECTRA, UTTERANCE_TOKENS = 30, 24  # of the learnable batches


def speech_like(rows: int, frames: int, generator: torch.Generator) -> Tensor:
    """Log-mel noise (rows, frames, mels): falling spectrum, syllables at 4 Hz, moving resonances, pauses."""
    time = torch.arange(frames)[None, :, None] / 100.0
    bands = torch.arange(MELS)[None, None, :] / MELS

    def slow(scale: float) -> Tensor:  # a random path through about three values a second
        points = torch.randn(rows, 1, max(2, frames // 33), generator=generator)
        path = nn.functional.interpolate(points, size=frames, mode="linear", align_corners=True)
        return scale * path.transpose(1, 2)

    level = -7.0 - 4.0 * bands + 1.5 * torch.sin(2 * torch.pi * 4 * time + slow(2.0)) + slow(1.0)
    for centre in (0.25, 0.5, 0.75):
        level = level + 3.0 * torch.exp(-(((bands - centre - slow(0.06)) / 0.06) ** 2))
    level = torch.where(slow(1.0) < -1.2, torch.full_like(level, -14.0), level)
    return (level + 1.2 * torch.randn(rows, frames, MELS, generator=generator)).clamp(min=-15.94)


def batch(seed: int) -> tuple[Padded, Padded]:
    """Frames and targets of the measured batch."""
    generator = torch.Generator().manual_seed(seed)
    frames, tokens = 100 * SECONDS, TOKENS_PER_SECOND * SECONDS
    values = speech_like(ROWS, frames, generator)
    ids = torch.randint(1, PIECES, (ROWS, tokens), generator=generator)
    return Padded(values, torch.full((ROWS,), frames)), Padded(ids, torch.full((ROWS,), tokens))


def learnable(seed: int) -> tuple[Padded, Padded]:
    """Frames and targets that can be learned: every token has a spectrum of its own, for 6 to 12 frames."""
    spectra = 2.0 * torch.randn(SPECTRA, MELS, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    frames: list[Tensor] = []
    targets: list[Tensor] = []
    for _ in range(ROWS):
        ids = torch.randint(1, SPECTRA, (UTTERANCE_TOKENS,), generator=generator)
        times = torch.randint(6, 13, (UTTERANCE_TOKENS,), generator=generator)
        clean = spectra[ids.repeat_interleave(times)] - 8.0
        frames.append(clean + 1.5 * torch.randn(clean.shape, generator=generator))
        targets.append(ids)
    return pad(frames), pad(targets)
