"""Searches of the runtime: the frames of a bundle in, readings out, in numpy.

CTC searches are those of search/ (the same arithmetic on the same log-probabilities); the greedy search of a
transducer is written for two graphs that are run from outside: what the decoder says after the last tokens
is kept, and the joiner is asked of several frames at once, since most of them are blank.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import final

import numpy as np
import numpy.typing as npt

from firstwords.export.bundle import BundleFacts
from firstwords.export.runtime_engine import Engine
from firstwords.export.runtime_graphs import Frames, Graphs
from firstwords.inference.transcript import Token, timed_tokens
from firstwords.search.ctc_common import BLANK, hypothesis_from_path
from firstwords.search.ctc_timed import timed_readings
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.interface import NARROW, CtcBeamConfig, GreedyConfig
from firstwords.search.prefix_beam import Beside, Floats, PrefixBeam, check_numbers
from firstwords.search.transducer_reading import Emission, reading

Read = Callable[[Sequence[Frames]], list[list[Hypothesis]]]
Helped = Callable[[int], Beside]  # beam -> what goes along with one empty prefix
_AHEAD = 16  # frames that the joiner is asked of at once
_KEPT = 4096  # answers of the decoder


def read_ctc(
    frames: Sequence[Frames],
    config: GreedyConfig | CtcBeamConfig,
    frame_seconds: float,
    helped: Helped | None,
) -> list[list[Hypothesis]]:
    """Log-probabilities (T, V) of utterances -> their readings, best first."""
    if isinstance(config, GreedyConfig):
        if helped is None:
            return [[greedy_reading(values, frame_seconds)] for values in frames]
        config = NARROW
    return [beam_readings(values.astype(np.float64), config, frame_seconds, helped) for values in frames]


def greedy_reading(log_probs: Frames, frame_seconds: float) -> Hypothesis:
    """(T, V) natural-log probabilities -> the reading of the best path."""
    if len(log_probs) == 0:
        return hypothesis_from_path(np.zeros(0, np.int64), np.zeros(0), frame_seconds)
    path = log_probs.argmax(axis=1)
    scores = log_probs[np.arange(len(path)), path].astype(np.float64)  # NaN is the largest
    check_numbers(scores, "A recording")
    return hypothesis_from_path(path, scores, frame_seconds)


def beam_readings(
    log_probs: Floats, config: CtcBeamConfig, frame_seconds: float, helped: Helped | None = None
) -> list[Hypothesis]:
    """(T, V) natural-log probabilities -> n-best readings of a prefix beam search."""
    check_numbers(log_probs, "A recording")
    beam = PrefixBeam(config, None if helped is None else helped(config.beam))
    beam.read(log_probs)
    return timed_readings(beam.ended()[: config.n_best], log_probs, frame_seconds, helped=helped is not None)


@final
class TransducerSteps:
    """Decoder and joiner of a transducer whose decoder sees the last ``context`` tokens alone."""

    def __init__(
        self, decoder: Engine, joiner: Engine, context: int, whole: npt.DTypeLike = np.int64
    ) -> None:
        self._decoder, self._joiner, self._whole = decoder, joiner, whole
        self.start: tuple[int, ...] = (-1,) * (context - 1) + (BLANK,)
        self._known: dict[tuple[int, ...], Frames] = {}

    @classmethod
    def of(cls, graphs: Graphs, context: int, whole: npt.DTypeLike) -> TransducerSteps:
        return cls(graphs.engine("decoder"), graphs.engine("joiner"), context, whole)

    def after(self, histories: Sequence[tuple[int, ...]]) -> Frames:
        """(rows, J) the decoder's output after these tokens."""
        known = self._known  # what another thread drops is still held here
        found = {history: known[history] for history in histories if history in known}
        if missing := sorted(set(histories) - found.keys()):
            (values,) = self._decoder(np.array(missing, dtype=self._whole))
            new = dict(zip(missing, values, strict=True))
            found |= new
            self._known = new if len(known) + len(new) > _KEPT else known | new
        return np.stack([found[history] for history in histories])

    def best(self, encoded: Frames, decoded: Frames) -> tuple[npt.NDArray[np.int64], Floats]:
        """(rows, J) of both -> the most probable symbol of each row and its log-probability."""
        (logits,) = self._joiner(encoded, decoded)
        symbols = logits.argmax(axis=1)
        peak = logits[np.arange(len(symbols)), symbols].astype(np.float64)
        rest = np.exp(logits.astype(np.float64) - peak[:, None]).sum(axis=1)
        scores = -np.log(rest)
        check_numbers(scores, "A recording")
        return symbols, scores


class Row:
    """One utterance on its way: frames, the next of them, what was written, and scores."""

    def __init__(self, frames: Frames, start: tuple[int, ...]) -> None:
        self.frames, self.history, self.at, self.score = frames, start, 0, 0.0
        self.written: list[Emission] = []
        self.before: list[float] = []  # the path's score before each of them


def read_transducer(
    frames: Sequence[Frames], steps: TransducerSteps, frame_seconds: float
) -> list[list[Hypothesis]]:
    """Encoder outputs (T, J) of utterances -> one reading each, at most one token a frame.

    All utterances go on together; each shows the joiner its next frames, and what lies behind the first
    token there is asked again.
    """
    rows = [Row(values, steps.start) for values in frames]
    while active := [row for row in rows if row.at < len(row.frames)]:
        parts = [row.frames[row.at : row.at + _AHEAD] for row in active]
        sizes = [len(part) for part in parts]
        decoded = np.repeat(steps.after([row.history for row in active]), sizes, axis=0)
        symbols, scores = steps.best(np.concatenate(parts), decoded)
        ends = np.cumsum(sizes)
        for row, first, end in zip(active, ends - sizes, ends, strict=True):
            advance(row, symbols[first:end], scores[first:end])
    return [[reading(row.written, {"transducer": row.score}, frame_seconds)] for row in rows]


def advance(row: Row, symbols: npt.NDArray[np.int64], scores: Floats) -> None:
    """Blanks up to the first token, and that token."""
    (found,) = symbols.nonzero()
    used = int(found[0]) + 1 if len(found) else len(symbols)
    if len(found):
        token = int(symbols[used - 1])
        row.before.append(row.score + float(scores[: used - 1].sum()))
        row.written.append(Emission(token, row.at + used - 1, float(np.exp(scores[used - 1]))))
        row.history = (*row.history[1:], token)
    row.score += float(scores[:used].sum())
    row.at += used


def spoken_tokens(reading: Hypothesis, length: float, facts: BundleFacts) -> list[Token]:
    """A reading of ``length`` seconds -> its tokens.

    What a streaming graph writes in the silence behind the end was said before it.
    """
    if not facts.streaming:
        return timed_tokens(reading, length)
    last = max(0.0, length - facts.frame_seconds)  # a token takes time
    return [
        replace(token, start=min(token.start, last), end=min(token.end, length))
        for token in timed_tokens(reading, math.inf)
    ]
