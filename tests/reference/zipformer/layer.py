"""One layer and its feed-forward, convolution and bypass parts; (T, N, C) sequences."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from firstwords.encoders.zipformer import ZipformerConfig
from reference.zipformer.attention import AttentionWeights, NonlinAttention, SelfAttention, uniform
from reference.zipformer.operators import BiasNorm, L, R, activate_and_map, dropout_mask
from reference.zipformer.regularizers import Balancer, Clock, Part, Rate, Whiten, happens, keep_rows, limit

ATTENTION_SKIP = Rate((0, 0.2), (4000, 0.05), (16000, 0.0))
FEEDFORWARD_SKIP = Rate((0, 0.1), (4000, 0.01), (50000, 0.0))
CONSTANT_ATTENTION = Rate((0, 0.25), (4000, 0.025))


class FeedForward(Part):
    def __init__(self, clock: Clock, dim: int, hidden: int, dropout: Rate) -> None:
        super().__init__(clock)
        self.dropout = dropout
        self.in_proj = nn.Linear(dim, hidden)
        self.hidden_balancer = Balancer(clock, 0.3, 1.0, 0.75, 5.0)
        self.out_proj = nn.Linear(hidden, dim)
        self.out_whiten = Whiten(clock, Rate((0, 7.5), (20000, 15.0), default=7.5), 0.01)

    def forward(self, x: Tensor) -> Tensor:
        x = self.hidden_balancer(self.in_proj(x))
        mask = dropout_mask(x, self.now(self.dropout), self.training)
        return self.out_whiten(activate_and_map(x, self.out_proj, L, mask))


class ChunkCausalConv(nn.Module):
    """(N, C, T): a causal convolution, plus one inside each chunk that is scaled near the chunk's edges."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.causal_conv = nn.Conv1d(channels, channels, kernel // 2 + 1, groups=channels)
        self.chunkwise_conv = nn.Conv1d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.chunkwise_conv_scale = nn.Parameter(torch.zeros(2, channels, kernel))

    def forward(self, x: Tensor, chunk: int) -> Tensor:
        rows, channels, time = x.shape
        chunk = time if chunk < 0 or chunk > time else chunk
        past = self.causal_conv(F.pad(x, (self.kernel // 2, 0)))
        count = -(-time // chunk)
        chunks = F.pad(x, (0, count * chunk - time)).reshape(rows, channels, count, chunk).transpose(1, 2)
        inside = self.chunkwise_conv(chunks.reshape(rows * count, channels, chunk)) * self._scale(chunk)
        inside = inside.reshape(rows, count, channels, chunk).transpose(1, 2).reshape(rows, channels, -1)
        return past + inside[:, :, :time]

    def _scale(self, chunk: int) -> Tensor:
        left, right = self.chunkwise_conv_scale
        if chunk < self.kernel:
            return 1 + left[:, :chunk] + right[:, self.kernel - chunk :]
        return 1 + F.pad(left, (0, chunk - self.kernel)) + F.pad(right, (chunk - self.kernel, 0))


class Convolution(nn.Module):
    def __init__(self, clock: Clock, dim: int, kernel: int, causal: bool) -> None:
        super().__init__()
        self.in_proj = nn.Linear(dim, 2 * dim)
        low, most = Rate((0, 0.05), (8000, 0.025)), Rate((0, 5.0), (8000, 10.0), default=1.0)
        self.balancer1 = Balancer(clock, low, 1.0, 1.5, most)
        whole = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.depthwise_conv = ChunkCausalConv(dim, kernel) if causal else whole
        low, least = Rate((0, 0.1), (8000, 0.05)), Rate((0, 0.2), (20000, 0.5))
        self.balancer2 = Balancer(clock, low, 1.0, least, 10.0, channel=1)
        self.whiten = Whiten(clock, Rate((0, 7.5), (20000, 15.0), default=7.5), 0.01)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, padding: Tensor | None, chunk: int) -> Tensor:
        x, s = self.in_proj(x).chunk(2, dim=-1)
        x = (x * self.balancer1(s).sigmoid()).permute(1, 2, 0)  # (N, C, T)
        if padding is not None:
            x = x.masked_fill(padding.unsqueeze(1), 0.0)
        conv = self.depthwise_conv
        x = conv(x, chunk) if isinstance(conv, ChunkCausalConv) else conv(x)
        x = self.whiten(self.balancer2(x).permute(2, 0, 1))
        return activate_and_map(x, self.out_proj, R)


class Bypass(Part):
    """before + (after - before) * scale."""

    def __init__(self, clock: Clock, channels: int, skip: Rate | float = 0.0) -> None:
        super().__init__(clock)
        self.bypass_scale = nn.Parameter(torch.full((channels,), 0.5))
        self.skip = skip

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        scale = self.bypass_scale
        if self.training:
            scale = limit(scale, self.now(Rate((0, 0.9), (20000, 0.2))), 1.0, True)
            kept = keep_rows(before.shape[1], self.now(self.skip))
            scale = scale if kept is None else scale * kept
        return before + (after - before) * scale


class Layer(Part):
    """Stack number ``i``; ``skip``: how often an utterance skips the whole layer."""

    def __init__(self, clock: Clock, config: ZipformerConfig, i: int, dropout: Rate, skip: Rate) -> None:
        super().__init__(clock)
        dim, heads, feedforward = config.dims[i], config.heads[i], config.feedforward[i]
        query_dim, position_head_dim = config.query_head_dim[i], config.position_head_dim[i]
        self.self_attn_weights = AttentionWeights(
            clock, dim, config.position_dim, heads, query_dim, position_head_dim
        )
        self.self_attn1 = SelfAttention(clock, dim, heads, config.value_head_dim[i])
        self.self_attn2 = SelfAttention(clock, dim, heads, config.value_head_dim[i])
        self.feed_forward1 = FeedForward(clock, dim, feedforward * 3 // 4, dropout)
        self.feed_forward2 = FeedForward(clock, dim, feedforward, dropout)
        self.feed_forward3 = FeedForward(clock, dim, feedforward * 5 // 4, dropout)
        self.nonlin_attention = NonlinAttention(clock, dim)
        self.conv_module1 = Convolution(clock, dim, config.kernels[i], config.causal)
        self.conv_module2 = Convolution(clock, dim, config.kernels[i], config.causal)
        self.bypass, self.bypass_mid = Bypass(clock, dim, skip), Bypass(clock, dim)
        self.norm = BiasNorm(clock, dim)
        self.balancer1 = Balancer(clock, 0.45, 0.55, 0.2, 4.0)
        self.balancer2 = Balancer(clock, 0.45, 0.55, 0.1, 4.0)
        self.balancer_na = Balancer(clock, 0.3, 0.7, Rate((0, 0.004), (4000, 0.02)), 100.0, 0.05)
        self.balancer_ff2 = Balancer(clock, 0.3, 0.7, Rate((0, 0.0), (4000, 0.1)), 2.0, 0.05)
        self.balancer_ff3 = Balancer(clock, 0.3, 0.7, Rate((0, 0.0), (4000, 0.2)), 4.0, 0.05)
        self.whiten = Whiten(clock, Rate((0, 4.0), (20000, 12.0), default=4.0), 0.01)

    def forward(
        self, x: Tensor, distances: Tensor, hidden: Tensor | None, padding: Tensor | None, chunk: int
    ) -> Tensor:
        before = x
        weights = self.self_attn_weights(x, distances, hidden, padding)
        kept = self._kept(x, ATTENTION_SKIP)  # one draw for the three attentions
        x = x + self.feed_forward1(x)
        first = weights[:1]
        if self.training and happens(self.now(CONSTANT_ATTENTION)):
            first = uniform(first.detach())
        x = x + _masked(self.balancer_na(self.nonlin_attention(x, first)), kept)
        x = x + _masked(self.self_attn1(x, weights), kept)
        own = self._kept(x, ATTENTION_SKIP)
        x = x + _masked(self.conv_module1(x, padding, chunk), own)
        own = self._kept(x, FEEDFORWARD_SKIP)
        x = x + _masked(self.balancer_ff2(self.feed_forward2(x)), own)
        x = self.bypass_mid(before, x)
        x = x + _masked(self.self_attn2(x, weights), kept)
        own = self._kept(x, ATTENTION_SKIP)
        x = x + _masked(self.conv_module2(x, padding, chunk), own)
        own = self._kept(x, FEEDFORWARD_SKIP)
        x = x + _masked(self.balancer_ff3(self.feed_forward3(x)), own)
        x = self.norm(self.balancer1(x))
        x = self.bypass(before, x)
        return self.whiten(self.balancer2(x))

    def _kept(self, x: Tensor, skip: Rate) -> Tensor | None:
        return keep_rows(x.shape[1], self.now(skip)) if self.training else None


def _masked(branch: Tensor, kept: Tensor | None) -> Tensor:
    return branch if kept is None else branch * kept
