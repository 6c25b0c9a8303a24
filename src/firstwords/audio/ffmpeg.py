"""MP4/M4A, WebM, 3GP, AMR, WMA, AAC -> a Source, through an installed ffmpeg in a limited child process.

The demuxer is named by what the file's bytes say, so a playlist can never make ffmpeg open other files or
addresses; only the ``file`` and ``pipe`` protocols are allowed; no shell. On Linux the child gets limits on
memory, processor time and file size; everywhere it is killed when it stands still. Samples come as a float
WAV over a pipe: nothing is written to disk, and never more than one chunk is held.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from firstwords.audio.pcm import SampleLayout, decode
from firstwords.audio.source import Samples, Source, check_format, chunk_frames, seconds
from firstwords.errors import AudioError

DEMUXERS = {"mp4": "mov", "webm": "matroska", "amr": "amr", "asf": "asf", "aac": "aac"}
_STALL_SECONDS = 60.0  # without a byte of output
_PROBE_SECONDS = 30.0
_END_SECONDS = 10.0  # from the last byte to the end of the child
_MEMORY_BYTES = 2 << 30
_CPU_SECONDS = 4 * 3600
_INSTALL = (
    "Install ffmpeg (Debian/Ubuntu: apt install ffmpeg; macOS: brew install ffmpeg; Windows: "
    "winget install ffmpeg), or export the recording as WAV or FLAC."
)


def open_with_ffmpeg(path: Path, container: str) -> Source:
    """Container only ffmpeg reads -> Source; the length is what its header says, the decoder decides."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise AudioError(f"'{path}' is {container} audio, and no ffmpeg was found to read it.", mend=_INSTALL)
    facts = _probe(path, container)
    with _decoding(path, container, program) as child:
        layout, rate = _wav_header(path, child)
    check_format(path, rate, layout.channels)
    source = Source(
        path=path,
        sample_rate=rate,
        channels=layout.channels,
        frames=None,
        container=container,
        codec=facts.get("codec_name", "unknown"),
        chunks=lambda first: iter(()),
    )
    declared = _declared_frames(facts, rate)

    def chunks(first: int) -> Iterator[Samples]:
        return _chunks(source, program, first, declared)

    source.chunks = chunks
    return source


def _input(path: Path, container: str) -> list[str]:
    return [
        "-hide_banner", "-loglevel", "error", "-protocol_whitelist", "file,pipe",
        "-f", DEMUXERS[container], "-i", f"file:{path.absolute()}",
    ]  # fmt: skip


def _probe(path: Path, container: str) -> dict[str, str]:
    """The first audio stream as ffprobe describes it; empty without ffprobe or without an answer."""
    program = shutil.which("ffprobe")
    if program is None:
        return {}
    command = [program, *_input(path, container), "-select_streams", "a:0", "-show_streams", "-of", "json"]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_PROBE_SECONDS, stdin=subprocess.DEVNULL, check=False
        )
        streams = json.loads(done.stdout or b"{}").get("streams", [])
    except (subprocess.TimeoutExpired, json.JSONDecodeError, OSError):
        return {}
    return {str(k): str(v) for k, v in cast("dict[str, Any]", streams[0]).items()} if streams else {}


def _declared_frames(facts: dict[str, str], rate: int) -> int | None:
    try:
        return round(float(facts["duration"]) * rate)
    except (KeyError, ValueError):
        return None


class _Child:
    """A running ffmpeg, watched: killed when no byte comes for a minute."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.stalled = False
        self._errors: list[bytes] = []
        self._timer: threading.Timer | None = None
        _limit(self.process.pid)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        stream = cast("IO[bytes]", self.process.stderr)
        while line := stream.read(4096):
            if len(self._errors) < 16:  # the first words tell the fault; never keep a flood
                self._errors.append(line)

    def _stall(self) -> None:
        self.stalled = True
        self.process.kill()

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; fewer only at the end."""
        self._timer = threading.Timer(_STALL_SECONDS, self._stall)
        self._timer.daemon = True
        self._timer.start()
        try:
            return cast("IO[bytes]", self.process.stdout).read(size)
        finally:
            self._timer.cancel()

    def complaint(self) -> str:
        """What ffmpeg said, one line; waits for it to end."""
        try:
            self.process.wait(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:  # its output is closed, so what it still does is of no use
            self.process.kill()
            self.process.wait()
        self._listener.join(timeout=10)
        text = b"".join(self._errors).decode("utf-8", "replace").strip().splitlines()
        # "[dec:aac @ 0x563f] Error ...": which part says so, and where it lies in memory, helps nobody.
        return re.sub(r"\[[^]]* @ 0x[0-9a-f]+\] *", "", text[-1])[:300] if text else ""

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._listener.join(timeout=10)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


def _limit(pid: int) -> None:
    """Memory, processor time, no files; set from outside, so no code runs between fork and exec."""
    if sys.platform == "linux":
        import resource

        try:
            resource.prlimit(pid, resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
            resource.prlimit(pid, resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, 0))
        except (OSError, ValueError):
            pass  # already ended, or a container without that right: the watch below still holds


@contextmanager
def _decoding(path: Path, container: str, program: str) -> Generator[_Child]:
    command = [
        program, "-nostdin", *_input(path, container), "-map", "0:a:0", "-vn", "-sn", "-dn",
        "-map_metadata", "-1", "-c:a", "pcm_f32le", "-f", "wav", "pipe:1",
    ]  # fmt: skip
    child = _Child(command)
    try:
        yield child
    finally:
        child.close()


def _wav_header(path: Path, child: _Child) -> tuple[SampleLayout, int]:
    """The first bytes of ffmpeg's WAV -> layout and rate; the next byte is the first sample's."""
    channels = rate = 0
    started = len(child.read(12)) == 12
    while started:
        chunk = child.read(8)
        if len(chunk) < 8:
            break
        name, size = struct.unpack("<4sI", chunk)
        if name == b"data" and channels:
            return SampleLayout("f32", False, channels, 0, 0), rate
        body = child.read(size + size % 2)
        if name == b"fmt " and len(body) >= 8:
            channels, rate = struct.unpack("<HI", body[2:8])
    raise _failure(path, child)


def _failure(path: Path, child: _Child) -> AudioError:
    if child.stalled:
        return AudioError(
            f"'{path}': ffmpeg gave nothing for {_STALL_SECONDS:.0f} s and was stopped.",
            mend="The file is damaged: export it again as WAV or FLAC.",
        )
    said = child.complaint()
    return AudioError(
        f"'{path}': ffmpeg finds no audio in it" + (f" ({said})." if said else "."),
        mend="Check that the file plays and has sound; export it as WAV or FLAC.",
    )


def _chunks(source: Source, program: str, first: int, declared: int | None) -> Iterator[Samples]:
    at = 0
    with _decoding(source.path, source.container, program) as child:
        layout, rate = _wav_header(source.path, child)
        size = chunk_frames(layout.channels) * layout.frame_bytes
        while data := child.read(size):
            chunk = decode(data[: len(data) // layout.frame_bytes * layout.frame_bytes], layout)
            at += len(chunk)
            if at > first:
                yield chunk[max(0, first - (at - len(chunk))) :]
        if child.stalled:
            raise _failure(source.path, child)
        said = child.complaint()
        if child.process.returncode != 0 and at == 0:
            raise _failure(source.path, child)
        if said or child.process.returncode != 0:
            source.note(f"ffmpeg met damage and went on: {said or 'it ended with an error'}")
    if declared is not None and at < declared - rate // 5:
        source.note(f"cut short: {seconds(declared, rate)} promised, {seconds(at, rate)} decoded")
