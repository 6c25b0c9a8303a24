"""Small n-gram models for tests: sentences in, model out."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np

from firstwords.lm.language_model import NgramHeader, NgramLanguageModel
from firstwords.lm.ngram import BEGIN, END, SPECIAL, NgramModel
from firstwords.lm.ngram_estimate import Estimate, estimate_ngram
from firstwords.lm.ngram_text import Line, Unit, gather, splitter
from firstwords.text.normalize import normalizer
from firstwords.text.tokenizer import Tokenizer


def draw_text(seed: int, words: str, sentences: int) -> list[str]:
    """Sentences of one-letter words, the first letters the most frequent."""
    draw = random.Random(seed)
    weights = [1 / (i + 1) for i in range(len(words))]
    return [" ".join(draw.choices(words, weights, k=draw.randint(1, 9))) for _ in range(sentences)]


def estimate(sentences: Sequence[str], order: int, prune: Sequence[int] = (0,)) -> Estimate:
    """Sentences of words -> estimate, without the room's own reading of text."""
    words = [*SPECIAL, *sorted({w for s in sentences for w in s.split()})]
    tokens = [i for s in sentences for i in (BEGIN, *map(words.index, s.split()), END)]
    return estimate_ngram(np.array(tokens, dtype=np.int32), words, order, prune)


def train(
    sentences: Sequence[str], unit: Unit, order: int = 3, tokenizer: Tokenizer | None = None
) -> NgramLanguageModel:
    """Sentences -> language model of any unit."""
    lines = (Line(s, f"line {i}", len(s)) for i, s in enumerate(sentences, start=1))
    text = gather(lines, split=splitter(unit, tokenizer), normalize=normalizer("default"))
    header = NgramHeader(unit=unit, order=order, pieces=tokenizer.piece_hash if tokenizer else "")
    return NgramLanguageModel(header, estimate_ngram(text.tokens, text.words, order).model, tokenizer)


def prob(model: NgramModel, context: Sequence[str], word: str) -> float:
    """P(word | context), the context read from nothing on."""
    state = np.array([0])
    for w in context:
        state = model.advance(state, model.word_ids([w]))[1]
    return math.exp(model.advance(state, model.word_ids([word]))[0][0])
