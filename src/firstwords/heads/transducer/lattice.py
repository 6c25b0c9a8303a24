"""The lattice of a transducer: all ways through T frames and U tokens, summed up.

Graves, 2012, arXiv:1211.3711, section 2.4. A node (t, u) means: t frames are done, u tokens are written. Two
arcs leave it, one with the next token and one with a blank; the last arc of every path is the blank of the
last frame. Three topologies:

    regular        a token stays at its frame: (t, u) -> (t, u + 1); any number of tokens per frame
    modified       a token takes its frame: (t, u) -> (t + 1, u + 1); at most one per frame
    constrained    as modified, and the score of a token holds the blank that has to follow it

Sums run over steps, not nodes. At step n = t + u (regular: the anti-diagonals) or n = t (the others) each
row u holds one node, and from one step to the next a path stays in its row (blank) or advances to the next:

    forward(n + 1, u) = logaddexp(forward(n, u) + stay(n, u), forward(n, u - 1) + advance(n, u - 1))

so a batch takes T + U steps of two small operations each way. The gradient is the probability with which a
path uses an arc; it is made from the forward and the backward sums. Sums are float64, because they add up
hundreds of terms of a hundred nats.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from firstwords.tensors import real_frames

Topology = Literal["regular", "modified", "constrained"]


class Paths(NamedTuple):
    """Sum over all paths, and how often a path uses each arc on average. The counts carry no gradient."""

    log_prob: Float[Tensor, " batch"]  # minus infinity where there is no path
    tokens: Float[Tensor, "batch time rows"]  # 0..1
    blanks: Float[Tensor, "batch time rows"]  # 0..1


def sum_paths(
    token: Float[Tensor, "batch time rows"],
    blank: Float[Tensor, "batch time rows"],
    frames: Int[Tensor, " batch"],
    tokens: Int[Tensor, " batch"],
    *,
    topology: Topology = "regular",
    delay_penalty: float = 0.0,
) -> Paths:
    """Arc scores at (t, u) of the next token and of the blank -> Paths.

    ``rows`` is 1 + the largest number of tokens. What lies beyond an utterance's lengths is ignored; one
    without any path has a gradient of zero.

    Args:
        delay_penalty: nats per frame by which early tokens are preferred, zero at the middle frame
            (Kang et al., 2022, arXiv:2211.00490).
    """
    if topology == "constrained":
        following = torch.nn.functional.pad(blank[:, :, 1:], (0, 1), value=-torch.inf)
        token = token + following
    if delay_penalty:
        times = torch.arange(token.shape[1], device=token.device)
        early = 0.5 * (frames - 1)[:, None] - times[None, :]
        token = token + delay_penalty * early.to(token.dtype)[:, :, None]
    slope = int(topology == "regular")
    return Paths(*_SumPaths.apply(token, blank, frames, tokens, slope))  # pyright: ignore[reportGeneralTypeIssues]


class _SumPaths(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, token: Tensor, blank: Tensor, frames: Tensor, tokens: Tensor, slope: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        log_prob, by_token, by_blank = _forward_backward(token, blank, frames, tokens, slope)
        ctx.save_for_backward(by_token, by_blank)
        ctx.mark_non_differentiable(by_token, by_blank)
        return log_prob, by_token, by_blank

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        by_token, by_blank = ctx.saved_tensors
        grad = grads[0][:, None, None]
        return grad * by_token, grad * by_blank, None, None, None


def _forward_backward(
    token: Tensor, blank: Tensor, frames: Tensor, tokens: Tensor, slope: int
) -> tuple[Tensor, Tensor, Tensor]:
    batch, time, rows = token.shape
    steps = time + slope * (rows - 1)
    exact = exact_dtype(token.device)
    inside = _inside(frames, tokens, time, rows)

    # (stay, advance) of every step. A view of each puts node (t, u) at step t + slope * u.
    arcs = token.new_full((steps, 2, batch, rows), -torch.inf, dtype=exact)
    place = ((batch, time, rows), (rows, 2 * batch * rows, 1 + slope * 2 * batch * rows))
    views = [arcs[:, kind].as_strided(*place, arcs[:, kind].storage_offset()) for kind in (0, 1)]
    for view, values, allowed in zip(views, (blank, token), inside, strict=True):
        view.copy_(values).masked_fill_(~allowed, -torch.inf)
    _stay_at_the_end(arcs[:, 0], frames + slope * tokens, tokens)

    forward, backward = _sums(arcs, tokens)
    log_prob = forward[-1].gather(1, tokens[:, None])[:, 0]

    # In place: log-probability of all paths through an arc -> its share of the total.
    arcs += forward[:-1, None]
    arcs[:, 0] += backward[1:, :, :-1]
    arcs[:, 1] += backward[1:, :, 1:]
    arcs -= log_prob.masked_fill(log_prob.isinf(), 0.0)[:, None]
    arcs.exp_()
    shares = [
        view.to(token.dtype, copy=True, memory_format=torch.contiguous_format).masked_fill_(~allowed, 0.0)
        for view, allowed in zip(views, inside, strict=True)
    ]
    return log_prob.to(token.dtype), shares[1], shares[0]


def exact_dtype(device: torch.device) -> torch.dtype:
    """float64 where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


