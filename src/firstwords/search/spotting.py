"""Phrases looked for in the frames themselves: each against what the model would read there without it.

A search follows what is likely letter by letter, and has left a name long before its end where one letter in
two is wrong. Here every phrase is laid over every stretch of frames (Viterbi, CTC topology):

    score(phrase) = max over stretches of  log P(best path of the phrase) - log P(best path of anything)

which is 0 at most. Long phrases and such with rare letters score low everywhere, short and common ones high:
what counts is how far a score lies above those of the same phrase where nobody says it, less what decoys gain
in the same utterance (zero and test normalisation, Auckenthaler et al., 2000, "Score normalization for
text-independent speaker verification systems", Digital Signal Processing 10; in keyword search Karakos et
al., 2013, ASRU, "Score normalization and system combination for improved keyword spotting"):

    z = (score - mean) / deviation - share * mean over decoys of theirs

Where z reaches a threshold, the frames of that stretch are made to say the phrase, and any search over CTC
reads it there; of stretches that overlap the one with the highest z is taken. Of a phrase only the best
stretch is known: it is found once in an utterance. In numpy, without torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from firstwords.search.ctc_common import BLANK
from firstwords.search.words import WordBoundaries

_NEVER = np.float32(-1e9)
_UNSAID = -30.0  # nats below what a frame is made to say: everything else there

Scores = NDArray[np.float32]


class Stretches(NamedTuple):
    """Of every phrase its best stretch; frame 0 is the silence before the first one of the utterance."""

    scores: Scores  # (W,) at most 0
    first: NDArray[np.int64]  # (W,)
    last: NDArray[np.int64]  # (W,) inclusive


class Spot(NamedTuple):
    """A phrase that was found, by its number, and where, counted as in ``Stretches``."""

    phrase: int
    z: float
    first: int
    last: int


@dataclass(frozen=True)
class Background:
    """What the scores of phrases are where nobody says them; (W,) each."""

    means: NDArray[np.float64]
    deviations: NDArray[np.float64]


@final
class PhraseTable:
    """Phrases as states of one network each, padded to the longest; immutable.

    Args:
        phrases: tokens of each, without what parts it from its neighbours; none is empty.
        boundaries: of the tokenizer that they were spelled with. A phrase consists of whole words.
    """

    def __init__(self, phrases: Sequence[Sequence[int]], boundaries: WordBoundaries) -> None:
        self.boundaries = boundaries
        self._before, self._behind = boundaries.vocabulary, boundaries.vocabulary + 1  # labels of word ends
        labels = [self._labels(tokens) for tokens in phrases]
        width = max((len(one) for one in labels), default=1)
        self.labels = np.full((len(labels), width), BLANK, dtype=np.int64)
        self.final = np.array([len(one) - 1 for one in labels], dtype=np.int64)
        for row, one in enumerate(labels):
            self.labels[row, : len(one)] = one
        self.skips = np.zeros(self.labels.shape, dtype=bool)  # may come straight from two states before
        self.skips[:, 2:] = (self.labels[:, 2:] != BLANK) & (self.labels[:, 2:] != self.labels[:, :-2])

    def __len__(self) -> int:
        return len(self.labels)

    def scan(self, log_probs: NDArray[np.floating]) -> Stretches:
        """(T, V) natural-log CTC probabilities -> the best stretch of every phrase."""
        scores = self._emissions(log_probs)
        count, width = self.labels.shape
        best = np.full(count, _NEVER)
        first, last = np.zeros(count, np.int64), np.zeros(count, np.int64)
        living = np.full((count, width), _NEVER)
        begun = np.zeros((count, width), np.int64)
        rows = np.arange(count)
        flat = self.labels.ravel()
        for time, frame in enumerate(scores):
            living, begun = self._step(living, begun, time)
            living += frame[flat].reshape(count, width)
            ended = living[rows, self.final]
            better = ended > best
            best = np.where(better, ended, best)
            last[better] = time
            first[better] = begun[rows, self.final][better]
        return Stretches(best, first, last)

    def write(self, log_probs: NDArray[np.floating], spots: Sequence[Spot]) -> NDArray[np.float64]:
        """A copy of (T, V) log-probabilities in which the frames of the spots say their phrases."""
        written = np.array(log_probs, dtype=np.float64)
        for spot in spots:
            for time, label in enumerate(self._path(log_probs, spot), start=spot.first - 1):
                if 0 <= time < len(written):
                    said = float(log_probs[time, label])
                    written[time] = said + _UNSAID
                    written[time, label] = said
        return written

    def _path(self, log_probs: NDArray[np.floating], spot: Spot) -> list[int]:
        """The token or blank of every frame of a spot, on the best path of its phrase."""
        states = self.labels[spot.phrase, : self.final[spot.phrase] + 1]
        emissions = self._emissions(log_probs)[spot.first : spot.last + 1, states]
        living = np.full(len(states), _NEVER)
        living[0] = emissions[0, 0]
        came: list[NDArray[np.int64]] = []
        for frame in emissions[1:]:
            steps = np.stack((living, np.roll(living, 1), np.roll(living, 2)))
            steps[1, :1] = steps[2, :2] = _NEVER
            steps[2, ~self.skips[spot.phrase, : len(states)]] = _NEVER
            came.append(steps.argmax(axis=0))
            living = steps.max(axis=0) + frame
        state, found = len(states) - 1, [len(states) - 1]
        for back in reversed(came):
            state -= int(back[state])
            found.append(state)
        silence = np.full((1, log_probs.shape[1]), 0.0)
        heard = np.concatenate((silence, log_probs, silence))[spot.first : spot.last + 1]
        return [self._spoken(int(states[n]), frame) for n, frame in zip(reversed(found), heard, strict=True)]

    def _labels(self, tokens: Sequence[int]) -> list[int]:
        own = list(tokens)
        if not self.boundaries.begins[own[0]]:
            own.insert(0, self._before)
        own.append(self._behind)
        return [label for token in own for label in (token, BLANK)][:-1]

    def _emissions(self, log_probs: NDArray[np.floating]) -> Scores:
        """(T, V) -> (T + 2, V + 2): below the best of each frame; labels of word ends, silence around."""
        own = np.asarray(log_probs, dtype=np.float32)
        own = own - own.max(axis=1, keepdims=True, initial=_NEVER)
        around = np.full((1, own.shape[1]), _NEVER)
        parts, ends = self.boundaries.parts, self.boundaries.parts | self.boundaries.begins
        columns = [np.pad(own.max(axis=1, initial=_NEVER, where=kind), 1) for kind in (parts, ends)]
        return np.column_stack((np.concatenate((around, own, around)), *columns))  # silence parts words

    def _step(self, living: Scores, begun: NDArray[np.int64], time: int) -> tuple[Scores, NDArray[np.int64]]:
        """One frame on, before its scores are added: each state from where it is reached best."""
        best, origin = living.copy(), begun.copy()
        nearer = living[:, :-1] > best[:, 1:]
        best[:, 1:][nearer], origin[:, 1:][nearer] = living[:, :-1][nearer], begun[:, :-1][nearer]
        skipping = self.skips[:, 2:] & (living[:, :-2] > best[:, 2:])
        best[:, 2:][skipping], origin[:, 2:][skipping] = living[:, :-2][skipping], begun[:, :-2][skipping]
        fresh = best[:, 0] < 0
        best[fresh, 0], origin[fresh, 0] = 0.0, time
        return best, origin

    def _spoken(self, label: int, frame: NDArray[np.floating]) -> int:
        """The token of a label: of a word's end the one that this frame finds likeliest."""
        if label < self._before:
            return label
        parts, begins = self.boundaries.parts, self.boundaries.begins
        ids = np.flatnonzero(parts if label == self._before else parts | begins)
        return int(ids[frame[ids].argmax()]) if len(ids) else BLANK


