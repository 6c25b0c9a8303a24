"""The recogniser: a model folder in, transcripts of recordings out.

    recognizer = Recognizer.load("my-model")
    print(recognizer.transcribe("interview.mp3").text)

Recordings longer than one window (30 s) are read in blocks and decoded stretch by stretch, so memory does not
grow with them. Many short ones are batched by length. Models of less than ten million parameters compute in
float32: an utterance gives the same text alone and in any batch. Larger ones do so with precision="fp32".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Unpack, final

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from firstwords.audio.source import Samples
from firstwords.audio.voices import equalized
from firstwords.audio.waveform import AudioReader, ChannelPolicy, channel_policy
from firstwords.audio.windows import WindowConfig
from firstwords.data.manifest import Utterance
from firstwords.data.voices import NO_VOICES, measure_voices, stretches_of
from firstwords.device import Compute, Precision
from firstwords.formatting.build import recipe_formatter
from firstwords.formatting.stage import Formatter
from firstwords.inference.committee import Committee, proposing
from firstwords.inference.early_exit import EarlyExit
from firstwords.inference.events import Event
from firstwords.inference.frames import aligned_tokens, encoded_frames, frame_log_probs
from firstwords.inference.identity import identity_of, journal_identity
from firstwords.inference.intake import Block, one_channel
from firstwords.inference.journal import Journal
from firstwords.inference.language import check_language
from firstwords.inference.listener import Listener
from firstwords.inference.loading import load_to_read
from firstwords.inference.longform import is_silent, read_by_length, transcribe_blocks, window_config
from firstwords.inference.reading import Reader
from firstwords.inference.recordings import (
    Attempt,
    Decoder,
    Journals,
    Progress,
    attempt_recordings,
    in_blocks,
    or_raise,
)
from firstwords.inference.second_pass import SecondPass
from firstwords.inference.streaming import ListenOptions, open_listener
from firstwords.inference.transcript import Token, Transcript, build_transcript, format_transcript, tokens_of
from firstwords.model.checkpoint import LoadedModel, weights_digest
from firstwords.model.recipe import with_search
from firstwords.search.fusion import NO_SCORERS, Scorers
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.interface import SearchConfig
from firstwords.search.search import needed_heads
from firstwords.tensors import Padded
from firstwords.text.normalize import normalizer

# Padded seconds per batch, and read ahead to find utterances of equal length.
_BATCH_SECONDS = {"cpu": 60.0, "cuda": 1500.0}
_GROUP_SECONDS = {"cpu": 600.0, "cuda": 9000.0}
_SEARCHED_SECONDS = 300.0  # in batches that are searched together
_READERS = 4  # threads


@final
class Recognizer:
    """A loaded model; use ``Recognizer.load``. Set ``channels`` to hear others than in training."""

    def __init__(
        self,
        loaded: LoadedModel,
        compute: Compute,
        scorers: Scorers = NO_SCORERS,
        search: SearchConfig | None = None,
        early_exit: EarlyExit | None = None,
    ) -> None:
        self.recipe, self.tokenizer, self.folder = loaded.recipe, loaded.tokenizer, loaded.folder
        self.model = loaded.model.to(compute.device).eval()
        self.compute = compute
        self._together = _BATCH_SECONDS.get(compute.device.type, 60.0)  # seconds decoded at once, at most
        self.sample_rate = loaded.recipe.data.sample_rate
        self.channels: ChannelPolicy = channel_policy(loaded.recipe.data.channels)
        self._voices = NO_VOICES
        self._hop = round(self.model.frame_seconds * self.sample_rate)  # samples from frame to frame
        self.second_pass: SecondPass | None = None  # set it to have readings chosen by a language model
        self.committee: Committee | None = None  # models that read along
        self.speech_gate = loaded.speech_gate
        self.early_exit = early_exit
        self.use(search or loaded.recipe.search, scorers)

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        device: str = "auto",
        check: bool = False,
        precision: Precision = "auto",
        scorers: Scorers = NO_SCORERS,
        search: SearchConfig | None = None,
        int8: bool = False,
        exit_above: float | None = None,
    ) -> Recognizer:
        """Model folder -> Recognizer.

        Args:
            device: "auto", "cpu", "cuda", "cuda:1".
            check: prove the folder on its own clip first.
            precision: "bf16" is twice as fast in hardware, but a few letters may depend on what else is in
                the batch; "auto" takes it from ten million parameters on.
            scorers: language model and phrases, weighted by ``language_model`` of the search.
            search: kind and settings of the search; None: the recipe's.
            int8: linear layers multiply in 8-bit integers, on the processor (docs/quantisation.md).
            exit_above: how sure of an utterance the inside of the encoder must be to leave out the rest
                (early_exit.py); None: as chosen for the folder; above 1: never.
        """
        loaded, compute, early_exit = load_to_read(
            Path(folder), device, precision, search, exit_above, check=check, int8=int8
        )
        return cls(loaded, compute, scorers, search, early_exit)

    def use(self, search: SearchConfig, scorers: Scorers) -> None:
        """Read with these settings from now on; ConfigError where the model has no heads for them."""
        if self.committee is not None:
            search = proposing(search)
        with_search(self.recipe, search)  # refuses what the heads cannot do
        if needed_heads(search) != ("ctc",):
            self.early_exit = None
        self.reader = Reader(self.model, self.tokenizer, self.speech_gate, search, scorers)
        self.search_config, self.scorers = search, scorers
        if self.committee is not None:
            self.committee.use(search, scorers)

    @cached_property
    def formatter(self) -> Formatter | None:
        """Stages between words and text for people, by the recipe; set it to have others, or None."""
        return recipe_formatter(self.recipe.post, language=self.recipe.language, folder=self.folder)

    def meet(self, utterances: Iterable[Utterance]) -> None:
        """Who is read next, where voices are brought to one spectrum (data.equalize): speakers as a whole.

        A recording that nobody was met in is a voice of its own. ``attempt_many`` does this by itself.
        """
        if self.recipe.data.equalize:
            self._voices = measure_voices(stretches_of(utterances), self.sample_rate, self.channels)

    @property
    def frame_seconds(self) -> float:
        """From one encoded frame to the next."""
        return self.model.frame_seconds

    def transcribe(
        self,
        audio: Path | str,
        *,
        language: str | None = None,
        start: float = 0.0,
        duration: float | None = None,
        window: float = 30.0,
        progress: Progress | None = None,
        journal: Journal | None = None,
    ) -> Transcript:
        """Recording (or a stretch of it, in seconds) -> Transcript; audio without speech gives empty text.

        Args:
            language: checked against the model's own; None takes what it has.
            window: longest recording decoded as a whole, in seconds; longer ones in stretches of speech.
                Encoders with learned positions take less where they have no more.
            progress: called with the seconds that are done.
            journal: where it writes down how far it is; the same call with the same journal goes on there
                after a kill, to the same transcript. What is done is read again, not decoded: to seek is
                inexact in many formats, and repairs are known only to who reads all.
        """
        check_language(self.recipe.language, language)
        reader = self._open(Path(audio), start, duration)
        if journal is not None:
            journal.open(
                journal_identity(self, Path(audio), start, duration, f"{window} {self._together}"),
                self.sample_rate,
            )
        tokens, length = self._long(in_blocks(reader), window, progress, journal)
        return self._transcript(tokens, length, str(audio), reader.repairs)

    def transcribe_samples(
        self, samples: npt.NDArray[np.floating], sample_rate: int, *, window: float = 30.0
    ) -> Transcript:
        """Samples (S,) in [-1, 1] -> Transcript."""
        own = one_channel(samples, sample_rate, self.sample_rate)
        if self.recipe.data.equalize:
            own = equalized(own, self.sample_rate)
        tokens, length = self._long([own], window, None)
        return self._transcript(tokens, length, "", ())

    def transcribe_many(self, utterances: Iterable[Utterance]) -> Iterator[Transcript]:
        """Utterances -> their transcripts, in the same order; the first that cannot be read raises."""
        return or_raise(self.attempt_many(utterances))

    def attempt_many(
        self,
        utterances: Iterable[Utterance],
        *,
        window: float = 30.0,
        progress: Progress | None = None,
        journals: Journals | None = None,
    ) -> Iterator[Attempt]:
        """Utterances -> for each its transcript or the error that kept it from one, in the same order.

        Args:
            window: as for ``transcribe``.
            progress: called with the seconds that are done of the next utterance, if it is a long one.
            journals: the journal of an utterance, if it shall have one; asked for those longer than a window.
        """
        if self.recipe.data.equalize:
            utterances = list(utterances)
            self.meet(utterances)
        decoder = Decoder(
            sample_rate=self.sample_rate,
            open=self._open,
            whole=self._windows(window).seconds,
            decode=self._decode,
            transcript=self._transcript,
            long=self.transcribe,
            group_seconds=_GROUP_SECONDS.get(self.compute.device.type, 600.0),
            readers=_READERS,
        )
        return attempt_recordings(utterances, decoder, window=window, progress=progress, journals=journals)

    def log_probs(
        self, audio: Path | str, *, start: float = 0.0, duration: float | None = None, window: float = 30.0
    ) -> npt.NDArray[np.float32]:
        """Recording -> (T, V) natural-log CTC probabilities, ``frame_seconds`` apart."""
        reader = self._open(Path(audio), start, duration)
        return self._frames(in_blocks(reader), window)

    def readings(
        self, audio: Path | str, *, start: float = 0.0, duration: float | None = None
    ) -> list[Hypothesis]:
        """Recording, decoded as a whole -> its readings, best first; without speech one without tokens."""
        samples = self._open(Path(audio), start, duration).whole()
        (found,) = self._read([samples])
        return found or [Hypothesis((), 0.0, {})]

    def encoded(
        self, audio: Path | str, *, start: float = 0.0, duration: float | None = None
    ) -> Float[Tensor, "time dim"]:
        """Recording -> what the encoder makes of it as a whole; no frames where nothing can be heard."""
        samples = self._open(Path(audio), start, duration).whole()
        if is_silent(samples):
            return torch.zeros(0, self.model.encoder.dim)
        found = self.encode([samples])
        return found.values[0, : int(found.lengths[0])]

    def listener(self, **options: Unpack[ListenOptions]) -> Listener:
        """A stream to feed block by block (inference/streaming.py); the model must be causal."""
        return open_listener(
            self.model,
            self.tokenizer,
            device=self.compute.device,
            speech_gate=self.speech_gate,
            search=self.search_config,
            scorers=self.scorers,
            **options,
        )

    def listen(self, source: Iterable[Block], **options: Unpack[ListenOptions]) -> Iterator[Event]:
        """Blocks of samples as they come -> partial and final text.

        Blocks hold one channel, floats in [-1, 1] or 16-bit integers, and may have any size. Options:
        chunk_ms=640, left_ms, sample_rate, endpoints, partials=True; see ``ListenOptions``.
        """
        listener = self.listener(**options)
        for block in source:
            yield from listener.accept(block)
        yield from listener.finish()

    def align(
        self, audio: Path | str, text: str, *, start: float = 0.0, duration: float | None = None
    ) -> Transcript:
        """Recording and what was said in it -> the same text with the time of every word.

        The text is normalized as the model's training texts were.
        """
        reader = self._open(Path(audio), start, duration)
        log_probs = self._frames(in_blocks(reader), 30.0)
        ids = self.tokenizer.encode(normalizer(self.recipe.text.normalizer)(text))
        tokens = aligned_tokens(log_probs, ids, self.frame_seconds, name=f"'{audio}'")
        return self._as_read(tokens, len(log_probs) * self.frame_seconds, str(audio), reader.repairs)

    def _open(self, path: Path, start: float = 0.0, duration: float | None = None) -> AudioReader:
        taps = None
        if self.recipe.data.equalize:
            rate, channels = self.sample_rate, self.channels
            taps = self._voices.filter_for(path, start, duration, sample_rate=rate, channels=channels)
        return AudioReader(
            path,
            sample_rate=self.sample_rate,
            channels=self.channels,
            start=start,
            duration=duration,
            taps=taps,
        )

    @cached_property
    def weights(self) -> str:
        """Fingerprint of the model's weights."""
        return weights_digest(self.model.state_dict())

    @property
    def identity(self) -> dict[str, str]:
        """What the text depends on beside the audio, each thing in the words a user is told of a change."""
        return identity_of(self, self.weights, self.formatter)

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
            partial(self._decode, in_order=True),
            self._windows(window),
            together=self._together,
            grid=self._hop,
            progress=progress,
            journal=journal,
            told=None if self.second_pass is None else self.second_pass.begin,
        )

    def _transcript(
        self, tokens: Sequence[Token], duration: float, audio: str, repairs: tuple[str, ...]
    ) -> Transcript:
        read = self._as_read(tokens, duration, audio, repairs)
        return read if self.formatter is None else format_transcript(read, self.formatter)

    def _as_read(
        self, tokens: Sequence[Token], duration: float, audio: str, repairs: tuple[str, ...]
    ) -> Transcript:
        language = self.recipe.language
        return build_transcript(
            tokens, self.tokenizer, language=language, duration=duration, audio=audio, repairs=repairs
        )

    def _decode(self, stretches: Sequence[Samples], *, in_order: bool = False) -> list[list[Token]]:
        """Stretches of samples -> the tokens of each; ``in_order``: each goes on from the one before."""
        found = self._read(stretches)
        if self.second_pass is not None:
            second = self.second_pass
            found = second.in_order(found) if in_order else [second.alone(readings) for readings in found]
        return tokens_of(found, [len(samples) / self.sample_rate for samples in stretches])

    @torch.inference_mode()
    def _read(self, stretches: Sequence[Samples]) -> list[list[Hypothesis]]:
        """Stretches of samples -> the readings of each by the recipe's search; none where nobody speaks."""

        def read(batches: Sequence[Sequence[Samples]]) -> list[list[list[Hypothesis]]]:
            encoded = [self.encode(batch) for batch in batches]
            found = self.reader.many(encoded)
            return found if self.committee is None else self.committee.agree(batches, encoded, found)

        most, searched = self._together * self.sample_rate, _SEARCHED_SECONDS * self.sample_rate
        return read_by_length(stretches, most, read, together=searched)

    @torch.inference_mode()
    def encode(self, batch: Sequence[Samples]) -> Padded:
        """Stretches of samples (S,) at ``sample_rate`` -> (B, T, D) encoded frames."""
        return encoded_frames(self.model, self.compute, batch, self.early_exit)

    @torch.inference_mode()
    def _frames(self, blocks: Iterable[Samples], window: float) -> npt.NDArray[np.float32]:
        """Blocks -> log-probabilities of the whole."""
        config = self._windows(window)
        return frame_log_probs(self.model.ctc, self.encode, blocks, config, self.sample_rate, hop=self._hop)

    def _windows(self, seconds: float) -> WindowConfig:
        """Seconds of a window, as users give them -> how to cut; none is longer than the encoder can read."""
        return window_config(seconds, self.model.longest_seconds)
