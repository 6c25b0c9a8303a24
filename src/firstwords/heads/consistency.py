"""Consistency between two views of one utterance (CR-CTC): Yao et al., 2024, arXiv:2410.05101, eq. 4-6.

Each utterance goes through the model twice with different masks; each view's prediction is pulled towards
the other's, frame by frame. A batch holds view 1 of all N utterances in rows 0..N-1 and view 2, in the same
order, in rows N..2N-1.

Everything about two views is halved against one view in the paper's loss, so that rates and weights keep
their meaning:  0.5 * sum of 2N CTC losses + weight * 0.5 * sum of N consistency losses.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from firstwords.heads.numeric import at_least_float32
from firstwords.tensors import Padded, real_frames


def consistency_loss(log_probs_two_views: Padded) -> Float[Tensor, " utterances"]:
    """(2N, T, V) log-probabilities -> for each utterance, in nats, both directions added:

    sum over its frames of  KL(view 2 || view 1) + KL(view 1 || view 2),

    the first distribution of each taken as given: no gradient flows into the target. Not halved.
    """
    values = at_least_float32(log_probs_two_views.values)
    utterances = values.shape[0] // 2
    one, two = values[:utterances], values[utterances : 2 * utterances]
    real = real_frames(log_probs_two_views.lengths[:utterances], values.shape[1])
    per_frame = _divergence(two.detach(), one) + _divergence(one.detach(), two)
    return per_frame.masked_fill(~real, 0).sum(dim=1)


def _divergence(
    given: Float[Tensor, "utterances time vocabulary"], own: Float[Tensor, "utterances time vocabulary"]
) -> Float[Tensor, "utterances time"]:
    """KL(given || own) of each frame, from log-probabilities."""
    return (given.exp() * (given - own)).sum(dim=-1)
