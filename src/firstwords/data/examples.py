"""One utterance of a corpus -> samples and tokens, decoded, varied and cached; imports no torch.

Everything random about an utterance is drawn from (seed, epoch, index), so it is the same on any number of
loader processes and after any interruption. Besides its utterances an epoch has *places* (places.py), filled
anew each time: with non-speech, or with several utterances one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from firstwords.audio.augment import AugmentConfig, FolderNoise, NoiseSource, augment
from firstwords.audio.effects import change_speed, stretch_time
from firstwords.audio.voices import equalized, filtered
from firstwords.audio.waveform import ChannelPolicy, read
from firstwords.data.cache import AudioCache, quantize, restore
from firstwords.data.manifest import Utterance
from firstwords.data.places import LONGEST, NOTHING, Between, Item, around_sound, hiss, pause
from firstwords.data.voices import Voices
from firstwords.errors import AudioError

SILENT_SHARE = 0.2  # of the negatives: no sound at all, or the hiss of a recorder
_MISSES = 3  # utterances in a row that do not fit into what is left of a place


class LoadedExample(NamedTuple):
    """One utterance, ready for a batch."""

    id: str
    samples: np.ndarray  # (S,) float32
    tokens: tuple[int, ...]
    text: str
    key: int  # seed of what is random about it later (SpecAugment)
    repairs: tuple[str, ...]  # what the reader mended, the first time it is read
    speed: float = 0.0  # of an utterance of the corpus; 0: put together for this epoch


class Unreadable(NamedTuple):
    """An utterance (or the file of a noise) that cannot be used, and why."""

    id: str
    reason: str


@dataclass
class ExampleSource:
    """Index and epoch -> example. Pickled as a whole to loader processes.

    Args:
        keep_pitch: voices stay as high as they are at other speeds.
        augmentation: None: samples as they are (dev and test).
        negatives: recordings without speech; where there are none, ``noises`` serve.
        between: what stands between the transcripts of joined utterances.
        speech_epochs: first epochs whose places for non-speech hold speech too: a model that has not yet
            learned any letter learns from silence only to write nothing.
        cache: shared or of this process; see AudioCache.
        voices: filters that make all voices alike; what is no voice of theirs (non-speech) is filtered as
            a recording by itself would be.
    """

    items: Sequence[Item]
    sample_rate: int
    channels: ChannelPolicy
    seed: int
    keep_pitch: bool = False
    augmentation: AugmentConfig | None = None
    noises: NoiseSource | None = None
    negatives: Sequence[Utterance] = ()
    cache: AudioCache | None = None
    between: Between = NOTHING
    speech_epochs: int = 0
    voices: Voices | None = None
    _told: int = field(default=0, init=False)  # of the unreadable noises

    def load(self, epoch: int, index: int, speed: float = 1.0) -> LoadedExample | Unreadable:
        """The example at ``index``, as it sounds in ``epoch``, played at ``speed``."""
        item = self.items[index]
        draw = np.random.default_rng([self.seed, 3, epoch, index])
        key = int(draw.integers(1 << 62))
        name, text, tokens = item.id, item.text, item.tokens
        try:
            if item.audio is not None:
                samples, repairs = self._read(index, item.audio, item.start, item.duration)
            elif item.joined or (epoch < self.speech_epochs and self._speech):
                name, samples, text, tokens, repairs = self._joined(item.duration, draw)
            else:
                samples, repairs = self._alone(self._negative(item.duration, draw)), ()
            if speed != 1.0:
                if self.keep_pitch:
                    samples = stretch_time(samples, self.sample_rate, speed)
                else:
                    samples = change_speed(samples, speed)
            if self.augmentation is not None:
                samples = augment(samples, self.sample_rate, self.augmentation, draw, self.noises)
        except (AudioError, OSError) as error:
            return Unreadable(item.id, error.what if isinstance(error, AudioError) else str(error))
        if len(samples) == 0:
            return Unreadable(item.id, f"'{item.audio}' holds no samples at {item.start:.2f} s")
        played = speed if item.audio is not None else 0.0
        samples = np.ascontiguousarray(samples, np.float32)
        return LoadedExample(name, samples, tokens, text, key, repairs, played)

    def unreadable_noises(self) -> list[Unreadable]:
        """Noise recordings that were passed over since this was last asked."""
        if not isinstance(self.noises, FolderNoise):
            return []
        found = list(self.noises.unreadable.items())[self._told :]
        self._told += len(found)
        return [Unreadable(str(clip.path), reason) for clip, reason in found]

    def _read(
        self, index: int, path: Path, start: float, duration: float
    ) -> tuple[np.ndarray, tuple[str, ...]]:
        kept = self.cache.get(index) if self.cache is not None else None
        if kept is not None:
            return restore(kept), ()
        wave = read(
            path, sample_rate=self.sample_rate, channels=self.channels, start=start, duration=duration
        )
        heard = wave.samples
        if self.voices is not None:
            known = (path, start) in self.voices
            heard = filtered(heard, self.voices.at(path, start)) if known else self._alone(heard)
        # Also without a cache: an example must not depend on whether it was kept.
        samples = quantize(heard)
        if self.cache is not None:
            self.cache.put(index, samples)
        return restore(samples), wave.repairs

    def _alone(self, samples: np.ndarray) -> np.ndarray:
        """As a recogniser would hear them, were they all that it hears."""
        return samples if self.voices is None else equalized(samples, self.sample_rate)

    @cached_property
    def _speech(self) -> list[int]:
        return [n for n, item in enumerate(self.items) if item.audio is not None and item.text]

    @cached_property
    def _shortest(self) -> int:
        return min(self._speech, key=lambda n: self.items[n].duration)

    def _joined(
        self, duration: float, draw: np.random.Generator
    ) -> tuple[str, np.ndarray, str, tuple[int, ...], tuple[str, ...]]:
        """Utterances drawn until no other fits into ``duration`` seconds, with pauses around them.

        At least one, the shortest of the corpus where no drawn one fits.
        """
        parts = [pause(draw, self.sample_rate)]
        names: list[str] = []
        texts: list[str] = []
        tokens: list[int] = []
        repairs: list[str] = []
        left = duration - len(parts[0]) / self.sample_rate
        misses = 0
        while misses < _MISSES or not texts:
            index = (
                self._speech[int(draw.integers(len(self._speech)))] if misses < _MISSES else self._shortest
            )
            item = self.items[index]
            after = pause(draw, self.sample_rate)
            seconds = item.duration + len(after) / self.sample_rate
            if item.audio is None or (misses < _MISSES and seconds > left):
                misses += 1
                continue
            try:
                samples, mended = self._read(index, item.audio, item.start, item.duration)
            except (AudioError, OSError):
                if misses >= _MISSES:
                    raise
                misses += 1  # it is named where it stands by itself
                continue
            parts += [samples, after]
            tokens += (*(self.between.tokens if texts else ()), *item.tokens)
            names.append(item.id)
            texts.append(item.text)
            repairs += mended
            left -= seconds
        return (
            "+".join(names),
            np.concatenate(parts),
            self.between.text.join(texts),
            tuple(tokens),
            tuple(repairs),
        )

    def _negative(self, duration: float, draw: np.random.Generator) -> np.ndarray:
        count = round(duration * self.sample_rate)
        if draw.random() < SILENT_SHARE:
            return hiss(draw, count)
        level = np.float32(10 ** (draw.uniform(-30, 0) / 20))
        if not self.negatives:
            noise = self.noises.draw(draw, count, self.sample_rate) if self.noises is not None else None
            return np.zeros(count, np.float32) if noise is None else level * noise
        parts: list[np.ndarray] = []
        while count > 0:
            part = self._stretch_of_negative(count / self.sample_rate, draw)[:count]
            if len(part) == 0:
                raise AudioError(
                    "A recording of non-speech holds no samples.", mend="Run 'firstwords check'."
                )
            parts.append(part)
            count -= len(part)
        return level * np.concatenate(parts)

    def _stretch_of_negative(self, seconds: float, draw: np.random.Generator) -> np.ndarray:
        """Part of a random recording of non-speech, at most so long, and rather where a sound is."""
        clip = self.negatives[int(draw.integers(len(self.negatives)))]
        span = min(clip.duration, max(seconds, LONGEST))  # recordings of hours are not read whole
        samples = read(
            clip.audio,
            sample_rate=self.sample_rate,
            channels=self.channels,
            start=clip.start + float(draw.uniform(0, clip.duration - span)),
            duration=span,
        ).samples
        return around_sound(draw, samples, round(seconds * self.sample_rate))
