"""A stream through a streaming bundle: samples to feature frames to chunks, states in and out.

    samples   |----|----|----|----|          pieces of any size
    frames      f f f f f f f f f f          features.onnx, on the piece and what its windows reach beyond it
    steps     [T frames   ]                  the graph reads T, goes on by ``shift``, hands its states on
                   [T frames   ]

A feature frame depends on the samples of its own window alone (25 ms around each 10 ms), so frames computed
piece by piece are those of the whole. At the end silence follows, until the graph has read what was said.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast, final

import numpy as np
import numpy.typing as npt

from firstwords.audio.source import Samples
from firstwords.errors import UsageError
from firstwords.export.bundle import BundleFacts
from firstwords.export.runtime_engine import value_of
from firstwords.export.runtime_graphs import Frames, Graphs
from firstwords.export.runtime_search import Helped, Row, TransducerSteps, advance
from firstwords.inference.endpointing import EndpointConfig
from firstwords.inference.events import Event, Final
from firstwords.inference.intake import Block
from firstwords.inference.listener import Listener
from firstwords.inference.transcript import Word
from firstwords.search.closed_stream import HeldFrames
from firstwords.search.ctc_streams import CtcBeamStream, CtcGreedyStream, StreamingSearch
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.interface import NARROW, CtcBeamConfig, GreedyConfig
from firstwords.search.speech_gate import SpeechGate
from firstwords.search.transducer_reading import reading
from firstwords.text.tokenizer import Tokenizer

TAIL_SECONDS = 0.3  # of silence behind the end: a causal model writes its last letters late


@final
class BundleEncoding:
    """One stream of samples of the bundle's rate -> frames of its model, joined the same for all pieces."""

    def __init__(self, graphs: Graphs, facts: BundleFacts, threads: int | None = None) -> None:
        assert facts.chunk is not None
        self._features = graphs.engine("features")
        self._model = graphs.engine(graphs.main, threads or graphs.threads)
        self._chunk, self._shift = facts.chunk, round(facts.frame_shift_ms / 1000 * facts.sample_rate)
        self._margin = graphs.margin(self._shift)
        self._subsampling = facts.subsampling
        self._tail = round(TAIL_SECONDS * facts.sample_rate)
        self._samples: Samples = np.zeros(0, np.float32)
        self._first = 0  # number of the first sample held
        self._received = 0
        self._made = 0  # feature frames
        self._frames: Frames = np.zeros((0, facts.mels), np.float32)  # from the next step's first on
        self._before = 0  # feature frames before those
        self._states: list[Any] = [
            value_of(np.zeros(state.shape, np.dtype(state.dtype))) for state in facts.states
        ]
        self._width: int | None = None

    @property
    def wanted(self) -> int:
        """Samples that complete the next window."""
        return (self._before + self._chunk.frames + self._margin) * self._shift - self._received

    @property
    def latency(self) -> int:
        """Samples from the first of a chunk to the last that its step waits for."""
        return (self._chunk.frames + self._margin) * self._shift

    def push(self, samples: Samples) -> Frames:
        """The next samples -> the frames (T, D) of the steps that they complete."""
        self._received += len(samples)
        self._samples = np.concatenate([self._samples, samples])
        ready = self._received // self._shift - self._margin  # frames whose windows are heard whole
        if ready > self._made:
            self._frames = np.concatenate([self._frames, self._new_frames(ready)])
        parts: list[Frames] = []
        while len(self._frames) >= self._chunk.frames:
            parts.append(self._step())
        return np.concatenate(parts) if parts else np.zeros((0, self._width or 0), np.float32)

    def finish(self) -> Frames:
        """The stream is over -> the frames of what was left."""
        heard = -(-(self._received + self._tail) // self._shift)  # feature frames, silence among them
        steps = max(0, -(-(heard - self._before) // self._chunk.shift))
        last = self._before + max(0, steps - 1) * self._chunk.shift + self._chunk.frames
        missing = (last + self._margin) * self._shift - self._received if steps else 0
        given = self._before // self._subsampling
        found = self.push(np.zeros(max(0, missing), np.float32))
        return found[: max(0, -(-heard // self._subsampling) - given)]

    def _new_frames(self, ready: int) -> Frames:
        """Feature frames from the first that is not made to ``ready``."""
        left = max(0, self._made - 1)  # a frame of samples before
        until = (ready + self._margin) * self._shift
        held = self._samples[left * self._shift - self._first : until - self._first]
        (frames, _) = self._features(held[None], np.array([len(held)], dtype=np.int64))
        new = frames[0, self._made - left : ready - left]
        self._made = ready
        keep = max(0, ready - 1) * self._shift
        self._samples, self._first = self._samples[keep - self._first :].copy(), keep
        return new

    def _step(self) -> Frames:
        """The next window through the graph."""
        window = np.ascontiguousarray(self._frames[None, : self._chunk.frames])
        values = self._model.pass_on([value_of(window), *self._states])
        self._states = values[1:]
        self._frames = self._frames[self._chunk.shift :]
        self._before += self._chunk.shift
        found: Frames = values[0].numpy()[0]
        self._width = found.shape[1]
        return found


@final
class TransducerStream(StreamingSearch):
    """Greedy search of a transducer over a stream; a token never changes once it is written."""

    def __init__(self, steps: TransducerSteps, frame_seconds: float) -> None:
        self.frame_seconds, self.frames = frame_seconds, 0
        self._steps = steps
        self._row = Row(np.zeros((0, 0), np.float32), steps.start)

    def advance(self, encoded: Frames) -> None:
        row = self._row
        row.frames = encoded
        while (at := row.at - self.frames) < len(encoded):
            part = encoded[at:]
            decoded = np.repeat(self._steps.after([row.history]), len(part), axis=0)
            advance(row, *self._steps.best(part, decoded))
        self.frames += len(encoded)

    def best(self) -> Hypothesis:
        return self._reading(len(self._row.written), self._row.score)

    def stable(self) -> int:
        return len(self._row.written)

    def commit(self, count: int) -> Hypothesis:
        row = self._row
        cut = row.before[count] if count < len(row.written) else row.score
        found = self._reading(count, cut)
        del row.written[:count]
        row.before = [score - cut for score in row.before[count:]]
        row.score -= cut
        return found

    def _reading(self, count: int, score: float) -> Hypothesis:
        return reading(self._row.written[:count], {"transducer": score}, self.frame_seconds)


def open_listener(
    graphs: Graphs,
    facts: BundleFacts,
    tokenizer: Tokenizer,
    *,
    search: GreedyConfig | CtcBeamConfig,
    helped: Helped | None,
    steps: TransducerSteps | None,
    gate: SpeechGate,
    closed: HeldFrames | None,
    sample_rate: int,
    endpoints: EndpointConfig | None,
    partials: bool,
) -> Listener:
    """The graphs of a streaming bundle -> a stream of events.

    Args:
        steps: of a transducer; None: CTC.
        closed: the closed vocabulary, for a greedy CTC search without other help.
        sample_rate: of the blocks, in hertz.
    """
    assert facts.chunk is not None
    found = _ctc_search(search, facts.frame_seconds, helped, closed) if steps is None else None
    return Listener(
        BundleEncoding(graphs, facts),
        tokenizer,
        found or TransducerStream(cast("TransducerSteps", steps), facts.frame_seconds),
        rate=facts.sample_rate,
        chunk=facts.chunk.shift * facts.frame_shift_ms / 1000,
        language=facts.language,
        sample_rate=sample_rate,
        endpoints=endpoints,
        speech_gate=gate,
        partials=partials,
        mend=None if closed is None else closed.mend,
    )


def _ctc_search(
    search: GreedyConfig | CtcBeamConfig,
    frame_seconds: float,
    helped: Helped | None,
    closed: HeldFrames | None,
) -> StreamingSearch:
    def remembered(frames: Frames) -> npt.NDArray[np.float64]:
        if closed is not None:
            closed.hear(frames)
        return _doubles(frames)

    if isinstance(search, GreedyConfig):
        if helped is None:
            return CtcGreedyStream(remembered, frame_seconds)
        search = NARROW
    beam = search.beam
    return CtcBeamStream(search, _doubles, frame_seconds, None if helped is None else lambda _: helped(beam))


def _doubles(frames: Frames) -> npt.NDArray[np.float64]:
    return frames.astype(np.float64)


@final
class RuntimeStream:
    """A stream as text: what was said so far, and the words that are final."""

    def __init__(self, open_listener: Callable[[int], Listener]) -> None:
        self._open = open_listener
        self._listener: Listener | None = None
        self._rate = 0
        self._finals: list[Final] = []
        self._partial = ""

    def accept(self, samples: Block, rate: int) -> list[Event]:
        """The next samples, floats in [-1, 1] or 16-bit integers, of the rate of the first -> events."""
        if self._listener is None:
            self._listener, self._rate = self._open(rate), rate
        if rate != self._rate:
            raise UsageError(
                f"This stream began at {self._rate} Hz, these samples have {rate} Hz.",
                mend="Open another stream for them.",
            )
        return self._note(self._listener.accept(samples))

    def finish(self) -> list[Event]:
        """The stream is over -> the last events; ``text`` is whole."""
        return [] if self._listener is None else self._note(self._listener.finish())

    @property
    def text(self) -> str:
        """Everything so far, the end of which may still change."""
        parts = [*(final.text for final in self._finals), self._partial]
        return " ".join(part for part in parts if part)

    @property
    def words(self) -> tuple[Word, ...]:
        """Words of the utterances that are over, with times in seconds of the stream."""
        return tuple(word for final in self._finals for word in final.words)

    def _note(self, events: list[Event]) -> list[Event]:
        for event in events:
            if isinstance(event, Final):
                self._finals.append(event)
                self._partial = ""
            else:
                self._partial = event.text
        return events
