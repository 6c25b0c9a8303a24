"""Joiner: an encoded frame and a predictor output -> scores of the next symbol.

    logits = W tanh(E frame + P predicted) + b          Graves et al., 2013, arXiv:1303.5778, section 2.3

Owns the module and ``joint_scores``, which computes the log-probabilities of next token and blank at the
nodes of a band: R rows beside each frame, beginning at a row of the frame's own. The whole lattice is the
band of all U + 1 rows. ``timed_scores`` adds the log-probabilities of durations (durations.py). Nodes are
computed in blocks; the gradient of a block goes straight into the small gradients of frames, predictor
outputs and weights, so that nothing V wide is kept but, if wished, the probabilities.
"""

from __future__ import annotations

from typing import Any, cast, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from firstwords.heads.numeric import at_least_float32
from firstwords.nn.linear import Linear, product
from firstwords.tensors import Padded, real_frames

BLANK = 0
_BLOCK = 1 << 19  # scores at a time on a CPU: 2 MB in float32
_LARGE_BLOCK = 1 << 25  # elsewhere
_PROJECTION_SCALE = 0.25  # of both inputs at the start, as published for Zipformer transducers


@final
class Joiner(nn.Module):
    """Two projections to a common width, tanh, one linear layer.

    Args:
        durations: outputs beside those of the vocabulary, see durations.py.
    """

    durations: nn.Linear | None

    def __init__(
        self, encoder_dim: int, predictor_dim: int, dim: int, vocabulary: int, durations: int = 0
    ) -> None:
        super().__init__()
        self.encoder_proj = Linear(encoder_dim, dim)
        self.predictor_proj = Linear(predictor_dim, dim)  # icefall: decoder_proj
        self.output = Linear(dim, vocabulary)  # icefall: output_linear
        shrink(self.encoder_proj)
        shrink(self.predictor_proj)
        self.durations = Linear(dim, durations) if durations else None

    def forward(
        self, encoded: Float[Tensor, "*#shape encoder"], predicted: Float[Tensor, "*#shape predictor"]
    ) -> Tensor:
        """Frames and predictor outputs, broadcast against each other -> (..., V) unnormalized scores."""
        return self.join(self.encoder_proj(encoded), self.predictor_proj(predicted))

    def join(self, encoded: Float[Tensor, "*#shape dim"], predicted: Float[Tensor, "*#shape dim"]) -> Tensor:
        """The same for inputs that are projected already: each frame meets many outputs."""
        return self.output(torch.tanh(encoded + predicted))

    def join_durations(
        self, encoded: Float[Tensor, "*#shape dim"], predicted: Float[Tensor, "*#shape dim"]
    ) -> Tensor:
        """Projected inputs -> (..., durations) unnormalized scores; only where there are durations."""
        assert self.durations is not None
        return self.durations(torch.tanh(encoded + predicted))


def shrink(layer: nn.Linear) -> None:
    """Make the scores of a new model nearly equal."""
    with torch.no_grad():
        layer.weight.mul_(_PROJECTION_SCALE)
        layer.bias.uniform_(-0.1 * _PROJECTION_SCALE, 0.1 * _PROJECTION_SCALE)


def joint_scores(
    joiner: Joiner,
    encoded: Padded,
    predicted: Float[Tensor, "batch rows predictor"],
    starts: Int[Tensor, "batch time"],
    labels: Int[Tensor, "batch time band"],
    *,
    keep: bool,
) -> tuple[Float[Tensor, "batch time band"], Float[Tensor, "batch time band"]]:
    """Log-probabilities of ``labels`` and of blank at rows starts .. starts + band - 1 of every frame.

    Zero at padded frames, of no meaning at rows that are not there. ``keep`` holds the probabilities for
    the gradient; else they are computed twice.
    """
    output = joiner.output
    token, blank, _ = _scores_of(
        joiner, encoded, predicted, starts, labels, output.weight, output.bias, keep=keep
    )
    return token, blank


def timed_scores(
    joiner: Joiner,
    encoded: Padded,
    predicted: Float[Tensor, "batch rows predictor"],
    starts: Int[Tensor, "batch time"],
    labels: Int[Tensor, "batch time band"],
) -> tuple[
    Float[Tensor, "batch time band"],
    Float[Tensor, "batch time band"],
    Float[Tensor, "batch time band durations"],
]:
    """As ``joint_scores``, and the log-probabilities of each duration; logits are computed twice."""
    assert joiner.durations is not None
    weight = torch.cat((joiner.output.weight, joiner.durations.weight))
    bias = torch.cat((joiner.output.bias, joiner.durations.bias))
    return _scores_of(joiner, encoded, predicted, starts, labels, weight, bias, keep=False)


