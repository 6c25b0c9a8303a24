"""How long an n-gram model of a million words takes to estimate, and how long its queries take.

    python benchmarks/lm_speed.py [--words 1000000] [--text FILE ...]

Text is drawn with a fixed seed: sentences of two to twenty words, each word after one of two chains over a
Zipf vocabulary, so that bigrams repeat as in language; or it is the files given, repeated until there are
enough words. Prints seconds on the clock and of the processor for: reading, a word 3-gram, a letter 6-gram,
one score per call site (a batch of sentences), rows over the whole vocabulary that nothing has cached, and a
scorer's step on rows it has met (what a search pays).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from firstwords.lm.language_model import NgramHeader, NgramLanguageModel
from firstwords.lm.ngram_estimate import estimate_ngram
from firstwords.lm.ngram_scorer import NgramScorer
from firstwords.lm.ngram_text import Line, Unit, gather, read_lines, splitter, text_files
from firstwords.lm.perplexity import score_sentences
from firstwords.text.characters import GraphemeTokenizer
from firstwords.text.normalize import normalizer

VOCABULARY = 50_000


def drawn(words: int, seed: int = 1) -> list[str]:
    """Sentences over a Zipf vocabulary of made-up words."""
    generator = np.random.default_rng(seed)
    letters = np.array(list("aaaeeeiiooutnsrlhdcmpgbkyw"))
    names = ["".join(generator.choice(letters, n)) for n in generator.integers(1, 12, VOCABULARY)]
    rank = np.minimum(generator.zipf(1.2, words), VOCABULARY) - 1
    follows = generator.integers(0, 50, words) + 7 * np.roll(rank, 1)  # 50 likely words after each
    rank = np.where(generator.random(words) < 0.5, follows % VOCABULARY, rank)
    sentences: list[str] = []
    at = 0
    while at < words:
        length = int(generator.integers(2, 21))
        sentences.append(" ".join(names[i] for i in rank[at : at + length]))
        at += length
    return sentences


def repeated(files: list[Path], words: int) -> list[str]:
    """The lines of the files, again and again."""
    lines = [line.text for line in read_lines(text_files(files))]
    count = sum(len(line.split()) for line in lines)
    return (lines * (1 + words // max(1, count)))[: 1 + len(lines) * words // max(1, count)]


@contextmanager
def timed(name: str) -> Iterator[None]:
    clock, processor = time.perf_counter(), time.process_time()
    yield
    seconds = time.perf_counter() - clock, time.process_time() - processor
    print(f"{seconds[0]:8.2f} s on the clock, {seconds[1]:7.2f} s of the processor: {name}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--words", type=int, default=1_000_000)
    parser.add_argument("--text", type=Path, nargs="*")
    options = parser.parse_args()
    texts = repeated(options.text, options.words) if options.text else drawn(options.words)
    models: dict[str, NgramLanguageModel] = {}
    plans: tuple[tuple[Unit, int], ...] = (("word", 3), ("char", 6))
    for unit, order in plans:
        with timed(f"{unit}: normalize and number"):
            lines = (Line(text, "", 0) for text in texts)
            text = gather(lines, split=splitter(unit), normalize=normalizer("default"))
        with timed(f"{unit}: estimate {order}-gram"):
            model = estimate_ngram(text.tokens, text.words, order).model
        models[unit] = NgramLanguageModel(NgramHeader(unit=unit, order=order), model)
        print(f"    {len(text.tokens) - 2 * text.sentences:,} units, n-grams {model.counts}", flush=True)
    ids = [models["word"].model.word_ids(text.split()) for text in texts[:2000]]
    with timed(f"word: {sum(map(len, ids)) + len(ids)} scores, 2000 sentences at once"):
        score_sentences(models["word"].model, ids)

    letters = models["char"]
    states = np.flatnonzero(letters.model.next_state == np.arange(len(letters.model.parent)))
    some = np.random.default_rng(0).choice(states, 2000)
    with timed(f"char: 2000 rows of {len(letters.model.words)} words, nothing cached"):
        letters.model.rows(some)
    tokenizer = GraphemeTokenizer.train(texts[:2000])
    scorer = NgramScorer(letters, tokenizer)
    tokens = [tokenizer.encode(text)[:60] for text in texts[:64] if len(text) >= 60][:32]
    steps = torch.tensor([row for row in tokens if len(row) == 60]).T
    for name in ("first time", "met before"):
        with timed(f"char: scorer, 60 steps of {steps.shape[1]} rows x {scorer.vocabulary}, {name}"):
            state, last = scorer.start(steps.shape[1]), torch.zeros(steps.shape[1], dtype=torch.int64)
            for following in steps:
                _, state = scorer.score(last, state)
                last = following


if __name__ == "__main__":
    main()
