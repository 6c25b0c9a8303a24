"""Which voices there are in a corpus or among recordings, and the filter that makes each of them usual.

A voice is a speaker where the manifest names speakers, else a recording. What it sounds like is measured on
two minutes of it at most, spread over all that there is (audio/voices.py says how).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from firstwords.audio.source import Samples
from firstwords.audio.voices import NOTHING_HEARD, Spectrum, equalizer, spectrum_of
from firstwords.audio.waveform import AudioReader, ChannelPolicy, probe
from firstwords.data.manifest import Utterance
from firstwords.errors import AudioError

MEASURED_SECONDS = 120.0  # of a voice
_STRETCH_SECONDS = 10.0  # of a recording at a time
_READERS = 4  # threads


class Stretch(NamedTuple):
    """Some seconds of a recording, and whose voice is in it."""

    voice: str
    audio: Path
    start: float
    duration: float


def voice_of(utterance: Utterance) -> str:
    """Name of the voice of an utterance."""
    return utterance.speaker or str(utterance.audio)


def stretches_of(utterances: Iterable[Utterance]) -> Iterator[Stretch]:
    """Utterances -> where their voices can be heard."""
    return (Stretch(voice_of(u), u.audio, u.start, u.duration) for u in utterances)


@dataclass(frozen=True)
class Voices:
    """Name of a voice -> taps of its filter; None where nothing was heard of it.

    Args:
        names: (recording, start) -> the voice that speaks there.
    """

    taps: Mapping[str, Samples | None]
    names: Mapping[tuple[Path, float], str]

    def at(self, audio: Path, start: float) -> Samples | None:
        """The filter for a stretch that was measured; KeyError for others."""
        return self.taps[self.names[audio, start]]

    def __contains__(self, place: tuple[Path, float]) -> bool:
        return place in self.names

    def filter_for(
        self, audio: Path, start: float, duration: float | None, *, sample_rate: int, channels: ChannelPolicy
    ) -> Samples | None:
        """The filter for any stretch of a recording: of the voice there, or of the stretch by itself."""
        if (audio, start) in self:
            return self.at(audio, start)
        if duration is None:
            duration = probe(audio).duration - start
        alone = Stretch(str(audio), audio, start, duration)
        return measure_voices([alone], sample_rate, channels).at(audio, start)


NO_VOICES = Voices({}, {})


def measure_voices(stretches: Iterable[Stretch], sample_rate: int, channels: ChannelPolicy) -> Voices:
    """Listen to every voice; what cannot be read says nothing about it (whoever uses it will name it)."""
    by_voice: dict[str, list[Stretch]] = {}
    names: dict[tuple[Path, float], str] = {}
    for stretch in stretches:
        by_voice.setdefault(stretch.voice, []).append(stretch)
        names[stretch.audio, stretch.start] = stretch.voice

    def listen(place: Stretch) -> Spectrum:
        try:
            samples = AudioReader(
                place.audio,
                sample_rate=sample_rate,
                channels=channels,
                start=place.start,
                duration=place.duration,
            ).whole()
        except (AudioError, OSError):
            return NOTHING_HEARD
        return spectrum_of(samples, sample_rate)

    taps: dict[str, Samples | None] = {}
    with ThreadPoolExecutor(_READERS) as readers:
        for voice, own in by_voice.items():
            heard = sum(readers.map(listen, _sample(own)), NOTHING_HEARD)
            taps[voice] = equalizer(heard, sample_rate)
    return Voices(taps, names)


def _sample(stretches: list[Stretch]) -> list[Stretch]:
    """Two minutes of them, spread evenly; long ones are heard in parts."""
    parts: list[Stretch] = []
    for one in stretches:
        count = max(1, round(one.duration / _STRETCH_SECONDS))
        length = one.duration / count
        parts += [one._replace(start=one.start + n * length, duration=length) for n in range(count)]
    seconds = sum(part.duration for part in parts)
    every = max(1.0, seconds / MEASURED_SECONDS)
    return [parts[int(n * every)] for n in range(int(len(parts) / every))]
