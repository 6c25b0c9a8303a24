"""Token-and-duration transducer (TDT): Xu et al., 2023, arXiv:2304.06795.

Beside the next symbol the joiner says how many frames to go on with it, both independently:

    P(symbol, d | t, u) = P(symbol | t, u) P(d | t, u)

    a token    (t, u) -> (t + d, u + 1)    d of the ``durations``; 0 stays at its frame
    a blank    (t, u) -> (t + d, u)        d above 0
    the end    the blank that leads from row U to frame T, neither less nor more

so that a search need not ask at every frame. (What the network gives to a blank of duration 0 leads nowhere.)

Sums run over steps n = t + u, all rows of all utterances at once, as in lattice.py; an arc leads d steps on
(blank) or d + 1 (token). Sums are float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from firstwords.heads.transducer.joiner import Joiner, timed_scores
from firstwords.heads.transducer.lattice import exact_dtype
from firstwords.heads.transducer.rnnt import next_tokens
from firstwords.tensors import Padded


def joint_tdt_loss(
    joiner: Joiner,
    encoded: Padded,
    predicted: Float[Tensor, "batch rows predictor"],
    targets: Padded,
    durations: Sequence[int],
) -> Float[Tensor, " batch"]:
    """Frames (B, T, D), predictor outputs and ids (B, U) -> -log P(target) of each utterance, in nats.

    Utterances without a path (no frames; where every token takes frames, too many tokens) have a loss of inf
    and a gradient of zero.
    """
    batch, time, _ = encoded.values.shape
    rows = predicted.shape[1]
    labels = next_tokens(targets.values, rows)[:, None].expand(batch, time, rows)
    starts = torch.zeros(batch, time, dtype=torch.int64, device=labels.device)
    token, blank, duration = timed_scores(joiner, encoded, predicted, starts, labels)
    return tdt_loss(token, blank, duration, encoded.lengths, targets.lengths, durations)


def tdt_loss(
    token: Float[Tensor, "batch time rows"],
    blank: Float[Tensor, "batch time rows"],
    duration: Float[Tensor, "batch time rows durations"],
    frames: Int[Tensor, " batch"],
    tokens: Int[Tensor, " batch"],
    durations: Sequence[int],
) -> Float[Tensor, " batch"]:
    """Log-probabilities at (t, u) of the next token, of blank and of each duration -> -log of the sum.

    ``rows`` is 1 + the largest number of tokens; what lies beyond an utterance's lengths is ignored.
    """
    return -cast("Tensor", _SumTimedPaths.apply(token, blank, duration, frames, tokens, tuple(durations)))


class _Arcs(NamedTuple):
    """The kinds of arcs: blanks first, then tokens. Steps on which each leads, and its duration's place."""

    steps: list[int]
    places: list[int]
    blanks: int


def _kinds(durations: Sequence[int]) -> _Arcs:
    blanks = [(d, place) for place, d in enumerate(durations) if d > 0]
    tokens = [(d + 1, place) for place, d in enumerate(durations)]
    steps, places = zip(*blanks, *tokens, strict=True)
    return _Arcs(list(steps), list(places), len(blanks))