def _inside(
    frames: Tensor, tokens: Tensor, time: int, rows: int
) -> tuple[Bool[Tensor, "batch time rows"], Bool[Tensor, "batch time rows"]]:
    """Where an utterance has blank arcs and where it has token arcs."""
    real = real_frames(frames, time)[:, :, None]
    return real & real_frames(tokens + 1, rows)[:, None], real & real_frames(tokens, rows)[:, None]


def _stay_at_the_end(stay: Float[Tensor, "steps batch rows"], ends: Tensor, tokens: Tensor) -> None:
    """From its last step on, an utterance waits in its last row at no cost, until the longest is done."""
    steps, batch, _ = stay.shape
    done = torch.arange(steps, device=stay.device)[:, None] >= ends
    utterances = torch.arange(batch, device=stay.device)
    stay[:, utterances, tokens] = stay[:, utterances, tokens].masked_fill(done, 0.0)


def _sums(arcs: Float[Tensor, "steps 2 batch rows"], tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Log-sums over the paths to each node (S + 1, B, R) and from it to the end (S + 1, B, R + 1).

    Both runs go through the same loop, one from the front, one from the back: it costs nearly nothing but
    the calls. A column of minus infinity beside the rows stands for the row that is not there.
    """
    steps, _, batch, rows = arcs.shape
    forward = arcs.new_full((steps + 1, batch, rows), -torch.inf)
    forward[0, :, 0] = 0.0
    backward = arcs.new_full((steps + 1, batch, rows + 1), -torch.inf)
    backward[-1].scatter_(1, tokens[:, None], 0.0)

    # Sums of the two arcs that end in one row, one above the other: an advance stands one to the right.
    beside = arcs.new_full((2, batch, rows + 1), -torch.inf)
    wide = batch * (rows + 1)
    shifted = beside.as_strided((2, batch, rows), (wide + 1, rows + 1, 1))
    stayed, advanced = beside[0, :, :rows], beside[1, :, :rows]
    sources = backward.as_strided((steps + 1, 2, batch, rows), (wide, 1, rows + 1, 1)).unbind(0)
    targets = backward[:, :, :rows].unbind(0)
    sums, arc = forward.unbind(0), arcs.unbind(0)
    both = torch.empty_like(arcs[0]) if steps else arcs
    for n in range(steps):
        torch.add(arc[n], sums[n], out=shifted)
        torch.logaddexp(stayed, advanced, out=sums[n + 1])
        back = steps - 1 - n
        torch.add(arc[back], sources[back + 1], out=both)
        torch.logaddexp(both[0], both[1], out=targets[back])
    return forward, backward