def standardized(scores: Scores, background: Background) -> NDArray[np.float64]:
    """Scores (W,) -> in deviations above what the same phrases have where nobody says them."""
    return (scores - background.means) / background.deviations


def apart(stretches: Stretches, z: NDArray[np.float64], threshold: float) -> list[Spot]:
    """Phrases with z (W,) of at least the threshold, the highest first; none overlaps one before it.

    Two may share the frame in which one ends and the other begins.
    """
    found: list[Spot] = []
    for phrase in np.argsort(-z, kind="stable"):
        if z[phrase] < threshold:
            break
        spot = Spot(int(phrase), float(z[phrase]), int(stretches.first[phrase]), int(stretches.last[phrase]))
        if all(spot.first >= other.last or other.first >= spot.last for other in found):
            found.append(spot)
    return found


def background_of(scores: NDArray[np.floating], said: NDArray[np.bool_]) -> Background:
    """Scores of phrases in utterances (N, W), and where they are said -> what they are elsewhere.

    A deviation is at least a tenth of the median one: a phrase that was seen too rarely decides nothing.
    """
    masked = np.ma.masked_array(np.asarray(scores, dtype=np.float64), said)
    means, deviations = masked.mean(axis=0), masked.std(axis=0)
    own = np.asarray(deviations.filled(0.0))
    least = max(0.1 * float(np.median(own)), 1e-3) if len(own) else 1e-3
    return Background(np.asarray(means.filled(0.0)), np.maximum(own, least))


@final
class PhraseSpotter:
    """Writes into frames the phrases that it finds there.

    Args:
        table: the phrases, and behind them the decoys.
        background: of both.
        phrases: how many of them are no decoys.
        share: of the decoys' mean z that is taken off.
        threshold: least z of a phrase that is found.
        identity: changes whenever any of this does.
    """

    def __init__(
        self,
        table: PhraseTable,
        background: Background,
        *,
        phrases: int,
        share: float,
        threshold: float,
        identity: str = "",
    ) -> None:
        self.table, self.background, self.phrases = table, background, phrases
        self.share, self.threshold, self.identity = share, threshold, identity

    def __call__(self, log_probs: NDArray[np.floating]) -> NDArray[np.float64]:
        """(T, V) CTC log-probabilities -> the same, but for frames in which a phrase was found."""
        return self.table.write(log_probs, self.spots(log_probs))

    def spots(self, log_probs: NDArray[np.floating]) -> list[Spot]:
        """What is found in (T, V) CTC log-probabilities, the surest first."""
        stretches = self.table.scan(log_probs)
        z = standardized(stretches.scores, self.background)
        count = self.phrases
        decoys = float(z[count:].mean()) if self.share and len(z) > count else 0.0
        own = Stretches(stretches.scores[:count], stretches.first[:count], stretches.last[:count])
        return apart(own, z[:count] - self.share * decoys, self.threshold)
