"""Attention weights that several modules use, computed and differentiated block by block.

A layer uses one set of weights up to three times. Left to autograd, each use makes a gradient as large as
the weights, (B, H, T, S), and these are added up in memory; with relative positions a table twice as wide
comes on top. On a CPU that traffic costs more than the arithmetic. Here each use only leaves its two small
factors behind (the gradient of its sums, and its values), and the gradient of the scores is made from them
for a few utterances at a time, small enough for the processor's cache.

    forward    scores = q kᵀ + aligned(p rᵀ) -> weights -> sums_n = weights values_n      (n = 1, 2, gated)
    backward   d weights = Σ_n (d sums_n) values_nᵀ  -> d scores -> d q, d k, d p, d r
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from firstwords.tensors import is_captured, is_traced

HIDDEN = -1000.0  # score of a source that must not be seen
SCORE_LIMIT, SCORE_PENALTY = 25.0, 1e-4
_BLOCK = 1 << 19  # scores at a time on a CPU: 2 MB in float32
_ROWS = 128  # rows at a time of the position scores, which are (rows + sources) wide


class SharedWeights(NamedTuple):
    """Weights (B, H, T, S) without a gradient of their own, and where their users leave the factors of it.

    ``token`` carries no value: it makes autograd visit the users before the scores.
    """

    weights: Tensor
    token: Tensor
    factors: list[tuple[Tensor, Tensor]]


def attend(
    weights: Float[Tensor, "batch heads time sources"] | SharedWeights,
    values: Float[Tensor, "batch used sources width"],
) -> Float[Tensor, "batch used time width"]:
    """Weighted sums of ``values`` with as many of the first heads as the values have."""
    if isinstance(weights, SharedWeights):
        return cast("Tensor", _Attend.apply(weights.token, values, weights.weights, weights.factors))
    heads = int(values.shape[1])
    return _times_thin(weights if int(weights.shape[1]) == heads else weights[:, :heads], values)


def _times_thin(square: Tensor, thin: Tensor) -> Tensor:
    """square @ thin, computed as the transpose: a long row of results suits CPU kernels, 1.2 to 2 times."""
    return (thin.transpose(-2, -1) @ square.transpose(-2, -1)).transpose(-2, -1)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, token: Tensor, values: Tensor, weights: Tensor, factors: list[tuple[Tensor, Tensor]]
    ) -> Tensor:
        used = weights[:, : values.shape[1]]
        ctx.save_for_backward(token, values, used)
        ctx.factors = factors
        return _times_thin(used, values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        token, values, used = ctx.saved_tensors
        ctx.factors.append((grads[0], values))
        return token, _times_thin(used.transpose(2, 3), grads[0]), None, None


def share(
    q: Float[Tensor, "batch heads time query"],
    k: Float[Tensor, "batch heads sources query"],
    p: Float[Tensor, "batch heads time position"] | None,
    r: Float[Tensor, "heads offsets position"],
    hidden: Bool[Tensor, "*#some #time sources"] | None,
    *,
    punish: bool = False,
) -> SharedWeights:
    """softmax(q kᵀ + aligned(p rᵀ)); ``punish`` adds a small gradient against scores beyond ±25."""
    factors: list[tuple[Tensor, Tensor]] = []
    weights, token = cast("tuple[Tensor, Tensor]", _Share.apply(q, k, p, r, hidden, punish, factors))
    return SharedWeights(weights, token, factors)


class _Share(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        p: Tensor | None,
        r: Tensor,
        hidden: Tensor | None,
        punish: bool,
        factors: list[tuple[Tensor, Tensor]],
    ) -> tuple[Tensor, Tensor]:
        weights = q.new_empty(*q.shape[:3], k.shape[2])
        sign = torch.empty_like(weights, dtype=torch.int8) if punish else None
        with torch.autocast(q.device.type, enabled=False):
            for block in _blocks(weights):
                scores = q[block] @ k[block].transpose(2, 3)
                if p is not None:
                    _add_positions(scores, p[block], r)
                if sign is not None:
                    sign[block] = beyond(scores, SCORE_LIMIT)
                if hidden is not None:
                    scores.masked_fill_(_of_block(hidden, block), HIDDEN)
                torch.softmax(scores, dim=-1, out=weights[block])
        ctx.save_for_backward(q, k, p, r, hidden, weights, sign)
        ctx.factors = factors
        ctx.mark_non_differentiable(weights)
        ctx.set_materialize_grads(False)  # else zeros of the size of the weights are made for them
        return weights, q.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, k, p, r, hidden, weights, sign = ctx.saved_tensors
        pairs, heads = _join(ctx.factors, q.shape[1])
        ctx.factors.clear()
        # Where only padding is hidden every row sees something, and hidden places have weight 0 anyway.
        hidden = hidden if hidden is not None and hidden.shape[-2] > 1 else None
        grad_q, grad_k = torch.empty_like(q), torch.empty_like(k)
        grad_p = None if p is None else torch.empty_like(p)
        grad_r = torch.zeros_like(r, dtype=torch.float32)
        for block in _blocks(weights):
            grad = _gradient_of_weights(pairs, heads, block, weights)
            own = weights[block]
            torch.ops.aten._softmax_backward_data.out(grad, own, -1, grad.dtype, grad_input=grad)
            if hidden is not None:
                grad.masked_fill_(_of_block(hidden, block), 0.0)
            if sign is not None:
                grad.add_(sign[block], alpha=SCORE_PENALTY)
            grad_q[block] = _times_thin(grad, k[block])
            grad_k[block] = _times_thin(grad.transpose(2, 3), q[block])
            if p is not None and grad_p is not None:
                _position_gradients(grad, p[block], r, grad_p[block], grad_r)
        return grad_q, grad_k, grad_p, grad_r.to(r.dtype), None, None, None


def _blocks(weights: Tensor) -> list[slice]:
    """Slices of the batch to work on at a time; on an accelerator everything at once."""
    batch, heads, time, sources = weights.shape
    size = batch if weights.device.type != "cpu" else max(1, _BLOCK // max(1, heads * time * sources))
    return [slice(start, min(start + size, batch)) for start in range(0, batch, size)]


def _of_block(hidden: Tensor, block: slice) -> Tensor:
    return hidden[block] if hidden.dim() == 4 and hidden.shape[0] > 1 else hidden


def _rows(scores: Tensor) -> list[slice]:
    """Slices of the rows whose position scores are made at a time."""
    time = scores.shape[2]
    size = time if scores.device.type != "cpu" else _ROWS
    return [slice(start, min(start + size, time)) for start in range(0, time, size)]


def _offsets(rows: slice, time: int, sources: int) -> slice:
    """The offsets that these rows look at: row i reads time-1-i … time-1-i+sources-1."""
    return slice(time - rows.stop, time - 1 - rows.start + sources)


def _add_positions(scores: Tensor, p: Tensor, r: Tensor) -> None:
    time, sources = scores.shape[2:]
    for rows in _rows(scores):
        wide = p[:, :, rows] @ r[:, _offsets(rows, time, sources)].transpose(1, 2)
        scores[:, :, rows] += align_offsets(wide, sources)


def _position_gradients(grad: Tensor, p: Tensor, r: Tensor, grad_p: Tensor, grad_r: Tensor) -> None:
    """Gradient of the scores -> of p (written) and of r (added)."""
    time, sources = grad.shape[2:]
    wide = grad.new_empty(0)
    for rows in _rows(grad):
        offsets, count = _offsets(rows, time, sources), rows.stop - rows.start
        if wide.shape[2:3] != (count,):  # places beside the diagonal band stay 0 from block to block
            wide = grad.new_zeros(grad.shape[0], grad.shape[1], count, count + sources - 1)
        align_offsets(wide, sources).copy_(grad[:, :, rows])
        grad_p[:, :, rows] = _times_thin(wide, r[:, offsets])
        grad_r[:, offsets] += _times_thin(wide.transpose(2, 3), p[:, :, rows]).sum(dim=0)


def _join(factors: list[tuple[Tensor, Tensor]], heads: int) -> tuple[list[tuple[Tensor, Tensor]], list[int]]:
    """Users of all heads become one pair, side by side; users of fewer heads keep their own."""
    full = [pair for pair in factors if pair[1].shape[1] == heads]
    pairs = [pair for pair in factors if pair[1].shape[1] != heads]
    if full:
        pairs.insert(0, (torch.cat([g for g, _ in full], -1), torch.cat([v for _, v in full], -1)))
    return pairs, [values.shape[1] for _, values in pairs]


def _gradient_of_weights(
    pairs: list[tuple[Tensor, Tensor]], heads: list[int], block: slice, weights: Tensor
) -> Tensor:
    total: Tensor | None = None
    for (grad, values), used in zip(pairs, heads, strict=True):
        product = grad[block] @ values[block].transpose(2, 3)
        if total is None and used == weights.shape[1]:
            total = product
        else:
            total = torch.zeros_like(weights[block]) if total is None else total
            total[:, :used] += product
    return torch.zeros_like(weights[block]) if total is None else total


def split_heads(x: Float[Tensor, "batch time width"], heads: int) -> Float[Tensor, "batch heads time head"]:
    """A view. (``unflatten`` would be shorter, but tracing for ONNX takes its sizes for constants.)"""
    return x.reshape(x.shape[0], x.shape[1], heads, int(x.shape[2]) // heads).transpose(1, 2)


def join_heads(x: Float[Tensor, "batch heads time head"]) -> Float[Tensor, "batch time width"]:
    """The inverse of ``split_heads``."""
    x = x.transpose(1, 2)
    return x.reshape(x.shape[0], x.shape[1], int(x.shape[2]) * int(x.shape[3]))


def split_offsets(
    positions: Float[Tensor, "offsets width"], heads: int
) -> Float[Tensor, "heads offsets head"]:
    """The same for projected encodings of distances."""
    return positions.reshape(positions.shape[0], heads, int(positions.shape[1]) // heads).transpose(0, 1)


class Span(NamedTuple):
    """Who looks and what is looked at, counted."""

    rows: int
    sources: int


def span_of(positions: Tensor, hidden: Tensor | None) -> Span | None:
    """From what all layers share: so a graph that is captured asks for sizes once, not in every layer."""
    if hidden is None or not is_captured():
        return None
    sources = hidden.shape[-1]
    return Span(positions.shape[0] + 1 - sources, sources)


def attention_scores(
    q: Float[Tensor, "batch heads time query"],
    k: Float[Tensor, "batch heads sources query"],
    p: Float[Tensor, "batch heads time position"] | None,
    r: Float[Tensor, "heads offsets position"],
    span: Span | None = None,
) -> Float[Tensor, "batch heads time sources"]:
    """q kᵀ + aligned(p rᵀ) in one go, differentiable by autograd: the plain form of the above."""
    scores = q @ k.transpose(2, 3)
    if p is None:
        return scores
    if not is_captured():
        return scores + align_offsets((p @ r.transpose(1, 2)).contiguous(), k.shape[2])
    # No runtime knows strides. With one column more, each row begins one place later.
    wide = p @ torch.nn.functional.pad(r, (0, 0, 0, 1)).transpose(1, 2)
    rows, sources = span or Span(q.shape[2], k.shape[2])
    flat = wide.reshape(wide.shape[0], wide.shape[1], -1)[:, :, rows - 1 : -1]
    return scores + flat.reshape(-1, int(flat.shape[1]), rows, rows + sources - 1)[..., :sources]


def weights_of(scores: Tensor, hidden: Tensor | None) -> Tensor:
    """Scores -> softmax over the sources, in float32 inside also for bfloat16."""
    if hidden is None:
        return scores.softmax(dim=-1)
    if is_traced():  # a sum: engines have fast code for it, and what is added is made once for all layers
        return (scores + hidden.to(scores.dtype) * HIDDEN).softmax(dim=-1)
    return scores.masked_fill(hidden, HIDDEN).softmax(dim=-1)


def align_offsets(scores: Float[Tensor, "batch heads rows offsets"], sources: int) -> Tensor:
    """Column j of row i of the result is column rows-1-i+j: a view (B, H, rows, sources), no copy."""
    rows, offsets = scores.shape[2], scores.shape[3]
    strides = (scores.stride(0), scores.stride(1), offsets - 1, 1)
    shape = (scores.shape[0], scores.shape[1], rows, sources)
    return scores.as_strided(shape, strides, scores.storage_offset() + rows - 1)


def beyond(x: Float[Tensor, "*shape"], limit: float) -> Tensor:
    """1 above the limit, -1 below minus the limit, else 0, as int8."""
    return (x > limit).to(torch.int8).sub_((x < -limit).to(torch.int8))


class _Punish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:
        ctx.save_for_backward(beyond(scores, SCORE_LIMIT))
        return scores.view_as(scores)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (sign,) = ctx.saved_tensors
        return torch.add(grads[0], sign, alpha=SCORE_PENALTY)


def punish_large(scores: Tensor) -> Tensor:
    """The scores themselves, with a small gradient against those beyond ±25."""
    return cast("Tensor", _Punish.apply(scores))
