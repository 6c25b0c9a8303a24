"""Where somebody speaks, told from energy alone: no model, any language, bounded memory.

Two energies are followed: that of the samples (vowels) and that of their differences (consonants; deaf to
hum and wind). A frame (10 ms) is hot when one of them is ``margin_db`` above its noise floor, warm when
``hold_db`` above. The floor is the minimum of the smoothed energy from ``floor_seconds`` before to
``look_ahead`` after the frame (minimum statistics: R. Martin, "Noise power spectral density estimation based
on optimal smoothing and minimum statistics", IEEE Trans. Speech and Audio Processing 9(5), 2001; here in two
bands).

    energy   ___/'''\\__/''\\__________,____
    warm        xxxxx  xxxx          x
    speech    |----------------|               lead before, hangover after, joined where they touch;
                                               a lone burst below min_speech is no speech, and a rise
                                               that is warm for longer than onset is cut to that

Energy cannot tell speech from other loud changing sounds, and it does not try: what is called silence here
is safe to skip, what is called speech still goes to the recogniser.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from firstwords.audio.source import Samples
from firstwords.config import Config

Stretch = tuple[float, float]  # start and end in seconds

_FRAME_SECONDS = 0.01
_SILENCE = 1e-10  # mean square of nothing: -100 dB
_PREEMPHASIS = 0.97
_AT_ONCE = 200  # frames whose powers are taken at once: what is in the caches of a processor
_SMOOTH = 5  # frames averaged before the minimum is taken, so that one chance dip does not set the floor


class ActivityConfig(Config):
    """Seconds and decibels (mean square against full scale)."""

    margin_db: float = 9.0  # above the floor: speech
    hold_db: float = 5.0  # above the floor: speech goes on
    floor_seconds: float = 4.0  # how far back the floor looks; longer than speech without a pause
    look_ahead: float = 1.0  # how far ahead; also the delay of the stream
    lowest_db: float = -75.0  # below this nothing is speech
    highest_floor_db: float = -32.0  # a floor above is speech without pauses rather than noise
    lead: float = 0.15  # kept before the first warm frame: soft onsets
    hangover: float = 0.35  # kept after the last: final consonants, and gaps between words
    min_speech: float = 0.05  # of hot frames
    onset: float = 5.0  # warm frames longer ago than this before the hot ones are no part of the speech


_DEFAULT = ActivityConfig()


class ActivityDetector:
    """Samples block by block in, stretches of speech out as soon as they are over.

    Law: the stretches do not depend on where the blocks end.
    """

    def __init__(self, sample_rate: int, config: ActivityConfig = _DEFAULT) -> None:
        self.config = config
        self._rate = sample_rate
        self._frame = max(1, round(_FRAME_SECONDS * sample_rate))
        self._back, self._ahead = self._frames(config.floor_seconds), self._frames(config.look_ahead)
        self._lead, self._hangover = self._frames(config.lead), self._frames(config.hangover)
        self._least, self._onset = self._frames(config.min_speech), self._frames(config.onset)
        self._rest: Samples = np.zeros(0, np.float32)  # not yet a whole frame
        self._last = np.float32(0)  # the sample before, for the pre-emphasis
        self._total = 0  # samples taken
        self._levels: npt.NDArray[np.float64] = np.zeros((0, 2))  # dB per frame, from frame _first on
        self._first = self._decided = 0
        self._run: int | None = None  # first frame of the warm run that is going on
        self._hot = 0  # hot frames in it
        self._pending: tuple[int, int] | None = None  # speech in frames that may still grow

    def push(self, samples: Samples) -> list[Stretch]:
        """The next block (any length) in -> the stretches that are over by now."""
        self._total += len(samples)
        joined = np.concatenate([self._rest, samples.astype(np.float32, copy=False)])
        whole = len(joined) // self._frame * self._frame
        self._rest = joined[whole:]
        step = _AT_ONCE * self._frame
        power = [self._powers(joined[i : min(i + step, whole)]) for i in range(0, whole, step)]
        if power:
            found = 10 * np.log10(np.maximum(np.concatenate(power), _SILENCE))
            self._levels = np.concatenate([self._levels, found])
        return self._decide(self._first + len(self._levels) - self._ahead)

    def finish(self) -> list[Stretch]:
        """No more samples -> the stretches that were still open."""
        over = self._decide(self._first + len(self._levels))
        self._end_run()
        if self._pending is not None:
            over.append(self._seconds(self._pending))
            self._pending = None
        return over

    @property
    def open_stretch(self) -> Stretch | None:
        """The stretch that may still grow, as far as it is known to reach."""
        return None if self._pending is None else self._seconds(self._pending)

    @property
    def settled(self) -> float:
        """Seconds; no stretch that is still to come begins earlier."""
        begin = self._pending[0] if self._pending is not None else self._earliest()
        return max(0, begin) * self._frame / self._rate

    def _powers(self, samples: Samples) -> npt.NDArray[np.float64]:
        """The next samples, whole frames -> (frames, 2) mean squares: of them and of their differences."""
        own = np.concatenate([[self._last], samples])
        self._last = samples[-1]
        sharp = own[1:] - np.float32(_PREEMPHASIS) * own[:-1]
        bands = np.stack([samples, sharp]).reshape(2, -1, self._frame)
        return np.einsum("bij,bij->ib", bands, bands).astype(np.float64) / self._frame

    def _frames(self, seconds: float) -> int:
        return max(1, round(seconds * self._rate / self._frame))

    def _decide(self, until: int) -> list[Stretch]:
        """Decide the frames below ``until`` and forget what no later decision needs."""
        if until <= self._decided:
            return []
        levels = self._levels[self._decided - self._first : until - self._first]
        floor = np.minimum(self._floor(until), self.config.highest_floor_db)
        audible = levels > self.config.lowest_db
        hot = ((levels > floor + self.config.margin_db) & audible).any(axis=1)
        warm = ((levels > floor + self.config.hold_db) & audible).any(axis=1)
        over: list[Stretch] = []
        for is_warm, is_hot in np.stack([warm, hot], axis=1).tolist():
            if is_warm:
                if self._run is None:
                    self._run, self._hot = self._decided, 0
                self._hot += is_hot
                if self._hot < self._least:
                    self._run = max(self._run, self._decided - self._onset)
            else:
                self._end_run()
            if self._pending is not None and self._earliest() > self._pending[1]:
                over.append(self._seconds(self._pending))  # nothing can join it any more
                self._pending = None
            self._decided += 1
            if self._run is not None and self._hot >= self._least:
                start, end = self._pending or (self._run - self._lead, 0)
                self._pending = (start, max(end, self._decided))
        keep = max(self._first, self._decided - self._back - _SMOOTH)
        self._levels, self._first = self._levels[keep - self._first :], keep
        return over

    def _floor(self, until: int) -> npt.NDArray[np.float64]:
        """The noise floor of every frame from _decided to ``until``, in dB."""
        levels = self._levels
        width = min(_SMOOTH, len(levels))
        sums = np.cumsum(np.concatenate([np.zeros((1, 2)), levels]), axis=0)
        smooth = np.full(levels.shape, np.inf)
        smooth[width - 1 :] = (sums[width:] - sums[:-width]) / width  # mean of the frames up to here
        nothing = np.full((self._back + self._ahead, 2), np.inf)
        padded = np.concatenate([nothing[: self._back], smooth, nothing[: self._ahead]])
        span = padded[self._decided - self._first : until - self._first + len(nothing)]
        return _sliding_minimum(span, len(nothing) + 1)

    def _earliest(self) -> int:
        """The first frame of speech that begins now or later, or with the warm run that is going on."""
        return (self._decided if self._run is None else self._run) - self._lead

    def _end_run(self) -> None:
        """The warm run, if there is one, ended before frame _decided."""
        if self._run is not None and self._pending is not None and self._hot >= self._least:
            self._pending = (self._pending[0], self._decided + self._hangover)
        self._run = None

    def _seconds(self, frames: tuple[int, int]) -> Stretch:
        start, end = (min(max(0, f * self._frame), self._total) / self._rate for f in frames)
        return start, end


def _sliding_minimum(values: npt.NDArray[np.float64], width: int) -> npt.NDArray[np.float64]:
    """(frames, bands) -> minimum of each ``width`` rows, by doubling: about log2(width) passes."""
    least, size = values, 1
    while 2 * size <= width:
        least, size = np.minimum(least[:-size], least[size:]), 2 * size
    if size < width:
        least = np.minimum(least[: len(least) - (width - size)], least[width - size :])
    return least
