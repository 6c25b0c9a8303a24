"""Where background noise comes from: recordings in folders, several voices at once, or synthetic hiss.

A source gives exactly as many samples as asked for; what it gives depends on the generator alone, not on
what was asked before, what is cached, or which process asks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np
import numpy.typing as npt

from firstwords.audio.source import Samples
from firstwords.audio.waveform import probe, read
from firstwords.errors import AudioError

SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3", ".sph", ".w64", ".aiff", ".aif", ".oga"})
WHOLE_SECONDS = 60.0  # longer recordings are read in stretches, shorter ones are kept whole
FADE_SECONDS = 0.01  # where a short noise is repeated

_Codes = npt.NDArray[np.int16]


class NoiseSource(Protocol):
    """Anything noise can be drawn from."""

    def draw(self, generator: np.random.Generator, samples: int, sample_rate: int) -> np.ndarray:
        """``samples`` float32 samples of noise at any level (it is set later); zeros where there is none."""
        ...


@dataclass(frozen=True)
class NoiseClip:
    """A stretch of a recording, in seconds; the whole of it by default."""

    path: Path
    start: float = 0.0
    duration: float | None = None


@final
class FolderNoise:
    """Recordings, or stretches of them, read when first needed.

    Args:
        paths: files, folders (searched through, in the order of their names) and clips.
        cache_megabytes: decoded samples kept in memory; the least recently used go first.

    A recording that cannot be read is passed over for the next one and noted in ``unreadable``.
    """

    def __init__(self, paths: Iterable[Path | str | NoiseClip], *, cache_megabytes: float = 64.0) -> None:
        self.clips: tuple[NoiseClip, ...] = tuple(clip for path in paths for clip in find_clips(path))
        if not self.clips:
            raise AudioError(
                "The noise folders hold no recordings.",
                mend=f"Give folders with files of these kinds: {', '.join(sorted(SUFFIXES))}.",
            )
        self.unreadable: dict[NoiseClip, str] = {}
        self._limit = int(cache_megabytes * 2**20)
        self._kept: OrderedDict[tuple[int, int], _Codes] = OrderedDict()
        self._size = 0
        self._durations: dict[int, float] = {}

    def draw(self, generator: np.random.Generator, samples: int, sample_rate: int) -> np.ndarray:
        """A random stretch of a random recording; short ones are repeated with a cross-fade."""
        first, place = int(generator.integers(len(self.clips))), float(generator.random())
        heard = False
        for index in (*range(first, len(self.clips)), *range(first)):
            try:  # each time anew: passing over those that failed before would make draws depend on the past
                noise = self._stretch(index, place, samples, sample_rate)
            except (AudioError, OSError) as error:
                reason = error.what if isinstance(error, AudioError) else str(error)
                self.unreadable[self.clips[index]] = reason
                continue
            heard = True
            if noise.any():
                return noise
        if heard:  # recordings without a sound add nothing, which is no reason to lose the utterance
            return np.zeros(samples, dtype=np.float32)
        raise AudioError(
            f"None of the {len(self.clips)} noise recordings can be read, the first because: "
            f"{next(iter(self.unreadable.values()))}",
            mend="Mend or remove the noise recordings.",
        )

    def __getstate__(self) -> dict[str, Any]:
        """Loader processes start with an empty cache."""
        return self.__dict__ | {"_kept": OrderedDict[tuple[int, int], _Codes](), "_size": 0}

    def _stretch(self, index: int, place: float, samples: int, sample_rate: int) -> Samples:
        clip, duration = self.clips[index], self._duration(index)
        if duration <= WHOLE_SECONDS:
            return cut(self._whole(index, sample_rate), samples, place, sample_rate)
        wanted = samples / sample_rate
        start = clip.start + place * max(0.0, duration - wanted)
        piece = read(clip.path, sample_rate=sample_rate, start=start, duration=min(wanted, duration)).samples
        return cut(piece, samples, 0.0, sample_rate)

    def _duration(self, index: int) -> float:
        clip = self.clips[index]
        if clip.duration is not None:
            return clip.duration
        if index not in self._durations:
            self._durations[index] = probe(clip.path).duration - clip.start
        return self._durations[index]

    def _whole(self, index: int, sample_rate: int) -> Samples:
        key, clip = (index, sample_rate), self.clips[index]
        codes = self._kept.get(key)
        if codes is None:
            noise = read(clip.path, sample_rate=sample_rate, start=clip.start, duration=clip.duration).samples
            # 16 bits of the clip's own range hold twice as many clips; the level of noise is chosen later.
            peak = float(np.abs(noise).max()) if len(noise) else 0.0
            codes = self._kept[key] = np.round(noise * (32767 / peak if peak else 0.0)).astype(np.int16)
            self._size += codes.nbytes
            while self._size > self._limit and self._kept:
                self._size -= self._kept.popitem(last=False)[1].nbytes
        else:
            self._kept.move_to_end(key)
        return codes.astype(np.float32) / np.float32(32768)


@final
class Babble:
    """Several voices at once, each brought to the same power: drawn from another source.

    Args:
        voices: a noise source over recordings of speech.
        count: least and greatest number of voices.
    """

    def __init__(self, voices: NoiseSource, count: tuple[int, int] = (3, 7)) -> None:
        self.voices, self.count = voices, count

    def draw(self, generator: np.random.Generator, samples: int, sample_rate: int) -> np.ndarray:
        """The sum of 3 to 7 stretches of speech."""
        mixed = np.zeros(samples, dtype=np.float32)
        for _ in range(int(generator.integers(self.count[0], self.count[1] + 1))):
            voice = self.voices.draw(generator, samples, sample_rate)
            power = float(np.mean(np.square(voice, dtype=np.float64))) if samples else 0.0
            if power > 0:
                mixed += voice / np.float32(np.sqrt(power))
        return mixed


@final
class ColoredNoise:
    """Synthetic hiss between white (slope 0) and brown (slope 2), for those without noise recordings."""

    def __init__(self, slopes: tuple[float, float] = (0.0, 2.0)) -> None:
        self.slopes = slopes

    def draw(self, generator: np.random.Generator, samples: int, sample_rate: int) -> np.ndarray:
        """Gaussian noise whose power falls with frequency ^ slope above 50 Hz, mean square 0.01."""
        slope = float(generator.uniform(*self.slopes))
        white = generator.standard_normal(samples, dtype=np.float32)
        if samples < 2:
            return np.float32(0.1) * white
        size = -(-samples // 4096) * 4096  # a product of small primes, mostly: the FFT is quick
        frequencies = np.maximum(np.fft.rfftfreq(size, 1 / sample_rate), 50.0)
        shape = ((frequencies / 50.0) ** (-slope / 2)).astype(np.float32)
        noise = np.fft.irfft(np.fft.rfft(white, size) * shape, size)[:samples]
        return (noise * (0.1 / np.sqrt(np.mean(np.square(noise, dtype=np.float64))))).astype(np.float32)


def cut(noise: Samples, samples: int, place: float, sample_rate: int) -> Samples:
    """Exactly ``samples`` of a noise, from ``place`` (0 to 1) on; a shorter one is looped without a click.

    The loop's end is faded into its start:   noise a b c d e -> loop (a+e) b c d (a+e) b c ...
    """
    if len(noise) == 0 or samples == 0:
        return np.zeros(samples, dtype=np.float32)
    if len(noise) >= samples:
        start = int(place * (len(noise) - samples + 1))
        return noise[start : start + samples].copy()
    fade = min(round(FADE_SECONDS * sample_rate), len(noise) // 2)
    loop = noise[: len(noise) - fade].copy()
    if fade:
        rise = np.sqrt((np.arange(fade, dtype=np.float32) + 0.5) / fade)  # constant power
        loop[:fade] = loop[:fade] * rise + noise[len(noise) - fade :] * rise[::-1]
    at = (int(place * len(loop)) + np.arange(samples)) % len(loop)
    return loop[at]


def find_clips(path: Path | str | NoiseClip) -> list[NoiseClip]:
    """A file, a folder or a clip -> clips, folders in the order of their names."""
    if isinstance(path, NoiseClip):
        return [path]
    path = Path(path)
    if path.is_dir():
        found = [file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file()]
        return [NoiseClip(file) for file in sorted(found, key=lambda file: file.relative_to(path).as_posix())]
    if not path.exists():
        raise AudioError(f"'{path}': no such noise file or folder.", mend="Check the path in the recipe.")
    return [NoiseClip(path)]
