"""Conformer encoder: Gulati et al., 2020, arXiv:2005.08100; with fewer frames and smaller kernels it is the
FastConformer: Rekesh et al., 2023, arXiv:2305.05084 (size "fast-L").

Owns the layer and the stack. Streaming: chunks of random size in training (Zhang et al., 2020,
arXiv:2012.05481, section 2.2), convolutions that look back only.

Differs from the paper: batch statistics never count padding; no dropout on attention weights; a batch norm
after the subsampling (nn/subsampling.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from firstwords.encoders.conformer.config import ConformerConfig
from firstwords.encoders.conformer.streaming import ConformerCache, ConformerState, start_state
from firstwords.encoders.encoder import StreamingEncoder
from firstwords.encoders.layers import Condition, Taps, present
from firstwords.encoders.stack import AttentionStack, View, view_of
from firstwords.errors import ConfigError
from firstwords.nn.attention import RelativeSelfAttention
from firstwords.nn.chunks import chunk_mask, left_chunks, unseen
from firstwords.nn.convolution import ConvolutionModule
from firstwords.nn.dropout import Dropout
from firstwords.nn.feedforward import FeedForward
from firstwords.nn.positions import distances
from firstwords.tensors import Padded, real_frames, zero_padding


@final
class ConformerLayer(nn.Module):
    """Half feed-forward, attention, convolution, half feed-forward, norm (paper, eq. 1)."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        dim = config.dim
        self.feed_in_norm = nn.LayerNorm(dim)
        self.feed_in = FeedForward(dim, config.feedforward, config.dropout, "swish")
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = RelativeSelfAttention(dim, config.heads)
        self.convolution_norm = nn.LayerNorm(dim)
        self.convolution = ConvolutionModule(
            dim, config.kernel, norm=config.convolution_norm, causal=config.causal
        )
        self.feed_out_norm = nn.LayerNorm(dim)
        self.feed_out = FeedForward(dim, config.feedforward, config.dropout, "swish")
        self.norm = nn.LayerNorm(dim)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Float[Tensor, "batch time dim"], view: View) -> Float[Tensor, "batch time dim"]:
        x = self._feed_in(x)
        x = x + self.dropout(self.attention(self.attention_norm(x), view.positions, view.hidden))
        x = x + self.dropout(self.convolution(self.convolution_norm(x), view.real))
        return self._feed_out(x)

    @property
    def cache_widths(self) -> tuple[int, int]:
        """Of keys and values together, and of what the convolution reads."""
        return self.attention.in_proj.weight.shape[0] // 3 * 2, self.convolution.out_proj.weight.shape[1]

    def step(
        self, x: Float[Tensor, "batch chunk dim"], cache: ConformerCache, view: View
    ) -> tuple[Float[Tensor, "batch chunk dim"], ConformerCache]:
        """One chunk and what came before it -> output and the next cache."""
        hidden = cast("Tensor", view.hidden)
        x = self._feed_in(x)
        y, keys_values = self.attention.step(
            self.attention_norm(x), view.positions, cache.keys_values, hidden
        )
        x = x + y
        y, gated = self.convolution.step(self.convolution_norm(x), cache.gated, view.real)
        return self._feed_out(x + y), ConformerCache(keys_values, gated)

    def _feed_in(self, x: Tensor) -> Tensor:
        return torch.add(x, self.dropout(self.feed_in(self.feed_in_norm(x))), alpha=0.5)

    def _feed_out(self, x: Tensor) -> Tensor:
        return self.norm(torch.add(x, self.dropout(self.feed_out(self.feed_out_norm(x))), alpha=0.5))


_ALL = 250  # frames that stand for an unlimited left context where a stream must limit it: 10 s


