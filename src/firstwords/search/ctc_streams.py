"""Searches that read a stream: encoded frames chunk by chunk in, the best reading so far out.

    frames     c c c | c c c | c c c |              chunks of any size
    best       a       a b     a b d e
    stable     -       a       a b                  what no later frame can change
    commit(2)                  d e                  "a b" is handed out for good, the rest goes on

A CTC search gives the same tokens as the search over the whole (search/greedy.py, search/ctc_beam.py), since
it is the same arithmetic frame by frame. A transducer search is one more class: it reads encoded frames, too.
Memory grows with what is not committed yet, and with nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, final

import numpy as np

from firstwords.search.align import Alignment, align_many
from firstwords.search.ctc_common import BLANK, find_runs
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.interface import CtcBeamConfig
from firstwords.search.prefix_beam import Beside, Floats, PrefixBeam, check_numbers
from firstwords.text.tokenizer import fewest_frames

Score = Callable[[Any], Floats]  # encoded frames (T, D) -> log-probabilities (T, V), natural log
Helped = Callable[[int], Beside]  # vocabulary -> what goes along with one empty prefix


class StreamingSearch(ABC):
    """One stream. Times are seconds from its first frame; scores are those of the best path."""

    frame_seconds: float  # from one encoded frame to the next
    frames: int  # read so far

    @abstractmethod
    def advance(self, encoded: Any) -> None:
        """Read the next encoded frames (T, D), T >= 0: arrays or tensors, as the search is made for."""

    @abstractmethod
    def best(self) -> Hypothesis:
        """The best reading of what was read and is not committed."""

    @abstractmethod
    def stable(self) -> int:
        """So many tokens of ``best`` stay whatever comes."""

    @abstractmethod
    def commit(self, count: int) -> Hypothesis:
        """The first ``count`` tokens of ``best``, for good; the others go on, as does the search.

        Who commits the whole reading, be it empty, settles on it: its frames are let go, and with them other
        readings that begin in them. So 0 of an empty reading is a commit too.
        """

    @property
    def seconds(self) -> float:
        """How far the search has read."""
        return self.frames * self.frame_seconds


@dataclass
class _Run:
    """One token: frames of its run, its posteriors summed, and the path's score before it."""

    token: int
    first: int
    last: int
    posteriors: float
    before: float


@final
class CtcGreedyStream(StreamingSearch):
    """The most probable symbol of every frame; a token never changes once it is read."""

    def __init__(self, score: Score, frame_seconds: float) -> None:
        self.frame_seconds, self.frames = frame_seconds, 0
        self._score = score
        self._runs: list[_Run] = []
        self._symbol = BLANK  # of the last frame
        self._total = 0.0  # the path's score since the last commit

    def advance(self, encoded: Any) -> None:
        if len(encoded) == 0:
            return
        log_probs = self._score(encoded)
        path = log_probs.argmax(axis=1)
        scores = log_probs[np.arange(len(path)), path]  # NaN is the largest
        check_numbers(scores, f"The stream from {self.seconds:.1f} s on")
        before = self._total + np.concatenate(([0.0], np.cumsum(scores)))
        sums = np.concatenate(([0.0], np.cumsum(np.exp(scores))))
        for token, first, last in zip(*(part.tolist() for part in find_runs(path)), strict=True):
            posteriors = float(sums[last + 1] - sums[first])
            if first == 0 and token == self._symbol:
                if self._runs:  # else its token is committed already
                    self._runs[-1].last = self.frames + last
                    self._runs[-1].posteriors += posteriors
            else:
                run = _Run(token, self.frames + first, self.frames + last, posteriors, float(before[first]))
                self._runs.append(run)
        self._symbol, self._total = int(path[-1]), float(before[-1])
        self.frames += len(path)

    def best(self) -> Hypothesis:
        return self._reading(self._runs, self._total)

    def stable(self) -> int:
        return len(self._runs)

    def commit(self, count: int) -> Hypothesis:
        done, rest = self._runs[:count], self._runs[count:]
        cut = rest[0].before if rest else self._total
        for run in rest:
            run.before -= cut
        self._runs, self._total = rest, self._total - cut
        return self._reading(done, cut)

    def _reading(self, runs: list[_Run], score: float) -> Hypothesis:
        return Hypothesis(
            tokens=tuple(run.token for run in runs),
            score=score,
            parts={"ctc": score},
            times=tuple(run.first * self.frame_seconds for run in runs),
            ends=tuple((run.last + 1) * self.frame_seconds for run in runs),
            confidences=tuple(min(run.posteriors / (run.last + 1 - run.first), 1.0) for run in runs),
        )


