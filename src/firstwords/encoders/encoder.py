"""What an encoder promises.

Laws (tests/laws): an utterance gives the same frames alone and padded in a batch; output lengths obey
``output_lengths``; the order of a batch does not matter. A streaming encoder: steps joined equal one pass
with the same chunk mask, to the last frame.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from jaxtyping import Int
from torch import Tensor, nn

from firstwords.config import Config
from firstwords.tensors import Padded

State = TypeVar("State")


class EncoderConfig(Config):
    """Settings of an encoder."""

    @property
    def least_features(self) -> int:
        """Fewest values per feature frame that it can read."""
        return 1


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
