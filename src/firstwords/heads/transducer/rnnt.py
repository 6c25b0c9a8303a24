"""Full transducer loss: Graves, 2012, arXiv:1211.3711.

    -log of the sum over all paths through (T, U + 1) nodes, each with V scores

The (B, T, U + 1, V) scores are read in blocks that stay in a processor's cache, and their gradient is written
once; nothing else of that size exists. ``joint_rnnt_loss`` does not even hold the scores: it makes them
twice, block by block.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from firstwords.heads.numeric import at_least_float32
from firstwords.heads.transducer.joiner import Joiner, joint_scores, log_normalizers, nodes_at_once
from firstwords.heads.transducer.lattice import Topology, sum_paths
from firstwords.tensors import Padded


def rnnt_loss(
    logits: Float[Tensor, "batch time rows vocabulary"],
    frames: Int[Tensor, " batch"],
    targets: Padded,
    *,
    blank: int = 0,
    topology: Topology = "regular",
    delay_penalty: float = 0.0,
) -> Float[Tensor, " batch"]:
    """Unnormalized scores of all nodes and target ids (B, U) -> -log P(target) of each utterance, in nats.

    ``rows`` is U + 1. Utterances without a path (no frames; more tokens than frames, where a token takes a
    frame) have a loss of inf and a gradient of zero.
    """
    batch, time, rows, _ = logits.shape
    labels = next_tokens(targets.values, rows)[:, None].expand(batch, time, rows)
    scores = _ArcScores.apply(at_least_float32(logits), labels, blank)
    token, empty = cast("tuple[Tensor, Tensor]", scores)
    paths = sum_paths(token, empty, frames, targets.lengths, topology=topology, delay_penalty=delay_penalty)
    return -paths.log_prob


def joint_rnnt_loss(
    joiner: Joiner,
    encoded: Padded,
    predicted: Float[Tensor, "batch rows predictor"],
    targets: Padded,
    *,
    topology: Topology = "regular",
) -> Float[Tensor, " batch"]:
    """Frames (B, T, D), predictor outputs and ids (B, U) -> what ``rnnt_loss`` says of their joint scores.

    Memory grows with B * T * (U + 1), not with V times that; the scores are computed a second time for the
    gradient.
    """
    batch, time, _ = encoded.values.shape
    rows = predicted.shape[1]
    labels = next_tokens(targets.values, rows)[:, None].expand(batch, time, rows)
    starts = torch.zeros(batch, time, dtype=torch.int64, device=labels.device)
    token, empty = joint_scores(joiner, encoded, predicted, starts, labels, keep=False)
    return -sum_paths(token, empty, encoded.lengths, targets.lengths, topology=topology).log_prob


def next_tokens(targets: Int[Tensor, "batch tokens"], rows: int) -> Int[Tensor, "batch rows"]:
    """The token that leads out of each row; the last row has none and holds 0, which nobody reads."""
    return torch.nn.functional.pad(targets, (0, rows - targets.shape[1]))


class _ArcScores(torch.autograd.Function):
    """Logits (B, T, R, V) -> log-probabilities of label and blank (B, T, R); one gradient of that size."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, blank: int) -> tuple[Tensor, Tensor]:
        flat = logits.reshape(-1, logits.shape[-1])
        normalizer = torch.cat(
            [log_normalizers(part) for part in flat.split(nodes_at_once(flat.shape[1], flat.device))]
        )
        token = flat.gather(1, labels.reshape(-1, 1))[:, 0] - normalizer
        empty = flat[:, blank] - normalizer
        ctx.save_for_backward(flat, normalizer, labels)
        ctx.blank = blank
        return token.view(labels.shape), empty.view(labels.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        flat, normalizer, labels = ctx.saved_tensors
        by_token, by_blank = grads[0].reshape(-1, 1), grads[1].reshape(-1, 1)
        index = labels.reshape(-1, 1)
        new = torch.empty_like(flat)
        count = nodes_at_once(flat.shape[1], flat.device)
        for i in range(0, len(flat), count):
            part = slice(i, i + count)
            grad = torch.sub(flat[part], normalizer[part, None], out=new[part]).exp_()
            grad.mul_(-(by_token[part] + by_blank[part])).scatter_add_(1, index[part], by_token[part])
            grad[:, ctx.blank : ctx.blank + 1] += by_blank[part]
        return new.view(*labels.shape, -1), None, None
