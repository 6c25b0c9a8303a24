"""Greedy transducer search: the most probable symbol, one frame after the other.

A token is written and the frame stays, until a blank comes or the frame has its fill of symbols:

    frames      0    0  1  2    2  3       three symbols per frame at most
    symbols     h    -  -  e    l  -       - is the blank

Scorers (fusion.py) add their share to every token, not to the blank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
import torch

from firstwords.heads.transducer.head import TransducerHead
from firstwords.search.fusion import Weighted
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.interface import EncodedSearch, TransducerGreedyConfig
from firstwords.search.transducer_common import (
    Emission,
    Histories,
    added_by,
    companion_of,
    reading,
    shares_of,
)
from firstwords.tensors import Padded


@final
class TransducerGreedySearch(EncodedSearch):
    """One reading per utterance; all utterances of a batch go through their frames together."""

    def __init__(
        self,
        config: TransducerGreedyConfig,
        head: TransducerHead,
        frame_seconds: float,
        scorers: Sequence[Weighted] = (),
    ) -> None:
        self.config = config
        self.head = head
        self.frame_seconds = frame_seconds
        self.scorers = tuple(scorers)

    @torch.no_grad()
    def __call__(self, encoded: Padded) -> list[list[Hypothesis]]:
        """(B, T, D) encoded frames -> one reading per utterance; ``score`` is that of its path."""
        batch = len(encoded.lengths)
        frames = self.head.joiner.encoder_proj(encoded.values)
        lengths = encoded.lengths.to(frames.device)
        histories = Histories.start(self.head, batch)
        companion = companion_of(self.head, self.scorers, self.config.language_model.internal_weight, batch)
        scores = torch.zeros(batch, dtype=torch.float32, device=frames.device)
        written: list[list[Emission]] = [[] for _ in range(batch)]
        for frame in range(int(lengths.amax()) if batch else 0):
            active = lengths > frame
            for _ in range(self.config.symbols_per_frame):
                log_probs = self.head.next_log_probs(frames[:, frame], histories.projected)
                if companion is None:
                    best, symbols = log_probs.max(dim=1)
                else:
                    symbols = (log_probs + added_by(companion, log_probs)).argmax(dim=1)
                    best = log_probs.gather(1, symbols[:, None])[:, 0]
                scores += best.masked_fill(~active, 0.0)
                active = active & (symbols != 0)
                rows = active.nonzero()[:, 0].tolist()
                if not rows:
                    break
                tokens, sure = symbols.tolist(), best.exp().tolist()
                for row in rows:
                    written[row].append(Emission(tokens[row], frame, sure[row]))
                histories.grow(symbols, active)
                if companion is not None:
                    companion.move(np.arange(batch), symbols.masked_fill(~active, 0).cpu().numpy())
        shares = shares_of(companion, batch)
        return [
            [reading(emissions, {"transducer": score} | share, self.frame_seconds)]
            for emissions, score, share in zip(written, scores.tolist(), shares, strict=True)
        ]
