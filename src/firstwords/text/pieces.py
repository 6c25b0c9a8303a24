"""The piece list both tokenizers share: ``pieces.txt``, ``tokenizer.toml``, byte pieces, ids -> text.

    tokenizer/
      tokenizer.toml   kind = "graphemes" | "subwords" | "given", hash = SHA-256 of the pieces
      pieces.txt       one piece a line, line number - 1 = id; the first is <blank>
      subwords.model   subwords only (sentencepiece)

A space inside a piece is written ▁ (U+2581), so a piece never holds white space; a byte is ``<0x00>`` to
``<0xFF>``. Text that itself has ▁, a control character or a line separator is spelled in bytes.
"""

from __future__ import annotations

import hashlib
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from firstwords.errors import TextError
from firstwords.files import staged, write_atomically
from firstwords.text.tokenizer import BLANK

PIECES = "pieces.txt"
SETTINGS = "tokenizer.toml"
SPACE = "▁"
BYTES = tuple(f"<0x{value:02X}>" for value in range(256))
_NONCHARACTERS = "\ufffe\uffff"
_BYTE_OF = {piece: value for value, piece in enumerate(BYTES)}


def spelled_in_bytes(code_point: str) -> bool:
    """Whether a character may not stand in a piece: it would break a line of pieces.txt or mean a space."""
    return code_point == SPACE or code_point.isspace() or unicodedata.category(code_point) in ("Cc", "Cs")


def utf8(text: str) -> bytes:
    """Text -> UTF-8; half a UTF-16 pair, which no file can hold, is refused with its place."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise TextError(
            f"half a UTF-16 pair (U+{ord(text[error.start]):04X}) is character {error.start + 1} of a text.",
            mend="Save the transcript again as UTF-8; the normalizer 'default' removes such halves.",
        ) from None


def join_pieces(pieces: Sequence[str], tokens: Iterable[int]) -> str:
    """Ids -> text with ▁ as spaces; id 0 is skipped, runs of bytes that are no UTF-8 become U+FFFD."""
    parts: list[str] = []
    run = bytearray()
    for token in tokens:
        if token == 0:
            continue
        if not 0 < token < len(pieces):
            raise TextError(
                f"piece id {token} is not in this vocabulary of {len(pieces)}.",
                mend="The model and the tokenizer come from different runs: load both from one folder.",
            )
        piece = pieces[token]
        value = _BYTE_OF.get(piece)
        if value is not None:
            run.append(value)
            continue
        parts.append(run.decode(errors="replace") + piece.replace(SPACE, " "))
        run.clear()
    return "".join(parts) + run.decode(errors="replace")


def legible(text: str) -> str:
    """Text -> the same without control characters that are no white space, and without U+FFFE and U+FFFF.

    A model may write them byte by byte; no XML file can hold them, and terminals obey them.

    >>> legible("a\\x1b b\\x07")
    'a b'
    """
    return "".join(c for c in text if c.isspace() or not _is_no_letter(c))


def _is_no_letter(code_point: str) -> bool:
    return code_point in _NONCHARACTERS or unicodedata.category(code_point) == "Cc"


def check_pieces(pieces: Sequence[str], *, source: str) -> tuple[str, ...]:
    """A piece list -> the same as a tuple, or the reason why it is none."""
    mend = "Copy the tokenizer folder again from where the model was trained."
    if not pieces or pieces[0] != BLANK:
        first = repr(pieces[0]) if pieces else "nothing"
        raise TextError(f"{source}: the first piece must be {BLANK}, found {first}.", mend=mend)
    seen: dict[str, int] = {}
    for index, piece in enumerate(pieces):
        if not piece or any(c.isspace() for c in piece):
            raise TextError(f"{source}: piece {index} is empty or has white space: {piece!r}.", mend=mend)
        if piece in seen:
            raise TextError(
                f"{source}: {piece!r} stands twice, as pieces {seen[piece]} and {index}.", mend=mend
            )
        seen[piece] = index
    return tuple(pieces)


def hash_pieces(pieces: Sequence[str]) -> str:
    """Same value as ``Tokenizer.piece_hash``."""
    return hashlib.sha256("\n".join(pieces).encode()).hexdigest()


def save_pieces(
    folder: Path, kind: str, pieces: Sequence[str], *, more: Mapping[str, bytes] | None = None
) -> None:
    """Write ``pieces.txt``, ``tokenizer.toml`` and what else the kind has (name -> content): all, or none."""
    import tomli_w  # for who writes pieces; a bundle is read without

    settings = {"format": 1, "kind": kind, "hash": hash_pieces(pieces)}
    with staged(folder, last=(SETTINGS,)) as new:
        write_atomically(new / PIECES, "".join(f"{p}\n" for p in pieces))
        for name, content in (more or {}).items():
            write_atomically(new / name, content)
        write_atomically(new / SETTINGS, tomli_w.dumps(settings))


def read_settings(folder: Path) -> dict[str, Any]:
    """``tokenizer.toml`` -> its table, with ``kind`` and ``hash`` checked to be text."""
    path = folder / SETTINGS
    settings = _read(path)
    try:
        table = tomllib.loads(settings)
    except (ValueError, RecursionError) as error:
        raise TextError(f"'{path}' is not TOML: {error}.", mend="Copy the tokenizer folder again.") from None
    for key in ("kind", "hash"):
        if not isinstance(table.get(key), str):
            raise TextError(
                f"'{path}': '{key}' is missing or not text.", mend="Copy the tokenizer folder again."
            )
    if table.get("format") != 1:
        raise TextError(
            f"'{path}': format is {table.get('format')!r}, this version reads 1.", mend="Update firstwords."
        )
    return table


def load_pieces(folder: Path, kind: str) -> tuple[str, ...]:
    """``pieces.txt`` -> pieces; refused when changed since ``save_pieces`` wrote it, or of another kind."""
    settings = read_settings(folder)
    if settings["kind"] != kind:
        raise TextError(
            f"'{folder}' holds a tokenizer of kind '{settings['kind']}', not '{kind}'.",
            mend="Use firstwords.text.load.load_tokenizer, which reads either.",
        )
    path = folder / PIECES
    text = _read(path)
    pieces = check_pieces(text.removesuffix("\n").split("\n"), source=f"'{path}'")
    if hash_pieces(pieces) != settings["hash"]:
        raise TextError(
            f"'{path}' was changed after it was saved: its hash is not the one in {SETTINGS}.",
            mend="Restore the file: a changed piece list makes the model's outputs mean other letters.",
        )
    return pieces


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        folder = path.parent
        found = ", ".join(sorted(p.name for p in folder.iterdir())) if folder.is_dir() else ""
        raise TextError(
            f"'{folder}' is no tokenizer: {path.name} is missing (found: {found or 'nothing'}).",
            mend="Copy the whole folder of the model.",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise TextError(
            f"'{path}' cannot be read: {error}.", mend="Copy the tokenizer folder again."
        ) from None
