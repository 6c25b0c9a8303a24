"""Lines of a text file as bytes: plain or gzip, whatever the name says; UTF-16 is refused."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from firstwords.errors import TextError

_GZIP = b"\x1f\x8b"  # first bytes of a compressed file
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def byte_lines(path: Path) -> Iterator[bytes]:
    r"""The lines with their ends, without a byte-order mark; TextError where the file cannot be read.

    A line is what ends in \n, \r\n, or the lone \r of old programs.
    """
    number = 0
    try:
        with path.open("rb") as raw:
            compressed = raw.read(len(_GZIP)) == _GZIP
            raw.seek(0)
            file = gzip.GzipFile(fileobj=raw) if compressed else raw
            for block in file:
                for line in block.splitlines(keepends=True):
                    number += 1
                    if b"\0" in line or (number == 1 and line.startswith(_UTF16)):
                        raise TextError(
                            f"line {number} of '{path}' is not UTF-8, but UTF-16 or no text at all.",
                            mend="Save the file as UTF-8 (in the program that wrote it).",
                        )
                    yield line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TextError(
            f"'{path}' is no whole gzip file (after line {number}): {error}.", mend="Copy the file again."
        ) from None
    except OSError as error:
        raise TextError(
            f"'{path}' cannot be read: {error.strerror or error}.", mend="Check the path and your rights."
        ) from None
