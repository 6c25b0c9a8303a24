"""What ``firstwords transcribe`` transcribes with: a model folder or a bundle, opened as it is wished."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from firstwords.audio.waveform import ChannelPolicy
from firstwords.cli.loading_options import LoadingOptions
from firstwords.cli.reading_options import ReadingOptions
from firstwords.cli.stream_options import StreamOptions
from firstwords.data.manifest import Utterance
from firstwords.errors import FirstwordsError
from firstwords.inference.journal import Journal
from firstwords.inference.listener import Listener
from firstwords.inference.transcript import Transcript


class Transcriber(Protocol):
    """What makes the transcripts: a model (``Recognizer``) or a bundle (``Runtime``)."""

    channels: ChannelPolicy

    @property
    def identity(self) -> dict[str, str]:
        """What the text depends on beside the audio."""
        ...

    def attempt_many(
        self,
        utterances: Iterable[Utterance],
        *,
        window: float = 30.0,
        progress: Callable[[float], None] | None = None,
        journals: Callable[[Utterance], Journal | None] | None = None,
    ) -> Iterator[Transcript | FirstwordsError]:
        """For each its transcript or the error that kept it from one."""
        ...


@dataclass(frozen=True)
class Loaded:
    """A transcriber, and what says at the end what must be said."""

    transcriber: Transcriber
    told: Callable[[], None] = lambda: None

    def hearing(self, channels: ChannelPolicy | None) -> Loaded:
        """The same, hearing the channel that was asked for; None: as the model was trained."""
        if channels is not None:
            self.transcriber.channels = channels
        return self


class Hears(Protocol):
    """What a stream is transcribed with: a causal model, or a streaming bundle."""

    sample_rate: int

    def open(self, options: StreamOptions, rate: int, *, partials: bool) -> Listener:
        """A stream of samples of this rate."""
        ...


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A model folder or a bundle, and how the command line wishes it to read."""

    folder: Path
    loading: LoadingOptions
    reading: ReadingOptions
    stream: StreamOptions
    channels: ChannelPolicy | None  # None: as in training


class Opener(Protocol):
    """Loads what was wanted, once it is known that there is something to do."""

    def for_recordings(self) -> Loaded: ...
    def for_stream(self) -> Hears: ...
