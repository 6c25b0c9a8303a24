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

from collections.abc import Callable, Mapping, Sequence
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from firstwords.heads.transducer.head import TransducerHead
from firstwords.search.ctc_streams import StreamingSearch
from firstwords.search.fusion import Companion, Weighted
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.interface import EncodedSearch, TransducerGreedyConfig
from firstwords.search.prefix_beam import check_numbers
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

    @torch.no_grad()
    def __call__(self, encoded: Padded) -> list[list[Hypothesis]]:
        """(B, T, D) encoded frames -> one reading per utterance; ``score`` is that of its path."""
        batch = len(encoded.lengths)
        walk = GreedyWalk(self.config, self.head, self.scorers, batch)
        walk.read(encoded)
        shares = shares_of(walk.companion, batch)
        return [
            [reading(emissions, {"transducer": score} | share, self.frame_seconds)]
            for emissions, score, share in zip(walk.written, walk.scores.tolist(), shares, strict=True)
        ]


@final
class GreedyWalk:
    """Utterances on their way through their frames, of which more may follow.

    Args:
        remember: note the scores before each token (``before``), for who will take some tokens away.
    """

    def __init__(
        self,
        config: TransducerGreedyConfig,
        head: TransducerHead,
        scorers: Sequence[Weighted],
        batch: int,
        *,
        remember: bool = False,
    ) -> None:
        self.head = head
        self.companion = companion_of(head, scorers, config.language_model.internal_weight, batch)
        self.written: list[list[Emission]] = [[] for _ in range(batch)]
        self.before: list[list[Mapping[str, float]]] = [[] for _ in range(batch)]
        self._histories = Histories.start(head, batch)
        device = self._histories.projected.device
        exact = torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs have no float64
        self.scores = torch.zeros(batch, dtype=exact, device=device)  # of the paths
        self._durations = head.config.durations
        self._most = config.symbols_per_frame or (1 if self._durations is None else _TIMED)
        self._remember = remember
        self._passed = 0  # frames of earlier pieces
        # With durations each utterance has a frame of its own at which it stands, and symbols written there.
        self._place = torch.zeros(batch, dtype=torch.int64, device=device)
        self._here = torch.zeros(batch, dtype=torch.int64, device=device)

    @torch.no_grad()
    def read(self, encoded: Padded) -> None:
        """The next frames (B, T, D). Utterances whose lengths are below T are over."""
        frames = self.head.joiner.encoder_proj(encoded.values)
        lengths = encoded.lengths.to(frames.device)
        if self._durations is None:
            self._frame_by_frame(frames, lengths)
        else:
            self._skipping(frames, lengths, self._durations)
        check_numbers(self.scores.cpu().numpy(), "A recording")
        self._passed += frames.shape[1]

    def parts(self, row: int) -> dict[str, float]:
        """The shares of a path's score so far."""
        own = {"transducer": float(self.scores[row])}
        if self.companion is None:
            return own
        return own | dict(zip(self.companion.names, self.companion.shares[row].tolist(), strict=True))

    def _frame_by_frame(self, frames: Float[Tensor, "batch time joint"], lengths: Tensor) -> None:
        for frame in range(int(lengths.amax()) if len(lengths) else 0):
            active = lengths > frame
            for _ in range(self._most):
                log_probs = self.head.next_log_probs(frames[:, frame], self._histories.projected)
                best, symbols = _chosen(log_probs, self.companion)
                written = self._write(active, best, best, symbols, lambda _, now=frame: self._passed + now)
                if written is None:
                    break
                active = written

    def _skipping(
        self, frames: Float[Tensor, "batch time joint"], lengths: Tensor, durations: tuple[int, ...]
    ) -> None:
        utterances = torch.arange(len(lengths), device=frames.device)
        steps = torch.tensor(durations, device=frames.device)
        while bool((active := self._place < self._passed + lengths).any()):
            own = (self._place - self._passed).clamp(max=frames.shape[1] - 1)
            at = frames[utterances, own]
            best, symbols = _chosen(self.head.next_log_probs(at, self._histories.projected), self.companion)
            timed = self.head.duration_log_probs(at, self._histories.projected)
            stays = (symbols == 0)[:, None] & (steps == 0)
            sure, which = timed.masked_fill(stays, -torch.inf).max(dim=1)
            now = self._place.tolist()
            self._write(active, best, best + sure, symbols, now.__getitem__)
            self._here = self._here + active
            ahead = steps[which]
            ahead = torch.where((ahead == 0) & (self._here >= self._most), 1, ahead)
            self._place = torch.where(active, self._place + ahead, self._place)
            self._here = self._here.masked_fill(active & (ahead > 0), 0)

    def _write(
        self,
        active: Bool[Tensor, " batch"],
        best: Float[Tensor, " batch"],
        gains: Float[Tensor, " batch"],
        symbols: Int[Tensor, " batch"],
        frame_of: Callable[[int], int],
    ) -> Bool[Tensor, " batch"] | None:
        """One symbol for each active row, blanks too -> the rows in which a token was written, or None."""
        writes = active & (symbols != 0)
        rows = writes.nonzero()[:, 0].tolist()
        if self._remember:
            for row in rows:
                self.before[row].append(self.parts(row))
        self.scores += gains.to(self.scores.dtype).masked_fill(~active, 0.0)
        if not rows:
            return None
        tokens, sure = symbols.tolist(), best.exp().tolist()
        for row in rows:
            self.written[row].append(Emission(tokens[row], frame_of(row), sure[row]))
        self._histories.grow(symbols, writes)
        if self.companion is not None:
            self.companion.move(np.arange(len(symbols)), symbols.masked_fill(~writes, 0).cpu().numpy())
        return writes


@final
class TransducerGreedyStream(StreamingSearch):
    """The same over a stream: a token never changes once it is written."""

    def __init__(
        self,
        config: TransducerGreedyConfig,
        head: TransducerHead,
        frame_seconds: float,
        scorers: Sequence[Weighted] = (),
    ) -> None:
        self.frame_seconds, self.frames = frame_seconds, 0
        self._walk = GreedyWalk(config, head, scorers, 1, remember=True)
        self._taken = self._walk.parts(0)  # of the score, by what is committed

    def advance(self, encoded: Float[Tensor, "time dim"]) -> None:
        if len(encoded):
            self._walk.read(Padded(encoded[None], torch.tensor([len(encoded)])))
        self.frames += len(encoded)

    def best(self) -> Hypothesis:
        return self._reading(len(self._walk.written[0]), self._walk.parts(0))

    def stable(self) -> int:
        return len(self._walk.written[0])

    def commit(self, count: int) -> Hypothesis:
        written, before = self._walk.written[0], self._walk.before[0]
        until = before[count] if count < len(written) else self._walk.parts(0)
        found = self._reading(count, until)
        del written[:count], before[:count]
        self._taken = dict(until)
        return found

    def _reading(self, count: int, until: Mapping[str, float]) -> Hypothesis:
        parts = {name: until[name] - taken for name, taken in self._taken.items()}
        return reading(self._walk.written[0][:count], parts, self.frame_seconds)


def _chosen(
    log_probs: Float[Tensor, "batch vocabulary"], companion: Companion | None
) -> tuple[Float[Tensor, " batch"], Int[Tensor, " batch"]]:
    """The symbol of the greatest sum with what scorers add, and its own log-probability."""
    if companion is None:
        best, symbols = log_probs.max(dim=1)
        return best, symbols
    symbols = (log_probs + added_by(companion, log_probs)).argmax(dim=1)
    return log_probs.gather(1, symbols[:, None])[:, 0], symbols
