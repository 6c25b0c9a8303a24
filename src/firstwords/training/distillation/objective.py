"""What a teacher adds to the losses of a student.

For an utterance with words:   (1 - weight) * own losses + weight * the teacher's
For non-speech the transcript (nothing) is all there is to know, and the teacher is not asked.

Each head's part counts with the head's weight. A student with two views of every utterance (CR-CTC) is held
against the one answer of the teacher twice, and the mean counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from firstwords.heads.attention.objective import TaughtHead
from firstwords.heads.transducer.head import TransducerHead
from firstwords.model.speech_model import SpeechModel
from firstwords.tensors import Padded, pad
from firstwords.training.distillation.losses import (
    frame_loss,
    guide_loss,
    hidden_loss,
    lattice_loss,
    sequence_loss,
    token_loss,
)
from firstwords.training.distillation.teacher import (
    FRAMES,
    HIDDEN,
    LATTICE,
    TOKENS,
    Asked,
    Target,
    Teacher,
    lattice_scores,
    readings_of,
    token_scores,
)
from firstwords.training.settings import DistillationConfig


class Taught(NamedTuple):
    """Of each utterance: the loss against the teacher, and the teacher's share; the parts, without graph."""

    each: Float[Tensor, " batch"]
    share: Float[Tensor, " batch"]
    parts: Mapping[str, Float[Tensor, " batch"]]


@final
class Distillation:
    """The losses of one student against one teacher.

    ``projections`` bring the student's encoded frames to the teacher's width, one for each of its layers that
    is asked. They are trained along and belong to no model.
    """

    def __init__(self, config: DistillationConfig, student: SpeechModel, teacher: Teacher) -> None:
        self.config, self.student, self.teacher = config, student, teacher
        self._told = False
        layers = teacher.questions.hidden
        self.projections = nn.ModuleList(
            nn.Linear(student.encoder.dim, teacher.model.encoder.dim)
            for _ in range(0 if layers is None else max(1, len(layers)))
        ).to(teacher.compute.device)

    def news(self) -> str:
        """What the user should know and has not been told; empty: nothing."""
        cache = self.teacher.cache
        if cache is None or not cache.problem or self._told:
            return ""
        self._told = True
        return cache.problem

    def loss(self, asked: Asked, encoded: Padded, log_probs: Padded | None) -> Taught:
        """Rows as heard, the student's encoded frames and CTC log-probabilities, perhaps of two views.

        ``asked.targets`` of one view.
        """
        rows = len(asked.ids)
        views = len(encoded.lengths) // rows
        said = self.teacher.says(asked)
        device = encoded.values.device
        again = said * views
        targets = Padded(asked.targets.values.repeat(views, 1), asked.targets.lengths.repeat(views))
        total = torch.zeros(rows, device=device)
        parts: dict[str, Tensor] = {}

        def add(name: str, weight: float, loss: Tensor) -> None:
            nonlocal total
            mean = loss.unflatten(0, (views, rows)).mean(dim=0)
            parts[f"teacher_{name}"] = mean.detach()
            total = total + weight * mean

        weights = {name: head.weight for name, head in self.student.recipe.heads.items()}
        if log_probs is not None:
            for name, weight, loss in self._ctc(again, log_probs):
                add(name, weights["ctc"] * weight, loss)
        if self.teacher.questions.tokens:
            add("tokens", weights["attention"], self._tokens(again, encoded, targets))
        if self.teacher.questions.lattice:
            add("lattice", weights["transducer"], self._lattice(again, encoded, targets))
        if len(self.projections):
            add("hidden", self.config.hidden, self._hidden(again, encoded))
        speech = (asked.targets.lengths > 0).to(device)
        return Taught(
            total.masked_fill(~speech, 0.0),
            torch.where(speech, self.config.weight, 0.0),
            {name: part.masked_fill(~speech, 0.0) for name, part in parts.items()},
        )

    def _ctc(self, said: list[Target], log_probs: Padded) -> list[tuple[str, float, Tensor]]:
        config, questions = self.config, self.teacher.questions
        if questions.readings:
            return [("readings", 1.0, sequence_loss([readings_of(one) for one in said], log_probs))]
        if not questions.frames:
            return []
        given = _collated(said, FRAMES, log_probs.values.device)
        frames = frame_loss(
            given,
            log_probs,
            temperature=config.temperature,
            blank_above=config.blank_above,
            blank_weight=config.blank_weight,
        )
        found = [("frames", 1.0, frames)]
        if config.guide:
            found.append(("guide", config.guide, guide_loss(given, log_probs)))
        return found

    def _tokens(self, said: list[Target], encoded: Padded, targets: Padded) -> Tensor:
        given = _collated(said, TOKENS, encoded.values.device)
        own = token_scores(cast("TaughtHead", self.student.heads["attention"]), encoded, targets)
        count = min(given.values.shape[1], own.values.shape[1])
        loss = token_loss(
            given.values[:, :count],
            own.values[:, :count],
            torch.minimum(given.lengths, own.lengths),
            self.config.temperature,
        )
        # A text too long for one of the two was cut: its last rows are no answers to one question.
        return loss.masked_fill((given.lengths != own.lengths) | (own.lengths <= targets.lengths), 0.0)

    def _lattice(self, said: list[Target], encoded: Padded, targets: Padded) -> Tensor:
        head = cast("TransducerHead", self.student.heads["transducer"])
        own = lattice_scores(head, encoded, targets)
        given = own.new_full(own.shape, -torch.inf)
        given[..., 1] = 0.0  # nodes that are not there: any distribution
        time = own.shape[1]
        lengths: list[int] = []
        for row, one in enumerate(said):
            values = one[LATTICE][:time].to(own.device, own.dtype).log_softmax(dim=-1)
            given[row, : values.shape[0], : values.shape[1]] = values
            lengths.append(values.shape[0])
        frames = torch.minimum(torch.tensor(lengths, device=own.device), encoded.lengths)
        return lattice_loss(given, own, frames, targets.lengths)

    def _hidden(self, said: list[Target], encoded: Padded) -> Tensor:
        losses = [
            hidden_loss(
                _collated(said, f"{HIDDEN}{n}", encoded.values.device),
                Padded(projection(encoded.values.float()), encoded.lengths),
            )
            for n, projection in enumerate(self.projections)
        ]
        return torch.stack(losses).mean(dim=0)


def _collated(said: list[Target], name: str, device: torch.device) -> Padded:
    padded = pad([one[name].float() for one in said])
    return Padded(padded.values.to(device), padded.lengths.to(device))


@final
class Taken(nn.Module):
    """A student and what is trained along with it: what optimizer, checkpoints and average see."""

    def __init__(self, student: SpeechModel, projections: nn.ModuleList) -> None:
        super().__init__()
        self.student, self.projections = student, projections

    def forward(self, audio: Padded) -> Padded:
        """What the student says."""
        return self.student(audio)


def trained_along(student: SpeechModel, distillation: Distillation | None) -> nn.Module:
    """The module of a run: the student, and the projections where there are any."""
    if distillation is None or not len(distillation.projections):
        return student
    return Taken(student, distillation.projections)
