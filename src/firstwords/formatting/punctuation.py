"""Stage "punctuation": marks and capitals, by a small model of text (punctuation_model.py).

The model reads the words of the whole recording in a row, whatever the pauses between segments are, in
windows that overlap. Words that are not bare (a capital, a digit, a mark) keep how they are written, so that
the stage may follow others; a mark is added where none stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, final

import torch

from firstwords.formatting.punctuation_model import LoadedPunctuator
from firstwords.formatting.punctuation_text import cased, feature, in_windows, mark_in
from firstwords.formatting.stage import Rewrite, Stage, Words
from firstwords.text.normalize import normalizer

_WINDOW, _MARGIN = 256, 32  # words


class Guess(NamedTuple):
    """What the model says of one word: the mark behind it ("" for none) and its case, a number of CASES."""

    mark: str
    case: int


@final
class Punctuation(Stage):
    """Bare words -> words with marks and capitals."""

    def __init__(self, loaded: LoadedPunctuator) -> None:
        self.loaded = loaded
        self._normalize = normalizer(loaded.config.normalizer)

    @property
    def name(self) -> str:
        return "punctuation"

    @property
    def identity(self) -> str:
        return f"{self.name} {self.loaded.digest}"

    def rewrites(self, segments: Sequence[Words]) -> list[list[Rewrite]]:
        guesses = iter(self.guesses([word.word for words in segments for word in words]))
        return [
            [
                Rewrite(at, at + 1, (text,))
                for at, (word, guess) in enumerate(zip(words, guesses, strict=False))
                if (text := self._written(word.word, guess)) != word.word
            ]
            for words in segments
        ]

    @torch.inference_mode()
    def guesses(self, words: Sequence[str]) -> list[Guess]:
        """Words in a row -> what the model says of each."""
        model, marks = self.loaded.model, ("", *self.loaded.config.marks)
        features = [feature(word, self._normalize) for word in words]
        found: list[Guess] = []
        for start, end, first, last in in_windows(len(words), _WINDOW, _MARGIN):
            scores = model(model.bags([features[start:end]]))
            inner = slice(first - start, last - start)
            mark, case = scores.marks[0].argmax(1)[inner], scores.cases[0].argmax(1)[inner]
            found += [Guess(marks[m], c) for m, c in zip(mark.tolist(), case.tolist(), strict=True)]
        return found

    def _written(self, word: str, guess: Guess) -> str:
        bare = word == self._normalize(word) and not any(letter.isdigit() for letter in word)
        text = cased(word, guess.case, self.loaded.forms.get(word)) if bare else word
        return text if mark_in(word[-1:]) else f"{text}{guess.mark}"
