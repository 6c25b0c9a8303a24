"""Features as an encoder likes them: mean 0, variance 1, by what training has heard so far.

Log-mel values lie far from zero. First convolutions then start half dead or half linear: on eight made-up
utterances with a mean of -8 a Transformer had a CTC loss of 7.4 after 100 steps, and 0.03 with a mean of 0.
"""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from firstwords.tensors import Padded, zero_padding

_EPSILON = 1e-5


@final
class InputNorm(nn.Module):
    """(B, T, features) -> the same, each feature less its mean, divided by its standard deviation.

    Mean and variance are those of all real frames seen in training, the present batch included, and are saved
    with the model. They settle within some batches, so that, unlike with batch normalization, training and
    use compute the same. Several processes each keep their own; the first one's are saved.
    """

    count: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))  # frames
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("variance", torch.ones(dim))
        self.held = False

    def train(self, mode: bool = True) -> InputNorm:
        """``held``, its statistics stay in training, too."""
        return super().train(mode and not self.held)

    def forward(self, frames: Padded) -> Float[Tensor, "batch time features"]:
        if self.training:
            self._update(frames)
        return (frames.values - self.mean) * (self.variance + _EPSILON).rsqrt()

    @torch.no_grad()
    def _update(self, frames: Padded) -> None:
        """Chan et al., "Updating formulae and a pairwise algorithm for computing sample variances", 1979."""
        count = frames.lengths.sum().to(self.count.dtype)
        if not count:
            return
        values = zero_padding(Padded(frames.values.float(), frames.lengths)).values
        mean = values.sum(dim=(0, 1)) / count
        centered = zero_padding(Padded(values - mean, frames.lengths)).values
        variance = centered.square().sum(dim=(0, 1)) / count
        share = count / (self.count + count)
        between = (mean - self.mean).square() * share * (1 - share)
        self.variance.copy_(self.variance + (variance - self.variance) * share + between)
        self.mean.add_((mean - self.mean) * share)
        self.count.add_(count)
