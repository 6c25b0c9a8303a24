"""Zipformer encoder: Yao et al., "Zipformer: A faster and better encoder for automatic speech recognition",
2024, arXiv:2310.11230; details from the published training recipe.

A convolutional front end (100 -> 50 Hz), stacks of layers at 50, 25, 12.5, 6.25, 12.5 and 25 Hz, and a last
downsampling to 25 Hz. Owns the way through the stacks; a stack is in stack.py, a layer in layer.py.

Differs from the paper's code: padding never changes an utterance's own frames (there it leaks through the
front end, the groups of the downsampling and the chunk edges). ``padding="reference"`` brings the leak back
for comparison with published numbers; no recipe can set it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from firstwords.encoders.encoder import StreamingEncoder
from firstwords.encoders.layers import Condition, Taps
from firstwords.encoders.zipformer import constraints
from firstwords.encoders.zipformer.config import ZipformerConfig
from firstwords.encoders.zipformer.frontend import ConvEmbed
from firstwords.encoders.zipformer.layer import LayerShape, View
from firstwords.encoders.zipformer.schedules import Schedule, set_count
from firstwords.encoders.zipformer.stack import Downsample, Stack, change_width, upsample
from firstwords.encoders.zipformer.streaming import (
    ZipformerState,
    nearest_context,
    start_state,
    window,
)
from firstwords.errors import ConfigError
from firstwords.nn.chunks import chunk_mask, left_chunks, unseen
from firstwords.tensors import Padded, is_captured, is_full, real_frames, zero_padding

_SHORTEST = 9  # feature frames that give one frame at 50 Hz
_MASK_KEEP = 0.875  # probability of keeping each of the two maskable groups of channels


class Zipformer(StreamingEncoder[ZipformerState]):
    """Log-mel frames (B, T, input_dim) at 100 Hz -> (B, ((T - 7) // 2 + 1) // 2, dim) at 25 Hz.

    Args:
        config: sizes; see ``ZipformerConfig``.
        input_dim: mel bins.
        padding: "exact": an utterance gives the same frames alone and in a batch; "reference": for tests.
    """

    def __init__(
        self,
        config: ZipformerConfig,
        input_dim: int = 80,
        *,
        padding: Literal["exact", "reference"] = "exact",
    ) -> None:
        super().__init__()
        if input_dim < config.least_features:
            raise ConfigError(
                f"The Zipformer needs at least {config.least_features} features per frame, got {input_dim}.",
                mend="80 is usual.",
            )
        self.config, self.padding = config, padding
        self.dim = max(config.dims)
        self.subsampling = 2 * config.output_downsampling
        dropout = Schedule((0.0, config.dropout[0]), (20000.0, config.dropout[1]))
        self.embed = ConvEmbed(input_dim, config.dims[0], config.embed_channels, dropout)
        self.stacks = nn.ModuleList(self._stack(i, dropout) for i in range(len(config.dims)))
        self.downsample_output = Downsample(config.output_downsampling)

    def _stack(self, i: int, dropout: Schedule) -> Stack:
        config, count = self.config, len(self.config.dims)
        shape = LayerShape(
            dim=config.dims[i],
            position_dim=config.position_dim,
            heads=config.heads[i],
            query_head_dim=config.query_head_dim[i],
            position_head_dim=config.position_head_dim[i],
            value_head_dim=config.value_head_dim[i],
            feedforward=config.feedforward[i],
            kernel=config.kernels[i],
            causal=config.causal,
            dropout=dropout,
        )
        share = config.warmup / (count + 1)
        return Stack(shape, config.layers[i], config.downsampling[i], (share * (i + 1), share * (i + 2)))

    def set_step(self, count: float | int) -> None:
        """Tell every schedule the adjusted batch count (before the first call: evaluation values)."""
        set_count(self, count)

    def output_lengths(self, lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        factor = self.config.output_downsampling
        return (self.embed.output_lengths(lengths) + factor - 1) // factor

    def forward(self, frames: Padded, *, chunk: int | None = None, left: int | None = None) -> Padded:
        """``chunk`` and ``left`` context in frames at 50 Hz, for causal models (-1: unlimited).

        Not given: drawn at random in training, else the widest of ``chunks`` and ``left_contexts``; as a rule
        both hold -1, so that a whole recording is read with all it has.
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
        """The output, and for each stack number in ``layers`` what the output would be had it been the last.

        Channels that no stack so far has are zero, so that every tap has width ``dim`` and the rate of the
        output. ``condition`` is asked at each tap; its answer is added to the sequence that goes on.
        """
        taps = Taps(layers, len(self.stacks), condition)
        chunk, left = self._choose_context(chunk, left)
        x, lengths = self._embed(frames)
        masked = None if is_full(lengths, x.shape[1]) else lengths
        hidden = None
        if chunk > 0 and (is_captured() or chunk < x.shape[1]):
            hidden = chunk_mask(x.shape[1], chunk, left_chunks(chunk, left), x.device)
        masks = self._feature_masks(x)
        outputs: list[Tensor] = []
        for i, (stack, mask) in enumerate(zip(self.stacks, masks, strict=True)):
            stack = cast("Stack", stack)
            view = self._view(masked, hidden, chunk, stack.factor, x.shape[1])
            x = change_width(x, self.config.dims[i])
            x = stack(x, view, masked if self.padding == "exact" else None, mask)
            outputs.append(x)
            answer = taps.after(i, lambda: self._finish(outputs, lengths, masked))
            if taps.stopped:
                return taps.taken[-1], taps.taken
            if answer is not None:
                fed = upsample(answer, self.config.output_downsampling, x.shape[1])
                x = x + change_width(fed, x.shape[2]).to(x.dtype)
        return self._finish(outputs, lengths, masked), taps.taken

    @property
    def causal(self) -> bool:
        return self.config.causal

    def hop(self, chunk: int) -> int:
        return 2 * chunk

    def window(self, chunk: int) -> int:
        return window(chunk)

    def nearest_context(self, chunk: int, left: int | None) -> tuple[int, int]:
        """Multiples of what every stack divides by; ``left`` a whole number of chunks."""
        return nearest_context(self.config, chunk, left)

    def start(self, rows: int, *, chunk: int, left: int) -> ZipformerState:
        """The state before the first window; ``chunk`` and ``left`` in frames at 50 Hz (both limited)."""
        widths = [[layer.cache_widths for layer in cast("Stack", stack).present] for stack in self.stacks]
        front, like = (self.embed.bins, self.embed.channels), self.embed.out.weight
        return start_state(self.config, widths, rows, chunk=chunk, left=left, front=front, like=like)

    def step(self, frames: Padded, state: ZipformerState) -> tuple[Padded, ZipformerState]:
        """A window of 2 * chunk + 13 feature frames -> chunk / 2 output frames and the next state.

        The next window starts 2 * chunk frames later. ``lengths`` below the window's length end the stream:
        the output is that of a whole pass that ends there, if it holds at least one whole chunk.
        """
        x, before = self.embed.step(frames.values, state.before, frames.lengths)
        chunk, left = x.shape[1], state.stacks[0][0].keys.shape[1] * self.config.downsampling[0]
        lengths = self.embed.output_lengths(frames.lengths).clamp(max=chunk)
        hidden = unseen(state.processed, left, lengths, chunk)
        outputs: list[Tensor] = []
        caches: list[tuple] = []  # pyright: ignore[reportMissingTypeArgument]
        for i, (stack, cache) in enumerate(zip(self.stacks, state.stacks, strict=True)):
            stack = cast("Stack", stack)
            x = change_width(x, self.config.dims[i])
            x, cache = stack.step(x, cache, hidden[:, :: stack.factor], lengths)
            outputs.append(x)
            caches.append(cache)
        x = self.downsample_output(self._all_channels(outputs), lengths, even=True)
        factor = self.config.output_downsampling
        after = ZipformerState(tuple(caches), before, state.processed + lengths)
        return Padded(x, (lengths + factor - 1) // factor), after

    def _embed(self, frames: Padded) -> tuple[Float[Tensor, "batch time dim"], Int[Tensor, " batch"]]:
        values, lengths = frames
        if values.shape[1] < _SHORTEST:
            values = F.pad(values, (0, 0, 0, _SHORTEST - values.shape[1]))
        exact = self.padding == "exact" and not is_full(lengths, values.shape[1])
        x = self.embed(values, lengths if exact else None)
        return x, self.embed.output_lengths(lengths)

    def _choose_context(self, chunk: int | None, left: int | None) -> tuple[int, int]:
        if not self.config.causal:
            if chunk not in (None, -1) or left not in (None, -1):
                raise ConfigError(
                    "This Zipformer is not causal: it has no chunks.",
                    mend="Train with encoder.causal = true.",
                )
            return -1, -1
        chunks, lefts = self.config.chunks, self.config.left_contexts
        if chunk is None:
            chunk = _pick(chunks) if self.training else _widest(chunks)
            if left is None and chunk > 0:
                left = _pick(lefts) if self.training else _widest(lefts)
        return chunk, -1 if left is None else left

    def _feature_masks(self, x: Tensor) -> list[Tensor | None]:
        """Per utterance, in training: the outer channels of every stack are sometimes zero throughout."""
        if not self.training:
            return [None] * len(self.stacks)
        first = (torch.rand(x.shape[0], 1, 1, device=x.device) < _MASK_KEEP).to(x.dtype)
        second = first * (torch.rand(x.shape[0], 1, 1, device=x.device) < _MASK_KEEP).to(x.dtype)
        masks: list[Tensor | None] = []
        for dim, unmasked in zip(self.config.dims, self.config.unmasked_dims, strict=True):
            middle = (dim - unmasked) // 2
            parts = (torch.ones_like(first).expand(-1, -1, unmasked), first.expand(-1, -1, middle))
            masks.append(torch.cat((*parts, second.expand(-1, -1, dim - unmasked - middle)), dim=2))
        return masks

    def _view(
        self, lengths: Tensor | None, hidden: Tensor | None, chunk: int, factor: int, time: int
    ) -> View:
        """What a stack with this factor may look at."""
        hidden = None if hidden is None else hidden[::factor, ::factor]
        chunk = chunk // factor  # -1 stays -1
        if lengths is None:
            return View(None, hidden, chunk, None)
        own = (lengths + factor - 1) // factor
        real = real_frames(own, (time + factor - 1) // factor)
        padded = ~real[:, None, None, :]
        hidden = padded if hidden is None else hidden | padded
        return View(real, hidden, chunk, own if self.padding == "exact" else None)

    def _all_channels(self, outputs: list[Tensor]) -> Float[Tensor, "batch time dim"]:
        """The last stack's channels, then those that only earlier, wider stacks have."""
        pieces, width = [outputs[-1]], int(outputs[-1].shape[2])
        for output in reversed(outputs[:-1]):
            if int(output.shape[2]) > width:
                pieces.append(output[:, :, width:])
                width = int(output.shape[2])
        return change_width(torch.cat(pieces, dim=2) if len(pieces) > 1 else pieces[0], self.dim)

    def _finish(self, outputs: list[Tensor], lengths: Tensor, masked: Tensor | None) -> Padded:
        exact = self.padding == "exact"
        x = self.downsample_output(self._all_channels(outputs), masked if exact else None)
        factor = self.config.output_downsampling
        encoded = Padded(x, (lengths + factor - 1) // factor)
        return zero_padding(encoded) if exact and masked is not None else encoded


def _widest(choices: Sequence[int]) -> int:
    """-1, which is unlimited, where it is among them."""
    return -1 if -1 in choices else max(choices)


def _pick(choices: Sequence[int]) -> int:
    return choices[min(int(constraints.draw() * len(choices)), len(choices) - 1)]
