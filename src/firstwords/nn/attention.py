"""Self-attention: plain and causal, on torch's fused kernel, and with relative positions.

Relative: Dai et al., "Transformer-XL", 2019, arXiv:1901.02860, section 3.3:

    score(i, j) = [(q_i + u) · k_j + (q_i + v) · (W_r R_{i-j})] / sqrt(width of a head)

Masks are ``hidden``: True where a source must not be seen. Dropout acts on the results, never on the weights,
so that the weights need not be kept (fused) or get no gradient of their own (``nn/sharing.py``).
"""

from __future__ import annotations

from typing import NamedTuple, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from firstwords.nn.linear import Linear
from firstwords.nn.sharing import (
    HIDDEN,
    attend,
    attention_scores,
    join_heads,
    share,
    span_of,
    split_heads,
    split_offsets,
    weights_of,
)
from firstwords.tensors import is_captured, split_evenly


@final
class SelfAttention(nn.Module):
    """(B, T, D) -> (B, T, D): Vaswani et al., 2017, arXiv:1706.03762, section 3.2."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj = Linear(dim, 3 * dim)
        self.out_proj = Linear(dim, dim)

    def forward(
        self,
        x: Float[Tensor, "batch time dim"],
        hidden: Bool[Tensor, "#batch 1 #rows time"] | None = None,
    ) -> Float[Tensor, "batch time dim"]:
        q, k, v = (split_heads(part, self.heads) for part in self.in_proj(x).chunk(3, dim=2))
        # A finite score keeps rows finite that see nothing: utterances without a frame.
        mask = (
            None if hidden is None else torch.zeros_like(hidden, dtype=q.dtype).masked_fill_(hidden, HIDDEN)
        )
        return self.out_proj(F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2))


class KeysValues(NamedTuple):
    """Of what was read so far, one entry per attention head."""

    keys: Float[Tensor, "rows heads sources head_dim"]
    values: Float[Tensor, "rows heads sources head_dim"]


@final
class CausalSelfAttention(nn.Module):
    """Each token looks at itself and the tokens before it, whose keys and values are handed on."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.read = Linear(dim, 3 * dim)
        self.write = Linear(dim, dim)

    def forward(
        self,
        x: Float[Tensor, "rows tokens dim"],
        past: KeysValues | None,
        hidden: Bool[Tensor, "rows 1 1 sources"] | None = None,
    ) -> tuple[Float[Tensor, "rows tokens dim"], KeysValues]:
        """A sentence (no past), or one token after those of the past -> output, keys and values of all."""
        query, *own = self.read(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        now = KeysValues(*own)
        if past is not None:
            now = KeysValues(
                torch.cat([past.keys, now.keys], dim=2), torch.cat([past.values, now.values], dim=2)
            )
        seen = F.scaled_dot_product_attention(
            query,
            *now,
            attn_mask=None if hidden is None else ~hidden,
            is_causal=past is None,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.write(seen.transpose(1, 2).flatten(2)), now


@final
class RelativeSelfAttention(nn.Module):
    """(B, T, D) -> (B, T, D), aware of the distances between frames."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj = Linear(dim, 3 * dim)
        self.position_proj = Linear(dim, dim, bias=False)
        self.content_bias = nn.Parameter(torch.empty(dim))  # u
        self.position_bias = nn.Parameter(torch.empty(dim))  # v
        self.out_proj = Linear(dim, dim)
        for bias in (self.content_bias, self.position_bias):
            nn.init.xavier_uniform_(bias.view(heads, -1))

    def forward(
        self,
        x: Float[Tensor, "batch time dim"],
        positions: Float[Tensor, "offsets dim"],
        hidden: Bool[Tensor, "#batch 1 #rows time"] | None = None,
    ) -> Float[Tensor, "batch time outdim"]:
        """``positions`` from ``nn/positions.distances``."""
        q, keys_values = self._project(x)
        return self._attend(q, keys_values, positions, hidden)

    def step(
        self,
        x: Float[Tensor, "batch time dim"],
        positions: Float[Tensor, "offsets dim"],
        cache: Float[Tensor, "batch left keysvalues"],
        hidden: Bool[Tensor, "#batch 1 #rows sources"],
    ) -> tuple[Float[Tensor, "batch time dim"], Float[Tensor, "batch left keysvalues"]]:
        """A chunk and the keys and values before it -> result and the next cache."""
        q, new = self._project(x)
        keys_values = torch.cat((cache, new), dim=1)
        after = keys_values[:, keys_values.shape[1] - cache.shape[1] :]
        return self._attend(q, keys_values, positions, hidden), after

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        width = len(self.content_bias)  # less than that of x where heads were cut
        q, keys_values = self.in_proj(x).split((width, 2 * width), dim=2)
        return q, keys_values

    def _attend(
        self, q: Tensor, keys_values: Tensor, positions: Tensor, hidden: Tensor | None
    ) -> Float[Tensor, "batch time outdim"]:
        scale = (int(q.shape[2]) // self.heads) ** -0.5
        k, v = (split_heads(part, self.heads) for part in split_evenly(keys_values, 2))
        content = split_heads(torch.add(q, self.content_bias.to(q.dtype)) * scale, self.heads)
        place = split_heads(torch.add(q, self.position_bias.to(q.dtype)) * scale, self.heads)
        r = split_offsets(self.position_proj(positions.to(q.dtype)), self.heads)
        if is_captured():
            weights = weights_of(attention_scores(content, k, place, r, span_of(positions, hidden)), hidden)
        else:
            weights = share(content, k, place, r, hidden)
        return self.out_proj(join_heads(attend(weights, v)))
