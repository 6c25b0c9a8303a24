"""What encoders of attention layers share: sizes, and the way from features through a stack of layers.

    features -> convolutional subsampling -> dropout -> layers -> encoded frames, zero beyond each length

Conformer, Squeezeformer, E-Branchformer and Transformer are such stacks and differ in their layers.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar, cast, runtime_checkable

from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from firstwords.encoders.encoder import Encoder, EncoderConfig
from firstwords.encoders.layers import Condition, Taps, run_layers
from firstwords.encoders.presets import preset_of
from firstwords.nn.dropout import Dropout
from firstwords.nn.positions import distances
from firstwords.nn.subsampling import Subsampling, SubsamplingConfig
from firstwords.tensors import Padded, is_full, real_frames, zero_padding

ConfigT = TypeVar("ConfigT", bound="StackConfig")


class StackConfig(EncoderConfig):
    """Sizes of a stack of attention layers.

    Recipes write settings in the order of their fields, these first: what else such encoders have in common
    (``StackSettings``) each of them names itself, where it always stood.
    """

    called: ClassVar[str]  # what a message calls the encoder
    presets: ClassVar[Mapping[str, dict[str, Any]]]

    kind: str
    dim: int = Field(default=256, ge=2)  # model width; even
    layers: int = Field(default=12, ge=1)
    heads: int = Field(default=4, ge=1)
    feedforward: int = Field(default=1024, ge=1)  # hidden width

    @classmethod
    def preset(cls: type[ConfigT], name: str) -> ConfigT:
        """The settings of a size by its name; ConfigError with all names if there is none."""
        return cls.model_validate(preset_of(name, cls.presets, cls.called))

    @property
    def least_features(self) -> int:
        """As many as the convolutions of the subsampling look at."""
        return cast("StackSettings", self).subsampling.window(1)

    @model_validator(mode="after")
    def dim_splits_into_heads(self) -> StackConfig:
        if self.dim % self.heads or self.dim % 2:
            raise ValueError(f"dim = {self.dim} must be even and a multiple of heads = {self.heads}.")
        return self


@runtime_checkable
class StackSettings(Protocol):
    """What the way through a stack asks of settings."""

    @property
    def dim(self) -> int: ...
    @property
    def dropout(self) -> float: ...
    @property
    def layer_drop(self) -> float: ...
    @property
    def subsampling(self) -> SubsamplingConfig: ...


class View(NamedTuple):
    """What a layer may look at; ``hidden`` and ``real`` are None where nothing is hidden or padded."""

    positions: Float[Tensor, "offsets dim"]  # of all distances (nn/positions.py)
    hidden: Bool[Tensor, "#batch 1 #rows sources"] | None = None
    real: Bool[Tensor, "batch time"] | None = None


def view_of(x: Float[Tensor, "batch time dim"], lengths: Int[Tensor, " batch"]) -> View:
    """A running sequence -> each frame looks at all real frames of its utterance."""
    time = x.shape[1]
    real = None if is_full(lengths, time) else real_frames(lengths, time)
    hidden = None if real is None else ~real[:, None, None]
    return View(distances(time, time, x.shape[2], x), hidden, real)


class AttentionStack(Encoder, ABC):
    """Frames (B, T, input_dim) -> (B, about T / subsampling, dim).

    A subclass makes ``layers``, each called with the running sequence and a ``View``.
    """

    layers: nn.ModuleList

    def __init__(self, config: StackSettings, input_dim: int) -> None:
        super().__init__()
        self._layer_drop = config.layer_drop
        self.dim, self.subsampling = config.dim, config.subsampling.factor
        self.embed = Subsampling(config.subsampling, input_dim, config.dim)
        self.dropout = Dropout(config.dropout)

    def output_lengths(self, lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        return self.embed.output_lengths(lengths)

    def forward(self, frames: Padded) -> Padded:
        return self.forward_with_intermediate(frames, ())[0]

    def forward_with_intermediate(
        self, frames: Padded, layers: Sequence[int], condition: Condition | None = None
    ) -> tuple[Padded, list[Padded]]:
        """See ``heads/intermediate.py``; ``layers`` are numbered from 0."""
        x, lengths = self.embed(frames)
        return self.through(x, lengths, view_of(x, lengths), Taps(layers, len(self.layers), condition))

    def through(
        self, x: Float[Tensor, "batch time dim"], lengths: Int[Tensor, " batch"], view: View, taps: Taps
    ) -> tuple[Padded, list[Padded]]:
        """Embedded frames through dropout and all layers -> the output, and what the taps took."""

        def output(x: Tensor) -> Padded:
            return self.output(x, lengths, view)

        x = run_layers(self.enter(x), self.calls(view), taps, output, drop=self.drop)
        return taps.taken[-1] if taps.stopped else output(x), taps.taken

    def enter(self, x: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch time dim"]:
        """What the first layer reads."""
        return self.dropout(x)

    def calls(self, view: View, first: int = 0, last: int | None = None) -> list[Callable[[Tensor], Tensor]]:
        """Layers ``first`` to ``last`` - 1 (None: all from there), each with its view."""
        return [partial(layer, view=view) for layer in list(self.layers)[first:last]]

    def output(
        self, x: Float[Tensor, "batch time dim"], lengths: Int[Tensor, " batch"], view: View
    ) -> Padded:
        """What the encoder would give, had no layer followed."""
        encoded = Padded(x, lengths)
        return encoded if view.real is None else zero_padding(encoded)

    @property
    def drop(self) -> float:
        """Probability of leaving out the last layer; 0 outside training."""
        return self._layer_drop if self.training else 0.0
