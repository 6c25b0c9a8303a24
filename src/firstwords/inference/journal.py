"""How far the transcription of one long recording has come, on disk: a killed one goes on from there.

    {"model": ..., "state of the recording": ..., ...}              what the rest belongs to
    {"from": 0, "until": 928000, "keep": 0, "tokens": [...]}        samples 0 to 928000 are answered for
    {"from": 928000, "until": 1871360, "keep": 411, "tokens": ...}  the first 411 tokens stay, then these

One line per group of windows, each behind its checksum and flushed to the disk before the next group is
decoded. Kept are tokens with their times, not text: one journal serves every output format. A line that is
torn, or does not begin where the one before ends, is dropped with all that follow it.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from firstwords import __version__
from firstwords.files import unwritable
from firstwords.inference.transcript import Token

SUFFIX = ".firstwords-journal"
_ENDS = 1 << 16  # bytes at either end of a recording that its fingerprint covers

Told = Callable[[str, float], None]


def journal_path(target: Path) -> Path:
    """A result's path without suffix -> its journal's: a hidden file beside it."""
    return target.with_name(f".{target.name}{SUFFIX}")


class Journal:
    """The journal of one recording. It stays until ``remove``: first bring the transcript to safety.

    Args:
        told: called when earlier work is taken up, or cannot be: words for the user, and the seconds of the
            recording that are done.
    """

    def __init__(self, path: Path, told: Told | None = None) -> None:
        self.path = path
        self.tokens: list[Token] = []
        self.until = 0  # samples, from the beginning, that ``tokens`` answer for
        self._told = told
        self._header: dict[str, str] = {}

    def open(self, identity: Mapping[str, str], sample_rate: int) -> None:
        """Take up what an earlier call left behind; if it belongs to other things, say so and begin anew.

        Args:
            identity: name of a thing (model, recording, ...) -> its fingerprint.
            sample_rate: of the samples that are counted, in hertz.
        """
        self._header = dict(identity)
        self.tokens, self.until = [], 0
        if not self.path.exists():
            return
        lines = _whole_lines(self.path.read_bytes())
        known, size = next(lines, ({}, 0))
        changed = [name for name, value in identity.items() if known.get(name, "") != value]
        if not changed:
            for record, end in lines:
                if record.get("from") != self.until:  # two processes wrote at once
                    break
                del self.tokens[record["keep"] :]
                self.tokens += [Token(*facts) for facts in record["tokens"]]
                self.until, size = record["until"], end
        if changed or not self.until:
            self.remove()
            others = f"belongs to another {' and another '.join(changed)}" if known else "cannot be read"
            self._tell(f"begun anew, for what was written down of an earlier start {others}.", 0.0)
            return
        os.truncate(self.path, size)
        seconds = self.until / sample_rate
        self._tell(f"going on at {hours_and_minutes(seconds)}.", seconds)

    def append(self, keep: int, tokens: Sequence[Token], until: int) -> None:
        """The first ``keep`` tokens stay, ``tokens`` follow; they answer for ``until`` samples together."""
        facts = [[t.id, t.start, t.end, t.confidence, t.breaks, t.cut] for t in tokens]
        line = _sealed({"from": self.until, "until": until, "keep": keep, "tokens": facts})
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(line if self.until else _sealed(self._header) + line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise unwritable(self.path, error) from None
        self.until = until

    def remove(self) -> None:
        """Delete the file, if there is one."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(self.path, error) from None

    def _tell(self, words: str, seconds: float) -> None:
        if self._told is not None:
            self._told(words, seconds)


def recording_fingerprint(path: Path) -> str:
    """What tells one state of a recording from another: size, time of its last change, both ends.

    Not all of its bytes: ten hours of WAV are gigabytes. A program that changes the middle changes the time.
    """
    facts = path.stat()
    with path.open("rb") as file:
        head = file.read(_ENDS)
        file.seek(max(0, facts.st_size - _ENDS))
        ends = hashlib.sha256(head + file.read(_ENDS)).hexdigest()
    return f"{facts.st_size} {facts.st_mtime_ns} {ends}"


def journal_header(
    identity: Mapping[str, str], audio: Path, start: float, duration: float | None, window: str
) -> dict[str, str]:
    """What a journal belongs to: all but formatting, which comes after what it holds.

    Args:
        identity: what the text depends on beside the audio.
        window: how the recording is cut and batched.
    """
    return {name: mark for name, mark in identity.items() if name != "formatting"} | {
        "version of firstwords": __version__,
        "state of the recording": recording_fingerprint(audio),
        "stretch of it": f"{start} {duration}",
        "window": window,
    }


def hours_and_minutes(seconds: float) -> str:
    """Seconds -> '3 h 12 min', '12 min 5 s', '5 s'; always rounded down."""
    hours, minutes, rest = int(seconds) // 3600, int(seconds) // 60 % 60, int(seconds) % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _sealed(record: Mapping[str, Any]) -> bytes:
    body = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _whole_lines(content: bytes) -> Iterator[tuple[dict[str, Any], int]]:
    """The records at the beginning of a journal that are whole, each with where its line ends."""
    start = 0
    while (end := content.find(b"\n", start)) >= 0:
        seal, _, body = content[start:end].partition(b" ")
        if seal != b"%08x" % zlib.crc32(body):
            return
        start = end + 1
        yield json.loads(body), start
