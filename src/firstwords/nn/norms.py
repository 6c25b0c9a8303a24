"""Normalization whose statistics know what is padding.

Batch normalization: Ioffe and Szegedy, 2015, arXiv:1502.03167. Torch's own counts padded frames as data, so
that in training an utterance is scaled by how much longer its neighbours are.
"""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from firstwords.tensors import is_traced


@final
class MaskedBatchNorm(nn.Module):
    """Each channel over all real frames of the batch: zero mean, unit variance, then scale and shift.

    In training the statistics are those of the batch and the running ones follow them; in evaluation the
    running ones are used. Where nothing is padded it equals ``torch.nn.BatchNorm1d``, whose parameter and
    buffer names it has. Padded frames come out as zero.

    Args:
        dim: channels.
        momentum: share of a batch in the running statistics.
        eps: added to the variance.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, dim: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))
        self.register_buffer("num_batches_tracked", torch.tensor(0))
        self.held = False

    def train(self, mode: bool = True) -> MaskedBatchNorm:
        """``held``, it computes as in use in training, too, and its statistics stay."""
        return super().train(mode and not self.held)

    def forward(
        self,
        x: Float[Tensor, "batch time *inner dim"],
        real: Bool[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch time *inner dim"]:
        """``real`` is None where every frame is. Statistics are float32 also for bfloat16 frames.

        Axes between time and channels (frequency bins) count as more places of the same frame.
        """
        if not self.training:
            y = self._normalized(x, training=False)
            return y if real is None else y.masked_fill(~real.view(*real.shape, *(1,) * (x.dim() - 2)), 0.0)
        if real is None:
            return self._normalized(x, training=True)
        # Real frames only, one after the other: on a CPU faster than statistics under a mask.
        frames = x.flatten(0, 1)
        places = real.flatten().nonzero().squeeze(1)
        y = self._normalized(frames.index_select(0, places), training=True)
        return y.new_zeros(frames.shape).index_copy(0, places, y).view(x.shape)

    def _normalized(self, x: Tensor, *, training: bool) -> Tensor:
        if is_traced():  # a product and a sum: no other shape, and numbers that bear to be stored in few bits
            gain = self.weight * (self.running_var + self.eps).rsqrt()
            return x * gain + (self.bias - self.running_mean * gain)
        flat = x.reshape(-1, x.shape[-1])
        training = training and len(flat) > 1  # one value has no variance
        if training:
            self.num_batches_tracked.add_(1)
        mean, variance = self.running_mean, self.running_var
        y = F.batch_norm(flat, mean, variance, self.weight, self.bias, training, self.momentum, self.eps)
        return y.view(x.shape)


@final
class Folded(nn.Module):
    """What is left of a batch norm whose numbers became part of a matrix (folding.py): zeros in padding."""

    def forward(
        self,
        x: Float[Tensor, "batch time *inner dim"],
        real: Bool[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch time *inner dim"]:
        return x if real is None else x.masked_fill(~real.view(*real.shape, *(1,) * (x.dim() - 2)), 0.0)
