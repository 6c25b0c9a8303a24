"""Utterances of an epoch, and places in it that are filled anew each time.

    negative   non-speech or silence with an empty transcript: a recogniser that never heard any answers
               noise with words. Some are as short as the utterances, some as long as a window of a long
               recording: a model that heard only short ones writes a word somewhere in ten seconds of rain.
    joined     utterances one after the other with pauses between them: a model that heard only single clips
               of two seconds does not read a paragraph.

Long places are counted in seconds, not in numbers: a corpus of half-second clips would drown in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

PAUSES = (0.05, 1.0)  # seconds between joined utterances; their logarithm is uniform
LONGEST = 25.0  # seconds of a place: about a window of a long recording
_SOUND_FRAME = 400  # samples over which loudness is told
_ANYWHERE = 0.1  # of the mean loudness, added everywhere: quiet places too are heard now and then
_FEWEST = 2.2  # median utterances that a joined place must have room for


@dataclass(frozen=True)
class Item:
    """An utterance with its target, or a place (``audio`` None): of joined utterances, else a negative."""

    id: str
    audio: Path | None
    start: float
    duration: float
    text: str
    tokens: tuple[int, ...]
    joined: bool = False
    voice: str = ""  # who speaks into what (voices.py); empty: the recording is a voice of its own


class Between(NamedTuple):
    """What stands between two transcripts that are joined: a space, or nothing."""

    text: str
    tokens: tuple[int, ...]


NOTHING = Between("", ())


def negative_places(share: float, durations: Sequence[float], *, longest: float, seed: int) -> list[Item]:
    """Places for non-speech in every epoch.

    ``share`` of the utterances of an epoch are negatives of the lengths of the corpus; as many seconds again
    are negatives of any length up to ``longest``. (Long ones alone would share batches with none but each
    other, and a model that sees only silence for a while forgets that there is speech.)
    """
    if not share:
        return []
    draw = np.random.default_rng([seed, 4])
    count = max(1, round(len(durations) * share / (1 - share)))
    lengths = draw.choice(np.asarray(durations), count).tolist()
    lengths += _long(sum(lengths), float(np.median(durations)), longest, draw)
    return [Item(f"negative-{n}", None, 0.0, round(x, 2), "", ()) for n, x in enumerate(lengths)]


def joined_places(share: float, durations: Sequence[float], *, longest: float, seed: int) -> list[Item]:
    """Places for joined utterances: ``share`` of the seconds of an epoch, each at most ``longest`` long.

    None where utterances are so long that hardly two of them fit.
    """
    shortest = _FEWEST * float(np.median(durations))
    if not share or shortest > longest:
        return []
    draw = np.random.default_rng([seed, 5])
    lengths = _long(sum(durations) * share / (1 - share), shortest, longest, draw)
    return [Item(f"joined-{n}", None, 0.0, round(x, 2), "", (), joined=True) for n, x in enumerate(lengths)]


def _long(seconds: float, shortest: float, longest: float, draw: np.random.Generator) -> list[float]:
    """Lengths between the two that add up to ``seconds``, or a little less."""
    lengths: list[float] = []
    while (left := min(longest, seconds - sum(lengths))) >= shortest:
        lengths.append(min(left, float(draw.uniform(shortest, longest))))
    return lengths


def hiss(draw: np.random.Generator, count: int) -> np.ndarray:
    """Nothing at all, or the faint noise of a recorder (count,)."""
    level = 0.0 if draw.random() < 0.5 else 10 ** (draw.uniform(-80, -45) / 20)
    return (level * draw.standard_normal(count)).astype(np.float32)


def around_sound(draw: np.random.Generator, samples: np.ndarray, count: int) -> np.ndarray:
    """A stretch (count,) of samples (S,) around a place drawn by how loud it is there; all, if no longer.

    A sneeze fills a twentieth of its recording: stretches drawn evenly would mostly be the silence around it,
    and a model that never heard the sneeze itself answers it with a word (LOG.md, 2026-11-21).
    """
    if len(samples) <= count:
        return samples
    frame = min(count, _SOUND_FRAME) or 1
    whole = len(samples) // frame
    loudness = np.sqrt(
        np.mean(samples[: whole * frame].reshape(whole, frame).astype(np.float64) ** 2, axis=1)
    )
    heard = np.cumsum(loudness + loudness.mean() * _ANYWHERE + np.finfo(np.float64).tiny)
    place = int(np.searchsorted(heard, draw.random() * heard[-1])) * frame
    start = place - int(draw.uniform(0, count))
    start = min(max(start, 0), len(samples) - count)
    return samples[start : start + count]


def pause(draw: np.random.Generator, sample_rate: int) -> np.ndarray:
    """A pause between two utterances, quiet."""
    low, high = np.log(PAUSES)
    return hiss(draw, round(float(np.exp(draw.uniform(low, high))) * sample_rate))
