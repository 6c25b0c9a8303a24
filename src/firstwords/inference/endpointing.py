"""Where an utterance of a stream ends: rules over the tokens read so far and the energy of the samples.

    tokens    a b . c        d e                  a dot is a space alone
    speech    ~~~~~~~~~      ~~~~~     ~          by energy
    gaps              |------|    |----------|    both must be quiet for trailing_silence

A model writes a token where it is sure of it, which may be long before its sound is over: blanks alone do
not mean silence. Energy alone does not either, where there is noise. So the first rule wants both, and only a
much longer run of blanks ends an utterance in spite of noise. Gaps are looked for between any two tokens, so
where an utterance ends does not depend on where chunks do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from firstwords.audio.activity import ActivityConfig, ActivityDetector, Stretch
from firstwords.audio.source import Samples
from firstwords.config import Config

Reason = Literal["trailing_silence", "trailing_blank", "longest", "no_speech", "end"]
Seconds = Annotated[float, Field(gt=0)]
Bound = Annotated[float, Field(gt=0, le=600)]  # these two bound the memory of a stream

_LOOK_AHEAD = 0.1  # of the energy detector, which lags behind the samples by it
_ACTIVITY = ActivityConfig(look_ahead=_LOOK_AHEAD, lead=0.05, hangover=0.05)


class EndpointConfig(Config):
    """When an utterance is over, in seconds; None switches a rule off.

    >>> EndpointConfig(trailing_silence=0.5).longest
    20.0
    """

    trailing_silence: Seconds | None = 0.8  # no token and no speech by energy, after a token
    trailing_blank: Seconds | None = 2.0  # no token, whatever the energy
    no_speech: Bound = 10.0  # no token at all: an utterance without words
    longest: Bound = 20.0  # longer ones are parted at their widest gap


class Spoken(NamedTuple):
    """One token: seconds, whether it is a space alone, and whether a word begins with it."""

    start: float
    end: float
    is_space: bool
    begins_word: bool


class Cut(NamedTuple):
    """So many tokens are an utterance."""

    tokens: int
    reason: Reason


class Energy:
    """Stretches of speech by energy since some moment, and until when they are known; bounded memory."""

    def __init__(self, sample_rate: int) -> None:
        self._detector = ActivityDetector(sample_rate, _ACTIVITY)
        self._rate, self._taken = sample_rate, 0
        self._over: list[Stretch] = []

    def push(self, samples: Samples) -> None:
        """The next samples."""
        self._taken += len(samples)
        self._over += self._detector.push(samples)

    def forget(self, before: float) -> None:
        """Stretches that ended before then are asked for no more."""
        self._over = [stretch for stretch in self._over if stretch[1] >= before]

    @property
    def known(self) -> float:
        """Seconds of the stream that are told speech or silence."""
        return max(0.0, self._taken / self._rate - _LOOK_AHEAD)

    @property
    def speech(self) -> list[Stretch]:
        """In order, the last one perhaps not over yet."""
        last = self._detector.open_stretch
        return self._over if last is None else [*self._over, last]


def find_cut(
    tokens: Sequence[Spoken],
    *,
    since: float,
    now: float,
    speech: Sequence[Stretch],
    known: float,
    config: EndpointConfig,
) -> Cut | None:
    """Tokens read since the last utterance ended -> where the next one ends, None if it goes on.

    Args:
        since: when the last utterance ended, in seconds.
        now: until when the search has read.
        speech: stretches of speech by energy, known until ``known``.
    """
    heard = [i for i, token in enumerate(tokens) if not token.is_space]
    if not heard:
        return Cut(len(tokens), "no_speech") if now - since >= config.no_speech else None
    gaps = _gaps(tokens, heard, now)
    for gap in gaps:
        length = gap.end - gap.start
        if config.trailing_silence is not None and length >= config.trailing_silence:
            quiet = longest_silence(speech, gap.start, min(gap.end, known))
            if quiet >= config.trailing_silence:
                return Cut(gap.tokens, "trailing_silence")
        if config.trailing_blank is not None and length >= config.trailing_blank:
            return Cut(gap.tokens, "trailing_blank")
    first = tokens[heard[0]].start
    return Cut(_widest(gaps, first, now), "longest") if now - first >= config.longest else None


def longest_silence(speech: Iterable[Stretch], start: float, end: float) -> float:
    """Seconds of the longest stretch between two moments in which there is no speech."""
    longest, at = 0.0, start
    for begins, ends in speech:
        if ends > at:
            longest = max(longest, min(begins, end) - at)
            at = ends
    return max(longest, end - at, 0.0)


class _Gap(NamedTuple):
    """Behind a token that is heard; ``tokens`` up to the next that is heard."""

    tokens: int
    start: float
    end: float
    parts_words: bool


def _gaps(tokens: Sequence[Spoken], heard: Sequence[int], now: float) -> list[_Gap]:
    gaps = [
        _Gap(after, tokens[before].end, tokens[after].start, after > before + 1 or tokens[after].begins_word)
        for before, after in pairwise(heard)
    ]
    return [*gaps, _Gap(len(tokens), tokens[heard[-1]].end, now, False)]


def _widest(gaps: Sequence[_Gap], first: float, now: float) -> int:
    """Tokens before the widest gap of the second half, between words if there is one; else all of them.

    The last gap has no word behind it yet: it is taken where it is wider than any other.
    """
    late = [gap for gap in gaps if gap.start >= (first + now) / 2]
    if not late or max(late, key=_width) is gaps[-1]:
        return gaps[-1].tokens
    return max([gap for gap in late if gap.parts_words] or late, key=_width).tokens


def _width(gap: _Gap) -> float:
    return gap.end - gap.start
