"""Speech as it comes: blocks of samples in, partial and final text out.

    blocks of any size ─> pieces of one chunk each ─> features ─> encoder ─> search ─> endpoints ─> events

Everything behind the first arrow sees the same pieces whatever the blocks were, so the events do not depend
on how the samples were cut. State is bounded: a chunk of samples, the encoder's left context, and the tokens
since the last final text, which comes after at most ``EndpointConfig.longest``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol, final

import numpy as np

from firstwords.audio.source import Samples
from firstwords.errors import UsageError
from firstwords.inference.endpointing import Cut, EndpointConfig, Energy, Reason, Spoken, find_cut
from firstwords.inference.events import Event, Final, Partial
from firstwords.inference.intake import Block, Intake, as_float
from firstwords.inference.latency import LatencyMeter, LatencyReport
from firstwords.inference.longform import SILENT_PEAK
from firstwords.inference.transcript import Token, Word, build_transcript
from firstwords.search.ctc_streams import StreamingSearch
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.speech_gate import OPEN, SpeechGate
from firstwords.text.pieces import SPACE, legible
from firstwords.text.tokenizer import Tokenizer


class Encoding(Protocol):
    """Samples of one stream -> encoded frames: of a model (encoding_stream.py) or of a bundle."""

    @property
    def wanted(self) -> int:
        """Samples that complete the next window."""
        ...

    @property
    def latency(self) -> int:
        """Samples from the first of a chunk to the last that its step waits for."""
        ...

    def push(self, samples: Samples) -> Any:
        """The next samples -> the encoded frames (T, D) that they complete."""
        ...

    def finish(self) -> Any:
        """The stream is over -> the encoded frames of what was left."""
        ...


class Mend(Protocol):
    """Final readings -> what is shown of them (search/closed.py)."""

    def __call__(self, reading: Hypothesis, until: float, *, is_speech: bool) -> Hypothesis: ...


@final
class Listener:
    """One stream. ``accept`` blocks as they come, ``finish`` once; both give events in order of time.

    Args:
        encoding: samples to what ``search`` reads.
        rate: of the model, in hertz.
        chunk: seconds.
        language: that of the transcripts.
        sample_rate: of the blocks, in hertz.
        speech_gate: final text that does not pass is none.
        partials: give partial text too.
        mend: a final reading, and the second where what follows it begins -> what to show in its place; it is
            asked of every one, speech or not.
        clock: seconds that only grow, for the latency report.
    """

    def __init__(
        self,
        encoding: Encoding,
        tokenizer: Tokenizer,
        search: StreamingSearch,
        *,
        rate: int,
        chunk: float,
        language: str,
        sample_rate: int,
        endpoints: EndpointConfig | None = None,
        speech_gate: SpeechGate = OPEN,
        partials: bool = True,
        mend: Mend | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._tokenizer, self._search = tokenizer, search
        self._endpoints, self._partials = endpoints or EndpointConfig(), partials
        self._speech_gate, self._clock = speech_gate, clock
        self._mend = mend
        self._language, self._rate = language, rate
        self._intake = Intake(sample_rate, rate)
        self._encoding = encoding
        self._energy = Energy(rate)
        self._taken = 0  # samples that were encoded
        self._peak = 0.0  # of the samples since the last final
        self._since = 0.0  # seconds; when the last utterance was over
        self._shown = ""  # the last partial text
        self._appeared: list[tuple[int, float]] = []  # (token, moment) of each token not final yet
        self._over = False
        self._latency = LatencyMeter(chunk, self._encoding.latency / rate - chunk)

    def accept(self, samples: Block) -> list[Event]:
        """The next samples of one channel, (S,) floats in [-1, 1] or 16-bit integers -> what they give."""
        if self._over:
            raise UsageError("This stream is over.", mend="Make another listener for the next one.")
        self._intake.push(as_float(samples))
        events: list[Event] = []
        while (piece := self._intake.take(self._encoding.wanted)) is not None:
            events += self._chunk(piece)
        return events

    def finish(self) -> list[Event]:
        """The stream is over -> the rest, as final text."""
        if self._over:
            return []
        self._over = True
        self._intake.finish()
        events: list[Event] = []
        while (piece := self._intake.take(self._encoding.wanted)) is not None:
            events += self._chunk(piece)
        return events + self._chunk(self._intake.rest(), is_last=True)

    @property
    def latency(self) -> LatencyReport:
        """What was measured so far."""
        return self._latency.report()

    # -- one step below

    def _chunk(self, piece: Samples, *, is_last: bool = False) -> list[Event]:
        clock = self._clock
        began = clock()
        self._taken += len(piece)
        self._energy.push(piece)
        peak = float(np.max(np.abs(piece), initial=0.0))
        self._peak = max(self._peak, peak)
        self._search.advance(self._encoding.push(piece))
        if is_last:
            self._search.advance(self._encoding.finish())
        events = self._events(peak, is_last, lambda: self._taken / self._rate + clock() - began)
        self._latency.chunk(len(piece) / self._rate, clock() - began)
        return events

    def _events(self, peak: float, is_last: bool, moment: Callable[[], float]) -> list[Event]:
        """What the last chunk gives; ``peak`` is its own, ``moment`` tells the time of the stream."""
        events: list[Event] = []
        reading = self._search.best()
        self._appear(reading, moment())
        while (cut := self._find_cut(reading)) is not None:
            events.append(self._final(cut.tokens, cut.reason, moment))
            self._peak = peak
            reading = self._search.best()
        if is_last:
            if reading.tokens:
                events.append(self._final(len(reading.tokens), "end", moment))
        elif self._partials and (partial := self._partial(reading)).text != self._shown:
            self._shown = partial.text
            events.append(partial)
        return events

    def _appear(self, reading: Hypothesis, now: float) -> None:
        """Note when each token was read first, as it stands now and behind the same tokens."""
        seen = self._appeared
        same = 0
        while same < min(len(seen), len(reading.tokens)) and seen[same][0] == reading.tokens[same]:
            same += 1
        self._appeared = seen[:same] + [(token, now) for token in reading.tokens[same:]]

    def _find_cut(self, reading: Hypothesis) -> Cut | None:
        pieces = self._tokenizer.pieces
        spoken = [
            Spoken(start, end, pieces[token] == SPACE, pieces[token].startswith(SPACE))
            for token, start, end in zip(reading.tokens, reading.times or (), reading.ends or (), strict=True)
        ]
        return find_cut(
            spoken,
            since=self._since,
            now=self._search.seconds,
            speech=self._energy.speech,
            known=self._energy.known,
            config=self._endpoints,
        )

    def _partial(self, reading: Hypothesis) -> Partial:
        tokens = _tokens(reading)
        text = legible(self._tokenizer.decode(reading.tokens)).strip()
        # What is mended when it becomes final may change in any letter.
        count = 0 if self._mend is not None else self._search.stable()
        stable = legible(self._tokenizer.decode(reading.tokens[:count])).strip()
        # A piece that is stable may be half a character: what the two texts share is.
        shared = next((i for i, (a, b) in enumerate(zip(text, stable, strict=False)) if a != b), len(stable))
        return Partial(text, text[:shared], tokens, self._taken / self._rate)

    def _final(self, count: int, reason: Reason, moment: Callable[[], float]) -> Final:
        reading = self._search.commit(count)
        appeared, self._appeared = self._appeared[:count], self._appeared[count:]
        is_speech = self._peak > SILENT_PEAK and self._speech_gate.is_speech(reading, self._tokenizer)
        heard = self._taken / self._rate
        shown = reading
        if self._mend is not None:
            going_on = self._search.best()
            until = going_on.times[0] if going_on.times else self._search.seconds
            shown = self._mend(reading, until, is_speech=is_speech)
        tokens = _tokens(shown) if is_speech else ()
        transcript = build_transcript(
            tokens, self._tokenizer, language=self._language, duration=heard, audio=""
        )
        words = transcript.words
        since, now = self._since, self._search.seconds
        self._since = reading.ends[-1] if reading.ends and reason != "no_speech" else now
        self._energy.forget(self._since)
        self._shown = ""
        start, end = (words[0].start, words[-1].end) if words else (since, self._since)
        self._time_words(words, tokens, appeared, moment())
        return Final(transcript, reason, start, end, heard)

    def _time_words(
        self,
        words: tuple[Word, ...],
        tokens: tuple[Token, ...],
        appeared: list[tuple[int, float]],
        now: float,
    ) -> None:
        """A word has appeared when its last token has; a mended one may have more tokens than were heard."""
        at = 0
        for word in words:
            while at + 1 < len(tokens) and tokens[at + 1].start < word.end:
                at += 1
            self._latency.word(word.end, appeared[min(at, len(appeared) - 1)][1], now)


def _tokens(reading: Hypothesis) -> tuple[Token, ...]:
    facts = (reading.times or (), reading.ends or (), reading.confidences or ())
    return tuple(Token(*values) for values in zip(reading.tokens, *facts, strict=True))
