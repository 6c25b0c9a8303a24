"""A decoder-only Transformer language model: Vaswani et al., 2017, arXiv:1706.03762, without the encoder.

Norms stand before each part and once at the end (Xiong et al., 2020, arXiv:2002.04745). Positions are
sinusoids, so no sentence is too long. Token by token the keys and values of what was read are kept ("cache");
rows may have read different numbers of tokens, and are kept flush at the end:

    lengths [3, 1]    a b c       the next token is appended on the right,
                      . . d       what is no token of a row is hidden from it
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from firstwords.lm.neural.config import TransformerLmConfig
from firstwords.lm.neural.model import NeuralLm, TiedEmbedding
from firstwords.nn.attention import CausalSelfAttention, KeysValues
from firstwords.nn.dropout import Dropout
from firstwords.nn.feedforward import FeedForward
from firstwords.nn.positions import sinusoids


class CacheState(NamedTuple):
    """What rows have read: how many tokens, and for each layer their keys and values, flush at the end."""

    lengths: Int[Tensor, " rows"]
    past: tuple[KeysValues, ...]


@final
class DecoderBlock(nn.Module):
    """Self-attention and feed-forward, each with its norm before it and added to what it reads."""

    def __init__(self, config: TransformerLmConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.dim)
        self.attention = CausalSelfAttention(config.dim, config.heads, config.dropout)
        self.feedforward_norm = nn.LayerNorm(config.dim)
        self.feedforward = FeedForward(config.dim, config.feedforward, config.dropout, config.activation)
        self.dropout = Dropout(config.dropout)

    def forward(
        self,
        x: Float[Tensor, "rows tokens dim"],
        past: KeysValues | None,
        hidden: Bool[Tensor, "rows 1 1 sources"] | None,
    ) -> tuple[Float[Tensor, "rows tokens dim"], KeysValues]:
        """Sentences (no past), or one token after those of the past -> output, keys and values of all."""
        added, now = self.attention(self.attention_norm(x), past, hidden)
        x = x + self.dropout(added)
        return x + self.dropout(self.feedforward(self.feedforward_norm(x))), now


@final
class TransformerLm(NeuralLm[CacheState]):
    """Embedding and positions, blocks, norm, and the embedding again as output layer.

    Args:
        vocabulary: number of ids, 0 included.
    """

    def __init__(self, config: TransformerLmConfig, vocabulary: int) -> None:
        super().__init__()
        self.config = config
        self.vocabulary, self.dim = vocabulary, config.dim
        self.embedding = TiedEmbedding(vocabulary, config.dim)
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(DecoderBlock(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, read: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens dim"]:
        places = torch.arange(read.shape[1], device=read.device)
        x = self._embed(read, places)
        for layer in self.layers:
            x, _ = cast("tuple[Tensor, KeysValues]", layer(x, None, None))
        return self.norm(x)

    def start(self, rows: int) -> CacheState:
        """Nothing has been read."""
        weight, config = self.embedding.weight, self.config
        none = weight.new_zeros(rows, config.heads, 0, config.dim // config.heads)
        lengths = torch.zeros(rows, dtype=torch.int64, device=weight.device)
        return CacheState(lengths, (KeysValues(none, none),) * config.layers)

    def step(
        self, last: Int[Tensor, " rows"], state: CacheState
    ) -> tuple[Float[Tensor, "rows dim"], CacheState]:
        """One token of each row; a start sees nothing before it."""
        last = last.to(self.device)
        places = state.lengths.masked_fill(last == 0, 0)
        x = self._embed(last[:, None], places[:, None])
        hidden = _not_read(places + 1, state.past[0].keys.shape[2] + 1)
        now: list[KeysValues] = []
        for layer, past in zip(self.layers, state.past, strict=True):
            x, own = cast("tuple[Tensor, KeysValues]", layer(x, past, hidden))
            now.append(own)
        return self.norm(x)[:, 0], CacheState(places + 1, tuple(now))

    def reorder(self, state: CacheState, kept: Int[Tensor, " kept"]) -> CacheState:
        """The caches of the rows ``kept``, as long as the longest of them."""
        kept = kept.to(self.device)
        lengths = state.lengths[kept]
        first = state.past[0].keys.shape[2] - int(lengths.max()) if len(lengths) else 0
        past = (KeysValues(p.keys[kept, :, first:], p.values[kept, :, first:]) for p in state.past)
        return CacheState(lengths, tuple(past))

    def join(self, states: Sequence[CacheState]) -> CacheState:
        """The caches of all rows, filled up on the left."""
        longest = max(s.past[0].keys.shape[2] for s in states)

        def filled(parts: Sequence[Tensor]) -> Tensor:
            return torch.cat([F.pad(part, (0, 0, longest - part.shape[2], 0)) for part in parts])

        layers = range(len(self.layers))
        past = (
            KeysValues(filled([s.past[n].keys for s in states]), filled([s.past[n].values for s in states]))
            for n in layers
        )
        return CacheState(torch.cat([s.lengths for s in states]), tuple(past))

    def _embed(
        self, read: Int[Tensor, "rows tokens"], places: Int[Tensor, "*places"]
    ) -> Float[Tensor, "rows tokens dim"]:
        x = self.embedding(read)
        table = sinusoids(places.flatten().float(), self.dim, halves=True).unflatten(0, places.shape)
        return self.dropout(x + table.to(x.dtype))


def _not_read(lengths: Int[Tensor, " rows"], sources: int) -> Bool[Tensor, "rows 1 1 sources"] | None:
    """True where a cache holds no token of its row; None where all rows fill it."""
    hidden = torch.arange(sources, device=lengths.device)[None, :] < sources - lengths[:, None]
    return hidden[:, None, None] if bool(hidden.any()) else None
