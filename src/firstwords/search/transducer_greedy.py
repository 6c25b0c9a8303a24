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
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

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
        if self.head.config.durations is not None:
            return self._skipping(encoded, self.head.config.durations)
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
        return self._readings(written, scores)

    def _skipping(self, encoded: Padded, durations: tuple[int, ...]) -> list[list[Hypothesis]]:
        """Each utterance has a frame of its own at which it stands."""
        batch = len(encoded.lengths)
        frames = self.head.joiner.encoder_proj(encoded.values)
        lengths = encoded.lengths.to(frames.device)
        utterances = torch.arange(batch, device=frames.device)
        steps = torch.tensor(durations, device=frames.device)
        histories = Histories.start(self.head, batch)
        scores = torch.zeros(batch, dtype=torch.float32, device=frames.device)
        written: list[list[Emission]] = [[] for _ in range(batch)]
        place = torch.zeros_like(lengths)
        here = torch.zeros_like(lengths)  # symbols at this frame
        while bool((active := place < lengths).any()):
            at = frames[utterances, place.clamp_max(frames.shape[1] - 1)]
            best, symbols = self.head.next_log_probs(at, histories.projected).max(dim=1)
            timed = self.head.duration_log_probs(at, histories.projected)
            stays = (symbols == 0)[:, None] & (steps == 0)
            sure, which = timed.masked_fill(stays, -torch.inf).max(dim=1)
            scores += (best + sure).masked_fill(~active, 0.0)
            writes = active & (symbols != 0)
            tokens, probabilities, now = symbols.tolist(), best.exp().tolist(), place.tolist()
            for row in writes.nonzero()[:, 0].tolist():
                written[row].append(Emission(tokens[row], now[row], probabilities[row]))
            histories.grow(symbols, writes)
            here = here + 1
            ahead = steps[which]
            ahead = torch.where((ahead == 0) & (here >= self.config.symbols_per_frame), 1, ahead)
            place = torch.where(active, place + ahead, place)
            here = here.masked_fill(ahead > 0, 0)
        return self._readings(written, scores)

    def _readings(self, written: list[list[Emission]], scores: Tensor) -> list[list[Hypothesis]]:
        return [
            [reading(emissions, score, self.frame_seconds)]
            for emissions, score in zip(written, scores.tolist(), strict=True)
        ]
