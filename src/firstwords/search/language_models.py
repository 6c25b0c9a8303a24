"""Folders of language models -> what a search asks. The one table of the kinds that there are.

    kind = "ngram", unit = "char" or "piece"     token by token (lm/ngram_scorer.py)
    kind = "ngram", unit = "word"                words behind a lexicon (word_ngram.py)

A further kind is one line of ``KINDS``: the ``kind`` of its lm.toml, and a function that opens it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from firstwords.config import read_toml
from firstwords.errors import CheckpointError, ConfigError
from firstwords.lm.language_model import HEADER, load_language_model, read_header
from firstwords.lm.ngram_scorer import NgramScorer
from firstwords.nn.scorer import TokenScorer
from firstwords.search.word_ngram import word_scorer
from firstwords.text.tokenizer import Tokenizer

TUNED = "tuned.toml"  # weights chosen for this language model (tuned.py); no part of it
_BLOCK = 1 << 20


class Speaks(NamedTuple):
    """What a recogniser writes: a language model must speak of the same."""

    tokenizer: Tokenizer
    normalizer: str  # name of the one its training texts went through


def _open_ngram(folder: Path, speaks: Speaks) -> TokenScorer[Any]:
    lm = load_language_model(folder)
    lm.check_normalizer(speaks.normalizer)
    if lm.header.unit == "word":
        return word_scorer(lm, speaks.tokenizer)
    return NgramScorer(lm, speaks.tokenizer)


KINDS: Mapping[str, Callable[[Path, Speaks], TokenScorer[Any]]] = MappingProxyType({"ngram": _open_ngram})


def open_language_model(folder: Path | str, speaks: Speaks) -> TokenScorer[Any]:
    """Folder of a language model of any kind -> scores of a recogniser's next tokens, natural log.

    CheckpointError where the folder is none, or the model knows other pieces or another spelling.
    """
    folder = Path(folder)
    return KINDS[_kind(folder)](folder, speaks)


def language_model_fingerprint(folder: Path | str) -> str:
    """Of the contents of a language model's folder, whatever it is called; not of what was tuned for it."""
    folder = Path(folder)
    total = hashlib.sha256()
    try:
        files = [p for p in folder.rglob("*") if p.is_file()]
        inside = {p.relative_to(folder).as_posix(): p for p in files if p.name != TUNED}
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


def _kind(folder: Path) -> str:
    """``kind`` in lm.toml; one that is not known is refused."""
    if not (folder / HEADER).is_file():
        read_header(folder)  # says what is missing
    try:
        kind = read_toml(folder / HEADER).get("kind", "ngram")
    except ConfigError as error:
        raise CheckpointError(error.what, mend=error.mend) from None
    if not isinstance(kind, str) or kind not in KINDS:
        raise CheckpointError(
            f"'{folder / HEADER}': kind is {kind!r}; this version reads {', '.join(KINDS)}.",
            mend="Update firstwords.",
        )
    return kind
