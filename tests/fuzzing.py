"""Every reader of the product under mutated and arbitrary bytes: a result, or one of our errors.

    edits(...)      a list of ``Edit``; drawn by hypothesis in the fast tests, by a generator in the long run
    apply(...)      seed bytes and edits -> bytes, the same every time
    Reader          what is read: seeds of valid files, what else must lie beside, and the call
    try_one(...)    one input through one reader -> what was wrong, or ''

The readers themselves are in ``fuzzed_corpora`` and ``fuzzed_models``.
"""

from __future__ import annotations

import random
import re
import signal
import struct
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from firstwords.errors import FirstwordsError

SLOWEST = 10.0  # seconds of processor time
LARGEST = 300.0  # megabytes that one input may add to the peak of the process
_NUMBERS = (
    b"0",
    b"-1",
    b"1e999",
    b"-1e999",
    b"NaN",
    b"Infinity",
    b"nan",
    b"9" * 30,
    b"9" * 400,
    b"9" * 5000,
    b"1e308",
    b"0.0000001",
    b"4294967295",
    b"9223372036854775808",
    b"true",
    b"null",
    b'"x"',
    b"[]",
    b"{}",
    b"\xd9\xa3",
    b"1_000",
    b"0x10",
    b"00:00:00,000",
)
_TOKENS = (
    b"\0",
    b"\n",
    b"\r",
    b"\t",
    b'"',
    b"'",
    b"\\",
    b"\\ud800",
    b"\xef\xbf\xbd",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"[" * 3000,
    b"{" * 3000,
    b'{"a":' * 2000,
    b"<!DOCTYPE x>",
    b"<!--",
    b"]]>",
    b"&#0;",
    b"-->",
    b"../../../",
    b"/",
    b"|",
    b"$(ls)",
    b"\xe2\x80\xa8",
    b"\xc2\x85",
    b"\xf0\x9f\x98\x80",
    b"\xcc\x81" * 50,
    b"=",
    b"#",
    b",",
    b"x" * 70000,
    b" " * 200,
    b"\x1a",
    b"-",
    b"%s%n",
    b"[/bold]",
)
_WORDS = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFF8, 16000, 65536)
_CODES = ("utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "latin-1", "utf-32", "cp1252")


@dataclass(frozen=True)
class Edit:
    """One change: what, where (a share of the length), how much, and a number that chooses among values."""

    kind: int
    at: float
    size: int
    value: int


def apply(seed: bytes, edits: Sequence[Edit], others: Sequence[bytes] = ()) -> bytes:
    """Seed and edits -> the bytes to read; at most 300 kB."""
    data = seed
    for edit in edits:
        data = _KINDS[edit.kind % len(_KINDS)](data, edit, others)[:300_000]
    return data


def _place(data: bytes, edit: Edit) -> int:
    return min(len(data), int(edit.at * (len(data) + 1)))


def _flip(data: bytes, edit: Edit, _: Sequence[bytes]) -> bytes:
    if not data:
        return b"\0"
    at = min(_place(data, edit), len(data) - 1)
    return data[:at] + bytes([data[at] ^ 1 << edit.value % 8]) + data[at + 1 :]


def _set(data: bytes, edit: Edit, _: Sequence[bytes]) -> bytes:
    at = _place(data, edit)
    return data[:at] + bytes([edit.value % 256]) + data[at + 1 :]


def _cut(data: bytes, edit: Edit, _: Sequence[bytes]) -> bytes:
    return data[: _place(data, edit)]


def _remove(data: bytes, edit: Edit, _: Sequence[bytes]) -> bytes:
    at = _place(data, edit)
    return data[:at] + data[at + edit.size :]


def _twice(data: bytes, edit: Edit, _: Sequence[bytes]) -> bytes:
    at = _place(data, edit)
    return data[:at] + data[at : at + edit.size] * (2 + edit.value % 40) + data[at + edit.size :]


def _splice(data: bytes, edit: Edit, others: Sequence[bytes]) -> bytes:
    other = others[edit.value % len(others)] if others else data
    return data[: _place(data, edit)] + other[int(edit.size / 200 * len(other)) :]


def _insert(data: bytes, edit: Edit, _: Sequence[bytes]) -> bytes:
    at = _place(data, edit)
    return data[:at] + random.Random(edit.value).randbytes(edit.size) + data[at:]


def _token(data: bytes, edit: Edit, _: Sequence[bytes]) -> bytes:
    at = _place(data, edit)
    return data[:at] + _TOKENS[edit.value % len(_TOKENS)] + data[at:]


def _number(data: bytes, edit: Edit, _: Sequence[bytes]) -> bytes:
    """One number written in digits becomes another."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?", data))
    if not found:
        return _token(data, edit, ())
    match = found[min(int(edit.at * len(found)), len(found) - 1)]
    return data[: match.start()] + _NUMBERS[edit.value % len(_NUMBERS)] + data[match.end() :]


def _word(data: bytes, edit: Edit, _: Sequence[bytes]) -> bytes:
    """Two or four bytes of a binary header become another number."""
    at = _place(data[:200] if edit.size % 3 else data, edit) & ~1
    value = _WORDS[edit.value % len(_WORDS)]
    order = "<" if edit.size % 2 else ">"
    packed = struct.pack(order + "I", value) if edit.size % 5 else struct.pack(order + "H", value & 0xFFFF)
    return data[:at] + packed + data[at + len(packed) :]


def _recode(data: bytes, edit: Edit, _: Sequence[bytes]) -> bytes:
    text = data.decode("utf-8", "replace")
    return text.encode(_CODES[edit.value % len(_CODES)], "replace")


def _lines(data: bytes, edit: Edit, _: Sequence[bytes]) -> bytes:
    """A line is doubled, removed, moved to the front, emptied or joined with the next."""
    lines = data.split(b"\n")
    at = min(int(edit.at * len(lines)), len(lines) - 1)
    match edit.value % 5:
        case 0:
            lines.insert(at, lines[at])
        case 1:
            del lines[at]
        case 2:
            lines.insert(0, lines.pop(at))
        case 3:
            lines[at] = b""
        case _:
            lines[at : at + 2] = [b"".join(lines[at : at + 2])]
    return b"\n".join(lines)


def _arbitrary(data: bytes, edit: Edit, _: Sequence[bytes]) -> bytes:
    """A few bytes of the beginning, then noise."""
    return data[: edit.size % 12] + random.Random(edit.value).randbytes(int(edit.at * 2000))


_KINDS = (
    _flip,
    _set,
    _cut,
    _remove,
    _twice,
    _splice,
    _insert,
    _token,
    _number,
    _number,
    _word,
    _recode,
    _lines,
    _arbitrary,
)


def random_edits(generator: random.Random) -> list[Edit]:
    """One to four edits, mostly one or two."""
    count = generator.choice((1, 1, 1, 2, 2, 3, 4))
    return [
        Edit(
            generator.randrange(100),
            generator.random(),
            generator.randrange(1, 200),
            generator.getrandbits(32),
        )
        for _ in range(count)
    ]


@dataclass(frozen=True)
class Reader:
    """One thing that is read.

    Args:
        seeds: valid contents of the file.
        file: its name below the folder.
        read: called with the folder, when the file lies there.
        prepare: lays down what else must be there (once).
        slow: a run takes so long that the fast tests try only a few.
    """

    name: str
    seeds: Callable[[], list[bytes]]
    file: str
    read: Callable[[Path], object]
    prepare: Callable[[Path], None] = lambda folder: None
    slow: bool = False


class TooSlow(BaseException):
    """Ten seconds of processor time (or a minute) are over; no 'except Exception' may swallow it."""


@contextmanager
def _alarm() -> Generator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise TooSlow(f"longer than {SLOWEST:g} s")

    # processor time, as other programs may hold the machine; who waits for ever uses none: the wall, too
    timers = (
        (signal.SIGPROF, signal.ITIMER_PROF, SLOWEST),
        (signal.SIGALRM, signal.ITIMER_REAL, 6 * SLOWEST),
    )
    before = [signal.signal(number, ring) for number, _, _ in timers]
    for _, timer, seconds in timers:
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for (number, timer, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


@dataclass(frozen=True)
class Tried:
    """What became of one input: ``fault`` is empty where the law holds."""

    fault: str
    refused: bool
    seconds: float
    megabytes: float


def try_one(reader: Reader, data: bytes, folder: Path) -> Tried:
    """Write the file, read it."""
    path = folder / reader.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # a file cut and written again is flushed to the disk by some file systems
    path.write_bytes(data)
    before, began = _begin_peak(), time.process_time()
    fault, refused = "", False
    try:
        with _alarm(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(folder)
    except FirstwordsError as error:
        refused = True
        if not error.what or error.exit_code not in (1, 2):
            fault = f"an error without words: {error!r}"
    except (Exception, TooSlow):  # noqa: BLE001 - finding these is what this is for
        fault = traceback.format_exc()
    grown = _peak() - before
    if grown > LARGEST and not fault:
        fault = f"the peak of the memory grew by {grown:.0f} MB"
    return Tried(fault, refused, time.process_time() - began, grown)


def _peak() -> float:
    """Megabytes at the peak (Linux; 0 elsewhere)."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0.0
    return float(status.partition("VmHWM:")[2].split()[0]) / 1024


def _begin_peak() -> float:
    """Let the peak start anew from what is taken now."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _peak()


def texts(*contents: str) -> Callable[[], list[bytes]]:
    """Seeds of a text file."""
    return lambda: [content.encode() for content in contents]
