"""Language models of files and folders as help for the runtime: n-grams, in numpy."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import final

import numpy as np

from firstwords.errors import CheckpointError
from firstwords.export.runtime_help import DEFAULT, BonusRows, Help, Part, Rows
from firstwords.export.runtime_words import check_letters
from firstwords.lm.language_model import (
    HEADER,
    WEIGHTS,
    WORDS,
    read_ngram,
)
from firstwords.lm.ngram import SPECIAL, UNKNOWN, NgramModel
from firstwords.lm.ngram_arpa import WordCheck, read_arpa
from firstwords.lm.writing import check_written_letters, doubts, unseen_pieces, word_check
from firstwords.search.interface import LanguageModelConfig
from firstwords.search.lexicon_rows import LexiconRows
from firstwords.search.prefix_beam import Floats, Ints
from firstwords.search.word_ngram import strange_words, word_lexicon
from firstwords.text.pieces import BYTES
from firstwords.text.tokenizer import Tokenizer

_KEPT_BYTES = 128 << 20


@final
class NgramRows(Rows):
    """An n-gram model over pieces or letters; a state is a node of it. As ``lm/ngram_scorer.py``:

    pieces that it does not know share <unk> evenly, and what it gives to words that are no piece is shared
    out in proportion, so that rows sum to one.
    """

    def __init__(self, model: NgramModel, columns: Ints) -> None:
        self._model, self._columns = model, columns
        unknown = columns == UNKNOWN
        self._share = np.where(unknown, -np.log(max(1, int(unknown.sum()))), 0.0).astype(np.float32)
        self._most = max(1, _KEPT_BYTES // (len(columns) * 16))
        self._rows: dict[int, tuple[Floats, Ints]] = {}

    def start(self) -> int:
        return self._model.begin

    def after(self, state: int, token: int) -> int:
        return int(self._look_up(state)[1][token])

    def row(self, state: int) -> Floats:
        return self._look_up(state)[0]

    def _look_up(self, state: int) -> tuple[Floats, Ints]:
        found = self._rows.get(state)
        if found is None:
            if len(self._rows) >= self._most:
                self._rows.clear()
            scores, nexts = self._model.rows(np.array([state]))
            values = scores[0, self._columns] + self._share
            top = values.max()
            values = values - (top + np.log(np.exp(values - top).sum(dtype=np.float32)))
            found = self._rows[state] = (values.astype(np.float64), nexts[0, self._columns])
        return found


def open_help(
    path: Path | str,
    tokenizer: Tokenizer,
    normalizer: str,
    weights: LanguageModelConfig = DEFAULT,
    told: Callable[[str], None] = lambda _: None,
) -> Help:
    """Folder of an n-gram model, or an ARPA file (.arpa, .gz) -> help for a bundle's searches.

    CheckpointError or TextError where it is none, speaks of other pieces, or is of text that went through
    another normalizer; of an ARPA file with the line.

    Args:
        told: called with what a user must hear of a model that hardly knows what the bundle writes.
    """
    path = Path(path)
    if path.is_file():
        model = read_arpa(path, check_word=_check_of(tokenizer, normalizer))
        unit, name = None, f"'{path}'"
    else:
        lm = read_ngram(path)
        lm.check_normalizer(normalizer)
        check_written_letters(normalizer, lm.header.normalizer, tokenizer, lm.name)
        if lm.header.pieces and lm.header.pieces != tokenizer.piece_hash:
            raise CheckpointError(
                f"{lm.name} was made for the pieces of another tokenizer (their fingerprints differ).",
                mend="Make it anew with the tokenizer of the model that was exported.",
            )
        model, unit, name = lm.model, lm.header.unit, lm.name
    if unit == "word" or (unit is None and _is_of_words(model, tokenizer)):
        check_letters(tokenizer, f"The words of {name}")
        own, spellings, boundaries = word_lexicon(model, tokenizer, name)
        strange = strange_words(model, spellings, tokenizer, ())
        rows: Rows = LexiconRows(own, spellings, boundaries)
    else:
        columns = _columns(model, tokenizer, name)
        strange = [unseen_pieces(tokenizer, set(np.flatnonzero(columns).tolist()))]
        rows = NgramRows(model, columns)
    for line in doubts(f"language model {name}", strange):
        told(line)
    identity = f"{_fingerprint(path)} {weights.model_dump_json()}"
    parts = (
        Part("language_model", weights.weight, rows),
        Part("bonus", weights.bonus, BonusRows(len(tokenizer.pieces))),
    )
    return Help(tuple(part for part in parts if part.weight), identity)


def _check_of(tokenizer: Tokenizer, normalizer: str) -> WordCheck:
    """The function word of an ARPA file -> why it is no piece, and no word or letter of the bundle's text.

    Such a file does not say what its units are.
    """
    as_letter, as_word = word_check("char", normalizer), word_check("word", normalizer)
    pieces = frozenset(tokenizer.pieces[1:])

    def check(word: str) -> str | None:
        return None if word in pieces or as_letter(word) is None else as_word(word)

    return check


def _columns(model: NgramModel, tokenizer: Tokenizer, name: str) -> Ints:
    """Tokenizer id -> word id, </s> for 0 and <unk> for pieces the model does not know."""
    known = model.id_of
    ids = [known.get(p, 0) if p not in SPECIAL else 0 for p in tokenizer.pieces[1:]]
    if not any(ids):
        raise CheckpointError(
            f"{name} knows none of the {len(ids)} pieces of this bundle: another vocabulary.",
            mend="Make it anew with the tokenizer of the model that was exported.",
        )
    return np.array([known["</s>"], *ids], dtype=np.int64)


def _is_of_words(model: NgramModel, tokenizer: Tokenizer) -> bool:
    """Whether most of a model's words are no pieces, and longer than a letter."""
    pieces = set(tokenizer.pieces[1:]) - set(BYTES)
    words = model.words[len(SPECIAL) :]
    strange = [word for word in words if word not in pieces and _letters(word) > 1]
    return 2 * len(strange) > len(words)


def _letters(word: str) -> int:
    return sum(not unicodedata.combining(c) for c in word)


def _fingerprint(path: Path) -> str:
    files: Sequence[Path] = [path] if path.is_file() else [path / n for n in (HEADER, WORDS, WEIGHTS)]
    total = hashlib.sha256()
    for file in files:
        total.update(file.read_bytes())
    return total.hexdigest()
