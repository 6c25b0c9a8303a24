"""Pieces -> tokens.txt and bpe.vocab as sherpa-onnx reads them, and the guard against its guess about bytes.

    <blk> 0        the first of <blk>, <eps>, <blank> is the blank
    ▁ 1            a space; at the beginning of a piece the one before a word
    a 2
    雪 57          beyond the model's outputs, where the guess would be wrong

sherpa-onnx (SymbolTable::IsByteBPE) takes pieces for byte-level BPE when all of their UTF-8 bytes are at most
0xC6 and the highest is exactly that: a Latin alphabet whose last letter is in U+0180 to U+01BF. It then loses
those letters in silence; ▁ at the beginning of a piece does not count. A piece with a higher byte that no
output reaches ends the guess.

bpe.vocab ("piece score" a line) is how it writes hot words in a transducer's pieces (modeling unit "bpe"):
it takes the pieces whose scores have the greatest sum, and looks them up in tokens.txt. It would not find a
space there that is a line of an id alone, which it allows, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from firstwords.errors import TextError
from firstwords.export.tokens_file import looks_like_byte_bpe
from firstwords.text.pieces import BYTES
from firstwords.text.tokenizer import BLANK as UNWRITTEN
from firstwords.text.tokenizer import Tokenizer

BLANK = "<blk>"
GUARD = "雪"
_TIES = 1e6  # places in the list that count as much as one piece more


def tokens_txt(pieces: Sequence[str]) -> str:
    """Pieces of a tokenizer, the blank first -> the content of tokens.txt."""
    written = [BLANK, *pieces[1:]]
    for place, piece in enumerate(written):
        if any(c.isascii() and c.isspace() for c in piece) or piece.startswith("\ufeff"):
            raise TextError(
                f"piece {place}, {piece!r}, holds white space: tokens.txt cannot hold it.",
                mend="Train with a tokenizer of firstwords; it spells such characters in bytes.",
            )
    if looks_like_byte_bpe(written):
        written.append(GUARD)
    return "".join(f"{piece} {place}\n" for place, piece in enumerate(written))


def bpe_vocab(tokenizer: Tokenizer) -> str:
    """Tokenizer -> the content of bpe.vocab: pieces that are text, as they are.

    Where pieces have no log-probabilities of their own, words are written in as few pieces as can be, of
    equals in the earlier ones: of 4,005 English words 93 % are written as BPE writes them (155 pieces), by
    the numbers of its merges 87 % (LOG.md, 2026-11-23).
    """
    scores = tokenizer.scores or [-1.0 - place / _TIES for place in range(len(tokenizer.pieces))]
    unheard = {UNWRITTEN, *BYTES, *(tokenizer.pieces[token] for token in tokenizer.silent)}
    lines = zip(tokenizer.pieces, scores, strict=True)
    return "".join(f"{piece}\t{score:.8g}\n" for piece, score in lines if piece not in unheard)
