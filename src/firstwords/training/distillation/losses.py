"""What a student loses where it differs from a teacher: one sum per utterance, in nats, float32.

    frames      KL over labels and blank of every CTC frame (Hinton et al., 2015, arXiv:1503.02531, section 2)
    guide       the teacher's spikes, where the student should have its own (Kurata and Audhkhasi, 2019,
                arXiv:1904.08311, section 3)
    sequence    CTC of the teacher's readings, each by its share (Kim and Rush, 2016, arXiv:1606.07947)
    tokens      KL over the next token under teacher forcing
    lattice     KL over {token, blank, rest} at the nodes of a transducer's lattice (Panchapagesan et al.,
                2021, arXiv:2011.06110, eq. 5)
    hidden      L1 and cosine of encoded frames (Chang et al., 2022, arXiv:2110.01900, eq. 1)

With a temperature t both distributions are softmax(log p / t), and the divergence is multiplied by t * t so
that gradients keep their size. No gradient flows into the teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from firstwords.heads.ctc import can_align, ctc_loss
from firstwords.heads.numeric import at_least_float32
from firstwords.tensors import Padded, pad, real_frames

_LEAST_REST = 1e-5  # probability: 1 - token - blank of a sure model is lost in rounding


class Reading(NamedTuple):
    """A text that a teacher found, and its share among those it found."""

    tokens: tuple[int, ...]
    share: float


def divergence(
    teacher: Float[Tensor, "*shape labels"], student: Float[Tensor, "*shape labels"], temperature: float = 1.0
) -> Float[Tensor, "*shape"]:
    """t * t * KL(teacher || student) of scores or log-probabilities along the last axis."""
    given = at_least_float32(teacher.detach() / temperature).log_softmax(dim=-1)
    own = at_least_float32(student / temperature).log_softmax(dim=-1)
    return temperature**2 * F.kl_div(own, given, reduction="none", log_target=True).sum(dim=-1)


def frame_loss(
    teacher: Padded, student: Padded, *, temperature: float, blank_above: float, blank_weight: float
) -> Float[Tensor, " batch"]:
    """(B, T, V) log-probabilities of both -> sum over the frames that both have.

    Args:
        blank_above: frames that the teacher is so sure are blank count ``blank_weight``: they are most of
            an utterance and teach nothing.
    """
    given, own, real = _common(teacher, student)
    sure = given[..., 0].exp() > blank_above
    weights = torch.where(sure, blank_weight, 1.0).masked_fill(~real, 0.0)
    return (divergence(given, own, temperature) * weights).sum(dim=1)


def guide_loss(teacher: Padded, student: Padded) -> Float[Tensor, " batch"]:
    """(B, T, V) log-probabilities of both -> minus the student's probabilities at the teacher's spikes.

    A spike is a frame whose most probable label is not blank.
    """
    given, own, real = _common(teacher, student)
    best = given.argmax(dim=-1, keepdim=True)
    spikes = (best[..., 0] != 0) & real
    return -own.gather(2, best)[..., 0].exp().masked_fill(~spikes, 0.0).sum(dim=1)


def sequence_loss(readings: Sequence[Sequence[Reading]], student: Padded) -> Float[Tensor, " batch"]:
    """Readings of each utterance -> Σ share * CTC(reading); one that cannot align adds nothing."""
    rows = [row for row, found in enumerate(readings) for _ in found]
    total = student.values.new_zeros(len(readings), dtype=at_least_float32(student.values).dtype)
    if not rows:
        return total
    device = student.values.device
    found = [reading for several in readings for reading in several]
    padded = pad([torch.tensor(reading.tokens, dtype=torch.int64) for reading in found])
    targets = Padded(padded.values.to(device), padded.lengths.to(device))
    places = torch.tensor(rows, device=device)
    repeated = Padded(student.values[places], student.lengths[places])
    shares = torch.tensor([reading.share for reading in found], device=device, dtype=total.dtype)
    losses = ctc_loss(repeated, targets).masked_fill(~can_align(repeated.lengths, targets), 0.0)
    return total.index_add(0, places, shares * losses)


def token_loss(
    teacher: Float[Tensor, "batch tokens_and_end units"],
    student: Float[Tensor, "batch tokens_and_end units"],
    lengths: Int[Tensor, " batch"],
    temperature: float,
) -> Float[Tensor, " batch"]:
    """Scores of the next unit -> sum over the tokens and the end; ``lengths`` count both."""
    each = divergence(teacher, student, temperature)
    return each.masked_fill(~real_frames(lengths, each.shape[1]), 0.0).sum(dim=1)


def collapsed(
    token: Float[Tensor, "batch time rows"],
    blank: Float[Tensor, "batch time rows"],
    tokens: Int[Tensor, " batch"],
) -> Float[Tensor, "batch time rows 3"]:
    """Log-probabilities of next token and blank at each node -> of {token, blank, rest}.

    Beyond an utterance's last token there is no next one: its class is empty there, and ``rest`` is all that
    is not blank.
    """
    none = ~(torch.arange(token.shape[2], device=token.device) < tokens[:, None])[:, None, :]
    known = token.exp().masked_fill(none, 0.0)
    rest = (1.0 - known - blank.exp()).clamp_min(_LEAST_REST).log()
    return torch.stack((token.masked_fill(none, -torch.inf), blank, rest), dim=-1)


def lattice_loss(
    teacher: Float[Tensor, "batch time rows 3"],
    student: Float[Tensor, "batch time rows 3"],
    frames: Int[Tensor, " batch"],
    tokens: Int[Tensor, " batch"],
) -> Float[Tensor, " batch"]:
    """Collapsed lattices -> sum over frames of the mean over the rows 0 .. tokens of each node's KL.

    The mean over rows keeps the size of a loss per frame, as CTC has it: the sum over all nodes would grow
    with the square of an utterance's length.
    """
    given = teacher.detach()
    empty = given.isneginf()
    gap = torch.where(empty, 0.0, given) - torch.where(empty, 0.0, student)
    each = (given.exp() * gap).sum(dim=-1)
    rows = torch.arange(each.shape[2], device=each.device) <= tokens[:, None]
    real = real_frames(frames, each.shape[1])[:, :, None] & rows[:, None, :]
    return each.masked_fill(~real, 0.0).sum(dim=(1, 2)) / (tokens + 1)


def hidden_loss(teacher: Padded, student: Padded) -> Float[Tensor, " batch"]:
    """Encoded frames (B, T, D) -> sum over frames of  mean |difference| - log sigmoid(cosine)."""
    given, own, real = _common(teacher, student)
    distance = (given - own).abs().mean(dim=-1)
    likeness = F.logsigmoid(F.cosine_similarity(given, own, dim=-1))
    return (distance - likeness).masked_fill(~real, 0.0).sum(dim=1)


def _common(teacher: Padded, student: Padded) -> tuple[Tensor, Tensor, Bool[Tensor, "batch time"]]:
    """Frames that both have; front ends of one rate may differ by a frame at the end."""
    time = min(teacher.values.shape[1], student.values.shape[1])
    real = real_frames(torch.minimum(teacher.lengths, student.lengths), time)
    given = at_least_float32(teacher.values[:, :time].detach())
    return given, at_least_float32(student.values[:, :time]), real
