"""Sound as it comes: raw samples from a pipe, or a microphone."""

from __future__ import annotations

import importlib
import queue
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Protocol, Self, cast

import numpy as np
import numpy.typing as npt

from firstwords.errors import AudioError, DependencyError

Pcm = npt.NDArray[np.int16]

_READ_BYTES = 1 << 16  # at most; what is there comes at once
_SIGNATURES = {
    b"RIFF": "a WAV file",
    b"fLaC": "a FLAC file",
    b"OggS": "an Ogg file",
    b"ID3\x03": "an MP3 file",
    b"ID3\x04": "an MP3 file",
    b"FORM": "an AIFF file",
    b"caff": "a CAF file",
}
_WAIT = 0.2  # seconds; a wait for the microphone is that long at most, so that Ctrl-C is heard


class Pipe(Protocol):
    """A buffered binary stream, such as ``sys.stdin.buffer``."""

    def read1(self, size: int, /) -> bytes:
        """What is there, at least a byte; b"" at the end."""
        ...


def read_pcm(pipe: Pipe, note: Callable[[str], None]) -> Iterator[Pcm]:
    """Signed 16-bit little-endian samples of one channel, block by block as they come.

    ``note`` is told of half a sample at the end. AudioError where the stream is a sound file with a header.
    """
    rest = b""
    known = False
    while data := pipe.read1(_READ_BYTES):
        rest += data
        if not known and len(rest) >= 4:
            known = True
            if name := _SIGNATURES.get(rest[:4]):
                raise AudioError(
                    f"Standard input is {name}, not raw samples.",
                    mend="Decode it: ffmpeg -i - -f s16le -ac 1 -ar RATE - | firstwords transcribe ...",
                )
        if known:
            whole = len(rest) // 2 * 2
            yield np.frombuffer(rest[:whole], dtype="<i2").astype(np.int16, copy=False)
            rest = rest[whole:]
    if len(rest) > 1:
        yield np.frombuffer(rest[: len(rest) // 2 * 2], dtype="<i2").astype(np.int16, copy=False)
    if len(rest) % 2:
        note("Standard input ended in the middle of a sample: its last byte is left out.")


class Microphone:
    """Blocks of 16-bit samples of one channel from a sound card, while the ``with`` block lasts.

    Args:
        device: number or part of the name; None: the system's choice.
        sample_rate: wanted, in hertz; a card that cannot gives its own, see ``sample_rate``.
        note: is told when blocks were lost because nobody fetched them in time.
    """

    def __init__(self, device: str | None, sample_rate: int, note: Callable[[str], None]) -> None:
        self._sound = _sounddevice()
        self._device: int | str | None = int(device) if device is not None and device.isdecimal() else device
        self._note = note
        self._blocks: queue.SimpleQueue[Pcm] = queue.SimpleQueue()
        self._lost = 0
        try:
            facts = cast("dict[str, Any]", self._sound.query_devices(self._device, "input"))
            self.name = str(facts["name"])
            self.sample_rate = self._rate(sample_rate, round(float(facts["default_samplerate"])))
            self._stream: Any = self._sound.InputStream(
                samplerate=self.sample_rate,
                channels=1,
                dtype="int16",
                device=self._device,
                callback=self._take,
            )
        except (ValueError, self._sound.PortAudioError) as error:
            named = "No microphone" if device is None else f"The microphone '{device}'"
            raise AudioError(
                f"{named} can be opened: {error}.", mend="Devices: python -m sounddevice."
            ) from None

    def __enter__(self) -> Self:
        self._stream.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.stop()
        self._stream.close()
        if self._lost:
            self._note(f"{self._lost} times, sound was lost: the machine is too slow or too busy.")

    def __iter__(self) -> Iterator[Pcm]:
        while self._stream.active or not self._blocks.empty():
            try:
                yield self._blocks.get(timeout=_WAIT)
            except queue.Empty:
                continue

    def _rate(self, wanted: int, own: int) -> int:
        try:
            self._sound.check_input_settings(
                device=self._device, channels=1, dtype="int16", samplerate=wanted
            )
        except self._sound.PortAudioError:
            return own
        return wanted

    def _take(self, samples: Pcm, frames: int, times: object, status: Any) -> None:
        """Called by the sound card's thread; the array is its own again afterwards."""
        self._lost += bool(status.input_overflow)
        self._blocks.put(samples[:, 0].copy())


def _sounddevice() -> Any:
    try:
        return importlib.import_module("sounddevice")
    except ImportError:
        raise DependencyError(
            "A microphone needs the package sounddevice.", mend='pip install "firstwords[microphone]"'
        ) from None
    except OSError as error:
        raise DependencyError(
            f"sounddevice finds no PortAudio library: {error}.",
            mend="Linux: apt install libportaudio2 (or your system's package of PortAudio).",
        ) from None
