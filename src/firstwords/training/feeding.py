"""What a run reads: training batches, dev batches, and stretches of non-speech."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from firstwords.audio.waveform import channel_policy
from firstwords.cores import available_cores
from firstwords.data.cache import AudioCache
from firstwords.data.examples import ExampleSource, LoadedExample
from firstwords.data.loader import Loader, ValidationLoader
from firstwords.data.places import Item
from firstwords.data.sampler import BucketSampler
from firstwords.data.shapes import Shapes
from firstwords.data.voices import Stretch, Voices, measure_voices
from firstwords.device import Compute
from firstwords.model.recipe import Recipe
from firstwords.training.distributed import Processes
from firstwords.training.gate import noise_probes
from firstwords.training.memory import free_bytes
from firstwords.training.prepare import Prepared

_CACHE_SHARE = 0.3  # of the free memory


@dataclass
class Feeding:
    """Makes the loaders of one run.

    Args:
        scratch: folder for the audio that loader processes share.
    """

    recipe: Recipe
    prepared: Prepared
    compute: Compute
    processes: Processes
    scratch: Path

    @property
    def batch_seconds(self) -> float:
        """Seconds of a batch of this process, as the recipe wants them."""
        return self.recipe.training.batch_seconds * self.processes.batch_share

    def sampler(self, batch_seconds: float) -> BucketSampler:
        """Who shares a batch, and when."""
        training = self.recipe.training
        return BucketSampler(
            [item.duration for item in self.prepared.train],
            tokens=[len(item.tokens) for item in self.prepared.train],
            batch_seconds=batch_seconds,
            max_utterances=training.max_utterances,
            speeds=self.recipe.data.speeds,
            seed=self.recipe.seed,
            world_size=self.processes.size,
            rank=self.processes.rank,
            sorted_first_epoch=training.sorted_first_epoch,
        )

    def training(self, workers: int) -> Loader:
        """Training batches, varied anew in every epoch."""
        data = self.recipe.data
        source = ExampleSource(
            self.prepared.train,
            data.sample_rate,
            channel_policy(data.channels),
            self.recipe.seed,
            keep_pitch=data.keep_pitch,
            augmentation=data.augment,
            noises=self.prepared.noises,
            negatives=self.prepared.negatives,
            between=self.prepared.between,
            voices=self._voices,
            cache=self._cache(self.prepared.train, shared=workers > 0),
        )
        sampler = self.sampler(self.batch_seconds)
        return Loader(source, sampler, workers=workers, few_shapes=self._few_shapes)

    def dev(self) -> ValidationLoader:
        """Dev utterances as they are."""
        return self._plain(self.prepared.dev, self._cache(self.prepared.dev, shared=False))

    def non_speech(self) -> ValidationLoader:
        """Non-speech that the gate is measured on."""
        return self._plain(noise_probes(self.recipe.seed, self.prepared.negatives), None)

    def clean(self) -> Callable[[str, float], Tensor | None]:
        """Id and speed of a training utterance -> its samples (S,) as recorded; None where it has none."""
        data = self.recipe.data
        source = ExampleSource(
            self.prepared.train,
            data.sample_rate,
            channel_policy(data.channels),
            self.recipe.seed,
            keep_pitch=data.keep_pitch,
            voices=self._voices,
        )
        places = {item.id: n for n, item in enumerate(source.items) if item.audio is not None}

        def hear(name: str, speed: float) -> Tensor | None:
            place = places.get(name)
            found = None if place is None else source.load(0, place, speed)
            return torch.from_numpy(found.samples) if isinstance(found, LoadedExample) else None

        return hear

    def workers(self, asked: int | Literal["auto"] | None) -> int:
        """Loader processes."""
        wanted = asked if asked is not None else self.recipe.training.workers
        if wanted != "auto":
            return wanted
        # On the CPU loading takes one or two percent of a step: other processes would only be in the way.
        return 0 if self.compute.device.type == "cpu" else max(1, min(4, available_cores() - 1))

    def _plain(self, items: Sequence[Item], cache: AudioCache | None) -> ValidationLoader:
        data, training = self.recipe.data, self.recipe.training
        source = ExampleSource(
            items,
            data.sample_rate,
            channel_policy(data.channels),
            self.recipe.seed,
            noises=self.prepared.noises,
            negatives=self.prepared.negatives,
            voices=self._voices,
            cache=cache,
        )
        shapes = Shapes(training.batch_seconds, training.max_utterances)
        return ValidationLoader(source, shapes, few_shapes=self._few_shapes)

    @cached_property
    def _voices(self) -> Voices | None:
        """Filters of all voices of training and dev."""
        data = self.recipe.data
        if not data.equalize:
            return None
        items = (*self.prepared.train, *self.prepared.dev)
        heard = (Stretch(i.voice or str(i.audio), i.audio, i.start, i.duration) for i in items if i.audio)
        return measure_voices(heard, data.sample_rate, channel_policy(data.channels))

    @property
    def _few_shapes(self) -> bool:
        """Where new shapes are expensive: see data/shapes.py."""
        return self.compute.device.type == "cpu" and self.compute.autocast

    def _cache(self, items: Sequence[Item], *, shared: bool) -> AudioCache | None:
        limit = self.recipe.data.cache_megabytes * 2**20
        free = free_bytes(torch.device("cpu"))
        limit = limit if free is None else min(limit, _CACHE_SHARE * free)
        if limit <= 0:
            return None
        path = self.scratch / f"audio-{self.processes.rank}.cache" if shared else None
        return AudioCache(
            [item.duration for item in items],
            sample_rate=self.recipe.data.sample_rate,
            limit_bytes=limit,
            path=path,
        )
