"""Pieces -> tokens.txt as sherpa-onnx reads it, and the guard against its guess about byte-level BPE.

    <blk> 0        the first of <blk>, <eps>, <blank> is the blank
     1             a line that is an id alone: the space (▁ as a whole piece)
    a 2
    雪 57          beyond the model's outputs, where the guess would be wrong

sherpa-onnx (SymbolTable::IsByteBPE) takes pieces for byte-level BPE when all of their UTF-8 bytes are at most
0xC6 and the highest is exactly that: a Latin alphabet whose last letter is in U+0180 to U+01BF. It then loses
those letters in silence. A piece with a higher byte that no output reaches ends the guess.
"""

from __future__ import annotations

from collections.abc import Sequence

from firstwords.errors import TextError
from firstwords.export.tokens_file import looks_like_byte_bpe
from firstwords.text.pieces import SPACE

BLANK = "<blk>"
GUARD = "雪"


def tokens_txt(pieces: Sequence[str]) -> str:
    """Pieces of a tokenizer, the blank first -> the content of tokens.txt."""
    written = [BLANK, *("" if piece == SPACE else piece for piece in pieces[1:])]
    for place, piece in enumerate(written):
        if any(c.isascii() and c.isspace() for c in piece) or piece.startswith("\ufeff"):
            raise TextError(
                f"piece {place}, {piece!r}, holds white space: tokens.txt cannot hold it.",
                mend="Train with a tokenizer of firstwords; it spells such characters in bytes.",
            )
    if looks_like_byte_bpe(written):
        written.append(GUARD)
    return "".join(f"{piece} {place}\n" for place, piece in enumerate(written))