class _SumTimedPaths(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        token: Tensor,
        blank: Tensor,
        duration: Tensor,
        frames: Tensor,
        tokens: Tensor,
        durations: tuple[int, ...],
    ) -> Tensor:
        kinds = _kinds(durations)
        log_prob, shares = _forward_backward(token, blank, duration, frames, tokens, durations, kinds)
        by_duration = torch.zeros_like(duration, dtype=shares.dtype)
        for kind, place in enumerate(kinds.places):
            by_duration[..., place] += shares[..., kind]
        by_blank = shares[..., : kinds.blanks].sum(dim=3)
        by_token = shares[..., kinds.blanks :].sum(dim=3)
        ctx.save_for_backward(by_token.to(token), by_blank.to(blank), by_duration.to(duration))
        return log_prob.to(token.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        by_token, by_blank, by_duration = ctx.saved_tensors
        grad = grads[0][:, None, None]
        return grad * by_token, grad * by_blank, grad[..., None] * by_duration, None, None, None


def _forward_backward(
    token: Tensor,
    blank: Tensor,
    duration: Tensor,
    frames: Tensor,
    tokens: Tensor,
    durations: tuple[int, ...],
    kinds: _Arcs,
) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch time rows kinds"]]:
    """Log of the sum over all paths, and the share of it that goes through each arc."""
    batch, time, rows = token.shape
    device, exact = token.device, exact_dtype(token.device)
    count, reach = len(kinds.steps), max(kinds.steps)
    symbols = torch.stack([blank] * kinds.blanks + [token] * (count - kinds.blanks), dim=3).to(exact)
    scores = symbols + duration[..., kinds.places].to(exact)
    allowed = _allowed(frames, tokens, time, rows, durations, kinds)
    scores = scores.masked_fill(~allowed, -torch.inf)

    # Step by step: row u at step n is node (n - u, u). ``reach`` steps of nothing lie around the real ones.
    last = time + rows - 1
    rows_at = torch.arange(rows, device=device)
    step_of = torch.arange(time, device=device)[:, None] + rows_at + reach  # (T, R)
    row_of = rows_at.expand(time, rows)
    arcs = scores.new_full((last + 1 + 2 * reach, rows, count, batch), -torch.inf)
    arcs[step_of, row_of] = scores.permute(1, 2, 3, 0)
    ahead = torch.tensor(kinds.steps, device=device)
    kind = torch.arange(count, device=device)
    utterances = torch.arange(batch, device=device)
    nothing = arcs.new_full((count - kinds.blanks, 1, batch), -torch.inf)

    forward = arcs.new_full((last + 1 + 2 * reach, rows, batch), -torch.inf)
    forward[reach, 0] = 0.0
    for n in range(reach + 1, reach + last + 1):
        sources = n - ahead
        came = forward[sources] + arcs[sources, :, kind]
        advanced = torch.cat((nothing, came[kinds.blanks :, :-1]), dim=1)
        forward[n] = torch.cat((came[: kinds.blanks], advanced)).logsumexp(dim=0)
    ends = frames + tokens + reach
    log_prob = forward[ends, tokens, utterances]

    backward = torch.full_like(forward, -torch.inf)
    backward[ends, tokens, utterances] = 0.0
    for n in range(reach + last, reach - 1, -1):
        went = arcs[n].transpose(0, 1) + _led(backward, n + ahead, kinds.blanks, nothing)
        backward[n] = torch.cat((backward[n, None], went)).logsumexp(dim=0)

    total = log_prob.masked_fill(log_prob.isinf(), 0.0)
    shares = scores.new_zeros(batch, time, rows, count)
    for k, far in enumerate(kinds.steps):
        led = backward[step_of + far, row_of if k < kinds.blanks else (row_of + 1).clamp_max(rows - 1)]
        through = forward[step_of, row_of] + arcs[step_of, row_of, k] + led - total
        shares[..., k] = through.exp().permute(2, 0, 1)  # an arc out of the last row has no token: -inf
    return log_prob, shares


def _led(
    backward: Float[Tensor, "steps rows batch"], targets: Tensor, blanks: int, nothing: Tensor
) -> Float[Tensor, "kinds rows batch"]:
    """The sums from where each kind of arc leads."""
    found = backward[targets]
    return torch.cat((found[:blanks], torch.cat((found[blanks:, 1:], nothing), dim=1)))


def _allowed(
    frames: Int[Tensor, " batch"],
    tokens: Int[Tensor, " batch"],
    time: int,
    rows: int,
    durations: Sequence[int],
    kinds: _Arcs,
) -> Bool[Tensor, "batch time rows kinds"]:
    """Arcs that begin at a node of the utterance and do not lead beyond it; a token never leads to T."""
    device = frames.device
    far = torch.tensor([durations[place] for place in kinds.places], device=device)
    writes = torch.arange(len(kinds.places), device=device) >= kinds.blanks
    after = torch.arange(time, device=device)[:, None] + far + writes  # tokens: one less is allowed
    in_time = (torch.arange(time, device=device)[:, None] < frames[:, None, None]) & (
        after <= frames[:, None, None]
    )
    row = torch.arange(rows, device=device)[:, None]
    in_rows = row + writes <= tokens[:, None, None]
    return in_time[:, :, None] & in_rows[:, None]
