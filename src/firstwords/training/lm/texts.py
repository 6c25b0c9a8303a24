"""Text for a neural language model: ids, a vocabulary, and sentences put aside for dev.

one row of ids      0  a  b  0  c  0        two sentences, "a b" and "c"
read                0  a  b     0  c        what stands before
to say              a  b  0     c  0        what comes next
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int64

from firstwords.data.manifest import MANIFEST, load_corpus
from firstwords.errors import TextError
from firstwords.lm.compared import Compared, compared_with
from firstwords.lm.neural.folder import MARK, UNKNOWN
from firstwords.lm.ngram import BEGIN, SPECIAL
from firstwords.lm.ngram_text import (
    Leaks,
    Line,
    TrainingText,
    gather,
    held_out,
    measured_corpora,
    read_lines,
    scored,
    splitter,
    text_files,
)
from firstwords.text.normalize import normalizer
from firstwords.text.tokenizer import BLANK, Tokenizer
from firstwords.training.lm.recipe import LmRecipe
from firstwords.training.prepare import DEV_NAMES

_MOST_HELD_OUT = 1000  # sentences
_RARE = 1  # letters seen so often or less are learned as <unk>


@dataclass(frozen=True)
class Sources:
    """Where text comes from, and what of it must not be learned.

    Args:
        text: files, folders, corpora.
        dev: a text file, a folder, or a corpus, of which the dev split is read and test must not be; none:
            sentences of the text.
        exclude: corpora whose dev and test must not be read.
    """

    text: tuple[Path, ...]
    dev: Path | None = None
    exclude: tuple[Path, ...] = ()
    leaks: Literal["refuse", "drop", "allow"] = "refuse"


@dataclass(frozen=True)
class Texts:
    """What is learned and what it is measured on, as rows of ids with a 0 at every end.

    Args:
        words: id -> unit.
        seen: how often each stands in the training text; that of 0 counts the sentences.
        empty: lines without text.
    """

    words: tuple[str, ...]
    seen: Int64[np.ndarray, " units"]
    train: Int64[np.ndarray, " tokens"]
    dev: Int64[np.ndarray, " tokens"]
    empty: int
    leaks: Leaks
    held_out: bool  # dev was a part of the text
    compared: Compared

    @property
    def fingerprint(self) -> str:
        """Another one for another text."""
        digest = hashlib.sha256("\n".join(self.words).encode())
        for row in (self.train, self.dev):
            digest.update(row.tobytes() + b"|")
        return digest.hexdigest()

    @property
    def dev_unknown(self) -> int:
        """Units of dev that were never seen (letters: that are <unk>)."""
        unknown = self.seen == 0
        unknown[UNKNOWN] |= self.words[UNKNOWN] == SPECIAL[0]
        return int(unknown[self.dev].sum())


def read_texts(sources: Sources, recipe: LmRecipe, tokenizer: Tokenizer | None) -> Texts:
    """Files -> ids. Lines that stand in dev or test are refused, dropped or kept, as ``sources`` says."""
    split, normalize = splitter(recipe.unit, tokenizer), normalizer(recipe.normalizer)
    files = text_files(sources.text)
    exclude = list(sources.exclude)
    lines = None if sources.dev is None else list(_dev_lines(sources.dev))
    if sources.dev is not None and (sources.dev / MANIFEST).is_file():
        exclude.append(sources.dev)  # its test must not be learned either
    corpora = measured_corpora(files, exclude)
    held = held_out(corpora, normalize)
    dev: TrainingText | None = None
    if lines is not None:
        dev = gather(lines, split=split, normalize=normalize)
        for line in lines:
            for form in scored(line.text, normalize):
                held[form] = f"{line.where} (--dev)"
    train = gather(read_lines(files), split=split, normalize=normalize, held=held, leaks=sources.leaks)
    learned = sentences_of(train)
    if dev is not None:
        measured = sentences_of(dev)
    else:
        learned, measured = hold_out(learned, recipe.held_out, recipe.seed)
    words, seen = _vocabulary(learned, tokenizer)
    ids = {word: n for n, word in enumerate(words)}
    if tokenizer is None:
        del ids[words[MARK]], ids[words[UNKNOWN]]
    return Texts(
        words,
        seen,
        _row(learned, ids),
        _row(measured, ids),
        train.empty,
        train.leaks,
        held_out=dev is None,
        compared=compared_with(corpora, train.leaks.count, sources.leaks),
    )


def _dev_lines(source: Path) -> Iterable[Line]:
    if not (source / MANIFEST).is_file():
        return read_lines(text_files([source]))
    corpus = load_corpus(source)
    for name in DEV_NAMES:
        spoken = [u for u in corpus.split(name) if u.text]
        if spoken:
            return [Line(u.text or "", f"utterance '{u.id}' of '{source}'", 0) for u in spoken]
    raise TextError(
        f"'{source}' has no transcripts in a dev split (splits: {', '.join(corpus.splits) or 'none'}).",
        mend="Give --dev a text file, or leave it away: some sentences of the text are put aside then.",
    )


def sentences_of(text: TrainingText) -> list[tuple[str, ...]]:
    """A text -> the units of its sentences."""
    starts = np.flatnonzero(text.tokens == BEGIN)
    parts = np.split(text.tokens, starts[1:])
    return [tuple(text.words[i] for i in part[1:-1].tolist()) for part in parts]


def hold_out(
    sentences: Sequence[tuple[str, ...]], share: float, seed: int
) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Sentences -> those to learn and those to measure; no sentence is in both, however often it was said."""
    different = list(dict.fromkeys(sentences))
    if len(different) < 2:
        raise TextError(
            "the text has one sentence again and again: nothing can be put aside to measure on.",
            mend="Give more text, or other text with --dev.",
        )
    count = max(1, min(_MOST_HELD_OUT, round(share * len(different)), len(different) - 1))
    drawn = np.random.default_rng([seed, 7]).permutation(len(different))[:count]
    aside = {different[n] for n in drawn.tolist()}
    return [s for s in sentences if s not in aside], [s for s in different if s in aside]


def _vocabulary(
    sentences: Sequence[tuple[str, ...]], tokenizer: Tokenizer | None
) -> tuple[tuple[str, ...], Int64[np.ndarray, " units"]]:
    """Units in the order of their ids, and how often each stands in the text."""
    counts: dict[str, int] = {}
    for sentence in sentences:
        for unit in sentence:
            counts[unit] = counts.get(unit, 0) + 1
    if tokenizer is not None:
        words = tuple(tokenizer.pieces)
        seen = [counts.get(word, 0) for word in words]
    else:
        known = sorted(unit for unit, count in counts.items() if count > _RARE)
        words = (BLANK, SPECIAL[0], *known)
        rare = sum(count for count in counts.values() if count <= _RARE)
        seen = [0, rare, *(counts[unit] for unit in known)]
    seen[MARK] = len(sentences)
    return words, np.array(seen, dtype=np.int64)


def _row(sentences: Iterable[tuple[str, ...]], ids: dict[str, int]) -> Int64[np.ndarray, " tokens"]:
    row = [MARK]
    for sentence in sentences:
        row += [ids.get(unit, UNKNOWN) for unit in sentence]
        row.append(MARK)
    return np.array(row, dtype=np.int64)