@final
class CtcBeamStream(StreamingSearch):
    """Prefix beam search; times and confidences come from the best alignment, as in ``CtcBeamSearch``."""

    def __init__(
        self, config: CtcBeamConfig, score: Score, frame_seconds: float, helped: Helped | None = None
    ) -> None:
        self.frame_seconds, self.frames = frame_seconds, 0
        self._config, self._score, self._helped = config, score, helped
        self._beam = PrefixBeam(config)
        self._held: list[Floats] = []  # the last log-probabilities: those that the alignment still needs
        # The last committed token where frames that are held may still be its own; it has the first of them.
        self._lead: tuple[int, ...] = ()
        self._found: tuple[Floats, Alignment] | None = None

    def advance(self, encoded: Any) -> None:
        if len(encoded) == 0:
            return
        log_probs = self._score(encoded)
        check_numbers(log_probs, f"The stream from {self.seconds:.1f} s on")
        if self._helped is not None and self._beam.companion is None:  # only now is the vocabulary known
            self._beam.companion = self._helped(log_probs.shape[1])
        self._beam.read(log_probs)
        self._held.append(log_probs)
        self.frames += len(log_probs)
        self._found = None

    def best(self) -> Hypothesis:
        log_probs, alignment = self._aligned()
        return self._reading(log_probs, alignment, len(alignment.tokens) - len(self._lead), len(log_probs))

    def stable(self) -> int:
        readings = [tokens for tokens, _ in self._beam.readings()]
        return sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, zip(*readings, strict=False)))

    def commit(self, count: int) -> Hypothesis:
        log_probs, alignment = self._aligned()
        place = len(self._lead) + count - 1  # of the last token to commit
        lead, cut = self._lead, 0
        if place + 1 == len(alignment.tokens):  # all: a token that ends the path may go on
            lead = tuple(symbol for symbol in alignment.path[-1:] if symbol != BLANK)
            cut = len(log_probs) - len(lead)
        elif count:
            lead, cut = alignment.tokens[place : place + 1], alignment.last[place]
        reading = self._reading(log_probs, alignment, count, cut + len(lead))
        self._held = [log_probs[cut:]] if cut < len(log_probs) else []
        left = len(log_probs) - cut
        self._beam.forget(count, lambda rest: fewest_frames((*lead, *rest)) <= left)
        self._lead, self._found = lead, None
        return reading

    def _aligned(self) -> tuple[Floats, Alignment]:
        """The held frames, and where the lead and the best reading lie in them."""
        if self._found is None:
            log_probs = np.concatenate(self._held) if self._held else np.zeros((0, 1))
            self._held = [log_probs] if len(log_probs) else []
            tokens = self._lead + self._beam.readings()[0][0]
            (alignment,) = align_many(log_probs, [tokens], name="The stream")
            self._found = log_probs, alignment
        return self._found

    def _reading(self, log_probs: Floats, alignment: Alignment, count: int, frames: int) -> Hypothesis:
        """The first ``count`` tokens after the lead, scored from behind its frame to ``frames``."""
        start, skip = self.frames - len(log_probs), len(self._lead)
        path = np.asarray(alignment.path[skip:frames], dtype=np.int64)
        score = float(log_probs[skip + np.arange(len(path)), path].sum())
        which = slice(skip, skip + count)
        return Hypothesis(
            tokens=alignment.tokens[which],
            score=score,
            parts={"ctc": score},
            times=tuple((start + first) * self.frame_seconds for first in alignment.first[which]),
            ends=tuple((start + last + 1) * self.frame_seconds for last in alignment.last[which]),
            confidences=alignment.confidences[which],
        )
