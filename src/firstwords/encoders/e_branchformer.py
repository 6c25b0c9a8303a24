"""E-Branchformer encoder: Kim et al., 2022, arXiv:2210.00077; the gated branch is from Branchformer: Peng et
al., 2022, arXiv:2207.02971.

Two branches read the same frames, attention for what is far and a convolutional gate for what is near; a
depthwise convolution over both merges them.
Differs from the papers: no dropout on attention weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, cast, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from firstwords.encoders.stack import AttentionStack, StackConfig, View
from firstwords.nn.attention import RelativeSelfAttention
from firstwords.nn.convolution import DepthwiseOverTime
from firstwords.nn.dropout import Dropout
from firstwords.nn.feedforward import FeedForward
from firstwords.nn.linear import Linear
from firstwords.nn.subsampling import SubsamplingConfig
from firstwords.tensors import split_evenly

_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "dim": 112, "layers": 6, "feedforward": 336, "gate_width": 448, "kernel": 15, "merge_kernel": 15,
        "subsampling": {"channels": 32},
    },
    "base": {"subsampling": {"channels": 256}},
    # ESPnet's LibriSpeech recipe
    "L": {
        "dim": 512, "layers": 17, "heads": 8, "feedforward": 1024, "gate_width": 3072,
        "subsampling": {"channels": 512},
    },
}  # fmt: skip


class EBranchformerConfig(StackConfig):
    """Sizes and choices.

    >>> EBranchformerConfig.preset("L").layers
    17
    """

    called: ClassVar[str] = "E-Branchformer"
    presets: ClassVar[Mapping[str, dict[str, Any]]] = _PRESETS  # tiny has 2 M parameters

    kind: Literal["e_branchformer"] = "e_branchformer"  # pyright: ignore[reportIncompatibleVariableOverride]
    gate_width: int = Field(default=1024, ge=2)  # hidden width of the gated branch, both halves; even
    kernel: int = Field(default=31, ge=1)  # of the gate, in frames after subsampling; odd
    merge_kernel: int = Field(default=31, ge=1)  # of the merge; odd
    dropout: float = Field(default=0.1, ge=0, lt=1)
    layer_drop: float = Field(default=0.0, ge=0, lt=1)  # of the last layer; earlier ones less
    subsampling: SubsamplingConfig = SubsamplingConfig()

    @model_validator(mode="after")
    def sizes_fit(self) -> EBranchformerConfig:
        if self.gate_width % 2:
            raise ValueError(f"gate_width = {self.gate_width} must be even.")
        if self.kernel % 2 == 0 or self.merge_kernel % 2 == 0:
            raise ValueError(f"kernel = {self.kernel} and merge_kernel = {self.merge_kernel} must be odd.")
        return self


@final
class ConvolutionalGate(nn.Module):
    """(B, T, D) -> (B, T, D): widen, GELU, one half times the convolution of the other, back ("cgMLP").

    At the start the gate is nearly open: a convolution of nearly 0, a bias of 1 (arXiv:2207.02971, 3.3.2).
    """

    def __init__(self, dim: int, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.in_proj = Linear(dim, width)
        self.norm = nn.LayerNorm(width // 2)
        self.convolution = DepthwiseOverTime(width // 2, kernel)
        self.dropout = Dropout(dropout)
        self.out_proj = Linear(width // 2, dim)
        nn.init.normal_(self.convolution.conv.weight, std=1e-6)
        nn.init.ones_(cast("Tensor", self.convolution.conv.bias))

    def forward(
        self, x: Float[Tensor, "batch time dim"], real: Bool[Tensor, "batch time"] | None
    ) -> Float[Tensor, "batch time outdim"]:
        x, gate = split_evenly(F.gelu(self.in_proj(x)), 2)
        return self.out_proj(self.dropout(x * self.convolution(self.norm(gate), real)))


@final
class EBranchformerLayer(nn.Module):
    """Half feed-forward, two branches and their merge, half feed-forward, norm (paper, figure 1)."""

    def __init__(self, config: EBranchformerConfig) -> None:
        super().__init__()
        dim = config.dim
        self.feed_in_norm = nn.LayerNorm(dim)
        self.feed_in = FeedForward(dim, config.feedforward, config.dropout, "swish")
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = RelativeSelfAttention(dim, config.heads)
        self.gate_norm = nn.LayerNorm(dim)
        self.gate = ConvolutionalGate(dim, config.gate_width, config.kernel, config.dropout)
        self.merge_convolution = DepthwiseOverTime(2 * dim, config.merge_kernel)
        self.merge_proj = Linear(2 * dim, dim)
        self.feed_out_norm = nn.LayerNorm(dim)
        self.feed_out = FeedForward(dim, config.feedforward, config.dropout, "swish")
        self.norm = nn.LayerNorm(dim)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Float[Tensor, "batch time dim"], view: View) -> Float[Tensor, "batch time dim"]:
        x = torch.add(x, self.dropout(self.feed_in(self.feed_in_norm(x))), alpha=0.5)
        far = self.attention(self.attention_norm(x), view.positions, view.hidden)
        near = self.gate(self.gate_norm(x), view.real)
        both = self.dropout(torch.cat((far, near), dim=2))
        x = x + self.dropout(self.merge_proj(both + self.merge_convolution(both, view.real)))
        return self.norm(torch.add(x, self.dropout(self.feed_out(self.feed_out_norm(x))), alpha=0.5))


@final
class EBranchformer(AttentionStack):
    """Frames (B, T, input_dim) -> (B, about T / subsampling, dim)."""

    def __init__(self, config: EBranchformerConfig, input_dim: int = 80) -> None:
        super().__init__(config, input_dim)
        self.config = config
        self.layers = nn.ModuleList(EBranchformerLayer(config) for _ in range(config.layers))