@final
class Conformer(AttentionStack, StreamingEncoder[ConformerState]):
    """Frames (B, T, input_dim) -> (B, about T / subsampling, dim)."""

    def __init__(self, config: ConformerConfig, input_dim: int = 80) -> None:
        super().__init__(config, input_dim)
        self.config = config
        self.layers = nn.ModuleList(ConformerLayer(config) for _ in range(config.layers))

    def forward(self, frames: Padded, *, chunk: int | None = None, left: int | None = None) -> Padded:
        """``chunk`` and ``left`` context in output frames, for causal models (-1: unlimited).

        Not given: drawn at random in training, unlimited otherwise.
        """
        return self.forward_with_intermediate(frames, (), chunk=chunk, left=left)[0]

    def forward_with_intermediate(
        self,
        frames: Padded,
        layers: Sequence[int],
        condition: Condition | None = None,
        *,
        chunk: int | None = None,
        left: int | None = None,
    ) -> tuple[Padded, list[Padded]]:
        """See ``heads/intermediate.py``; ``layers`` are numbered from 0."""
        taps = Taps(layers, len(self.layers), condition)
        chunk, left = self._choose_context(chunk, left)
        x, lengths = self.embed(frames)
        view = view_of(x, lengths)
        if 0 < chunk < x.shape[1]:
            later = chunk_mask(x.shape[1], chunk, left_chunks(chunk, left), x.device)
            hidden = later[None, None] if view.hidden is None else view.hidden | later
            view = view._replace(hidden=hidden)
        return self.through(x, lengths, view, taps)

    @property
    def causal(self) -> bool:
        return self.config.causal

    def hop(self, chunk: int) -> int:
        return self.subsampling * chunk

    def nearest_context(self, chunk: int, left: int | None) -> tuple[int, int]:
        """A chunk no longer than any of training; ``left`` a whole number of chunks, at least one."""
        chunk = min(max(1, chunk), self.config.max_chunk)
        if left is None:
            chunks = max(self.config.left_chunks)
            return chunk, (chunks if chunks > 0 else max(4, -(-_ALL // chunk))) * chunk
        return chunk, max(1, round(left / chunk)) * chunk

    def window(self, chunk: int) -> int:
        """Feature frames that one step reads for ``chunk`` output frames; it advances by factor * chunk."""
        return self.config.subsampling.window(chunk)

    def start(self, rows: int, *, chunk: int, left: int) -> ConformerState:
        """The state before the first window; ``chunk`` and ``left`` in output frames (both limited)."""
        widths = [layer.cache_widths for layer in self._present]
        return start_state(self.config, widths, rows, chunk=chunk, left=left, like=self.embed.out.weight)

    def step(self, frames: Padded, state: ConformerState) -> tuple[Padded, ConformerState]:
        """A window of feature frames -> its output frames and the next state.

        The next window starts factor * chunk frames later. ``lengths`` below the window's length end the
        stream.
        """
        x, lengths = self.embed(frames)
        chunk, left = x.shape[1], state.layers[0].keys_values.shape[1]
        hidden = unseen(state.processed, left, lengths, chunk)[:, None, None]
        view = View(distances(chunk, left + chunk, self.dim, x), hidden, real_frames(lengths, chunk))
        caches: list[ConformerCache] = []
        for layer, cache in zip(self._present, state.layers, strict=True):
            x, cache = layer.step(x, cache, view)
            caches.append(cache)
        after = ConformerState(tuple(caches), state.processed + lengths)
        return zero_padding(Padded(x, lengths)), after

    @property
    def _present(self) -> list[ConformerLayer]:
        return cast("list[ConformerLayer]", present(self.layers))

    def _choose_context(self, chunk: int | None, left: int | None) -> tuple[int, int]:
        config = self.config
        if not config.causal:
            if chunk not in (None, -1) or left not in (None, -1):
                raise ConfigError(
                    "This Conformer is not causal: it has no chunks.",
                    mend="Train with encoder.causal = true.",
                )
            return -1, -1
        if chunk is None and self.training and float(torch.rand(())) >= config.full_share:
            chunk = 1 + _draw(config.max_chunk)
            if left is None:
                behind = config.left_chunks[_draw(len(config.left_chunks))]
                left = behind if behind < 0 else behind * chunk
        return -1 if chunk is None else chunk, -1 if left is None else left


def _draw(count: int) -> int:
    return int(torch.randint(count, ()))
