"""One-pass joint decoding: an attention decoder and CTC choose every token together.

Watanabe et al., 2017, "Hybrid CTC/attention architecture for end-to-end speech recognition", section IV-B:

    log P = (1 - ctc_weight) log P_decoder + ctc_weight log P_ctc + other scorers

CTC keeps the decoder from skipping and repeating, the decoder knows which tokens follow each other.

What the decoder knows of text alone is estimated by showing it an encoding of zeros (Meng et al., 2020,
arXiv:2011.01991, section 3.2), and taken off where a language model takes its place (``internal_weight``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from firstwords.errors import SearchError
from firstwords.heads.ctc import can_align
from firstwords.heads.head import FrameHead, TokenHead
from firstwords.heads.numeric import at_least_float32
from firstwords.nn.scorer import AttentionScorer
from firstwords.search.align import align_many
from firstwords.search.ctc_common import rows_of
from firstwords.search.ctc_prefix import CtcPrefixScorer
from firstwords.search.fusion import LANGUAGE_MODEL, Weighted
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.interface import AttentionBeamConfig, EncodedSearch
from firstwords.search.token_beam import Reading, TokenBeam, divisor
from firstwords.tensors import Padded, pad


@final
class AttentionBeamSearch(EncodedSearch):
    """N-best readings of an attention decoder.

    ``parts`` of a reading are the weighted shares in its score, each divided by the power of the length.
    Confidences are the weighted geometric mean of the decoder's and of CTC's probabilities for each token.
    Times come from the best CTC alignment of a reading; where there is none (no CTC, or too many tokens for
    the frames), the best reading alone has some, from where the decoder looked.

    Args:
        ctc: needed where ``ctc_weight`` is above 0; otherwise, if given, it is asked for times alone.
        others: scorers that need no audio (language models, phrases), added with their own weights.
    """

    def __init__(
        self,
        config: AttentionBeamConfig,
        decoder: TokenHead,
        ctc: FrameHead | None,
        frame_seconds: float,
        others: Sequence[Weighted] = (),
    ) -> None:
        if ctc is None and config.ctc_weight > 0:
            raise SearchError(
                f"search.ctc_weight = {config.ctc_weight:g}, but the model has no CTC head.",
                mend="Set search.ctc_weight = 0, or train with heads.ctc.",
            )
        self.config = config
        self.decoder = decoder
        self.ctc = ctc
        self.frame_seconds = frame_seconds
        self.others = tuple(others)

    @torch.no_grad()
    def __call__(self, encoded: Padded) -> list[list[Hypothesis]]:
        encoded = Padded(at_least_float32(encoded.values), encoded.lengths)
        log_probs = None if self.ctc is None else self.ctc.log_probs(encoded)
        scorers = [Weighted("attention", 1 - self.config.ctc_weight, self.decoder.scorer(encoded))]
        if log_probs is not None:
            scorers.append(Weighted("ctc", self.config.ctc_weight, CtcPrefixScorer(log_probs)))
        all_scorers = (*scorers, *self._others(encoded))
        most = self.decoder.longest
        found = TokenBeam(all_scorers, encoded.lengths.to("cpu"), self.config, most=most).run()
        if log_probs is None:
            return self._looked(
                encoded, [[self._untimed(reading) for reading in readings] for readings in found]
            )
        timed = [
            self._timed(readings, values) for readings, values in zip(found, rows_of(log_probs), strict=True)
        ]
        return self._looked(encoded, timed)

    def _others(self, encoded: Padded) -> tuple[Weighted, ...]:
        """What needs no audio, the decoder's own model of text among it where that is taken off."""
        weight = self.config.language_model.internal_weight
        if weight == 0 or not any(one.name == LANGUAGE_MODEL for one in self.others):
            return self.others
        deaf = deaf_scorer(self.decoder, encoded.values)
        return *self.others, Weighted("internal", -weight, deaf, hears=False)

    def _looked(self, encoded: Padded, found: list[list[Hypothesis]]) -> list[list[Hypothesis]]:
        """Best readings without times get those at which the decoder looked hardest, made to rise."""
        if all(readings[0].times is not None or not readings[0].tokens for readings in found):
            return found
        targets = pad([torch.tensor(readings[0].tokens, dtype=torch.int64) for readings in found])
        device = encoded.values.device
        weights = self.decoder.attention(
            encoded, Padded(targets.values.to(device), targets.lengths.to(device))
        ).values.cpu()
        for row, readings in enumerate(found):
            best = readings[0]
            if best.times is not None or not best.tokens:
                continue
            first = weights[row, : len(best.tokens)].argmax(-1).cummax(0).values.tolist()
            after = [
                min(frame + 1, later) for frame, later in zip(first, [*first[1:], first[-1] + 1], strict=True)
            ]
            readings[0] = replace(
                best,
                times=tuple(frame * self.frame_seconds for frame in first),
                ends=tuple(frame * self.frame_seconds for frame in after),
            )
        return found

    def _timed(self, readings: list[Reading], log_probs: NDArray[np.float64]) -> list[Hypothesis]:
        """Readings of one utterance with the times of their best CTC alignments."""
        targets = pad([torch.tensor(r.tokens, dtype=torch.int64) for r in readings])
        fits = can_align(torch.full((len(readings),), len(log_probs)), targets).tolist()
        aligned = iter(
            align_many(log_probs, [r.tokens for r, fit in zip(readings, fits, strict=True) if fit])
        )
        timed: list[Hypothesis] = []
        for reading, fit in zip(readings, fits, strict=True):
            found = self._untimed(reading)
            if fit:
                alignment = next(aligned)
                found = replace(
                    found,
                    times=tuple(frame * self.frame_seconds for frame in alignment.first),
                    ends=tuple((frame + 1) * self.frame_seconds for frame in alignment.last),
                )
            timed.append(found)
        return timed

    def _untimed(self, reading: Reading) -> Hypothesis:
        return Hypothesis(
            reading.tokens,
            reading.score,
            reading.parts,
            confidences=reading.confidences,
            divisor=divisor(len(reading.tokens), self.config.length_power),
            cut=bool(reading.tokens) and len(reading.tokens) == self.decoder.longest,
        )


def deaf_scorer(decoder: TokenHead, like: Float[Tensor, "batch time dim"]) -> AttentionScorer[Any]:
    """What a decoder knows of text alone: its next tokens where every frame is zero (section 3.2).

    One frame stands for any number: attention is a mean over the frames, and all of them are alike.
    """
    batch, _, dim = like.shape
    frames = torch.ones(batch, dtype=torch.int64, device=like.device)
    return decoder.scorer(Padded(like.new_zeros(batch, 1, dim), frames))
