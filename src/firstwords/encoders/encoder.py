"""What an encoder promises.

Laws (tests/laws): an utterance gives the same frames alone and padded in a batch; output lengths obey
``output_lengths``; the order of a batch does not matter. A streaming encoder: steps joined equal one pass
with the same chunk mask, to the last frame.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar, cast

from jaxtyping import Int
from torch import Tensor, nn

from firstwords.config import Config
from firstwords.errors import ConfigError
from firstwords.tensors import Padded

State = TypeVar("State")


class EncoderConfig(Config):
    """Settings of an encoder."""

    for_streams: ClassVar[tuple[str, ...]] = ()  # settings that mean something to causal encoders alone

    @property
    def least_features(self) -> int:
        """Fewest values per feature frame that it can read."""
        return 1

    def check_streams(self) -> None:
        """Refuse, as ConfigError, what is set for streams and would come to nothing.

        Asked where a training begins, not where settings are read: models that were trained so must load.
        """
        if not self.for_streams or getattr(self, "causal", False):
            return
        chosen = {name: getattr(self, name) for name in self.for_streams if name not in self.usual}
        if chosen:
            said = ", ".join(f"{name} = {_toml(value)}" for name, value in chosen.items())
            raise ConfigError(
                f"recipe.encoder: {said} is for streams, and without causal = true nothing is learned in "
                "chunks: every recording is heard as a whole.",
                mend="Set encoder.causal = true for a model that streams, or leave out "
                f"{' and '.join(f'encoder.{name}' for name in chosen)}.",
            )

    @property
    def usual(self) -> set[str]:
        """The settings that have their defaults, whether written out or not."""
        fields = type(self).model_fields
        return {name for name, field in fields.items() if getattr(self, name) == field.default}


def _toml(value: object) -> str:
    return str(list(cast("tuple[int, ...]", value)) if isinstance(value, tuple) else value)


class Encoder(nn.Module, ABC):
    """Frames in, fewer frames out."""

    dim: int  # width of the output
    subsampling: int  # feature frames per output frame
    longest: int | None = None  # output frames that it can give at once; None: any number

    @abstractmethod
    def forward(self, frames: Padded) -> Padded:
        """(B, T, features) -> (B, about T / subsampling, dim)."""

    @abstractmethod
    def output_lengths(self, lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Feature frames -> output frames, without computing any."""


class StreamingEncoder(Encoder, Generic[State], ABC):
    """State goes in and comes out, so a step can be exported as it is.

    Chunks and left context are counted in frames of the encoder's first rate, ``hop(1)`` feature frames each.

        window(chunk) feature frames     |....................|...|
        the next step, hop(chunk) later                       |....................|...|

    A step gives the output frames of its chunk. The last windows of a stream are filled up with anything, and
    their ``lengths`` say how many frames are real: the output is then that of a whole pass which ends there.
    A stream that ends before its first chunk is full is passed to ``forward``.
    """

    @property
    @abstractmethod
    def causal(self) -> bool:
        """Built and trained to stream; else ``start`` raises ConfigError."""

    @abstractmethod
    def forward(self, frames: Padded, *, chunk: int | None = None, left: int | None = None) -> Padded:
        """A whole pass in which a frame sees its own chunk and ``left`` frames before it (-1: all).

        Not given: drawn at random in training, else the widest context of the training.
        """

    @abstractmethod
    def hop(self, chunk: int) -> int:
        """Feature frames from the start of one window to the next; in proportion to ``chunk``."""

    @abstractmethod
    def window(self, chunk: int) -> int:
        """Feature frames that one step reads: its hop and the look-ahead."""

    @abstractmethod
    def nearest_context(self, chunk: int, left: int | None) -> tuple[int, int]:
        """The nearest chunk and left context that ``start`` takes; None: the widest limited one trained."""

    @abstractmethod
    def start(self, rows: int, *, chunk: int, left: int) -> State:
        """The state before the first frame; ConfigError if the encoder cannot stream so."""

    @abstractmethod
    def step(self, frames: Padded, state: State) -> tuple[Padded, State]:
        """One window of frames and the state -> this chunk's output and the next state."""
