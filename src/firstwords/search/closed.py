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
from typing import final

import torch

from firstwords.heads.head import FrameHead
from firstwords.search.closed_stream import HeldFrames, LogProbs
from firstwords.search.ctc_beam import CtcBeamSearch
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
    """A closed vocabulary beside the greedy search of a stream (closed_stream.py), over tensors."""

    def __init__(self, closed: ClosedVocabulary, frame_seconds: float) -> None:
        self._closed = closed
        self._held = HeldFrames(closed.fits, self._again, frame_seconds)

    @torch.inference_mode()
    def score(self, encoded: Padded) -> Padded:
        """What the head says of the next frames (1, T, D); it is remembered."""
        found = self._closed.head.log_probs(encoded)
        self._held.hear(found.values[0, : int(found.lengths[0])].float().cpu().numpy())
        return found

    def mend(self, reading: Hypothesis, until: float, *, is_speech: bool) -> Hypothesis:
        """A final reading -> what to show, as ``HeldFrames.mend``."""
        return self._held.mend(reading, until, is_speech=is_speech)

    @torch.inference_mode()
    def _again(self, log_probs: LogProbs) -> Hypothesis:
        frames = Padded(torch.from_numpy(log_probs)[None], torch.tensor([len(log_probs)]))
        return self._closed.search(frames)[0][0]