def _scores_of(
    joiner: Joiner,
    encoded: Padded,
    predicted: Tensor,
    starts: Tensor,
    labels: Tensor,
    weight: Float[Tensor, "outputs dim"],
    bias: Float[Tensor, " outputs"],
    *,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Of labels, of blank, and of the outputs that follow those of the vocabulary."""
    frames = joiner.encoder_proj(encoded.values)
    rows = joiner.predictor_proj(predicted).to(frames.dtype)
    real = real_frames(encoded.lengths, frames.shape[1])
    band = torch.arange(labels.shape[2], device=starts.device)
    places = (starts[:, :, None] + band).clamp_max(rows.shape[1] - 1)
    places = places + torch.arange(len(starts), device=starts.device)[:, None, None] * rows.shape[1]
    scores = _JointScores.apply(
        frames[real],
        rows.flatten(0, 1),
        weight,
        bias,
        places[real],
        labels[real],
        len(joiner.output.weight),
        keep,
    )
    token, blank, rest = (
        values.new_zeros(*real.shape, *values.shape[1:]).masked_scatter(
            real.view(*real.shape, *[1] * (values.dim() - 1)), values
        )
        for values in cast("tuple[Tensor, Tensor, Tensor]", scores)
    )
    return token, blank, rest


def nodes_at_once(width: int, device: torch.device) -> int:
    """How many nodes with ``width`` numbers each make a block."""
    return max(1, (_BLOCK if device.type == "cpu" else _LARGE_BLOCK) // width)


def log_normalizers(logits: Float[Tensor, "nodes vocabulary"]) -> Float[Tensor, " nodes"]:
    """log of the summed exponentials of each node, at least in float32."""
    return at_least_float32(logits).logsumexp(dim=1)


class _JointScores(torch.autograd.Function):
    """Frames (F, D), rows (S, D), weight (O, D), bias (O), places and labels (F, R) -> two times (F, R).

    The first V outputs are the vocabulary. The others, if any, are a distribution of their own; it is the
    third result, (F, R, O - V).
    """

    @staticmethod
    def forward(
        ctx: Any,
        frames: Tensor,
        rows: Tensor,
        weight: Tensor,
        bias: Tensor,
        places: Tensor,
        labels: Tensor,
        vocabulary: int,
        keep: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        keep = keep and any(ctx.needs_input_grad[:4])
        exact = torch.promote_types(frames.dtype, torch.float32)
        token, blank = (frames.new_empty(places.shape, dtype=exact) for _ in range(2))
        rest = token.new_empty((*places.shape, len(weight) - vocabulary))
        kept: list[Tensor] = []
        for part in _blocks(places, weight):
            logits = _logits(_hidden(frames[part], rows, places[part]), weight, bias)
            if rest.shape[2]:
                log_probs = logits[:, vocabulary:].to(exact).log_softmax(dim=1)
                rest[part] = log_probs.view(*places[part].shape, -1)
            logits = logits[:, :vocabulary]
            shares = logits.softmax(dim=1, dtype=exact)
            # One pass of exponentials gives both: the largest share is that of the largest score.
            sums = logits.amax(dim=1).to(exact) - shares.amax(dim=1).log()
            shape = places[part].shape
            token[part] = (logits.gather(1, labels[part].reshape(-1, 1))[:, 0] - sums).view(shape)
            blank[part] = (logits[:, BLANK] - sums).view(shape)
            if keep:
                kept.append(shares.to(frames.dtype))
        ctx.save_for_backward(frames, rows, weight, bias, places, labels, rest, *kept)
        ctx.vocabulary = vocabulary
        return token, blank, rest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        frames, rows, weight, bias, places, labels, rest, *kept = ctx.saved_tensors
        by_rest, vocabulary = grads[2], ctx.vocabulary
        exact = grads[0].dtype
        small = weight.to(frames.dtype)
        d_frames = torch.zeros_like(frames)
        d_rows = torch.zeros_like(rows, dtype=exact)
        d_weight = torch.zeros_like(weight, dtype=exact)
        d_bias = torch.zeros_like(bias, dtype=exact)
        for i, part in enumerate(_blocks(places, weight)):
            hidden = _hidden(frames[part], rows, places[part])
            by_token, by_blank = (grad[part].reshape(-1, 1) for grad in grads[:2])
            if kept:
                grad = kept[i] * -(by_token + by_blank)
            else:
                logits = _logits(hidden, weight[:vocabulary], bias[:vocabulary])
                grad = logits.softmax(dim=1, dtype=exact).mul_(-(by_token + by_blank))
            grad.scatter_add_(1, labels[part].reshape(-1, 1), by_token)
            grad[:, BLANK : BLANK + 1] += by_blank
            if rest.shape[2]:
                by_other = by_rest[part].flatten(0, 1)
                shares = rest[part].flatten(0, 1).exp()
                grad = torch.cat((grad, by_other - shares * by_other.sum(dim=1, keepdim=True)), dim=1)
            d_bias += grad.sum(dim=0)
            grad = grad.to(frames.dtype)
            d_weight += product(grad.t(), hidden.t())
            d_hidden = torch.ops.aten.tanh_backward(product(grad, small.t()), hidden)
            d_frames[part] = d_hidden.view(*places[part].shape, -1).sum(dim=1)
            d_rows.index_add_(0, places[part].reshape(-1), d_hidden.to(d_rows.dtype))
        d_weight, d_bias = d_weight.to(weight.dtype), d_bias.to(bias.dtype)
        return d_frames, d_rows.to(rows.dtype), d_weight, d_bias, None, None, None, None


def _blocks(places: Int[Tensor, "frames band"], weight: Float[Tensor, "vocabulary dim"]) -> list[slice]:
    count = max(1, nodes_at_once(max(weight.shape), weight.device) // places.shape[1])
    return [slice(i, i + count) for i in range(0, len(places), count)]


def _hidden(frames: Tensor, rows: Tensor, places: Tensor) -> Float[Tensor, "nodes dim"]:
    hidden = rows.index_select(0, places.reshape(-1)).view(*places.shape, -1)
    return _tanh(hidden.add_(frames[:, None])).flatten(0, 1)


def _tanh(x: Tensor) -> Tensor:
    """In place. By the sigmoid where that is five times as fast (an error of at most 2e-7)."""
    if x.device.type == "cpu" and x.dtype == torch.float32:
        return x.mul_(2).sigmoid_().mul_(2).sub_(1)
    return x.tanh_()


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor) -> Float[Tensor, "nodes vocabulary"]:
    return product(hidden, weight.to(hidden.dtype), bias.to(hidden.dtype))
