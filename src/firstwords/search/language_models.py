"""Folders of language models -> what a search asks. The one table of the kinds that there are.

    kind = "ngram", unit = "char" or "piece"     token by token (lm/ngram_scorer.py)
    kind = "ngram", unit = "word"                words behind a lexicon (word_ngram.py)
    kind = "lstm" or "transformer"               token by token (lm/neural/scorer.py)
    kind = "mixture"                             several of these, each with its share (lm/mixture.py)

A further kind is one line of ``KINDS``: the ``kind`` of its lm.toml, and a function that opens it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from firstwords.errors import CheckpointError
from firstwords.lm.compared import COMPARED
from firstwords.lm.language_model import kind_of, load_language_model
from firstwords.lm.mixture import read_mixture
from firstwords.lm.neural.folder import load_neural
from firstwords.lm.neural.scorer import neural_scorer
from firstwords.lm.ngram_scorer import NgramScorer
from firstwords.lm.writing import check_written_letters, doubts, unseen_pieces
from firstwords.nn.scorer import TokenScorer
from firstwords.search.fusion import Weighted, WeightedSum
from firstwords.search.lexicon import LexiconScorer
from firstwords.search.word_ngram import strange_words, word_lexicon
from firstwords.text.tokenizer import Tokenizer

TUNED = "tuned.toml"  # weights chosen for this language model (tuned.py); no part of it
SOURCES = "sources"  # folder of the models that are taken off with these weights; no part of it either
_APART = (f"{SOURCES}/", "resume/")  # nor is what training goes on from
_BLOCK = 1 << 20


class Speaks(NamedTuple):
    """What a recogniser writes: a language model must speak of the same."""

    tokenizer: Tokenizer
    normalizer: str  # name of the one its training texts went through
    words: frozenset[str] = frozenset()  # as far as they are known: a closed vocabulary, or what dev says


Told: TypeAlias = Callable[[str], None]


def _open_ngram(folder: Path, speaks: Speaks, told: Told) -> TokenScorer[Any]:
    lm = load_language_model(folder)
    lm.check_normalizer(speaks.normalizer)
    check_written_letters(speaks.normalizer, lm.header.normalizer, speaks.tokenizer, lm.name)
    if lm.header.unit == "word":
        own, spellings, boundaries = word_lexicon(lm.model, speaks.tokenizer, lm.name)
        strange = strange_words(lm.model, spellings, speaks.tokenizer, speaks.words)
        scorer: TokenScorer[Any] = LexiconScorer(own, spellings, boundaries)
    else:
        seen = set(np.flatnonzero(lm.columns(speaks.tokenizer)).tolist())
        strange = [unseen_pieces(speaks.tokenizer, seen)]
        scorer = NgramScorer(lm, speaks.tokenizer)
    for line in doubts(f"language model {lm.name}", strange):
        told(line)
    return scorer


def _open_network(folder: Path, speaks: Speaks, told: Told) -> TokenScorer[Any]:
    lm = load_neural(folder)
    lm.check_normalizer(speaks.normalizer)
    check_written_letters(speaks.normalizer, lm.header.normalizer, speaks.tokenizer, lm.name)
    seen = set(np.flatnonzero(~lm.unknown(lm.columns(speaks.tokenizer))).tolist())
    for line in doubts(f"language model {lm.name}", [unseen_pieces(speaks.tokenizer, seen)]):
        told(line)
    return neural_scorer(lm, speaks.tokenizer)


def _open_mixture(folder: Path, speaks: Speaks, told: Told) -> TokenScorer[Any]:
    parts = [
        Weighted(f"language model '{part}'", share, open_language_model(part, speaks, told))
        for part, share in read_mixture(folder)
    ]
    return WeightedSum(parts, len(speaks.tokenizer.pieces))


KINDS: Mapping[str, Callable[[Path, Speaks, Told], TokenScorer[Any]]] = MappingProxyType(
    {
        "ngram": _open_ngram,
        "lstm": _open_network,
        "transformer": _open_network,
        "mixture": _open_mixture,
    }
)


def open_language_model(folder: Path | str, speaks: Speaks, told: Told = lambda _: None) -> TokenScorer[Any]:
    """Folder of a language model of any kind -> scores of a recogniser's next tokens, natural log.

    CheckpointError where the folder is none, or the model knows other pieces or another spelling.

    Args:
        told: called with what a user must hear of a model that hardly knows what the recogniser writes.
    """
    folder = Path(folder)
    return KINDS[kind_of(folder)](folder, speaks, told)


def language_model_fingerprint(folder: Path | str) -> str:
    """Of the contents of a language model's folder, whatever it is called; not of what was tuned for it,
    nor of what its text was compared with."""
    folder = Path(folder)
    total = hashlib.sha256()
    try:
        files = [p for p in folder.rglob("*") if p.is_file()]
        inside = {p.relative_to(folder).as_posix(): p for p in files if p.name not in (TUNED, COMPARED)}
        inside = {name: path for name, path in inside.items() if not name.startswith(_APART)}
        for name in sorted(n for n in inside if not any(part.startswith(".") for part in n.split("/"))):
            total.update(f"{len(name)} {name} {inside[name].stat().st_size}\n".encode(errors="surrogatepass"))
            with inside[name].open("rb") as file:
                while block := file.read(_BLOCK):
                    total.update(block)
    except OSError as error:
        raise CheckpointError(
            f"'{folder}' cannot be read: {error.strerror or error}.", mend="Check the disk and your rights."
        ) from None
    return total.hexdigest()[:16]
