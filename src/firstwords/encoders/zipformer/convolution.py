"""The convolution module of a Zipformer layer, and its chunk-causal depthwise convolution.

arXiv:2310.11230, section 3.2; the chunk-causal form is from the published code.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from firstwords.encoders.zipformer.activations import initialize_scaled, swoosh_r
from firstwords.encoders.zipformer.constraints import Balancer, Whiten
from firstwords.encoders.zipformer.schedules import Schedule
from firstwords.nn.convolution import convolve_over_time
from firstwords.nn.linear import Linear
from firstwords.tensors import is_captured, split_evenly


class ChunkCausalDepthwiseConv(nn.Module):
    """Looks at all earlier frames within half a kernel, and inside its own chunk both ways.

    The part inside the chunk sees zeros beyond the chunk; a learned scale near both edges makes up for it.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.causal_conv = nn.Conv1d(channels, channels, (kernel + 1) // 2, groups=channels)
        self.chunkwise_conv = nn.Conv1d(channels, channels, kernel, groups=channels)
        self.chunkwise_conv_scale = nn.Parameter(torch.zeros(2, channels, kernel))
        with torch.no_grad():
            cast("Tensor", self.causal_conv.bias).uniform_(-0.1, 0.1)

    def forward(
        self,
        x: Float[Tensor, "batch time channels"],
        chunk: int = -1,
        lengths: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch time channels"]:
        """``chunk`` in frames, -1 for one chunk; ``lengths`` where a batch shall equal its utterances alone.

        An utterance shorter than a chunk is a chunk of its own length, so the right edge sits at its end.
        """
        time = x.shape[1]
        whole = chunk < 0 or (not is_captured() and chunk > time)
        chunk = time if whole else chunk
        causal = self._causal(F.pad(x, (0, 0, self.kernel // 2, 0)))
        inside = self._inside(x) if whole else self._inside_chunks(x, chunk)
        if lengths is not None and (is_captured() or bool((lengths < chunk).any())):
            return causal + inside * self._scale_of_each(lengths.clamp(max=chunk), time, chunk).to(x.dtype)
        scale = self._scale(chunk).to(x.dtype)
        whole = time // chunk * chunk
        if whole == time:
            scaled = (inside.unflatten(1, (-1, chunk)) * scale).flatten(1, 2)
        else:
            scaled = inside * scale.repeat(-(-time // chunk), 1)[:time]
        return causal + scaled

    def step(
        self, x: Float[Tensor, "batch chunk channels"], cache: Float[Tensor, "batch left channels"]
    ) -> tuple[Float[Tensor, "batch chunk channels"], Float[Tensor, "batch left channels"]]:
        """One chunk and the kernel // 2 frames before it -> output and the next cache."""
        chunk, left = x.shape[1], self.kernel // 2
        joined = torch.cat((cache, x), dim=1)
        y = self._causal(joined) + self._inside(x) * self._scale(chunk).to(x.dtype)
        return y, joined[:, joined.shape[1] - left :]

    def _causal(self, x: Float[Tensor, "batch padded channels"]) -> Float[Tensor, "batch time channels"]:
        return convolve_over_time(x, self.causal_conv.weight, self.causal_conv.bias)

    def _inside_chunks(self, x: Float[Tensor, "batch time channels"], chunk: int) -> Tensor:
        batch, time, channels = x.shape
        missing = (time + chunk - 1) // chunk * chunk - time
        chunks = F.pad(x, (0, 0, 0, missing)) if is_captured() or missing else x
        y = self._inside(chunks.reshape(-1, chunk, channels))
        return y.reshape(batch, -1, channels)[:, :time]

    def _inside(self, x: Float[Tensor, "chunks chunk channels"]) -> Tensor:
        return convolve_over_time(x, self.chunkwise_conv.weight, self.chunkwise_conv.bias, self.kernel // 2)

    def _scale(self, chunk: int) -> Float[Tensor, "chunk channels"]:
        left, right = self.chunkwise_conv_scale
        if chunk < self.kernel:
            edges = left[:, :chunk] + right[:, self.kernel - chunk :]
        else:
            edges = F.pad(left, (0, chunk - self.kernel)) + F.pad(right, (chunk - self.kernel, 0))
        return (1.0 + edges).t()

    def _scale_of_each(
        self, chunks: Int[Tensor, " batch"], time: int, chunk: int
    ) -> Float[Tensor, "batch time channels"]:
        """The scale where each utterance has a chunk length of its own (places beyond it do not matter)."""
        scales = self.chunkwise_conv_scale.transpose(1, 2)  # (K, C) each
        beyond = (
            F.pad(scales[0], (0, 0, 0, 1)),
            F.pad(scales[1], (0, 0, 1, 0)),
        )  # a zero row for "far from this edge"
        place = torch.arange(time, device=chunks.device) % chunk
        from_right = self.kernel - chunks[:, None] + place[None, :]
        return (
            1.0 + beyond[0][place.clamp(max=self.kernel)] + beyond[1][(from_right + 1).clamp(0, self.kernel)]
        )


class _Gate(torch.autograd.Function):
    """x * sigmoid(s), zero where ``padding``; keeps x and sigmoid(s)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, s: Tensor, padding: Tensor | None) -> Tensor:
        gate = s.sigmoid()
        y = x * gate
        if padding is not None:
            y.masked_fill_(padding, 0.0)
        ctx.save_for_backward(x, gate, padding)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x, gate, padding), grad = ctx.saved_tensors, grads[0]
        if padding is not None:
            grad = grad.masked_fill(padding, 0.0)
        grad_s = torch.ops.aten.sigmoid_backward(grad, gate).mul_(x)
        return grad * gate, grad_s, None


class ConvolutionModule(nn.Module):
    """(B, T, D) -> (B, T, D): gate, depthwise convolution, SwooshR."""

    def __init__(self, dim: int, kernel: int, *, causal: bool) -> None:
        super().__init__()
        self.causal, self.kernel = causal, kernel
        self.in_proj = Linear(dim, 2 * dim)
        self.balancer1 = Balancer(
            Schedule((0.0, 0.05), (8000.0, 0.025), default=0.0),
            1.0,
            1.5,
            Schedule((0.0, 5.0), (8000.0, 10.0), default=1.0),
        )
        self.depthwise_conv = (
            ChunkCausalDepthwiseConv(dim, kernel) if causal else nn.Conv1d(dim, dim, kernel, groups=dim)
        )
        self.balancer2 = Balancer(
            Schedule((0.0, 0.1), (8000.0, 0.05), default=0.0),
            1.0,
            Schedule((0.0, 0.2), (20000.0, 0.5), default=0.0),
            10.0,
        )
        self.whiten = Whiten(Schedule((0.0, 7.5), (20000.0, 15.0), default=7.5), grad_scale=0.01)
        self.out_proj = Linear(dim, dim)
        initialize_scaled(self.out_proj, 0.05)

    def forward(
        self,
        x: Float[Tensor, "batch time dim"],
        real: Bool[Tensor, "batch time"] | None = None,
        chunk: int = -1,
        lengths: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch time dim"]:
        """``real`` is None where every frame is; ``chunk`` and ``lengths`` as in the chunk-causal form."""
        x = self._gate(x, real)
        if isinstance(self.depthwise_conv, ChunkCausalDepthwiseConv):
            x = self.depthwise_conv(x, chunk, lengths)
        else:
            weight, bias = self.depthwise_conv.weight, self.depthwise_conv.bias
            x = convolve_over_time(x, weight, bias, self.kernel // 2)
        return self.out_proj(swoosh_r(self.whiten(self.balancer2(x))))

    def step(
        self,
        x: Float[Tensor, "batch chunk dim"],
        cache: Float[Tensor, "batch left channels"],
        real: Bool[Tensor, "batch chunk"] | None = None,
    ) -> tuple[Float[Tensor, "batch chunk dim"], Float[Tensor, "batch left channels"]]:
        """One chunk and the cache of this module -> output and the next cache."""
        x, cache = cast("ChunkCausalDepthwiseConv", self.depthwise_conv).step(self._gate(x, real), cache)
        return self.out_proj(swoosh_r(x)), cache

    def _gate(
        self, x: Float[Tensor, "batch time dim"], real: Bool[Tensor, "batch time"] | None
    ) -> Float[Tensor, "batch time channels"]:
        x, s = split_evenly(self.in_proj(x), 2)
        if is_captured():
            y = x * self.balancer1(s).sigmoid()
            return y if real is None else y.masked_fill(~real.unsqueeze(-1), 0.0)
        padding = None if real is None else ~real.unsqueeze(-1)
        return cast("Tensor", _Gate.apply(x, self.balancer1(s), padding))
