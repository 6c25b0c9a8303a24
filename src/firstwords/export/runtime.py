"""The edge runtime: an exported bundle in, transcripts out, with numpy and onnxruntime alone.

    runtime = Runtime.load("my-bundle")
    print(runtime.transcribe("interview.mp3").text)

    stream = runtime.stream()                    a streaming bundle
    for block in blocks:
        stream.accept(block, 16000)
        print(stream.text)
    stream.finish()

Recordings are read, cut into stretches of speech and put together again as ``Recognizer`` does it
(inference/longform.py), in memory that does not grow with them. Bundles are checked before any engine sees
them (check_bundle.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Self, final

import numpy as np
import numpy.typing as npt

from firstwords.audio.source import Samples
from firstwords.audio.waveform import AudioReader, ChannelPolicy, probe
from firstwords.data.manifest import Utterance
from firstwords.errors import SearchError, UsageError
from firstwords.export.bundle import BUNDLE
from firstwords.export.check_bundle import Bundle, check_bundle
from firstwords.export.onnx_file import INT32
from firstwords.export.runtime_formatting import own_stages
from firstwords.export.runtime_graphs import Frames, Graphs
from firstwords.export.runtime_help import NO_HELP, Help
from firstwords.export.runtime_search import TransducerSteps, read_ctc, read_transducer, spoken_tokens
from firstwords.export.runtime_words import Judge
from firstwords.inference.intake import one_channel
from firstwords.inference.journal import Journal, journal_header
from firstwords.inference.longform import batches_by_length, is_silent, transcribe_blocks, window_config
from firstwords.inference.recordings import (
    Attempt,
    Decoder,
    Journals,
    Progress,
    attempt_recordings,
    in_blocks,
    or_raise,
)
from firstwords.inference.transcript import Token, Transcript, build_transcript, format_transcript
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.interface import CtcBeamConfig, GreedyConfig
from firstwords.text.given import GivenTokenizer

if TYPE_CHECKING:  # who transcribes recordings needs none of it
    from firstwords.export.runtime_stream import RuntimeStream
    from firstwords.inference.endpointing import EndpointConfig
    from firstwords.inference.listener import Listener

_TOGETHER_SECONDS = 120.0  # of windows whose batches run beside each other
_BATCH_SECONDS = 20.0  # padded; longer batches leave the caches, and pad more
_GROUP_SECONDS = 600.0  # read ahead to find recordings of equal length
_READERS = 2  # threads that read files

GREEDY = GreedyConfig()


@final
class Runtime:
    """A loaded bundle. Use ``Runtime.load``; one at a time may transcribe."""

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        if threads < 1:
            raise UsageError(f"{threads} threads can do nothing.", mend="Give 1 or more.")
        self.bundle, self.facts = bundle, bundle.facts
        self.sample_rate = bundle.facts.sample_rate
        self.channels: ChannelPolicy = bundle.facts.channels  # set it to hear others
        self.tokenizer = GivenTokenizer(bundle.pieces)
        self._judge = Judge(self.facts, self.tokenizer)
        self._graphs = Graphs(bundle, threads)
        self._graphs.warm()
        self._hop = round(self.facts.frame_seconds * self.sample_rate)  # samples from frame to frame
        self.search: GreedyConfig | CtcBeamConfig = GREEDY
        self.help: Help = NO_HELP
        self.formatter = own_stages(bundle)  # set ``formatter`` to have others, or None

    @classmethod
    def load(cls, folder: Path | str, variant: str = "fp32", threads: int = 1) -> Self:
        """Bundle folder -> Runtime; CheckpointError names what is wrong with the bundle.

        Args:
            variant: "fp32" or "int8", as far as the bundle has it.
            threads: of the processor.
        """
        return cls(check_bundle(folder, variant), threads)

    @property
    def closed_words(self) -> int:
        """Words of the closed vocabulary that near misses are read as; 0 where it is not used."""
        return len(self._judge.known) if self.search is GREEDY and self.help.beside is None else 0

    def use(self, *, beam: int = 1, help: Help = NO_HELP) -> None:
        """Search with a beam, with a language model, or both, from now on; CTC bundles alone can."""
        if beam < 1:
            raise UsageError(f"A beam of {beam} keeps nothing.", mend="Give at least 1.")
        if self.facts.kind != "ctc" and (beam > 1 or help is not NO_HELP):
            raise SearchError(
                f"The bundle '{self.facts.name}' is a transducer: this runtime reads it greedily.",
                mend="Leave beam and language model out, or transcribe with the model folder.",
            )
        self.search = GREEDY if beam == 1 else CtcBeamConfig(beam=beam, n_best=beam)
        self.help = help

    # -- recordings

    def transcribe(
        self,
        audio: Path | str | npt.NDArray[np.floating],
        sample_rate: int | None = None,
        *,
        start: float = 0.0,
        duration: float | None = None,
        window: float = 30.0,
        progress: Progress | None = None,
        journal: Journal | None = None,
    ) -> Transcript:
        """Recording, or samples (S,) in [-1, 1] and their rate -> Transcript; empty text without speech.

        Args:
            start, duration: a stretch of the file, in seconds.
            window: longest recording decoded as a whole, in seconds; longer ones in stretches of speech.
            progress: called with the seconds that are done.
            journal: where it writes down how far it is.
        """
        if isinstance(audio, np.ndarray):
            tokens, length = self._long([one_channel(audio, sample_rate, self.sample_rate)], window, progress)
            return self._transcript(tokens, length, "", ())
        reader = self._open(Path(audio), start, duration)
        if journal is not None:
            header = journal_header(
                self.identity, Path(audio), start, duration, f"{window} {_TOGETHER_SECONDS}"
            )
            journal.open(header, self.sample_rate)
        tokens, length = self._long(in_blocks(reader), window, progress, journal)
        return self._transcript(tokens, length, str(audio), reader.repairs)

    def transcribe_many(self, recordings: Iterable[Path | str]) -> Iterator[Transcript]:
        """Recordings -> their transcripts, in the same order; the first that cannot be read raises."""
        paths = (Path(recording) for recording in recordings)
        utterances = (Utterance(id=str(p), audio=p, duration=probe(p).duration) for p in paths)
        return or_raise(self.attempt_many(utterances))

    def attempt_many(
        self,
        utterances: Iterable[Utterance],
        *,
        window: float = 30.0,
        progress: Progress | None = None,
        journals: Journals | None = None,
    ) -> Iterator[Attempt]:
        """Utterances -> for each its transcript or the error that kept it from one, in the same order."""
        decoder = Decoder(
            sample_rate=self.sample_rate,
            open=self._open,
            whole=window_config(window).seconds,
            decode=self._decode,
            transcript=self._transcript,
            long=self.transcribe,
            group_seconds=_GROUP_SECONDS,
            readers=_READERS,
        )
        return attempt_recordings(utterances, decoder, window=window, progress=progress, journals=journals)

    def _open(self, path: Path, start: float, duration: float | None) -> AudioReader:
        return AudioReader(
            path, sample_rate=self.sample_rate, channels=self.channels, start=start, duration=duration
        )

    def log_probs(self, samples: npt.NDArray[np.floating], sample_rate: int | None = None) -> Frames:
        """Samples (S,) of a CTC bundle -> (T, V) natural-log probabilities, decoded as a whole."""
        if self.facts.kind != "ctc":
            raise SearchError("A transducer has no frame-wise probabilities.", mend="Use a CTC bundle.")
        return self._encode([one_channel(samples, sample_rate, self.sample_rate)], self._graphs.threads)[0]

    def readings(self, samples: npt.NDArray[np.floating], sample_rate: int | None = None) -> list[Hypothesis]:
        """Samples (S,), decoded as a whole -> readings, best first."""
        (found,) = self._read([one_channel(samples, sample_rate, self.sample_rate)], self._graphs.threads)
        return found or [Hypothesis((), 0.0, {})]

    def plain_reading(self, samples: npt.NDArray[np.floating], sample_rate: int | None = None) -> Hypothesis:
        """Samples (S,) -> what the graphs alone say, to compare engines: no speech gate, no silence added.

        A streaming bundle reads whole windows, what is left behind the last one is not read.
        """
        own = one_channel(samples, sample_rate, self.sample_rate)
        if not self.facts.streaming:
            frames = self._graphs.encode([own], self._graphs.threads)
        else:
            from firstwords.export.runtime_stream import BundleEncoding

            frames = [BundleEncoding(self._graphs, self.facts).push(own)]
        return self._search(frames)[0][0]

    # -- streams

    def stream(self, *, endpoints: EndpointConfig | None = None) -> RuntimeStream:
        """A stream of a streaming bundle: ``accept(samples, rate)``, ``text``, ``words``, ``finish()``."""
        from firstwords.export.runtime_stream import RuntimeStream

        self._check_streaming()
        return RuntimeStream(lambda rate: self.listener(sample_rate=rate, endpoints=endpoints))

    def listener(
        self,
        *,
        sample_rate: int | None = None,
        endpoints: EndpointConfig | None = None,
        partials: bool = True,
    ) -> Listener:
        """The same as events, partial and final (inference/listener.py)."""
        from firstwords.export.runtime_stream import open_listener

        self._check_streaming()
        return open_listener(
            self._graphs,
            self.facts,
            self.tokenizer,
            search=self.search,
            helped=self.help.beside,
            steps=self._steps if self.facts.kind == "transducer" else None,
            gate=self._judge.gate,
            closed=self._judge.held_frames() if self.closed_words else None,
            sample_rate=sample_rate or self.sample_rate,
            endpoints=endpoints,
            partials=partials,
        )

    def _check_streaming(self) -> None:
        if not self.facts.streaming:
            raise SearchError(
                f"The bundle '{self.facts.name}' cannot stream: it hears a recording only as a whole.",
                mend="Transcribe recordings, or export a causal model with --streaming.",
            )

    # -- what the text depends on

    @cached_property
    def _fingerprint(self) -> str:
        """Of bundle.json, which holds the sums of all other files."""
        return sha256((self.bundle.folder / BUNDLE).read_bytes()).hexdigest()

    @property
    def identity(self) -> dict[str, str]:
        """Each thing in the words a user is told of a change, and its fingerprint."""
        return {
            "model": f"{self._fingerprint} {self.bundle.variant}",
            "search": self.search.model_dump_json(),
            "language model or list of phrases": self.help.identity,
            "channel": "" if self.channels == self.facts.channels else str(self.channels),
            "formatting": "" if self.formatter is None else self.formatter.identity,
        }

    # -- one step below

    def _long(
        self,
        blocks: Iterable[Samples],
        window: float,
        progress: Progress | None,
        journal: Journal | None = None,
    ) -> tuple[list[Token], float]:
        return transcribe_blocks(
            blocks,
            self.sample_rate,
            self._decode,
            window_config(window),
            together=_TOGETHER_SECONDS,
            grid=self._hop,
            progress=progress,
            journal=journal,
        )

    def _decode(self, stretches: Sequence[Samples]) -> list[list[Token]]:
        """Stretches of samples -> the tokens of each; in batches with little padding."""
        lengths = {i: len(samples) for i, samples in enumerate(stretches)}
        share = sum(lengths.values()) / self._graphs.threads  # so that every thread has a batch
        most = min(_BATCH_SECONDS * self.sample_rate, max(share, 1.0))
        batches = list(batches_by_length(lengths, 1.0 if self.facts.streaming else most))

        def work(batch: Sequence[int], threads: int) -> list[list[Hypothesis]]:
            return self._read([stretches[i] for i in batch], threads)

        tokens: list[list[Token]] = [[] for _ in stretches]
        for batch, found in zip(batches, self._graphs.each(work, batches), strict=True):
            for i, readings in zip(batch, found, strict=True):
                length = len(stretches[i]) / self.sample_rate
                tokens[i] = spoken_tokens(readings[0], length, self.facts) if readings else []
        return tokens

    def _read(self, batch: Sequence[Samples], threads: int) -> list[list[Hypothesis]]:
        """Stretches of samples -> the readings of each; none where nobody speaks."""
        heard = [i for i, samples in enumerate(batch) if not is_silent(samples)]
        found: list[list[Hypothesis]] = [[] for _ in batch]
        if heard:
            frames = self._encode([batch[i] for i in heard], threads)
            for i, own, readings in zip(heard, frames, self._search(frames), strict=True):
                found[i] = self._judge.shown(own, readings, closed=self.closed_words > 0)
        return found

    def _encode(self, batch: Sequence[Samples], threads: int) -> list[Frames]:
        if self.facts.streaming:
            return [self._through_stream(one, threads) for one in batch]
        least = self.facts.least_samples
        filled = [one if len(one) >= least else np.pad(one, (0, least - len(one))) for one in batch]
        return self._graphs.encode(filled, threads)

    def _through_stream(self, samples: Samples, threads: int) -> Frames:
        """A streaming graph reads a recording as it would hear it."""
        from firstwords.export.runtime_stream import BundleEncoding

        encoding = BundleEncoding(self._graphs, self.facts, threads)
        first = encoding.push(samples)
        rest = encoding.finish()
        return np.concatenate([first, rest]) if len(first) else rest

    def _search(self, frames: Sequence[Frames]) -> list[list[Hypothesis]]:
        seconds = self.facts.frame_seconds
        if self.facts.kind == "transducer":
            return read_transducer(frames, self._steps, seconds)
        return read_ctc(frames, self.search, seconds, self.help.beside)

    @cached_property
    def _steps(self) -> TransducerSteps:
        whole = np.int32 if self.bundle.graphs["decoder"].inputs[0].type == INT32 else np.int64
        return TransducerSteps.of(self._graphs, self.facts.context_size or 1, whole)

    def _transcript(
        self, tokens: Sequence[Token], duration: float, audio: str, repairs: tuple[str, ...]
    ) -> Transcript:
        language = self.facts.language
        read = build_transcript(
            tokens, self.tokenizer, language=language, duration=duration, audio=audio, repairs=repairs
        )
        return read if self.formatter is None else format_transcript(read, self.formatter)
