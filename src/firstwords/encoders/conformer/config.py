"""Settings of the Conformer and its published and slimmed sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from firstwords.encoders.stack import StackConfig
from firstwords.nn.subsampling import SubsamplingConfig

_FAST = {"factor": 8, "channels": 256, "separable": True}

_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"dim": 112, "layers": 6, "feedforward": 480, "kernel": 15, "subsampling": {"channels": 32}},
    # arXiv:2005.08100, table 1 (there with kernel 32; an odd one has a middle)
    "S": {"dim": 144, "layers": 16, "feedforward": 576, "subsampling": {"channels": 144}},
    "M": {"dim": 256, "layers": 16, "feedforward": 1024, "subsampling": {"channels": 256}},
    "L": {
        "dim": 512, "layers": 17, "heads": 8, "feedforward": 2048, "subsampling": {"channels": 512},
    },
    # arXiv:2305.05084, section 2
    "fast-L": {
        "dim": 512, "layers": 17, "heads": 8, "feedforward": 2048, "kernel": 9, "subsampling": _FAST,
    },
}  # fmt: skip


class ConformerConfig(StackConfig):
    """Sizes and choices.

    >>> ConformerConfig.preset("S").layers
    16
    """

    called: ClassVar[str] = "Conformer"
    presets: ClassVar[Mapping[str, dict[str, Any]]] = (
        _PRESETS  # tiny has 2 M parameters, fast-L is the FastConformer
    )

    for_streams: ClassVar[tuple[str, ...]] = ("max_chunk", "full_share", "left_chunks")

    kind: Literal["conformer"] = "conformer"  # pyright: ignore[reportIncompatibleVariableOverride]
    kernel: int = Field(default=31, ge=1)  # depthwise convolution, in frames after subsampling; odd
    convolution_norm: Literal["layer", "batch"] = "batch"  # after the depthwise convolution
    dropout: float = Field(default=0.1, ge=0, lt=1)
    layer_drop: float = Field(default=0.0, ge=0, lt=1)  # of the last layer; earlier ones less
    subsampling: SubsamplingConfig = SubsamplingConfig()
    causal: bool = False  # trained for streaming: convolutions look back only, attention in random chunks
    max_chunk: int = Field(default=32, ge=1)  # chunks of 1 to this many frames are drawn in training
    full_share: float = Field(default=0.5, ge=0, le=1)  # of the batches: one chunk of everything
    left_chunks: tuple[int, ...] = (4, 8, -1)  # one is drawn for a batch in chunks; -1 is all of them

    @model_validator(mode="after")
    def sizes_fit(self) -> ConformerConfig:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel = {self.kernel} must be odd.")
        if not self.left_chunks or any(n < 1 and n != -1 for n in self.left_chunks):
            raise ValueError(
                f"left_chunks = {list(self.left_chunks)} needs at least one number; each is positive, or -1 "
                f"for all chunks."
            )
        return self
