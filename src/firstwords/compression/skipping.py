"""Layers that are left out for good, chosen by the loss on dev, without any training.

Greedy: of all layers that could go, the one without which the loss is least goes first, then the next, as
long as the loss stays below a limit. The way around a layer is its residual sum (a Zipformer layer's bypass).
What was left out stands in structure.json ("drop"), and its weights are gone; the places stay, so that
settings that count layers mean what they meant.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from firstwords.compression.families import groups_of
from firstwords.data.batch import Batch
from firstwords.errors import UsageError
from firstwords.model.speech_model import SpeechModel


@dataclass(frozen=True)
class Skipped:
    """A layer that was left out, and the loss after it."""

    layer: str
    loss: float


@torch.no_grad()
def transcript_loss(model: SpeechModel, batches: Sequence[Batch]) -> float:
    """-log P(transcript) in nats a token, over all heads with their weights."""
    total, tokens = 0.0, 0
    model.eval()
    for batch in batches:
        encoded = model.encode(batch.audio)
        for name, head in model.named_heads():
            each = head.loss(encoded, batch.targets)
            total += model.recipe.heads[name].weight * float(each[each.isfinite()].sum())
        tokens += int(batch.targets.lengths.sum())
    return total / max(tokens, 1)


def require_layers(model: SpeechModel) -> None:
    """UsageError for a model none of whose layers has a way around it."""
    if not _layers(model):
        raise UsageError(
            f"None of the layers of a {model.recipe.encoder.kind} can be left out alone.",
            mend="Cut units with 'firstwords compress prune', or use low ranks.",
        )


def without_layers(
    model: SpeechModel,
    loss: Callable[[SpeechModel], float],
    *,
    most: int,
    limit: float,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[SpeechModel, float, list[Skipped]]:
    """A model -> the model without some layers, its loss before, and what was left out.

    Args:
        most: layers to leave out.
        limit: greatest loss, as a multiple of the loss before.
    """
    require_layers(model)
    model = copy.deepcopy(model)
    before = loss(model)
    skipped: list[Skipped] = []
    while len(skipped) < most:
        tried: list[tuple[float, str, SpeechModel]] = []
        for name in _layers(model):
            shorter = copy.deepcopy(model)
            group = next(group for group in groups_of(shorter) if group.name == name)
            group.cut(shorter, ())
            tried.append((loss(shorter), name, shorter))
        if not tried:
            break
        least, name, shorter = min(tried, key=lambda one: one[:2])
        if least > limit * before:
            break
        model = shorter
        skipped.append(Skipped(name.split(":")[0], least))
        say(f"Without {skipped[-1].layer}: {least:.4f} nats a token (all layers: {before:.4f}).")
    return model, before, skipped


def _layers(model: SpeechModel) -> list[str]:
    return [group.name for group in groups_of(model) if group.layer is not None]
