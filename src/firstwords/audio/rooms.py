"""Rooms: simulated shoebox rooms, measured responses, and how a voice sounds in either.

Early reflections come from the image-source method (Allen and Berkley, 1979): mirror images of the source
in the walls, each a pulse of size reflections^n / (4 pi distance). Beyond ``EARLY_SECONDS`` the images are
too many to count and too dense to hear apart; their sum is replaced by noise of the same expected power,
c / (4 pi V) per second times the decay 10^(-6 t / T60), which needs no matching by hand. The walls get the
reflection factor that gives the wanted T60 by Eyring's formula. Walls and air absorb all frequencies alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from firstwords.audio.effects import convolve
from firstwords.audio.source import Samples
from firstwords.audio.waveform import read
from firstwords.errors import AudioError

SPEED_OF_SOUND = 343.0  # m/s
EARLY_SECONDS = 0.08  # images are summed up to here, and fade into the diffuse tail over the last quarter
SINC_HALF = 8  # samples on either side of a pulse between two samples
LEAD = 16  # samples before the direct path in a simulated response
HIGH_PASS = 40.0  # Hz; image pulses are all positive and would add up to a rumble no microphone records
LONGEST_MEASURED = 3.0  # seconds kept of a measured response
WALL = 0.3  # m, least distance of source and microphone from the walls

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Room:
    """A shoebox room, in meters; T60 = seconds until a sound has decayed by 60 dB."""

    size: Point
    source: Point
    microphone: Point
    t60: float

    @property
    def volume(self) -> float:
        return math.prod(self.size)

    @property
    def surface(self) -> float:
        x, y, z = self.size
        return 2 * (x * y + y * z + z * x)

    @property
    def reflection(self) -> float:
        """Share of the pressure a wall sends back (Eyring: 1 - absorption = reflection squared)."""
        return math.exp(-12 * math.log(10) * self.volume / (SPEED_OF_SOUND * self.surface * self.t60))


def draw_room(
    generator: np.random.Generator,
    *,
    t60: tuple[float, float] = (0.1, 0.8),
    distance: tuple[float, float] = (0.3, 3.0),
) -> Room:
    """A room of 3-10 x 3-8 x 2.4-4 m, the mouth ``distance`` meters from the microphone as far as it fits."""
    size = generator.uniform([3.0, 3.0, 2.4], [10.0, 8.0, 4.0])
    decay = float(generator.uniform(*t60))
    microphone = generator.uniform(WALL, size - WALL)
    direction = generator.standard_normal(3) * [1.0, 1.0, 0.3]  # mouth and microphone at similar heights
    direction /= np.linalg.norm(direction) + 1e-9
    away = microphone + float(generator.uniform(*distance)) * direction
    source = np.clip(away, WALL, size - WALL)
    if np.linalg.norm(source - microphone) < 0.1:  # pushed back by a wall: go the other way
        source = np.clip(2 * microphone - away, WALL, size - WALL)
    return Room(_point(size), _point(source), _point(microphone), decay)


def simulate_response(room: Room, sample_rate: int, generator: np.random.Generator) -> Samples:
    """Room -> impulse response with the direct path at sample ``LEAD``, about T60 long."""
    distances, sizes = _images(room, SPEED_OF_SOUND * min(EARLY_SECONDS, room.t60))
    direct = float(np.linalg.norm(np.subtract(room.source, room.microphone)))
    seconds = (distances - direct) / SPEED_OF_SOUND
    length = LEAD + 2 * SINC_HALF + math.ceil(max(room.t60, EARLY_SECONDS) * sample_rate)
    fade = np.clip((EARLY_SECONDS - distances / SPEED_OF_SOUND) / (EARLY_SECONDS / 4), 0, 1)
    response = _pulses(LEAD + seconds * sample_rate, sizes * np.sqrt(fade), length)
    since = (
        np.arange(length) - LEAD
    ) / sample_rate + direct / SPEED_OF_SOUND  # since the sound left the source
    power = SPEED_OF_SOUND / (4 * math.pi * room.volume * sample_rate) * 10 ** (-6 * since / room.t60)
    rise = np.clip((since - 0.75 * EARLY_SECONDS) / (EARLY_SECONDS / 4), 0, 1)
    response += generator.standard_normal(length) * np.sqrt(power * rise)
    return _high_pass(response, sample_rate).astype(np.float32)


def place_in_room(samples: Samples, response: Samples, *, direct: int | None = None) -> Samples:
    """Voice and impulse response -> the voice in that room, at the same length, place and mean power.

    Args:
        direct: sample of the direct path in the response; found as the first strong peak if not given.
    """
    start = find_direct_path(response) if direct is None else direct
    wet = convolve(samples, response)[start : start + len(samples)]
    before = float(np.sum(np.square(samples, dtype=np.float64)))
    after = float(np.sum(np.square(wet, dtype=np.float64)))
    if before <= 0 or after <= 0:
        return samples.copy()
    return wet * np.float32(math.sqrt(before / after))


def find_direct_path(response: Samples) -> int:
    """The sample of the first strong peak: the sound that came straight from the source."""
    size = np.abs(response)
    if not size.any():
        return 0
    first = int(np.argmax(size >= 0.5 * size.max()))
    return first + int(np.argmax(size[first : first + 16]))


@lru_cache(maxsize=64)
def measured_response(path: Path, sample_rate: int) -> Samples:
    """Recording of an impulse response -> its first channel at ``sample_rate``, up to 3 s."""
    response = read(path, sample_rate=sample_rate, channels=0).samples[
        : round(LONGEST_MEASURED * sample_rate)
    ]
    if not response.any():
        raise AudioError(f"'{path}': the room response is silent.", mend="Remove it from the room responses.")
    response.setflags(write=False)  # shared by all who ask for it
    return response


def _point(values: np.ndarray) -> Point:
    x, y, z = values.tolist()
    return x, y, z


def _images(room: Room, farthest: float) -> tuple[np.ndarray, np.ndarray]:
    """Distances (m) and pulse sizes of all images of the source up to ``farthest``."""
    squares: list[np.ndarray] = []
    bounces: list[np.ndarray] = []
    for size, source, microphone in zip(room.size, room.source, room.microphone, strict=True):
        shift = np.arange(-math.ceil(farthest / (2 * size)) - 1, math.ceil(farthest / (2 * size)) + 2)
        place = np.concatenate([2 * shift * size + source, 2 * shift * size - source])
        walls = np.concatenate([np.abs(2 * shift), np.abs(2 * shift - 1)])
        square = (place - microphone) ** 2
        near = square <= farthest**2
        squares.append(square[near])
        bounces.append(walls[near])
    square = squares[0][:, None, None] + squares[1][:, None] + squares[2]
    walls = bounces[0][:, None, None] + bounces[1][:, None] + bounces[2]
    near = square <= farthest**2
    distances = np.sqrt(square[near])
    # The direct path is kept even where the room is so dead that nothing else is within reach.
    direct = float(np.linalg.norm(np.subtract(room.source, room.microphone)))
    if direct > farthest:
        return np.array([direct]), np.array([1 / (4 * math.pi * direct)])
    return distances, room.reflection ** walls[near] / (4 * math.pi * np.maximum(distances, 0.05))


def _pulses(places: np.ndarray, sizes: np.ndarray, length: int) -> np.ndarray:
    """Band-limited pulses at fractional places: a Hann-windowed sinc each."""
    nearest = np.round(places).astype(np.int64)
    offsets = np.arange(-SINC_HALF, SINC_HALF + 1)
    away = offsets - (places - nearest)[:, None]
    shape = np.sinc(away) * np.cos(0.5 * math.pi * away / (SINC_HALF + 1)) ** 2
    at = nearest[:, None] + offsets
    inside = (at >= 0) & (at < length)
    values = sizes[:, None] * shape
    return np.bincount(at[inside], weights=values[inside], minlength=length)


def _high_pass(response: np.ndarray, sample_rate: int) -> np.ndarray:
    """Two causal first-order sections: nothing sounds before the direct path."""
    size = 1 << (2 * len(response)).bit_length()
    ratio = 1j * np.fft.rfftfreq(size, 1 / sample_rate) / HIGH_PASS
    return np.fft.irfft(np.fft.rfft(response, size) * (ratio / (1 + ratio)) ** 2, size)[: len(response)]
