"""What a CTC head learns from, and remembers while it learns.

    plain CTC       Graves et al., 2006
    CR-CTC          two differently masked views that should agree: Yao et al., 2024, arXiv:2410.05101
    intermediate    CTC losses inside the encoder, perhaps fed back: arXiv:2102.03216, arXiv:2104.02724
    label priors    only while a model is stuck on blanks (monitor.py): Huang et al., 2024, arXiv:2406.02560

All of it is computed in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from firstwords.heads.consistency import consistency_loss
from firstwords.heads.ctc import CtcHead, can_align, ctc_loss
from firstwords.heads.intermediate import Tapped, combine
from firstwords.tensors import Padded, real_frames

_LEAST_PRIOR = 1e-3  # of a label: rarer ones would be raised beyond reason
_PRIOR_MEMORY = 0.95  # of the running label frequencies, per batch


class CtcLoss(NamedTuple):
    """Of each utterance, times the head's weight; the parts of it before that."""

    each: Float[Tensor, " batch"]
    parts: Mapping[str, Float[Tensor, " batch"]]
    blank_share: Float[Tensor, ""]
    log_probs: Padded


@final
class CtcObjective:
    """The losses of one CTC head."""

    def __init__(self, head: CtcHead) -> None:
        self.head = head
        self.prior_weight = 0.0  # set by who watches for plateaus
        self.priors: list[float] = []  # label frequencies, kept while they are in use
        self.one_view_yet = False  # set by who knows the step

    @property
    def two_views(self) -> bool:
        """True where every utterance is wanted twice: rows 0..N-1, then again as N..2N-1."""
        return self.head.config.consistency > 0 and not self.one_view_yet

    def loss(self, tapped: Tapped, targets: Padded, *, warm: float) -> CtcLoss:
        """Encoded frames and ids -> loss of each utterance; one that cannot align adds nothing.

        Args:
            warm: share (from 1 on, all) of the consistency weight that applies by now.
        """
        encoded = tapped.encoded
        log_probs = self.head.log_probs(Padded(encoded.values.float(), encoded.lengths))
        fits = can_align(log_probs.lengths, targets)
        each = combine(
            self._ctc(log_probs, targets),
            [ctc_loss(inner, targets) for inner in tapped.inner],
            self.head.config.intermediate_weight,
        )
        each = each.masked_fill(~fits, 0.0)
        if self.two_views:
            rows = len(each) // 2
            each = 0.5 * (each[:rows] + each[rows:])
        parts = {"ctc": each.detach()}
        if self.two_views:
            consistency = 0.5 * consistency_loss(log_probs)
            parts["consistency"] = consistency.detach()
            each = each + self.head.config.consistency * min(1.0, warm) * consistency
        return CtcLoss(self.head.config.weight * each, parts, _blank_share(log_probs), log_probs)

    def _ctc(self, log_probs: Padded, targets: Padded) -> Float[Tensor, " batch"]:
        if not self.prior_weight:
            self.priors = []
            return ctc_loss(log_probs, targets)
        real = real_frames(log_probs.lengths, log_probs.values.shape[1])
        now = log_probs.values.detach()[real].exp().mean(dim=0)
        before = torch.tensor(self.priors, device=now.device) if self.priors else now
        priors = _PRIOR_MEMORY * before + (1 - _PRIOR_MEMORY) * now
        self.priors = priors.tolist()
        log_priors = self.prior_weight * priors.clamp_min(_LEAST_PRIOR).log()
        return prior_weighted_ctc_loss(log_probs, targets, log_priors)


def prior_weighted_ctc_loss(
    log_probs: Padded, targets: Padded, log_priors: Float[Tensor, " vocabulary"]
) -> Float[Tensor, " batch"]:
    """CTC over log p(k) - log_priors(k), which need not sum to one: -log of the sum over alignments.

    torch computes the gradient of its CTC loss for normalized input, as exp(input) - posterior. Subtracting
    the sum of exp(input) takes the first term away again, so that what reaches the logits is the exact
    gradient softmax - posterior, with the posterior of the weighted scores.
    """
    scores = Padded(log_probs.values - log_priors, log_probs.lengths)
    real = real_frames(scores.lengths, scores.values.shape[1])
    total = scores.values.exp().sum(dim=-1).masked_fill(~real, 0).sum(dim=1)
    return ctc_loss(scores, targets) - (total - total.detach())


def _blank_share(log_probs: Padded) -> Float[Tensor, ""]:
    real = real_frames(log_probs.lengths, log_probs.values.shape[1])
    best = log_probs.values.detach().argmax(dim=-1)
    return ((best == 0) & real).sum() / real.sum().clamp_min(1)
