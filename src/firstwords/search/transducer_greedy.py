"""Greedy transducer search: the most probable symbol, one frame after the other.

A token is written and the frame stays, until a blank comes or the frame has its fill of symbols:

    frames      0    0  1  2    2  3       three symbols per frame at most
    symbols     h    -  -  e    l  -       - is the blank

With durations (Xu et al., 2023, arXiv:2304.06795, algorithm 2) a symbol says itself at which frame the search
goes on, and the frames between are never asked:

    frames      0      2      2      5
    symbols     h (2)  e (0)  l (3)  - (1)

A blank goes on by its most probable duration above 0. A token of duration 0 after which the frame has its
fill goes on by one frame.

Scorers (fusion.py) add their share to every token, not to the blank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from firstwords.heads.transducer.head import TransducerHead
from firstwords.search.fusion import Companion, Weighted
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.interface import EncodedSearch, TransducerGreedyConfig
from firstwords.search.transducer_common import Histories, added_by, companion_of, shares_of
from firstwords.search.transducer_reading import Emission, reading
from firstwords.tensors import Padded

_TIMED = 10  # symbols at one frame where they say themselves how long they stay: the published bound


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
        self._most = config.symbols_per_frame or (1 if head.config.durations is None else _TIMED)

    @torch.no_grad()
    def __call__(self, encoded: Padded) -> list[list[Hypothesis]]:
        """(B, T, D) encoded frames -> one reading per utterance; ``score`` is that of its path."""
        if self.head.config.durations is not None:
            return self._skipping(encoded, self.head.config.durations)
        batch = len(encoded.lengths)
        frames = self.head.joiner.encoder_proj(encoded.values)
        lengths = encoded.lengths.to(frames.device)
        histories = Histories.start(self.head, batch)
        companion = companion_of(self.head, self.scorers, self.config.language_model.internal_weight, batch)
        scores = torch.zeros(batch, dtype=torch.float32, device=frames.device)
        written: list[list[Emission]] = [[] for _ in range(batch)]
        for frame in range(int(lengths.amax()) if batch else 0):
            active = lengths > frame
            for _ in range(self._most):
                best, symbols = _chosen(
                    self.head.next_log_probs(frames[:, frame], histories.projected), companion
                )
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
        return self._readings(written, scores, shares_of(companion, batch))

    def _skipping(self, encoded: Padded, durations: tuple[int, ...]) -> list[list[Hypothesis]]:
        """Each utterance has a frame of its own at which it stands."""
        batch = len(encoded.lengths)
        frames = self.head.joiner.encoder_proj(encoded.values)
        lengths = encoded.lengths.to(frames.device)
        utterances = torch.arange(batch, device=frames.device)
        steps = torch.tensor(durations, device=frames.device)
        histories = Histories.start(self.head, batch)
        companion = companion_of(self.head, self.scorers, self.config.language_model.internal_weight, batch)
        scores = torch.zeros(batch, dtype=torch.float32, device=frames.device)
        written: list[list[Emission]] = [[] for _ in range(batch)]
        place = torch.zeros_like(lengths)
        here = torch.zeros_like(lengths)  # symbols at this frame
        while bool((active := place < lengths).any()):
            at = frames[utterances, place.clamp_max(frames.shape[1] - 1)]
            best, symbols = _chosen(self.head.next_log_probs(at, histories.projected), companion)
            timed = self.head.duration_log_probs(at, histories.projected)
            stays = (symbols == 0)[:, None] & (steps == 0)
            sure, which = timed.masked_fill(stays, -torch.inf).max(dim=1)
            scores += (best + sure).masked_fill(~active, 0.0)
            writes = active & (symbols != 0)
            tokens, probabilities, now = symbols.tolist(), best.exp().tolist(), place.tolist()
            for row in writes.nonzero()[:, 0].tolist():
                written[row].append(Emission(tokens[row], now[row], probabilities[row]))
            histories.grow(symbols, writes)
            if companion is not None:
                companion.move(np.arange(batch), symbols.masked_fill(~writes, 0).cpu().numpy())
            here = here + 1
            ahead = steps[which]
            ahead = torch.where((ahead == 0) & (here >= self._most), 1, ahead)
            place = torch.where(active, place + ahead, place)
            here = here.masked_fill(ahead > 0, 0)
        return self._readings(written, scores, shares_of(companion, batch))

    def _readings(
        self, written: list[list[Emission]], scores: Tensor, shares: Sequence[dict[str, float]]
    ) -> list[list[Hypothesis]]:
        return [
            [reading(emissions, {"transducer": score} | share, self.frame_seconds)]
            for emissions, score, share in zip(written, scores.tolist(), shares, strict=True)
        ]


def _chosen(
    log_probs: Float[Tensor, "batch vocabulary"], companion: Companion | None
) -> tuple[Float[Tensor, " batch"], Int[Tensor, " batch"]]:
    """The symbol of the greatest sum with what scorers add, and its own log-probability."""
    if companion is None:
        best, symbols = log_probs.max(dim=1)
        return best, symbols
    symbols = (log_probs + added_by(companion, log_probs)).argmax(dim=1)
    return log_probs.gather(1, symbols[:, None])[:, 0], symbols
