"""tokens.txt as sherpa-onnx reads it: "piece id" a line; a line that is an id alone is the space.

sherpa-onnx (symbol-table.cc) ends the process where a piece holds white space, where none of <blk>, <eps>,
<blank> is there, or where the file begins with a byte-order mark; and it takes a list whose highest byte is
exactly 0xC6 for byte-level BPE and loses letters in silence. All of that is refused here, with the line.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from firstwords.errors import CheckpointError
from firstwords.text.given import is_id
from firstwords.text.pieces import SPACE
from firstwords.text.tokenizer import BLANK

BLANKS = ("<blk>", "<eps>", "<blank>")
_BYTE_BPE = 0xC6  # the highest first byte of the letters that byte-level BPE writes bytes as
_MEND = "Copy tokens.txt again from where the bundle was made, or export the model again."


def parse_tokens(content: bytes, path: Path, vocabulary: int) -> tuple[str, ...]:
    """Content of tokens.txt -> pieces of the ids 0 to ``vocabulary`` - 1, the blank as <blank>.

    Ids beyond the vocabulary are allowed: they are there to be read by sherpa-onnx.
    """
    written = _numbered(content, path)
    found = {token: piece or SPACE for token, piece in written.items()}
    missing = next((i for i in range(vocabulary) if i not in found), None)
    if missing is not None:
        raise CheckpointError(
            f"'{path}': id {missing} is missing; the model writes ids 0 to {vocabulary - 1}.", mend=_MEND
        )
    if found[0] not in BLANKS:
        raise CheckpointError(
            f"'{path}': id 0 is {found[0]!r}, not the blank ({', '.join(BLANKS)}).", mend=_MEND
        )
    if looks_like_byte_bpe(written.values()):
        raise CheckpointError(
            f"'{path}': sherpa-onnx would take these pieces for byte-level BPE and lose letters.",
            mend="Export the model again: the exporter adds a piece that prevents it.",
        )
    pieces = (BLANK, *(found[i] for i in range(1, vocabulary)))
    first: dict[str, int] = {}
    for i, piece in enumerate(pieces):
        if first.setdefault(piece, i) != i:
            raise CheckpointError(
                f"'{path}': {piece!r} stands twice, as ids {first[piece]} and {i}.", mend=_MEND
            )
    return pieces


def _numbered(content: bytes, path: Path) -> dict[int, str]:
    """Id -> piece as it is written; the space is an empty one."""
    if content.startswith(b"\xef\xbb\xbf"):
        raise CheckpointError(
            f"'{path}' begins with a byte-order mark, with which sherpa-onnx finds no blank.",
            mend="Save it as UTF-8 without a mark, or copy it again.",
        )
    found: dict[int, str] = {}
    for number, line in enumerate(content.split(b"\n"), start=1):
        parts = _words(line, number, path)
        if not parts:
            continue
        if len(parts) > 2 or not is_id(parts[-1]):
            raise CheckpointError(
                f"line {number} of '{path}' is not 'piece id': {' '.join(parts)[:60]!r}.", mend=_MEND
            )
        token = int(parts[-1])
        if token in found:
            raise CheckpointError(f"line {number} of '{path}': the id {token} stands twice.", mend=_MEND)
        found[token] = parts[0] if len(parts) == 2 else ""
    return found


def _words(line: bytes, number: int, path: Path) -> list[str]:
    """Parted at ASCII white space alone: other spaces may be letters of a piece."""
    try:
        return [part.decode() for part in line.split()]
    except UnicodeDecodeError as error:
        raise CheckpointError(
            f"line {number} of '{path}' is not UTF-8: {error.reason}.", mend=_MEND
        ) from None


def looks_like_byte_bpe(pieces: Iterable[str]) -> bool:
    """sherpa-onnx's guess: all bytes of all pieces at most 0xC6, and one of them equal to it.

    It has replaced the mark of a space by a space before, where a piece begins with it.
    """
    plain = (piece.removeprefix(SPACE) for piece in pieces)
    return max((max(piece.encode(), default=0) for piece in plain), default=0) == _BYTE_BPE
