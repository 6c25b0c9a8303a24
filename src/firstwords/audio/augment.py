"""Augmentation of training audio: one utterance and a generator in, a varied utterance out.

Order, from the mouth to the file: edges, speed, time stretch, pitch, room, noise, equalizer, clipping, band
limit, codec, dropouts, gain. Dev and test data never pass through here.

The defaults suit half an hour to ten hours of speech on a laptop: gain often, noise (where a source is
given) every second time, a room every third time; speed is left to the training sampler, which must know
lengths beforehand. Effects that cost more or fit only some uses (codecs, telephone band, pitch) are off.

Each effect draws from its own stream, so switching one on does not change what the others draw.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field, FiniteFloat

from firstwords.audio import effects
from firstwords.audio.codec import Codec, through_codec
from firstwords.audio.noise import Babble, ColoredNoise, FolderNoise, NoiseClip, NoiseSource, find_clips
from firstwords.audio.rooms import LEAD, draw_room, measured_response, place_in_room, simulate_response
from firstwords.audio.source import Samples
from firstwords.config import Config
from firstwords.errors import AudioError

__all__ = [
    "AugmentConfig",
    "Babble",
    "ColoredNoise",
    "FolderNoise",
    "NoiseClip",
    "NoiseSource",
    "augment",
]


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"the lower bound {value[0]:g} is above the upper bound {value[1]:g}")
    return value


Range = Annotated[tuple[FiniteFloat, FiniteFloat], AfterValidator(_ordered)]
FactorRange = Annotated[
    tuple[Annotated[float, Field(ge=0.25, le=4)], Annotated[float, Field(ge=0.25, le=4)]],
    AfterValidator(_ordered),
]
PositiveRange = Annotated[
    tuple[Annotated[FiniteFloat, Field(gt=0)], Annotated[FiniteFloat, Field(gt=0)]], AfterValidator(_ordered)
]
Probability = Annotated[float, Field(ge=0, le=1)]


class EdgesConfig(Config):
    """Where a recording begins and ends: whoever cut it left more or less silence around the words."""

    probability: Probability = 0.0
    seconds: Annotated[
        tuple[Annotated[float, Field(ge=-1, le=5)], Annotated[float, Field(ge=-1, le=5)]],
        AfterValidator(_ordered),
    ] = (-0.03, 0.15)  # at each end: below 0 cut off, above 0 quiet added


class SpeedConfig(Config):
    """Resampling: tempo and pitch together."""

    probability: Probability = 0.0
    factor: FactorRange = (0.9, 1.1)


class StretchConfig(Config):
    """Tempo at the same pitch (WSOLA)."""

    probability: Probability = 0.0
    factor: FactorRange = (0.85, 1.2)


class PitchConfig(Config):
    """Pitch at the same tempo."""

    probability: Probability = 0.0
    semitones: Range = (-2.0, 2.0)


class RoomConfig(Config):
    """Reverberation: simulated shoebox rooms and, where given, measured responses."""

    probability: Probability = 0.3
    t60: PositiveRange = (0.1, 0.8)  # seconds until a sound has decayed by 60 dB
    distance: PositiveRange = (0.3, 3.0)  # meters from mouth to microphone
    responses: tuple[str, ...] = ()  # files or folders of measured impulse responses
    measured_share: Probability = 0.5  # of the rooms, where there are measured ones


class NoiseConfig(Config):
    """Additive noise; used only where a source is given."""

    probability: Probability = 0.5
    snr_db: Range = (5.0, 25.0)


class EqualizerConfig(Config):
    """The color of a microphone: some frequencies louder, others softer."""

    probability: Probability = 0.0
    gain_db: Range = (-10.0, 10.0)  # at each edge of a band
    bands: Annotated[
        tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(le=64)]], AfterValidator(_ordered)
    ] = (2, 5)  # as many


class ClippingConfig(Config):
    """An overdriven input: the loudest samples are flattened."""

    probability: Probability = 0.0
    fraction: Annotated[tuple[Probability, Probability], AfterValidator(_ordered)] = (0.0, 0.1)


class BandLimitConfig(Config):
    """The telephone band."""

    probability: Probability = 0.0
    low: Annotated[float, Field(ge=0)] = 300.0  # Hz
    high: Annotated[float, Field(gt=0)] = 3400.0  # Hz


class CodecConfig(Config):
    """Lossy coding and back."""

    probability: Probability = 0.0
    names: tuple[Codec | Literal["mu_law", "a_law"], ...] = ("mp3", "opus", "vorbis", "mu_law", "a_law")
    compression: Annotated[tuple[Probability, Probability], AfterValidator(_ordered)] = (0.2, 0.9)


class DropoutConfig(Config):
    """Lost packets: short gaps of digital silence."""

    probability: Probability = 0.0
    gaps: Annotated[int, Field(ge=1)] = 3  # at most
    longest: Annotated[float, Field(gt=0)] = 0.06  # seconds


class GainConfig(Config):
    """Level."""

    probability: Probability = 0.8
    gain_db: Range = (-6.0, 6.0)


class AugmentConfig(Config):
    """All of it, in the order of use."""

    edges: EdgesConfig = EdgesConfig()
    speed: SpeedConfig = SpeedConfig()
    stretch: StretchConfig = StretchConfig()
    pitch: PitchConfig = PitchConfig()
    room: RoomConfig = RoomConfig()
    noise: NoiseConfig = NoiseConfig()
    equalizer: EqualizerConfig = EqualizerConfig()
    clipping: ClippingConfig = ClippingConfig()
    band_limit: BandLimitConfig = BandLimitConfig()
    codec: CodecConfig = CodecConfig()
    dropout: DropoutConfig = DropoutConfig()
    gain: GainConfig = GainConfig()


def augment(
    samples: Samples,
    sample_rate: int,
    config: AugmentConfig,
    generator: np.random.Generator,
    noises: NoiseSource | None = None,
) -> Samples:
    """Mono float32 samples -> a varied copy; the length changes only with edges, speed and time stretch.

    The same generator state gives the same bytes. The result peaks at 1 at most (or where the input did).
    """
    seeds = generator.integers(0, 2**63, size=12)
    if len(samples) == 0:
        return samples.copy()
    loudest = max(1.0, float(np.abs(samples).max()))
    *first, equalizer, edges = (np.random.default_rng(int(seed)) for seed in seeds)
    draws = iter(first)

    def chosen(probability: float) -> np.random.Generator | None:
        own = next(draws)
        return own if own.random() < probability else None

    varied = samples
    if edges.random() < config.edges.probability:
        before, after = edges.uniform(*config.edges.seconds, size=2)
        varied = effects.move_edges(varied, sample_rate, before, after, edges)
    if own := chosen(config.speed.probability):
        varied = effects.change_speed(varied, own.uniform(*config.speed.factor))
    if own := chosen(config.stretch.probability):
        varied = effects.stretch_time(varied, sample_rate, own.uniform(*config.stretch.factor))
    if own := chosen(config.pitch.probability):
        varied = effects.shift_pitch(varied, sample_rate, own.uniform(*config.pitch.semitones))
    if own := chosen(config.room.probability):
        varied = _reverberate(varied, sample_rate, config.room, own)
    if (own := chosen(config.noise.probability)) and noises is not None:
        snr_db = own.uniform(*config.noise.snr_db)
        noise = noises.draw(own, len(varied), sample_rate)
        varied = effects.add_noise(varied, noise, snr_db, sample_rate)
    if equalizer.random() < config.equalizer.probability:
        varied = _color(varied, sample_rate, config.equalizer, equalizer)
    if own := chosen(config.clipping.probability):
        varied = effects.clip(varied, own.uniform(*config.clipping.fraction))
    if own := chosen(config.band_limit.probability):
        high = min(config.band_limit.high, 0.49 * sample_rate)
        varied = effects.band_limit(varied, sample_rate, min(config.band_limit.low, high), high)
    if own := chosen(config.codec.probability):
        varied = _code(varied, sample_rate, config.codec, own)
    if own := chosen(config.dropout.probability):
        gaps = int(own.integers(1, config.dropout.gaps + 1))
        varied = effects.drop_out(varied, sample_rate, own, gaps=gaps, longest=config.dropout.longest)
    if own := chosen(config.gain.probability):
        varied = effects.change_gain(varied, own.uniform(*config.gain.gain_db))
    peak = float(np.abs(varied).max()) if len(varied) else 0.0
    if peak > loudest:  # an accident of level, not the clipping that was (or was not) chosen above
        return varied * np.float32(loudest / peak)
    return varied.copy() if varied is samples else varied


def _reverberate(
    samples: Samples, sample_rate: int, config: RoomConfig, generator: np.random.Generator
) -> Samples:
    if config.responses and generator.random() < config.measured_share:
        files = _response_files(config.responses)
        response = measured_response(files[int(generator.integers(len(files)))], sample_rate)
        return place_in_room(samples, response)
    room = draw_room(generator, t60=config.t60, distance=config.distance)
    return place_in_room(samples, simulate_response(room, sample_rate, generator), direct=LEAD)


def _color(
    samples: Samples, sample_rate: int, config: EqualizerConfig, generator: np.random.Generator
) -> Samples:
    bands = int(generator.integers(config.bands[0], config.bands[1] + 1))
    edges = np.concatenate(([0.0], np.sort(generator.random(bands - 1)), [1.0]))
    gains = generator.uniform(*config.gain_db, size=bands + 1)
    return effects.equalize(samples, sample_rate, edges, gains)


@lru_cache(maxsize=8)
def _response_files(paths: tuple[str, ...]) -> tuple[Path, ...]:
    files = tuple(clip.path for path in paths for clip in find_clips(path))
    if not files:
        raise AudioError(
            f"The room responses in {', '.join(paths)} hold no recordings.",
            mend="Check augment.room.responses in the recipe.",
        )
    return files


def _code(samples: Samples, sample_rate: int, config: CodecConfig, generator: np.random.Generator) -> Samples:
    if not config.names:
        return samples
    name = config.names[int(generator.integers(len(config.names)))]
    if name == "mu_law":
        return effects.mu_law(samples)
    if name == "a_law":
        return effects.a_law(samples)
    return through_codec(samples, sample_rate, name, generator.uniform(*config.compression))
