"""Transducer beam search with at most one token per frame ("modified beam search").

Kang et al., 2023, arXiv:2211.00484. After each frame a history has stayed (blank) or grown by one token, so
all histories of all utterances are scored together. Histories with the same tokens are one: their
probabilities are added. What is searched is the "modified" lattice of heads/transducer/lattice.py, and with a
beam wide enough the score of a reading is the sum over all its paths there.

Scorers (fusion.py) add their share when a history grows by a token; the blank costs nothing there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from firstwords.errors import SearchError
from firstwords.heads.transducer.head import TransducerHead
from firstwords.heads.transducer.joiner import BLANK
from firstwords.heads.transducer.lattice import exact_dtype
from firstwords.search.fusion import Companion, Weighted
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.interface import EncodedSearch, TransducerBeamConfig
from firstwords.search.transducer_common import Histories, added_by, companion_of, shares_of
from firstwords.search.transducer_reading import Emission, reading
from firstwords.tensors import Padded


@dataclass
class _Beam:
    """A history of one utterance: tokens, how the most probable path wrote them, the transducer's score."""

    tokens: tuple[int, ...]
    written: _Chain | None
    score: float
    origin: int = 0  # slot of the beam it came from
    token: int = BLANK  # by which it grew at the last frame


@dataclass(frozen=True)
class _Chain:
    """What was written, last first: histories share what they have in common."""

    last: Emission
    before: _Chain | None

    def forwards(self) -> list[Emission]:
        found: list[Emission] = []
        at: _Chain | None = self
        while at is not None:
            found.append(at.last)
            at = at.before
        return found[::-1]


@final
class TransducerBeamSearch(EncodedSearch):
    """N-best readings; times and confidences are those of the best path of each."""

    def __init__(
        self,
        config: TransducerBeamConfig,
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
        """(B, T, D) encoded frames -> up to ``n_best`` readings of each utterance."""
        width, device = self.config.beam, encoded.values.device
        frames = self.head.joiner.encoder_proj(encoded.values)
        lengths = encoded.lengths.tolist()
        histories = Histories.start(self.head, len(lengths) * width)
        companion = companion_of(
            self.head, self.scorers, self.config.language_model.internal_weight, len(lengths) * width
        )
        beams = [[_Beam((), None, 0.0)] for _ in lengths]
        for frame in range(max(lengths, default=0)):
            joint = histories.projected.unflatten(0, (-1, width))
            log_probs = self.head.next_log_probs(frames[:, frame, None], joint)
            log_probs[:, :, BLANK] -= self.config.blank_penalty
            best = _best(log_probs, beams, width, companion)
            for row, (candidates, own) in enumerate(zip(best, beams, strict=True)):
                if frame < lengths[row]:
                    beams[row] = _grown(own, candidates, frame, row)
                else:
                    for slot, beam in enumerate(own):
                        beam.origin, beam.token = slot, BLANK
            origins, tokens = _moves(beams, width)
            histories.take(torch.tensor(origins, device=device))
            added = torch.tensor(tokens, device=device)
            histories.grow(added, added != BLANK)
            if companion is not None:
                companion.move(np.array(origins, dtype=np.int64), np.array(tokens, dtype=np.int64))
        shares = shares_of(companion, len(lengths) * width)
        return [self._readings(own, shares[row * width :]) for row, own in enumerate(beams)]

    def _readings(self, beams: list[_Beam], shares: list[dict[str, float]]) -> list[Hypothesis]:
        def rank(found: Hypothesis) -> float:
            counted = len(found.tokens) + self.head.predictor.context
            return found.score / counted if self.config.length_normalized else found.score

        found = [
            reading(
                beam.written.forwards() if beam.written else [],
                {"transducer": beam.score} | share,
                self.frame_seconds,
            )
            for beam, share in zip(beams, shares, strict=False)
        ]
        return sorted(found, key=rank, reverse=True)[: self.config.n_best]


def _best(
    log_probs: Float[Tensor, "batch beam vocabulary"],
    beams: list[list[_Beam]],
    width: int,
    companion: Companion | None,
) -> list[list[tuple[float, int, int, float]]]:
    """For each utterance its best continuations: score, slot, symbol, log-probability of the symbol alone.

    They are chosen by score and the shares of the scorers together; the score is the transducer's.
    """
    scores = [[beam.score for beam in own] + [-math.inf] * (width - len(own)) for own in beams]
    before = torch.tensor(scores, dtype=exact_dtype(log_probs.device), device=log_probs.device)
    vocabulary = log_probs.shape[2]
    total = (before[:, :, None] + log_probs).flatten(1)
    if companion is None:
        values, places = total.topk(min(width, total.shape[1]), dim=1)
    else:
        shares = added_by(companion, total) + torch.from_numpy(companion.totals()).to(total)[:, None]
        together = total + shares.unflatten(0, log_probs.shape[:2]).flatten(1)
        values, places = together.topk(min(width, total.shape[1]), dim=1)
        values = total.gather(1, places).masked_fill(values == -math.inf, -math.inf)
    alone = log_probs.flatten(1).gather(1, places)
    return [
        [
            (value, place // vocabulary, place % vocabulary, own)
            for value, place, own in zip(*row, strict=True)
        ]
        for row in zip(values.tolist(), places.tolist(), alone.tolist(), strict=True)
    ]


def _grown(
    own: list[_Beam], candidates: Iterable[tuple[float, int, int, float]], frame: int, row: int
) -> list[_Beam]:
    """The histories after one frame, best first; those with the same tokens become one."""
    found: dict[tuple[int, ...], _Beam] = {}
    for score, slot, symbol, alone in candidates:
        if math.isnan(score):
            raise SearchError(
                f"Row {row} of the batch has log-probabilities that are not numbers.",
                mend="The model has diverged: use an earlier checkpoint.",
            )
        if score == -math.inf:
            continue
        old = own[slot]
        tokens = old.tokens if symbol == BLANK else (*old.tokens, symbol)
        same = found.get(tokens)
        if same is not None:
            same.score = _add(same.score, score)
        elif symbol == BLANK:
            found[tokens] = _Beam(tokens, old.written, score, slot)
        else:
            chain = _Chain(Emission(symbol, frame, math.exp(alone)), old.written)
            found[tokens] = _Beam(tokens, chain, score, slot, symbol)
    return list(found.values())


def _add(a: float, b: float) -> float:
    """log(exp(a) + exp(b)) of finite numbers."""
    return max(a, b) + math.log1p(math.exp(-abs(a - b)))


def _moves(beams: list[list[_Beam]], width: int) -> tuple[list[int], list[int]]:
    """From which row each row of the network goes on, and by which token; empty slots stay as they are."""
    origins, tokens = list(range(len(beams) * width)), [BLANK] * (len(beams) * width)
    for row, own in enumerate(beams):
        for slot, beam in enumerate(own):
            origins[row * width + slot] = row * width + beam.origin
            tokens[row * width + slot] = beam.token
    return origins, tokens
