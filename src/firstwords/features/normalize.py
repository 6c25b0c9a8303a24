"""Mean and variance normalization: per utterance, or with means of the training data saved in the model."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from firstwords.tensors import Padded, zero_padding

LEAST_DEVIATION = 1e-5  # a feature that never changes is centered, not blown up


@final
class NormalizeUtterance(nn.Module):
    """Each feature of each utterance -> mean 0 and, if ``variance``, deviation 1 over its real frames."""

    def __init__(self, *, variance: bool = True) -> None:
        super().__init__()
        self.variance = variance

    def forward(self, frames: Padded) -> Padded:
        """(B, T, D) -> (B, T, D), zero beyond each length. Frames of one utterance never touch another's."""
        values = zero_padding(frames).values.float()
        count = frames.lengths.clamp(min=1)[:, None, None].to(values.dtype)
        centered = zero_padding(
            Padded(values - values.sum(dim=1, keepdim=True) / count, frames.lengths)
        ).values
        if self.variance:
            deviation = (centered.square().sum(dim=1, keepdim=True) / count).sqrt()
            centered = centered / deviation.clamp(min=LEAST_DEVIATION)
        return Padded(centered.to(frames.values.dtype), frames.lengths)


@final
class NormalizeGlobal(nn.Module):
    """Each feature -> mean 0 and standard deviation 1 over all frames that were ever shown to ``update``.

    Sums are kept in float64 and saved with the model, so estimating can go on after loading.
    """

    count: Tensor
    total: Tensor
    squares: Tensor

    def __init__(self, dim: int, *, variance: bool = True) -> None:
        super().__init__()
        self.variance = variance
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("total", torch.zeros(dim, dtype=torch.float64))
        self.register_buffer("squares", torch.zeros(dim, dtype=torch.float64))

    @torch.no_grad()
    def update(self, frames: Padded) -> None:
        """Count these frames in."""
        values = zero_padding(frames).values.double()
        self.count += frames.lengths.sum()
        self.total += values.sum(dim=(0, 1))
        self.squares += values.square().sum(dim=(0, 1))

    @property
    def mean(self) -> Tensor:
        """(D,) mean so far; zero before the first frame."""
        return self.total / self.count.clamp(min=1)

    @property
    def deviation(self) -> Tensor:
        """(D,) standard deviation so far; one before the first frame."""
        variance = (self.squares / self.count.clamp(min=1) - self.mean.square()).clamp(min=0)
        return torch.where(self.count > 0, variance.sqrt().clamp(min=LEAST_DEVIATION), 1.0)

    def forward(self, frames: Padded) -> Padded:
        """(B, T, D) -> (B, T, D), zero beyond each length."""
        values = frames.values.float() - self.mean.float()
        if self.variance:
            values = values / self.deviation.float()
        return zero_padding(Padded(values.to(frames.values.dtype), frames.lengths))
