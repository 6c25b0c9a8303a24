"""Voices made up for training: espeak-ng variant files whose every parameter is drawn.

espeak-ng comes with some hundred variants, many of them near copies of each other, and a recogniser trained
on those alone does not carry over to a new one. A drawn voice has a vocal tract (all formants moved by one
factor, each a little by itself), a glottis (pitch, its range, flutter, breath, tilt of the spectrum) and
habits (strength of consonants, intonation) of its own.

The keywords are those of espeak-ng's documentation, docs/voices.md: formant N frequency height width (in
percent), pitch low high (in hertz), tone with pairs of frequency and height, and so on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from firstwords.files import write_atomically

_FORMANTS = 9
_ACCENTS = ("en-us", "en-us", "en-us", "en", "en-us-nyc", "en-gb-x-rp")


@dataclass(frozen=True)
class DrawnVoice:
    """One made-up voice.

    Args:
        variant: lines of its espeak-ng variant file.
        rate, pitch: words a minute, and 0..100 around the voice's own pitch.
    """

    name: str
    variant: str
    rate: int
    pitch: int


def draw_voices(seed: int, count: int) -> list[DrawnVoice]:
    """``count`` voices; the n-th depends on nothing but (seed, n)."""
    return [_draw(np.random.default_rng((seed, 99, number)), number) for number in range(count)]


def write_variants(voices: Sequence[DrawnVoice], data: Path) -> None:
    """Make them known to the espeak-ng whose data folder, our own copy, is ``data``."""
    for voice in voices:
        variant = voice.name.partition("+")[2]
        write_atomically(data / "voices" / "!v" / variant, voice.variant)


def _draw(draw: np.random.Generator, number: int) -> DrawnVoice:
    tract = float(np.exp(draw.uniform(np.log(0.84), np.log(1.3))))  # 1: the plain voice; longer tracts below
    low = 90.0 * tract**2.2 * float(np.exp(draw.normal(0, 0.2)))  # short tracts mostly go with high voices
    lines = [
        "language variant",
        f"name drawn{number:03d}",
        f"pitch {low:.0f} {low * draw.uniform(1.15, 1.7):.0f}",
        f"flutter {draw.integers(0, 9)}",
        f"roughness {draw.integers(0, 4)}",
        f"voicing {draw.integers(60, 150)}",
        f"consonants {draw.integers(50, 130)} {draw.integers(40, 130)}",
    ]
    for formant in range(_FORMANTS):
        where, height, width = tract * draw.uniform(0.87, 1.15), draw.uniform(35, 125), draw.uniform(75, 170)
        lines.append(f"formant {formant} {100 * where:.0f} {height:.0f} {width:.0f}")
    if draw.random() < 0.65:  # tilt of the spectrum: height 0..255 at rising frequencies
        heights = np.clip(255 * np.cumprod(draw.uniform(0.3, 1.15, 4)), 10, 255)
        lines.append(
            "tone " + " ".join(f"{f} {h:.0f}" for f, h in zip((300, 800, 1600, 3000), heights, strict=True))
        )
    if draw.random() < 0.3:
        lines.append("breath " + " ".join(str(b) for b in draw.integers(0, 6, 8)))
    if draw.random() < 0.3:
        lines.append(f"klatt {draw.integers(1, 7)}")
    if draw.random() < 0.5:
        lines.append(f"intonation {draw.integers(1, 5)}")
    if draw.random() < 0.2:
        lines.append(f"echo {draw.integers(10, 150)} {draw.integers(5, 30)}")
    accent = _ACCENTS[draw.integers(len(_ACCENTS))]
    return DrawnVoice(
        f"{accent}+drawn{number:03d}",
        "\n".join(lines) + "\n",
        int(draw.integers(135, 196)),
        int(draw.integers(30, 71)),
    )
