"""Words for the runtime's CTC searches: phrases of a file, word language models, the closed vocabulary.

All of it is that of search/, in numpy. A bundle has its pieces and no more of its tokenizer. Where each piece
is a letter there is one way to spell a word; of longer pieces a tokenizer chooses by what it has learned, so
phrases and words of others could be waited for in pieces that the model never writes: these are refused. The
closed vocabulary was spelled when the bundle was made (``known_words`` in bundle.json).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import final

import numpy as np

from firstwords.errors import UsageError
from firstwords.export.bundle import BundleFacts
from firstwords.export.runtime_graphs import Frames
from firstwords.export.runtime_help import Help, Part, RowCompanion
from firstwords.export.runtime_search import beam_readings
from firstwords.search.closed_stream import HeldFrames, LogProbs
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.interface import CtcBeamConfig
from firstwords.search.known_words import BEAM, KNOWN_WORDS, KnownWords, numbered
from firstwords.search.lexicon_rows import LexiconRows
from firstwords.search.phrase_rows import PhraseRows, phrases_unspelled, read_phrases, spelled_phrases
from firstwords.search.speech_gate import SpeechGate
from firstwords.search.words import WordBoundaries
from firstwords.text.graphemes import graphemes
from firstwords.text.normalize import normalizer
from firstwords.text.pieces import BYTES
from firstwords.text.tokenizer import Tokenizer


def check_letters(tokenizer: Tokenizer, what: str) -> None:
    """UsageError where a piece has several letters."""
    long = next((p for p in tokenizer.pieces[1:] if p not in BYTES and len(graphemes(p)) > 1), None)
    if long is not None:
        raise UsageError(
            f"{what} cannot help this bundle: its pieces have several letters ('{long}'), and how its model "
            "spells a word in them is not in the bundle.",
            mend='Use the model folder, or train with tokenizer.kind = "graphemes".',
        )


def open_phrases(path: Path, tokenizer: Tokenizer, normalizer_name: str) -> Help:
    """A file of phrases (``read_phrases``) -> help for a bundle's searches."""
    check_letters(tokenizer, f"--phrases {path}")
    phrases = read_phrases(path, normalizer(normalizer_name))
    spelled = spelled_phrases(phrases, tokenizer)
    rows = PhraseRows(spelled, WordBoundaries.of(tokenizer.pieces))
    return Help((Part("phrases", 1.0, rows),), json.dumps(phrases, sort_keys=True))


def told_of_phrases(path: Path, tokenizer: Tokenizer, normalizer_name: str) -> list[str]:
    """What a user must be told of the phrases of a file."""
    return phrases_unspelled(read_phrases(path, normalizer(normalizer_name)), tokenizer)


@final
class Judge:
    """Is a reading speech at all, and are its words known ones, where a bundle knows them all?"""

    def __init__(self, facts: BundleFacts, tokenizer: Tokenizer) -> None:
        words = frozenset(facts.speech_gate.words)
        self.gate = SpeechGate(facts.speech_gate.threshold, words)
        self.known = words if facts.known_words else frozenset[str]()
        self._tokenizer, self._frame_seconds = tokenizer, facts.frame_seconds
        self._parts: tuple[Part, ...] = ()
        if self.known:
            spelled, boundaries = numbered(facts.known_words), WordBoundaries.of(tokenizer.pieces)
            rows = LexiconRows(KnownWords(len(spelled)), spelled, boundaries, letter=0.0)
            self._parts = (Part(KNOWN_WORDS, 1.0, rows),)

    def shown(self, frames: Frames, readings: list[Hypothesis], *, closed: bool) -> list[Hypothesis]:
        """Frames (T, V) and their readings -> those to show, none where nobody speaks.

        Args:
            closed: what holds unknown words is read again, the unknown at a price (search/closed.py); its
                first reading comes behind what replaces it.
        """
        if not self.gate.is_speech(readings[0], self._tokenizer):
            return []
        if not closed or self._fits(readings[0]):
            return readings
        again = self._again(frames)
        return [again] if again.tokens == readings[0].tokens else [again, *readings]

    def held_frames(self) -> HeldFrames:
        """The closed vocabulary for one stream."""
        return HeldFrames(self._fits, self._again, self._frame_seconds)

    def _fits(self, reading: Hypothesis) -> bool:
        return self.known.issuperset(self._tokenizer.decode(reading.tokens).split())

    def _again(self, frames: LogProbs) -> Hypothesis:
        config = CtcBeamConfig(beam=BEAM, n_best=1)
        found = beam_readings(
            frames.astype(np.float64), config, self._frame_seconds, lambda _: RowCompanion(self._parts)
        )
        return found[0]
