"""The gate judges what was heard at first; the closed vocabulary comes after it, in greedy search alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import torch

from firstwords.inference.reading import Reader
from firstwords.search.biasing import phrase_scorer
from firstwords.search.fusion import NO_SCORERS, Scorers
from firstwords.search.interface import CtcBeamConfig, GreedyConfig, LanguageModelConfig, SearchConfig
from firstwords.search.speech_gate import SpeechGate
from firstwords.tensors import Padded
from firstwords.text.characters import GraphemeTokenizer

WORDS = frozenset({"on", "off"})
TOKENIZER = GraphemeTokenizer.train(["on off"] * 3)


class Head:
    """Encoded frames are log-probabilities already."""

    vocabulary = len(TOKENIZER.pieces)

    def log_probs(self, encoded: Padded) -> Padded:
        return encoded


def frames(*posteriors: dict[str, float]) -> Padded:
    """What each frame gives to letters; the rest goes to the blank, a little to all others."""
    table = torch.full((len(posteriors), len(TOKENIZER.pieces)), 1e-5)
    for row, shares in zip(table, posteriors, strict=True):
        row[0] = 1 - sum(shares.values()) + 1e-5
        for letter, share in shares.items():
            row[TOKENIZER.encode(letter)[0]] = share
    return Padded((table / table.sum(dim=1, keepdim=True)).log()[None], torch.tensor([len(posteriors)]))


# "of", in which the second f was half heard: two of three letters are surely there
HALF = frames({"o": 0.9}, {}, {"f": 0.9}, {}, {"f": 0.4})


def read(gate: SpeechGate, config: SearchConfig, scorers: Scorers = NO_SCORERS) -> list[str]:
    head = Head()
    model = SimpleNamespace(ctc=head, named_heads=lambda: {"ctc": head}.items(), frame_seconds=0.04)
    (readings,) = Reader(cast(Any, model), TOKENIZER, gate, config, scorers)(HALF)
    return [TOKENIZER.decode(reading.tokens) for reading in readings]


def test_near_misses_become_known_words() -> None:
    assert read(SpeechGate(0.0, WORDS), GreedyConfig()) == ["off", "of"]


def test_without_a_closed_vocabulary_nothing_changes() -> None:
    assert read(SpeechGate(0.0), GreedyConfig()) == ["of"]


def test_noise_is_not_made_a_word_of() -> None:
    """The gate counts letters of unknown words as nothing, and comes first."""
    assert read(SpeechGate(0.1, WORDS), GreedyConfig()) == []


def test_other_help_stands_alone() -> None:
    assert read(SpeechGate(0.0, WORDS), CtcBeamConfig(beam=4, n_best=1)) == ["of"]
    phrases = phrase_scorer({"of": 0.5}, TOKENIZER)
    assert read(SpeechGate(0.0, WORDS), GreedyConfig(), Scorers(phrases=phrases)) == ["of"]


def test_help_without_weight_leaves_the_closed_vocabulary_on() -> None:
    scorers = Scorers(language_model=phrase_scorer({"of": 0.5}, TOKENIZER))
    nothing = LanguageModelConfig(weight=0.0)
    config = GreedyConfig(language_model=nothing)
    assert read(SpeechGate(0.0, WORDS), config, scorers) == ["off", "of"]
    bonus = GreedyConfig(language_model=nothing.with_(bonus=0.01))
    assert read(SpeechGate(0.0, WORDS), bonus, scorers) == ["of"]
