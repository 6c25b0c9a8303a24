"""Bits for each block of a model, by what they cost: the least harm within a budget of bytes.

    harm[block][bits] = loss with that block alone in so many bits - loss     (nats a token, on dev speech)
                        + one standard error of this difference, over the utterances
    choose bits for every block: the least sum of harms whose bytes are within the budget

A few utterances tell harms only so far: a block may seem to gain by 2 bits. Hence the standard error, and a
harm is at least 0 and at least that of more bits.

The sum takes harms for independent, which they nearly are while they are small; so the choice is judged as a
whole afterwards, against the same bits everywhere (compression/quantize.py). The knapsack with a choice
from each class is solved exactly, as a frontier of (bytes, harm) that grows block by block (Nemhauser and
Ullmann, 1969); beyond ``FRONTIER`` points it is thinned, one point for each 1/50000 of the budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from firstwords.compression.choices import (
    INT8,
    Plan,
    blocks,
    file_bytes,
    fitting,
    of_bits,
    plan_bytes,
    uniform,
)
from firstwords.errors import UsageError
from firstwords.model.speech_model import SpeechModel
from firstwords.model.storage import restored, stored_bytes

BITS = (2, 3, 4, 6, 8, 16)
FRONTIER = 50_000  # points of it that are kept


@dataclass(frozen=True)
class Option:
    """One way to keep a block."""

    bits: int
    bytes: int
    harm: float


def least_harm(classes: Sequence[Sequence[Option]], budget: int) -> list[Option]:
    """One option of each class, with the least sum of harms among those within the budget of bytes."""
    least = [min(option.bytes for option in options) for options in classes]
    after = np.cumsum([0, *least[::-1]])[::-1]  # bytes that the classes from here on take at least
    if after[0] > budget:
        raise UsageError(
            f"The budget of {budget} bytes cannot be met: with the fewest bits everywhere the model takes "
            f"{after[0]}.",
            mend="Raise --budget, or prune the model first.",
        )
    size, harm = np.zeros(1, dtype=np.int64), np.zeros(1)
    trail: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []  # of each class: point before, option
    for number, options in enumerate(classes):
        sizes = np.array([option.bytes for option in options], dtype=np.int64)
        harms = np.array([option.harm for option in options])
        every_size = (size[:, None] + sizes).ravel()
        every_harm = (harm[:, None] + harms).ravel()
        kept = np.flatnonzero(every_size + after[number + 1] <= budget)
        kept = kept[np.lexsort((every_harm[kept], every_size[kept]))]
        kept = kept[_falls(every_harm[kept])]
        if len(kept) > FRONTIER:  # of equal rounded bytes the last has the least harm
            step = -(-budget // FRONTIER)
            rounded = every_size[kept] // step
            kept = kept[np.append(rounded[1:] != rounded[:-1], True)]
        size, harm = every_size[kept], every_harm[kept]
        trail.append((kept // len(options), kept % len(options)))
    place = int(np.argmin(harm))
    chosen: list[Option] = []
    for options, (before, option) in zip(reversed(classes), reversed(trail), strict=True):
        chosen.append(options[int(option[place])])
        place = int(before[place])
    return chosen[::-1]


def _falls(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """True where a value is below all before it."""
    best = np.minimum.accumulate(values)
    return np.append(True, best[1:] < best[:-1])


def sensitivities(
    model: SpeechModel,
    groups: Mapping[str, Sequence[str]],
    losses: Callable[[], Float[Tensor, " utterances"]],
    *,
    rows: int,
    bits: Sequence[int] = BITS,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, list[Option]]:
    """Block -> its options; the model is left as it was.

    Args:
        groups: block -> names of its tensors.
        losses: of each utterance, of the model as it stands.
        rows: that share a codebook.
        progress: called after each measurement.
    """
    state = model.state_dict()
    base = losses()
    found: dict[str, list[Option]] = {}
    for block, names in groups.items():
        own = {name: state[name].clone() for name in names}
        options: list[Option] = []
        try:
            for count in bits:
                plan = block_plan(own, count, rows=rows)
                _put(state, restored(own, plan))
                size = sum(stored_bytes(own[name].shape, plan[name]) for name in names)
                options.append(Option(count, size, harm(losses() - base)))
                progress()
        finally:
            _put(state, own)
        found[block] = never_less(options)
    return found


def harm(differences: Float[Tensor, " utterances"]) -> float:
    """The mean and its standard error."""
    error = differences.std() / math.sqrt(len(differences)) if len(differences) > 1 else 0.0
    return float(differences.mean() + error)


def never_less(options: Sequence[Option]) -> list[Option]:
    """Options in the order given, with the harm of each at least 0 and at least that of more bits."""
    worst = 0.0
    found: dict[int, Option] = {}
    for option in sorted(options, key=lambda option: -option.bits):
        worst = max(worst, option.harm)
        found[option.bits] = replace(option, harm=worst)
    return [found[option.bits] for option in options]


def block_plan(tensors: Mapping[str, Tensor], bits: int, *, rows: int) -> Plan:
    """How the tensors of a block are kept in so many bits."""
    return {name: fitting(tensor, of_bits(bits, rows=rows)) for name, tensor in tensors.items()}


def require_room(state: Mapping[str, Tensor], budget: int, *, words: int, rows: int) -> None:
    """UsageError for a budget below the file with the fewest bits everywhere; before anything is measured.

    Args:
        words: bytes of its header beside names and shapes.
    """
    plan = uniform(state, INT8)
    for names in blocks(state).values():
        tensors = {name: state[name] for name in names}
        tried = [block_plan(tensors, bits, rows=rows) for bits in BITS]
        plan |= min(tried, key=lambda found: plan_bytes(tensors, found))
    if (least := file_bytes(state, plan) + words) > budget:
        raise UsageError(
            f"The budget of {budget} bytes cannot be met: with the fewest bits everywhere the file takes "
            f"{least}.",
            mend="Raise --budget, or prune the model first.",
        )


@torch.no_grad()
def _put(state: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        state[name].copy_(value)
