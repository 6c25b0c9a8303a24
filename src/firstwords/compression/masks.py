"""Zeros among the weights, wherever they stand: no tensor gets smaller, nothing gets faster.

Only a file that stores zeros as such is smaller by them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from firstwords.compression.importance import By, LossOf, weight_scores
from firstwords.model.speech_model import SpeechModel
from firstwords.model.storage import Storage

_PACKED = 1 / 16  # of zeros, from which on leaving them out saves more than the bit for each place costs


def zero_weights(
    model: SpeechModel,
    by: By,
    losses: Sequence[LossOf],
    share: float,
    *,
    seed: int = 1,
) -> float:
    """Set that share of the encoder's matrices to zero, those that matter least -> the share that is zero."""
    scores = weight_scores(model, by, losses, seed=seed)
    order = torch.cat([s.flatten() for s in scores.values()])
    count = round(share * len(order))
    zeros = torch.zeros(len(order), dtype=torch.bool)
    zeros[order.argsort(stable=True)[:count]] = True
    weights, begin = dict(model.named_parameters()), 0
    with torch.no_grad():
        for name, score in scores.items():
            own = zeros[begin : begin + score.numel()].view(score.shape)
            weights[name].masked_fill_(own.to(weights[name].device), 0.0)
            begin += score.numel()
    return count / max(len(order), 1)


def sparse_storage(model: SpeechModel) -> dict[str, Storage]:
    """How matrices of many zeros are kept: a bit for each place, and the values that are left."""
    return {
        name: Storage(kind="sparse", values="fp32")
        for name, value in model.state_dict().items()
        if value.is_floating_point() and value.dim() > 1 and float((value == 0).float().mean()) > _PACKED
    }
