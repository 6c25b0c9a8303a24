"""Grapheme tokenizer, the default: one piece a letter, of any script, learnable from an hour of speech.

    <blank>  ▁ (space)  clusters seen min_count times or more  the code points of the rest  256 bytes

A cluster that is no piece is spelled in its code points, a code point that is none in its UTF-8 bytes;
so every text has an encoding and there is no unknown piece.

Why the bytes are on by default: transcripts of dev, test or a later fine-tuning bring characters that
training never saw, and CTC needs a target for them. They are never trained, so they cost only size: 256 rows
of the output layer (256 x 128 = 33 k of the 0.5 M parameters of the smallest model). ``bytes = false`` leaves
them out; then such a character is a TextError that names it.

Pieces stand in the order of their code points, not of their counts: two corpora with the same letters give
the same list, hence the same hash, and fine-tuning keeps its head.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, Self, final

from pydantic import Field

from firstwords.config import Config
from firstwords.errors import TextError
from firstwords.text.graphemes import graphemes
from firstwords.text.pieces import (
    BYTES,
    SPACE,
    check_pieces,
    join_pieces,
    load_pieces,
    save_pieces,
    spelled_in_bytes,
    utf8,
)
from firstwords.text.tokenizer import BLANK, Tokenizer


class GraphemeConfig(Config):
    """Settings of the grapheme tokenizer."""

    kind: Literal["graphemes"] = "graphemes"
    min_count: int = Field(default=3, ge=1)  # clusters seen less often are spelled in code points
    bytes: bool = True  # 256 byte pieces, so that any text can be encoded


@final
class GraphemeTokenizer(Tokenizer):
    """Text <-> ids of grapheme clusters, code points and bytes.

    Args:
        pieces: id -> piece as in pieces.txt (space is ▁), the first of them <blank>.
    """

    def __init__(self, pieces: Sequence[str]) -> None:
        self.pieces = check_pieces(pieces, source="the piece list")
        texts = {" " if piece == SPACE else piece: i for i, piece in enumerate(self.pieces)}
        del texts[BLANK]
        self._bytes = tuple(texts.pop(piece, -1) for piece in BYTES)
        self._id_of = texts

    @classmethod
    def train(cls, texts: Iterable[str], config: GraphemeConfig | None = None) -> Self:
        """Normalized training texts -> tokenizer whose pieces spell all of them."""
        config = config or GraphemeConfig()
        counts: Counter[str] = Counter()
        for text in texts:
            utf8(text)  # a lone surrogate is named here, not when the list is written
            counts.update(graphemes(text))
        if not any(c.strip() for c in counts):
            raise TextError(
                "there is no text to make a tokenizer from.",
                mend="Give the utterances a transcript, or check the split: 'firstwords check CORPUS'.",
            )
        usable = {c: n for c, n in counts.items() if not any(spelled_in_bytes(p) for p in c)}
        frequent = {c for c, n in usable.items() if n >= config.min_count}
        rest = {point for c in counts if c not in frequent for point in c if not spelled_in_bytes(point)}
        letters = sorted(frequent | rest)
        return cls([BLANK, SPACE, *letters, *(BYTES if config.bytes else ())])

    def encode(self, text: str) -> list[int]:
        """Normalized text -> ids, none of them 0."""
        tokens: list[int] = []
        for cluster in graphemes(text):
            token = self._id_of.get(cluster)
            if token is not None:
                tokens.append(token)
                continue
            for point in cluster:
                token = self._id_of.get(point)
                tokens += (token,) if token is not None else self._spell(point)
        return tokens

    def _spell(self, point: str) -> list[int]:
        tokens = [self._bytes[value] for value in utf8(point)]
        if -1 in tokens:
            raise TextError(
                f"'{point}' (U+{ord(point):04X}) is none of this tokenizer's {len(self.pieces)} pieces.",
                mend="Train with tokenizer.bytes = true, mend the transcript, or choose another normalizer.",
            )
        return tokens

    def decode(self, tokens: Iterable[int]) -> str:
        """Ids -> text; blanks are skipped, bytes that form no character become U+FFFD."""
        return join_pieces(self.pieces, tokens)

    def save(self, folder: Path) -> None:
        """Write ``pieces.txt`` and ``tokenizer.toml``."""
        save_pieces(folder, "graphemes", self.pieces)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what ``save`` wrote."""
        return cls(load_pieces(folder, "graphemes"))
