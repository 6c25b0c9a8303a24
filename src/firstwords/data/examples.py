"""One utterance of a corpus -> samples and tokens, decoded, varied and cached; imports no torch.

Everything random about an utterance is drawn from (seed, epoch, index), so it is the same on any number of
loader processes and after any interruption. Negatives are places of an epoch that are filled with
non-speech (or silence) and an empty transcript: a recogniser that never heard any answers noise with words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from firstwords.audio.augment import AugmentConfig, FolderNoise, NoiseSource, augment
from firstwords.audio.effects import change_speed
from firstwords.audio.waveform import ChannelPolicy, read
from firstwords.data.cache import AudioCache, quantize, restore
from firstwords.data.manifest import Utterance
from firstwords.data.sampler import speed_of
from firstwords.errors import AudioError

SILENT_SHARE = 0.2  # of the negatives: no sound at all, or the hiss of a recorder


@dataclass(frozen=True)
class Item:
    """An utterance with its target; ``audio`` None is a negative, drawn anew each epoch."""

    id: str
    audio: Path | None
    start: float
    duration: float
    text: str
    tokens: tuple[int, ...]


class LoadedExample(NamedTuple):
    """One utterance, ready for a batch."""

    id: str
    samples: np.ndarray  # (S,) float32
    tokens: tuple[int, ...]
    text: str
    key: int  # seed of what is random about it later (SpecAugment)
    repairs: tuple[str, ...]  # what the reader mended, the first time it is read


class Unreadable(NamedTuple):
    """An utterance (or the file of a noise) that cannot be used, and why."""

    id: str
    reason: str


@dataclass
class ExampleSource:
    """Index and epoch -> example. Pickled as a whole to loader processes.

    Args:
        speeds: one is drawn per utterance and epoch; (1.0,) changes nothing.
        augmentation: None: samples as they are (dev and test).
        negatives: recordings without speech; where there are none, ``noises`` serve.
        cache: shared or of this process; see AudioCache.
    """

    items: Sequence[Item]
    sample_rate: int
    channels: ChannelPolicy
    seed: int
    speeds: tuple[float, ...] = (1.0,)
    augmentation: AugmentConfig | None = None
    noises: NoiseSource | None = None
    negatives: Sequence[Utterance] = ()
    cache: AudioCache | None = None
    _told: int = field(default=0, init=False)  # of the unreadable noises

    def load(self, epoch: int, index: int) -> LoadedExample | Unreadable:
        """The example at ``index``, as it sounds in ``epoch``."""
        item = self.items[index]
        draw = np.random.default_rng([self.seed, 3, epoch, index])
        key = int(draw.integers(1 << 62))
        speed = speed_of(self.speeds, self.seed, epoch, index)
        try:
            if item.audio is None:
                samples, repairs = self._negative(item.duration, draw), ()
            else:
                samples, repairs = self._read(index, item.audio, item.start, item.duration)
            if speed != 1.0:
                samples = change_speed(samples, speed)
            if self.augmentation is not None:
                samples = augment(samples, self.sample_rate, self.augmentation, draw, self.noises)
        except (AudioError, OSError) as error:
            return Unreadable(item.id, error.what if isinstance(error, AudioError) else str(error))
        if len(samples) == 0:
            return Unreadable(item.id, f"'{item.audio}' holds no samples at {item.start:.2f} s")
        return LoadedExample(
            item.id, np.ascontiguousarray(samples, np.float32), item.tokens, item.text, key, repairs
        )

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
        # Also without a cache: an example must not depend on whether it was kept.
        samples = quantize(wave.samples)
        if self.cache is not None:
            self.cache.put(index, samples)
        return restore(samples), wave.repairs

    def _negative(self, duration: float, draw: np.random.Generator) -> np.ndarray:
        count = round(duration * self.sample_rate)
        if draw.random() < SILENT_SHARE:
            level = 0.0 if draw.random() < 0.5 else 10 ** (draw.uniform(-80, -45) / 20)
            return (level * draw.standard_normal(count)).astype(np.float32)
        level = np.float32(10 ** (draw.uniform(-30, 0) / 20))
        if not self.negatives:
            noise = self.noises.draw(draw, count, self.sample_rate) if self.noises is not None else None
            return np.zeros(count, np.float32) if noise is None else np.float32(level) * noise
        clip = self.negatives[int(draw.integers(len(self.negatives)))]
        room = max(0.0, clip.duration - duration)
        wave = read(
            clip.audio,
            sample_rate=self.sample_rate,
            channels=self.channels,
            start=clip.start + float(draw.uniform(0, room)),
            duration=min(duration, clip.duration),
        )
        return wave.samples * level


def negative_places(count: int, durations: Sequence[float], *, seed: int) -> list[Item]:
    """``count`` places for non-speech in every epoch, as long as the utterances of the corpus are.

    Of other lengths they would share batches (and, in an epoch sorted by length, hundreds of steps) with
    none but each other, and a model that sees only silence for a while forgets that there is speech.
    """
    lengths = np.random.default_rng([seed, 4]).choice(np.asarray(durations), count)
    return [Item(f"negative-{n}", None, 0.0, round(float(x), 2), "", ()) for n, x in enumerate(lengths)]
