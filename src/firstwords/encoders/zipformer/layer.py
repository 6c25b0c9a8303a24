"""One Zipformer layer: arXiv:2310.11230, section 3.1, figure 2.

Attention weights are computed once from the input and shared by one gated attention and two self-attentions;
three feed-forward and two convolution modules stand around them; two bypasses mix in the layer's input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from firstwords.encoders.zipformer import constraints
from firstwords.encoders.zipformer.activations import BiasNorm
from firstwords.encoders.zipformer.attention import AttentionWeights, NonlinAttention, SelfAttention
from firstwords.encoders.zipformer.constraints import Balancer, Whiten
from firstwords.encoders.zipformer.convolution import ConvolutionModule
from firstwords.encoders.zipformer.feedforward import FeedForward
from firstwords.encoders.zipformer.schedules import Schedule, Scheduled
from firstwords.nn.sharing import SharedWeights
from firstwords.tensors import is_captured

ATTENTION_SKIP = Schedule((0.0, 0.2), (4000.0, 0.05), (16000.0, 0.0))
FEEDFORWARD_SKIP = Schedule((0.0, 0.1), (4000.0, 0.01), (50000.0, 0.0))
CONSTANT_ATTENTION = Schedule((0.0, 0.25), (4000.0, 0.025))
BYPASS_SKIP = Schedule((0.0, 0.5), (4000.0, 0.02))


class _Mix(torch.autograd.Function):
    """before + (after - before) * scale in one pass; the scale's gradient without keeping the difference."""

    @staticmethod
    def forward(ctx: Any, before: Tensor, after: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(before, after, scale)
        return torch.lerp(before, after, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (before, after, scale), grad = ctx.saved_tensors, grads[0]
        to_after = grad * scale
        difference = (after - before).mul_(grad)
        if scale.dim() == 3:  # one scale per utterance and channel
            to_scale = difference.sum(dim=1, keepdim=True, dtype=torch.float32)
        else:
            to_scale = difference.sum(dim=(0, 1), dtype=torch.float32)
        return grad - to_after, to_after, to_scale.to(scale.dtype)


class Bypass(Scheduled):
    """(before, after) -> before + (after - before) * s, one learned s per channel.

    In training s is kept above a falling minimum through its gradient, and for some utterances the module
    is skipped altogether (s = 0).
    """

    def __init__(self, channels: int, skip: Schedule | float = 0.0) -> None:
        super().__init__()
        self.bypass_scale = nn.Parameter(torch.full((channels,), 0.5))
        self.skip = skip
        self.minimum = Schedule((0.0, 0.9), (20000.0, 0.2), default=0.0)

    def forward(
        self, before: Float[Tensor, "batch time channels"], after: Float[Tensor, "batch time channels"]
    ) -> Float[Tensor, "batch time channels"]:
        scale = self.bypass_scale
        if self.training:
            scale = constraints.limit_parameter(scale, self.now(self.minimum), 1.0, training=True)
            kept = keep_utterances(before, self.now(self.skip))
            scale = scale if kept is None else scale * kept
        scale = scale.to(before.dtype)
        if is_captured():  # lerp is written as both of its formulas there, and a choice between them
            return before + (after - before) * scale
        if not torch.is_grad_enabled():
            return torch.lerp(before, after, scale)
        return cast("Tensor", _Mix.apply(before, after, scale))


def keep_utterances(x: Tensor, skip: float) -> Float[Tensor, "batch 1 1"] | None:
    """1 for each utterance that is kept, 0 for the others; None where none can be skipped."""
    if skip <= 0:
        return None
    return (torch.rand(x.shape[0], 1, 1, device=x.device) >= skip).to(x.dtype)


class LayerCache(NamedTuple):
    """What a layer remembers between two chunks: the last ``left`` frames of what attention reads, and
    kernel // 2 frames before each convolution."""

    keys: Float[Tensor, "batch left keys"]
    gated: Float[Tensor, "batch left hidden"]
    values1: Float[Tensor, "batch left values"]
    values2: Float[Tensor, "batch left values"]
    convolution1: Float[Tensor, "batch before channels1"]
    convolution2: Float[Tensor, "batch before channels2"]


class View(NamedTuple):
    """What a layer may look at: real frames, hidden pairs (B, 1, T or 1, S), chunk and own lengths."""

    real: Bool[Tensor, "batch time"] | None = None
    hidden: Bool[Tensor, "*#some sources"] | None = None
    chunk: int = -1
    lengths: Int[Tensor, " batch"] | None = None


EVERYTHING = View()


@dataclass(frozen=True, kw_only=True)
class LayerShape:
    """Sizes and rates of one layer; rates may be overruled by tests."""

    dim: int
    position_dim: int
    heads: int
    query_head_dim: int
    position_head_dim: int
    value_head_dim: int
    feedforward: int
    kernel: int
    causal: bool = False
    dropout: Schedule | float = 0.1
    attention_skip: Schedule | float = ATTENTION_SKIP
    convolution_skip: Schedule | float = ATTENTION_SKIP
    constant_attention: Schedule | float = CONSTANT_ATTENTION
    feedforward2_skip: Schedule | float = FEEDFORWARD_SKIP
    feedforward3_skip: Schedule | float = FEEDFORWARD_SKIP
    bypass_skip: Schedule | float = BYPASS_SKIP


class ZipformerLayer(Scheduled):
    """(B, T, D) -> (B, T, D)."""

    def __init__(self, shape: LayerShape) -> None:
        super().__init__()
        dim = shape.dim
        self.rates = shape
        self.bypass = Bypass(dim, shape.bypass_skip)
        self.bypass_mid = Bypass(dim)
        self.self_attn_weights = AttentionWeights(
            dim, shape.position_dim, shape.heads, shape.query_head_dim, shape.position_head_dim
        )
        self.self_attn1 = SelfAttention(dim, shape.heads, shape.value_head_dim)
        self.self_attn2 = SelfAttention(dim, shape.heads, shape.value_head_dim)
        self.feed_forward1 = FeedForward(dim, shape.feedforward * 3 // 4, shape.dropout)
        self.feed_forward2 = FeedForward(dim, shape.feedforward, shape.dropout)
        self.feed_forward3 = FeedForward(dim, shape.feedforward * 5 // 4, shape.dropout)
        self.nonlin_attention = NonlinAttention(dim, 3 * dim // 4)
        self.conv_module1 = ConvolutionModule(dim, shape.kernel, causal=shape.causal)
        self.conv_module2 = ConvolutionModule(dim, shape.kernel, causal=shape.causal)
        self.norm = BiasNorm(dim)
        self.balancer1 = Balancer(0.45, 0.55, 0.2, 4.0)
        self.balancer_na = Balancer(0.3, 0.7, Schedule((0.0, 0.004), (4000.0, 0.02)), 100.0, probability=0.05)
        self.balancer_ff2 = Balancer(0.3, 0.7, Schedule((0.0, 0.0), (4000.0, 0.1)), 2.0, probability=0.05)
        self.balancer_ff3 = Balancer(0.3, 0.7, Schedule((0.0, 0.0), (4000.0, 0.2)), 4.0, probability=0.05)
        self.whiten = Whiten(Schedule((0.0, 4.0), (20000.0, 12.0), default=4.0), grad_scale=0.01)
        self.balancer2 = Balancer(0.45, 0.55, 0.1, 4.0)

    def forward(
        self,
        x: Float[Tensor, "batch time dim"],
        positions: Float[Tensor, "offsets position_dim"],
        view: View = EVERYTHING,
    ) -> Float[Tensor, "batch time dim"]:
        """``positions`` encode the offsets -(T-1) … T-1."""
        before, rates = x, self.rates
        # A captured graph gets the plain form; both give the same numbers.
        whole = is_captured()
        find_weights = self.self_attn_weights if whole else self.self_attn_weights.shared
        weights = find_weights(x, positions, view.hidden)
        attention_kept = self._kept(x, rates.attention_skip)
        x = x + self.feed_forward1(x)
        first = weights
        if self.training and constraints.drawn(self.now(rates.constant_attention)):
            first = uniform_where_positive(weights.weights if isinstance(weights, SharedWeights) else weights)
        x = _add(x, self.balancer_na(self.nonlin_attention(x, first)), attention_kept)
        x = _add(x, self.self_attn1(x, weights), attention_kept)
        kept = self._kept(x, rates.convolution_skip)
        x = _add(x, self.conv_module1(x, view.real, view.chunk, view.lengths), kept)
        kept = self._kept(x, rates.feedforward2_skip)
        x = _add(x, self.balancer_ff2(self.feed_forward2(x)), kept)
        x = self.bypass_mid(before, x)
        x = _add(x, self.self_attn2(x, weights), attention_kept)
        kept = self._kept(x, rates.convolution_skip)
        x = _add(x, self.conv_module2(x, view.real, view.chunk, view.lengths), kept)
        kept = self._kept(x, rates.feedforward3_skip)
        x = _add(x, self.balancer_ff3(self.feed_forward3(x)), kept)
        x = self.norm(self.balancer1(x))
        x = self.bypass(before, x)
        return self.whiten(self.balancer2(x))

    def _kept(self, x: Tensor, rate: Schedule | float) -> Tensor | None:
        return keep_utterances(x, self.now(rate)) if self.training else None

    @property
    def cache_widths(self) -> tuple[int, int, int, int, int, int]:
        """Of the tensors of ``LayerCache``, in their order."""
        weights = self.self_attn_weights
        return (
            weights.heads * weights.query_head_dim,
            self.nonlin_attention.hidden,
            self.self_attn1.in_proj.weight.shape[0],
            self.self_attn2.in_proj.weight.shape[0],
            self.conv_module1.out_proj.weight.shape[1],
            self.conv_module2.out_proj.weight.shape[1],
        )

    def step(
        self,
        x: Float[Tensor, "batch chunk dim"],
        positions: Float[Tensor, "offsets position_dim"],
        cache: LayerCache,
        hidden: Bool[Tensor, "batch sources"] | None = None,
    ) -> tuple[Float[Tensor, "batch chunk dim"], LayerCache]:
        """One chunk with the cache -> output and the next cache; ``hidden`` over cached and new frames."""
        before, chunk = x, x.shape[1]
        real = None if hidden is None else ~hidden[:, hidden.shape[1] - chunk :]
        mask = None if hidden is None else hidden[:, None, None, :]
        weights, keys = self.self_attn_weights.step(x, positions, cache.keys, mask)
        x = x + self.feed_forward1(x)
        y, gated = self.nonlin_attention.step(x, weights, cache.gated)
        x = x + y
        y, values1 = self.self_attn1.step(x, weights, cache.values1)
        x = x + y
        y, convolution1 = self.conv_module1.step(x, cache.convolution1, real)
        x = x + y
        x = x + self.feed_forward2(x)
        x = self.bypass_mid(before, x)
        y, values2 = self.self_attn2.step(x, weights, cache.values2)
        x = x + y
        y, convolution2 = self.conv_module2.step(x, cache.convolution2, real)
        x = x + y
        x = x + self.feed_forward3(x)
        x = self.bypass(before, self.norm(x))
        return x, LayerCache(keys, gated, values1, values2, convolution1, convolution2)


def _add(x: Tensor, branch: Tensor, kept: Tensor | None) -> Tensor:
    return x + branch if kept is None else torch.addcmul(x, branch, kept)


def uniform_where_positive(
    weights: Float[Tensor, "batch heads time sources"],
) -> Float[Tensor, "batch 1 time sources"]:
    """The sources of the first head, each with the same weight; no gradient flows back."""
    positive = (weights[:, :1].detach() > 0).to(weights.dtype)
    return positive / positive.sum(dim=-1, keepdim=True)
