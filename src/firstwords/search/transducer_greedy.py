"""Greedy transducer search: the most probable symbol, one frame after the other.

A token is written and the frame stays, until a blank comes or the frame has its fill of symbols:

    frames      0    0  1  2    2  3       three symbols per frame at most
    symbols     h    -  -  e    l  -       - is the blank
"""

from __future__ import annotations

from typing import final

import torch

from firstwords.heads.transducer.head import TransducerHead
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.interface import EncodedSearch, TransducerGreedyConfig
from firstwords.search.transducer_common import Emission, Histories, reading
from firstwords.tensors import Padded


@final
class TransducerGreedySearch(EncodedSearch):
    """One reading per utterance; all utterances of a batch go through their frames together."""

    def __init__(self, config: TransducerGreedyConfig, head: TransducerHead, frame_seconds: float) -> None:
        self.config = config
        self.head = head
        self.frame_seconds = frame_seconds

    @torch.no_grad()
    def __call__(self, encoded: Padded) -> list[list[Hypothesis]]:
        """(B, T, D) encoded frames -> one reading per utterance; ``score`` is that of its path."""
        batch = len(encoded.lengths)
        frames = self.head.joiner.encoder_proj(encoded.values)
        lengths = encoded.lengths.to(frames.device)
        histories = Histories.start(self.head, batch)
        scores = torch.zeros(batch, dtype=torch.float32, device=frames.device)
        written: list[list[Emission]] = [[] for _ in range(batch)]
        for frame in range(int(lengths.amax()) if batch else 0):
            active = lengths > frame
            for _ in range(self.config.symbols_per_frame):
                log_probs = self.head.next_log_probs(frames[:, frame], histories.projected)
                best, symbols = log_probs.max(dim=1)
                scores += best.masked_fill(~active, 0.0)
                active = active & (symbols != 0)
                rows = active.nonzero()[:, 0].tolist()
                if not rows:
                    break
                tokens, sure = symbols.tolist(), best.exp().tolist()
                for row in rows:
                    written[row].append(Emission(tokens[row], frame, sure[row]))
                histories.grow(symbols, active)
        return [
            [reading(emissions, score, self.frame_seconds)]
            for emissions, score in zip(written, scores.tolist(), strict=True)
        ]
