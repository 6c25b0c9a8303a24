"""What an encoder promises.

Laws (tests/laws): an utterance gives the same frames alone and padded in a batch; output lengths obey
``output_lengths``; the order of a batch does not matter. A streaming encoder: steps joined equal one pass
with the same chunk mask.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from jaxtyping import Int
from torch import Tensor, nn

from firstwords.tensors import Padded

State = TypeVar("State")


class Encoder(nn.Module, ABC):
    """Frames in, fewer frames out."""

    dim: int  # width of the output
    subsampling: int  # feature frames per output frame

    @abstractmethod
    def forward(self, frames: Padded) -> Padded:
        """(B, T, features) -> (B, about T / subsampling, dim)."""

    @abstractmethod
    def output_lengths(self, lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Feature frames -> output frames, without computing any."""


class StreamingEncoder(Encoder, Generic[State], ABC):
    """State goes in and comes out, so a step can be exported as it is."""

    @abstractmethod
    def start(self, rows: int, *, chunk: int, left: int) -> State:
        """The state before the first frame; ``chunk`` and ``left`` in frames of the encoder's first rate."""

    @abstractmethod
    def step(self, frames: Padded, state: State) -> tuple[Padded, State]:
        """One window of frames and the state -> this chunk's output and the next state."""
