"""Subword tokenizer: sentencepiece unigram or BPE, for corpora from about ten hours on.

Unigram: Kudo, 2018, arXiv:1804.10959. BPE: Sennrich et al., 2016, arXiv:1508.07909.

The vocabulary is fitted to the data, so that training never fails with "vocabulary size too high" (or too
low): a number larger than the text allows is lowered, one smaller than its alphabet is raised. Normalization
is the recipe's alone: sentencepiece changes nothing. Its unknown piece sits at id 0, where we have the blank;
with byte fallback it is never produced, so ids are the same on both sides.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Literal, Self, final

from pydantic import Field

from firstwords.config import Config
from firstwords.errors import DependencyError, TextError
from firstwords.text.pieces import (
    BYTES,
    check_pieces,
    hash_pieces,
    join_pieces,
    load_pieces,
    save_pieces,
    spelled_in_bytes,
    utf8,
)
from firstwords.text.tokenizer import BLANK, Tokenizer

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

MODEL = "subwords.model"


class SubwordConfig(Config):
    """Settings of the subword tokenizer."""

    kind: Literal["subwords"] = "subwords"
    model: Literal["unigram", "bpe"] = "unigram"
    # learned pieces, letters included, <blank> and the 256 bytes not counted; "auto" = see fit_vocabulary
    vocabulary: Annotated[int, Field(ge=1, le=100_000)] | Literal["auto"] = "auto"


def fit_vocabulary(alphabet: int, characters: int) -> int:
    """Letters of the alphabet, characters of all training text -> pieces of ``vocabulary = "auto"``.

    The alphabet plus half the square root of the length: 1 h of speech (about 50 k characters) gives about
    110 pieces beside the letters, 10 h 350, 100 h 1100, at most 2000: a few hundred examples a piece.
    """
    return alphabet + min(2000, round(math.sqrt(characters) / 2))


@final
class SubwordTokenizer(Tokenizer):
    """Text <-> ids of a sentencepiece model.

    Args:
        model: the bytes of the sentencepiece model.
    """

    def __init__(self, model: bytes) -> None:
        self.model = model
        self._processor = _processor(model)
        size = int(self._processor.get_piece_size())
        try:
            names: Sequence[str] = [str(self._processor.id_to_piece(i)) for i in range(size)]
        except UnicodeDecodeError as error:
            raise TextError(
                f"the sentencepiece model holds a piece that is no UTF-8: {error.reason}.",
                mend="Copy the tokenizer folder again.",
            ) from None
        self.pieces = check_pieces(names, source="the sentencepiece model")
        missing = [piece for piece in BYTES if piece not in set(self.pieces)]
        if missing:
            raise TextError(
                f"the sentencepiece model has no byte fallback ({len(missing)} of 256 bytes are missing).",
                mend="Train it with byte_fallback, or let 'firstwords train' make the tokenizer.",
            )
        self._bytes = tuple(self.pieces.index(piece) for piece in BYTES)

    @classmethod
    def train(cls, texts: Iterable[str], config: SubwordConfig | None = None) -> Self:
        """Normalized training texts -> tokenizer; the same texts in the same order give the same bytes."""
        config = config or SubwordConfig()
        lines: list[str] = []
        alphabet: set[str] = set()
        for text in texts:
            utf8(text)
            plain = "".join(" " if spelled_in_bytes(c) else c for c in text)
            if plain.strip():
                lines.append(" " + plain)  # every word begins with its space, the first one too
                alphabet.update(plain)
        if not lines:
            raise TextError(
                "there is no text to make a tokenizer from.",
                mend="Give the utterances a transcript, or check the split: 'firstwords check CORPUS'.",
            )
        letters = len(alphabet | {" "})
        wanted = config.vocabulary
        if wanted == "auto":
            wanted = fit_vocabulary(letters, sum(map(len, lines)))
        return cls(_train(lines, config.model, max(wanted, letters) + 1 + len(BYTES)))

    def encode(self, text: str) -> list[int]:
        """Normalized text -> ids, none of them 0."""
        if not text:
            return []
        utf8(text)
        plain = " " + text  # the space before the first word; decode takes it off
        tokens: list[int] = []
        start = 0
        for at, point in enumerate(plain):  # ▁ and control characters are spelled in bytes
            if point != " " and spelled_in_bytes(point):
                tokens += self._processor.encode(plain[start:at])
                tokens += [self._bytes[value] for value in point.encode()]
                start = at + 1
        return tokens + list(self._processor.encode(plain[start:]))

    def decode(self, tokens: Iterable[int]) -> str:
        """Ids -> text; blanks are skipped, bytes that form no character become U+FFFD."""
        return join_pieces(self.pieces, tokens).removeprefix(" ")

    @property
    def scores(self) -> tuple[float, ...]:
        """Of a unigram model. The scores of BPE are whole numbers: the order of its merges."""
        scores = tuple(float(self._processor.get_score(i)) for i in range(len(self.pieces)))
        return () if all(score.is_integer() for score in scores) else scores

    def save(self, folder: Path) -> None:
        """Write ``pieces.txt``, ``tokenizer.toml`` and ``subwords.model``."""
        save_pieces(folder, "subwords", self.pieces, more={MODEL: self.model})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what ``save`` wrote."""
        pieces = load_pieces(folder, "subwords")
        path = folder / MODEL
        try:
            tokenizer = cls(path.read_bytes())
        except OSError as error:
            raise TextError(
                f"'{path}' cannot be read: {error}.", mend="Copy the tokenizer folder again."
            ) from None
        if hash_pieces(tokenizer.pieces) != hash_pieces(pieces):
            raise TextError(
                f"'{path}' and pieces.txt beside it are of different tokenizers.",
                mend="Copy the tokenizer folder again from where the model was trained.",
            )
        return tokenizer


def _processor(model: bytes) -> SentencePieceProcessor:
    sentencepiece = _library()
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=model)
    except (RuntimeError, ValueError, TypeError, OSError) as error:
        raise TextError(
            f"the sentencepiece model cannot be read: {error}.", mend="Copy the tokenizer folder again."
        ) from None


def _train(lines: Sequence[str], kind: str, vocabulary: int) -> bytes:
    """Lines -> model bytes; ``vocabulary`` counts every piece and is an upper bound."""
    written = io.BytesIO()
    _library().SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=written,
        model_type=kind,
        vocab_size=vocabulary,
        hard_vocab_limit=False,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        max_sentence_length=1 << 24,  # the default of 4192 bytes drops long lines in silence
        unk_id=0,
        unk_piece=BLANK,
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        num_threads=1,  # more threads give other pieces from run to run
        minloglevel=2,
    )
    return written.getvalue()


def _library() -> ModuleType:
    try:
        import sentencepiece
    except ImportError:
        raise DependencyError(
            "Subword tokenizers need the package 'sentencepiece'.", mend='pip install "firstwords[train]"'
        ) from None
    return sentencepiece
