"""The readings that CTC finds likely, put in order by an attention decoder: cheap, and one pass of it.

The decoder reads each reading of the CTC prefix beam search as if it were the transcript (teacher forcing);
Zhang et al., 2020, arXiv:2012.05481, section 2.3:

    score = ctc_weight * log P_ctc(reading) + (1 - ctc_weight) * log P_decoder(reading, end)

Scorers (fusion.py) take part in the first pass, and their shares are added to that score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from firstwords.heads.head import FrameHead, TokenHead
from firstwords.heads.numeric import at_least_float32
from firstwords.search.ctc_beam import CtcBeamSearch
from firstwords.search.fusion import Weighted
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.interface import CtcBeamConfig, EncodedSearch, RescoringConfig
from firstwords.search.prefix_beam import check_numbers
from firstwords.tensors import Padded, pad


@final
class RescoringSearch(EncodedSearch):
    """N-best readings of CTC in the decoder's order; times and confidences are those of CTC."""

    def __init__(
        self,
        config: RescoringConfig,
        decoder: TokenHead,
        ctc: FrameHead,
        frame_seconds: float,
        scorers: Sequence[Weighted] = (),
    ) -> None:
        self.config = config
        self.decoder = decoder
        self.ctc = ctc
        first = CtcBeamConfig(beam=config.beam, n_best=config.n_best)
        self.first_pass = CtcBeamSearch(first, frame_seconds, scorers)

    @torch.no_grad()
    def __call__(self, encoded: Padded) -> list[list[Hypothesis]]:
        encoded = Padded(at_least_float32(encoded.values), encoded.lengths)
        found = self.first_pass(self.ctc.log_probs(encoded))
        return [self._rescored(readings, encoded, row) for row, readings in enumerate(found)]

    def _rescored(self, readings: list[Hypothesis], encoded: Padded, row: int) -> list[Hypothesis]:
        length = int(encoded.lengths[row])
        device = encoded.values.device
        frames = encoded.values[row : row + 1, :length].expand(len(readings), -1, -1)
        tokens = pad([torch.tensor(r.tokens, dtype=torch.int64) for r in readings])
        second = self.decoder.log_likelihood(
            Padded(frames, torch.full((len(readings),), length, device=device)),
            Padded(tokens.values.to(device), tokens.lengths.to(device)),
        )
        return _in_order(readings, second, self.config.ctc_weight)


def _in_order(readings: list[Hypothesis], second: Tensor, ctc_weight: float) -> list[Hypothesis]:
    scored: list[Hypothesis] = []
    check_numbers(second.cpu().numpy(), "The attention decoder")
    for reading, log_prob in zip(readings, second.tolist(), strict=True):
        # A reading longer than any the decoder can write has probability 0, which times 0 is no number.
        said = (1 - ctc_weight) * log_prob if ctc_weight < 1 else 0.0
        own = {"ctc": ctc_weight * reading.parts["ctc"], "attention": said}
        parts = dict(reading.parts) | own
        scored.append(replace(reading, score=sum(parts.values()), parts=parts))
    return sorted(scored, key=lambda r: -r.score)
