"""Settings of the Zipformer and its published and slimmed sizes (arXiv:2310.11230, table 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, cast

from pydantic import Field, model_validator

from firstwords.encoders.encoder import EncoderConfig
from firstwords.errors import ConfigError

PER_STACK = (
    "dims",
    "layers",
    "feedforward",
    "heads",
    "query_head_dim",
    "position_head_dim",
    "value_head_dim",
    "kernels",
    "unmasked_dims",
)

_SAME_EVERYWHERE = {"query_head_dim": 32, "position_head_dim": 4, "value_head_dim": 12}

_PRESETS: dict[str, dict[str, Any]] = {
    "S": {
        "dims": (192, 256, 256, 256, 256, 256),
        "layers": (2, 2, 2, 2, 2, 2),
        "feedforward": (512, 768, 768, 768, 768, 768),
        "unmasked_dims": 192,
    },
    "M": {},
    "L": {
        "dims": (192, 256, 512, 768, 512, 256),
        "layers": (2, 2, 4, 5, 4, 2),
        "feedforward": (512, 768, 1536, 2048, 1536, 768),
        "unmasked_dims": (192, 192, 256, 320, 256, 192),
    },
    "kws": {"dims": 128, "layers": 1, "feedforward": 192, "unmasked_dims": 128, "causal": True},
    "tiny": {
        "dims": (96, 112, 128, 144, 128, 112),
        "layers": 1,
        "feedforward": (192, 256, 288, 320, 288, 256),
        "unmasked_dims": (96, 96, 112, 112, 112, 96),
        "heads": 4,
        "query_head_dim": 24,
        "embed_channels": (8, 16, 24),
    },
    "nano": {
        "dims": (48, 56, 64, 72, 64, 56),
        "layers": 1,
        "feedforward": (80, 96, 112, 128, 112, 96),
        "unmasked_dims": (48, 56, 56, 56, 56, 56),
        "heads": 4,
        "query_head_dim": 12,
        "value_head_dim": 8,
        "kernels": (15, 15, 15, 15, 15, 15),
        "embed_channels": (4, 8, 16),
    },
}


class ZipformerConfig(EncoderConfig):
    """Sizes per stack (a single number counts for every stack); the defaults are the published M.

    >>> ZipformerConfig.preset("tiny").dims
    (96, 112, 128, 144, 128, 112)
    """

    for_streams: ClassVar[tuple[str, ...]] = ("chunks", "left_contexts")

    kind: Literal["zipformer"] = "zipformer"
    dims: tuple[int, ...] = (192, 256, 384, 512, 384, 256)  # width of each stack
    layers: tuple[int, ...] = (2, 2, 3, 4, 3, 2)
    downsampling: tuple[int, ...] = (1, 2, 4, 8, 4, 2)  # of the 50 Hz of the front end
    feedforward: tuple[int, ...] = (
        512,
        768,
        1024,
        1536,
        1024,
        768,
    )  # hidden width; 3/4, 1, 5/4 of it are used
    heads: tuple[int, ...] = (4, 4, 4, 8, 4, 4)
    query_head_dim: tuple[int, ...] = (32, 32, 32, 32, 32, 32)
    position_head_dim: tuple[int, ...] = (4, 4, 4, 4, 4, 4)
    value_head_dim: tuple[int, ...] = (12, 12, 12, 12, 12, 12)
    kernels: tuple[int, ...] = (31, 31, 15, 15, 15, 31)  # depthwise convolutions, in frames of the stack; odd
    unmasked_dims: tuple[int, ...] = (
        192,
        192,
        256,
        256,
        256,
        192,
    )  # channels that are never masked in training
    position_dim: int = Field(default=48, ge=2)  # width of the position encodings; even
    embed_channels: tuple[int, int, int] = (8, 32, 128)  # of the convolutional front end
    output_downsampling: int = Field(default=2, ge=1)
    dropout: tuple[float, float] = (
        0.3,
        0.1,
    )  # falls from the first to the second over 20000 reference batches
    warmup: float = Field(default=4000.0, gt=0)  # reference batches until every layer has come in
    causal: bool = False  # trained for streaming with random chunks
    chunks: tuple[int, ...] = (16, 32, 64, -1)  # chunk sizes drawn in training, frames at 50 Hz; -1 is all
    left_contexts: tuple[int, ...] = (64, 128, 256, -1)  # left contexts drawn in training, frames at 50 Hz

    @classmethod
    def preset(cls, name: str) -> ZipformerConfig:
        """The settings called S, M, L, kws, tiny or nano."""
        if name not in _PRESETS:
            known = ", ".join(_PRESETS)
            raise ConfigError(f"No Zipformer size is called '{name}'.", mend=f"Sizes: {known}.")
        return cls.model_validate(_PRESETS[name])

    @property
    def least_features(self) -> int:
        """As many as the convolutions of the front end look at."""
        return 7

    @property
    def look_back(self) -> int:
        """Frames at 50 Hz that the widest convolution sees before its own; a stream looks back no less."""
        stacks = zip(self.downsampling, self.kernels, strict=True)
        return max(kernel // 2 * factor for factor, kernel in stacks)

    def check_streams(self) -> None:
        """Besides, left contexts that no stream can have with a chunk of the training.

        At chunks of 16, training takes 24 frames as one chunk and a stream as two, or as many as the
        convolutions look back. What is shorter than every chunk is one chunk to both. The usual left contexts
        pass with any chunks: with -1 among them a model learns to look back however far.
        """
        super().check_streams()
        if not self.causal or "left_contexts" in self.usual:
            return
        for left in self.left_contexts:
            shorter = [chunk for chunk in sorted({*self.chunks}) if 0 < chunk <= left]
            if shorter and all(left % chunk for chunk in shorter):
                raise ConfigError(
                    f"recipe.encoder: left_contexts: {left} frames are no whole number of chunks (chunks = "
                    f"{list(self.chunks)}), and a stream looks back whole ones.",
                    mend=f"Nearest that a stream can have: {self._left_contexts_near(left, shorter)}.",
                )

    def _left_contexts_near(self, left: int, chunks: Sequence[int]) -> str:
        """The multiples of chunks around a left context, none below what the convolutions see."""
        below, above = 0, math.inf
        for chunk in chunks:
            count, least = left // chunk, -(-self.look_back // chunk)
            below = max(below, count * chunk if count >= least else 0)
            above = min(above, max(count + 1, least) * chunk)
        return f"{below} or {above}" if below else f"{above}"

    @model_validator(mode="before")
    @classmethod
    def one_number_for_every_stack(cls, values: Any) -> Any:
        """``layers = 1`` or ``[1]`` means 1 in every stack."""
        if not isinstance(values, dict):
            return values
        given = cast("dict[str, Any]", values)
        factors: Any = given.get("downsampling", (1, 2, 4, 8, 4, 2))
        if not isinstance(factors, list | tuple):
            return given  # named as no list by the check of its type
        stacks = len(cast("list[int]", factors))
        wide: dict[str, Any] = {}
        for name in PER_STACK:
            value: Any = given.get(name, _SAME_EVERYWHERE.get(name))
            value = [value] if isinstance(value, int) else value
            if isinstance(value, list | tuple) and len(cast("list[int]", value)) == 1:
                wide[name] = tuple(cast("list[int]", value)) * stacks
        return given | wide

    @model_validator(mode="after")
    def sizes_fit(self) -> ZipformerConfig:
        stacks = len(self.downsampling)
        if not stacks:
            raise ValueError("downsampling needs one factor per stack, got none.")
        for name in (*PER_STACK, "downsampling"):
            value: tuple[int, ...] = getattr(self, name)
            if len(value) != stacks:
                raise ValueError(f"{name} = {list(value)} has {len(value)} numbers for {stacks} stacks.")
            if min(value) < 1:
                raise ValueError(f"{name} = {list(value)}: every number must be at least 1.")
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise ValueError(f"kernels = {list(self.kernels)}: every kernel must be odd.")
        if self.position_dim % 2:
            raise ValueError(f"position_dim = {self.position_dim} is odd.")
        if any(keep > dim for keep, dim in zip(self.unmasked_dims, self.dims, strict=True)):
            raise ValueError(f"unmasked_dims = {list(self.unmasked_dims)} exceed dims = {list(self.dims)}.")
        if min(self.dims) < 2 or min(self.feedforward) < 2:
            raise ValueError("dims and feedforward must be at least 2.")
        if not (self.chunks and self.left_contexts):
            raise ValueError("chunks and left_contexts need at least one number each (-1 is unlimited).")
        for chunk in self.chunks:
            if chunk != -1 and (chunk < 1 or any(chunk % factor for factor in self.downsampling)):
                raise ValueError(
                    f"chunks: {chunk} is not a multiple of every factor {list(self.downsampling)}."
                )
        if wrong := [left for left in self.left_contexts if left < 1 and left != -1]:
            raise ValueError(f"left_contexts: {wrong[0]} is no number of frames; -1 is unlimited.")
        return self
