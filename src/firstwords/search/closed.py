"""Few words, all known: what is nearly one of them is read as it.

A recogniser of letters that was trained on commands or digits hears "vlume up" and "thre" now and then. Where
there are no other words than those of the training texts (``speech_gate.closed_vocabulary``), such a reading
is searched again, and every word that is none of them costs ``PENALTY`` nats:

    greedy                 seven four vlume up
    again, with the cost   seven four volume up        log P(audio) falls by less than the penalty

A word that is plainly something else stays what it is. Readings that hold known words alone are left as they
are, so most are searched once. Whether there is speech at all is judged by the greedy reading: known words
are put together from noise too, if one insists.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from firstwords.heads.head import FrameHead
from firstwords.search.ctc_beam import CtcBeamSearch
from firstwords.search.ctc_common import BLANK
from firstwords.search.fusion import Weighted
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.interface import CtcBeamConfig
from firstwords.search.known_words import BEAM, KNOWN_WORDS, PENALTY, KnownWords, numbered, spelled_once
from firstwords.search.lexicon import LexiconScorer
from firstwords.search.words import WordBoundaries
from firstwords.tensors import Padded
from firstwords.text.tokenizer import Tokenizer


def known_words(words: Iterable[str], tokenizer: Tokenizer, penalty: float = PENALTY) -> Weighted:
    """The words of a closed vocabulary -> what a search adds to its scores."""
    spelled = spelled_once(words, tokenizer)
    boundaries = WordBoundaries.of(tokenizer.pieces)
    scorer = LexiconScorer(KnownWords(len(spelled), penalty), numbered(spelled), boundaries, letter=0.0)
    return Weighted(KNOWN_WORDS, 1.0, scorer, hears=False)


@final
class ClosedVocabulary:
    """Reads again what holds unknown words.

    Args:
        head: frame-wise CTC scores of encoded frames.
        words: all there are, normalized as the training texts.
        frame_seconds: from one frame to the next.
    """

    def __init__(
        self,
        head: FrameHead,
        words: Iterable[str],
        tokenizer: Tokenizer,
        frame_seconds: float,
        *,
        penalty: float = PENALTY,
        beam: int = BEAM,
    ) -> None:
        self.head = head
        self.words = frozenset(words)
        self.tokenizer = tokenizer
        asked = (known_words(self.words, tokenizer, penalty),)
        self.search = CtcBeamSearch(CtcBeamConfig(beam=beam, n_best=1), frame_seconds, asked)

    def fits(self, reading: Hypothesis) -> bool:
        """Whether a reading holds known words alone."""
        return self.words.issuperset(self.tokenizer.decode(reading.tokens).split())

    def mend(self, encoded: Padded, found: Sequence[list[Hypothesis]]) -> list[list[Hypothesis]]:
        """(B, T, D) encoded frames and their readings, none where nobody speaks -> the readings to show.

        What an utterance was read as at first comes behind what replaces it.
        """
        mended = list(found)
        rows = [row for row, readings in enumerate(found) if readings and not self.fits(readings[0])]
        if rows:
            frames = Padded(encoded.values[rows].float(), encoded.lengths[rows])
            for row, again in zip(rows, self.search(self.head.log_probs(frames)), strict=True):
                mended[row] = again if again[0].tokens == found[row][0].tokens else [*again, *found[row]]
        return mended


@final
class ClosedStream:
    """A closed vocabulary beside the greedy search of a stream: what becomes final is searched again.

        frames     - s e v - n n - | - v l u m e - -       held since the last final
        final        s e v   n           until here: where the next token begins

    Memory grows with what is not final yet.
    """

    def __init__(self, closed: ClosedVocabulary, frame_seconds: float) -> None:
        self._closed, self._seconds = closed, frame_seconds
        self._held: list[Tensor] = []  # log-probabilities (T, V) since the last final
        self._first = 0  # frame of the first of them
        self._lead = BLANK  # the last final token, where the frames that are held may still be its own

    @torch.inference_mode()
    def score(self, encoded: Padded) -> Padded:
        """What the head says of the next frames (1, T, D); it is remembered."""
        found = self._closed.head.log_probs(encoded)
        self._held.append(found.values[0, : int(found.lengths[0])])
        return found

    @torch.inference_mode()
    def mend(self, reading: Hypothesis, until: float, *, is_speech: bool) -> Hypothesis:
        """The next final reading and the second at which the rest of the stream begins -> what to show.

        Args:
            is_speech: what is none is not searched, but its frames are let go.
        """
        if not self._held:
            return reading
        frames = torch.cat(self._held)
        cut = min(max(round(until / self._seconds) - self._first, 0), len(frames))
        mine, first = frames[:cut], self._first
        if self._lead != BLANK:
            going_on = int((mine.argmax(-1) == self._lead).long().cumprod(0).sum())
            mine, first = mine[going_on:], first + going_on
        self._held, self._first = [frames[cut:].clone()], self._first + cut  # a view would hold all
        ends_here = bool(reading.ends) and round(reading.ends[-1] / self._seconds) >= self._first
        self._lead = reading.tokens[-1] if ends_here else BLANK
        if not is_speech or not len(mine) or not reading.tokens or self._closed.fits(reading):
            return reading
        lengths = torch.tensor([len(mine)])
        again = self._closed.search(Padded(mine[None].float().cpu(), lengths))[0][0]
        if again.tokens == reading.tokens or again.times is None or again.ends is None:
            return reading
        return replace(
            again,
            times=tuple(time + first * self._seconds for time in again.times),
            ends=tuple(time + first * self._seconds for time in again.ends),
        )
