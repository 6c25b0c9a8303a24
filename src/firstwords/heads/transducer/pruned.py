"""Pruned transducer loss: Kuang et al., 2022, arXiv:2206.13236.

1. Simple loss: the score of a node is a sum, am(t, v) + lm(u, v), so that normalizing all nodes is one
   matrix product. Smoothed, it is a mixture of log-probabilities: of both, of lm alone, of am alone.
2. Ranges: the paths of the simple loss say which rows matter at each frame.
3. Pruned loss: the joiner, at those rows only.

Ranges of an utterance depend on nothing else in the batch.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from firstwords.heads.numeric import at_least_float32
from firstwords.heads.transducer.joiner import BLANK, Joiner, joint_scores
from firstwords.heads.transducer.lattice import Paths, Topology, exact_dtype, sum_paths
from firstwords.heads.transducer.rnnt import next_tokens
from firstwords.tensors import Padded, real_frames


def simple_paths(
    am: Padded,
    lm: Float[Tensor, "batch rows vocabulary"],
    targets: Padded,
    *,
    lm_scale: float = 0.0,
    am_scale: float = 0.0,
    average_lm: Float[Tensor, "#batch vocabulary"] | None = None,
    topology: Topology = "regular",
) -> Paths:
    """Scores of frames (B, T, V), of histories and target ids (B, U) -> paths; the simple loss is -log_prob.

    Args:
        lm_scale: share of the log-probabilities that know only the history.
        am_scale: share of those that know only the frame.
        average_lm: log-probabilities of symbols without frame or history; with ``am_scale`` only.
            None: for each utterance the mean over its own histories.
    """
    frames, lm = at_least_float32(am.values), at_least_float32(lm)
    if am_scale and average_lm is None:
        average_lm = mean_log_probs(lm, targets.lengths + 1)
    token, blank = _simple_scores(frames, lm, targets.values, lm_scale, am_scale, average_lm)
    return sum_paths(token, blank, am.lengths, targets.lengths, topology=topology)


def _simple_scores(
    am: Tensor, lm: Tensor, targets: Tensor, lm_scale: float, am_scale: float, average_lm: Tensor | None
) -> tuple[Float[Tensor, "batch time rows"], Float[Tensor, "batch time rows"]]:
    rows = lm.shape[1]
    labels = next_tokens(targets, rows)
    smallest = torch.finfo(am.dtype).tiny  # where frame and history exclude each other's symbols
    am_top, lm_top = am.amax(dim=2, keepdim=True).detach(), lm.amax(dim=2, keepdim=True).detach()
    am_weights, lm_weights = (am - am_top).exp(), (lm - lm_top).exp()

    am_token = am.gather(2, labels[:, None].expand(-1, am.shape[1], -1))  # (B, T, R)
    lm_token = lm.gather(2, labels[:, :, None]).transpose(1, 2)  # (B, 1, R)
    am_blank, lm_blank = am[:, :, BLANK, None], lm[:, None, :, BLANK]
    normalizer = (am_weights @ lm_weights.transpose(1, 2) + smallest).log() + am_top + lm_top.transpose(1, 2)
    both = 1.0 - lm_scale - am_scale
    token = both * (am_token + lm_token - normalizer)
    blank = both * (am_blank + lm_blank - normalizer)
    if lm_scale:
        alone = (lm_weights.sum(dim=2, keepdim=True).log() + lm_top).transpose(1, 2)
        token = token + lm_scale * (lm_token - alone)
        blank = blank + lm_scale * (lm_blank - alone)
    if average_lm is not None and am_scale:
        average_lm = average_lm.expand(len(am), -1)
        alone = (am_weights @ average_lm.exp()[:, :, None]).log() + am_top
        token = token + am_scale * (am_token + average_lm.gather(1, labels)[:, None] - alone)
        blank = blank + am_scale * (am_blank + average_lm[:, None, BLANK, None] - alone)
    return token, blank


def mean_log_probs(
    scores: Float[Tensor, "batch rows vocabulary"], lengths: Int[Tensor, " batch"]
) -> Float[Tensor, "batch vocabulary"]:
    """Scores of symbols -> log of their mean probability over the real rows of each utterance."""
    real = real_frames(lengths, scores.shape[1])[:, :, None]
    total = (scores.softmax(dim=2) * real).sum(dim=1)
    return (total / lengths[:, None] + torch.finfo(scores.dtype).tiny).log()


def prune_ranges(
    paths: Paths,
    frames: Int[Tensor, " batch"],
    tokens: Int[Tensor, " batch"],
    width: int,
    *,
    topology: Topology = "regular",
) -> tuple[Int[Tensor, "batch time"], Int[Tensor, " batch"]]:
    """Paths of the simple loss -> the first row to keep at each frame, and how many rows from there on.

    At a frame those rows are kept through which most paths leave it: blanks of the rows, less the tokens
    by which paths come in from the row below. Then the first row is made to start at 0, to end so that the
    last row is reached, never to fall, and to rise by no more than a path can follow: by less than the
    width, so that neighbours overlap, and by one row where a frame has one token at most. An utterance that
    ``width`` rows cannot bring from 0 to its last token gets the fewest that can; none gets more than the
    batch has.
    """
    batch, time, rows = paths.blanks.shape
    needed = (tokens + frames - 1) // frames.clamp_min(1) + 1
    widths = needed.clamp_min(width).clamp_max(rows)
    below = torch.nn.functional.pad(paths.blanks.cumsum(dim=2, dtype=exact_dtype(tokens.device)), (1, 0))
    tops = torch.arange(rows, device=tokens.device)[None] + widths[:, None]
    tops = tops.clamp_max(rows)[:, None].expand(batch, time, rows)
    kept = below.gather(2, tops) - below[:, :, :-1]
    kept[:, :, 1:] -= paths.tokens[:, :, :-1]
    beyond = torch.arange(rows, device=tokens.device) > rows - widths[:, None]
    starts = kept.masked_fill(beyond[:, None], -torch.inf).argmax(dim=2)

    last = (tokens - widths + 1).clamp_min(0)[:, None]
    times = torch.arange(time, device=tokens.device)
    starts = torch.where(times < frames[:, None] - 1, starts, last)
    starts = _least_to_come(starts)
    steepest = widths - 1 if topology == "regular" else (widths - 1).clamp_max(1)
    rise = steepest[:, None] * times
    return rise - _least_to_come(rise - starts).clamp_min(0), widths


def _least_to_come(values: Int[Tensor, "batch time"]) -> Int[Tensor, "batch time"]:
    return values.flip(1).cummin(dim=1).values.flip(1)


def pruned_loss(
    joiner: Joiner,
    encoded: Padded,
    predicted: Float[Tensor, "batch rows predictor"],
    targets: Padded,
    starts: Int[Tensor, "batch time"],
    widths: Int[Tensor, " batch"],
    *,
    topology: Topology = "regular",
) -> Float[Tensor, " batch"]:
    """-log of the sum over the paths inside the ranges of ``prune_ranges``, scored by the joiner; in nats."""
    rows = predicted.shape[1]
    band = torch.arange(max(widths.tolist(), default=1), device=starts.device)
    places = starts[:, :, None] + band
    labels = next_tokens(targets.values, rows + len(band))[:, None].expand(-1, starts.shape[1], -1)
    labels = labels.gather(2, places)
    scores = joint_scores(joiner, encoded, predicted, starts, labels, keep=True)
    return band_loss(*scores, encoded.lengths, targets.lengths, starts, widths, rows, topology=topology)


def band_loss(
    token: Float[Tensor, "batch time band"],
    blank: Float[Tensor, "batch time band"],
    frames: Int[Tensor, " batch"],
    tokens: Int[Tensor, " batch"],
    starts: Int[Tensor, "batch time"],
    widths: Int[Tensor, " batch"],
    rows: int,
    *,
    topology: Topology = "regular",
) -> Float[Tensor, " batch"]:
    """Arc scores at rows starts .. starts + widths - 1 of a lattice with ``rows`` rows -> -log of the sum."""
    band = torch.arange(token.shape[2], device=starts.device)
    outside = band[None] >= widths[:, None]
    places = starts[:, :, None] + band

    def spread(values: Tensor) -> Tensor:
        whole = values.new_full((*starts.shape, rows + len(band)), -torch.inf)
        return whole.scatter(2, places, values.masked_fill(outside[:, None], -torch.inf))[:, :, :rows]

    paths = sum_paths(spread(token), spread(blank), frames, tokens, topology=topology)
    return -paths.log_prob
