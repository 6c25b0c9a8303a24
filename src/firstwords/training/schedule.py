"""Learning rates as pure functions of where training stands: no state, nothing to save, exact on resume.

    learning_rate(config, step=k, epoch=e, total_steps=n)   ->  the rate of the k-th update (k = 1, 2, ...)

Eden is the schedule of Zipformer (Yao et al., 2023, arXiv:2310.11230, eq. 4): it falls with the number of
updates and with the number of passes over the data. It never reaches zero, and on a short run it hardly falls
at all; ``cooldown`` lets the last share of a run go linearly to zero, which is what a run of minutes needs.
Noam: Vaswani et al., 2017, arXiv:1706.03762, section 5.3, with the peak rate given instead of the width.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, NonNegativeFloat, PositiveFloat

from firstwords.config import Config

Share: TypeAlias = Annotated[float, Field(ge=0.0, le=1.0)]


class EdenConfig(Config):
    """Eden as published; every count in updates of the reference (multiplied by ``scale`` before use)."""

    kind: Literal["eden"] = "eden"
    lr: PositiveFloat = 0.045  # base rate, made for ScaledAdam
    lr_batches: PositiveFloat = 7500.0  # where the fall with updates sets in
    lr_epochs: PositiveFloat = 3.5  # where the fall with passes over the data sets in
    warmup_batches: NonNegativeFloat = 500.0
    warmup_start: Share = 0.1  # the rate begins at this share
    cooldown: Share = 0.0  # last share of the run, linearly to zero; 0 is the published schedule


class Eden2Config(Config):
    """Eden without passes over the data: falls with the square of Eden's update factor."""

    kind: Literal["eden2"] = "eden2"
    lr: PositiveFloat = 0.045
    lr_batches: PositiveFloat = 7500.0
    warmup_batches: NonNegativeFloat = 500.0
    warmup_start: Share = 0.1
    cooldown: Share = 0.0


class NoamConfig(Config):
    """Linear rise to ``lr`` over the first share of the run, then falling with the root of the step."""

    kind: Literal["noam"] = "noam"
    lr: PositiveFloat = 1e-3  # at the peak; made for Adam
    warmup: Share = 0.1  # share of the run
    cooldown: Share = 0.0


class CosineConfig(Config):
    """Linear rise to ``lr``, then half a cosine down to ``final`` times ``lr`` at the last step."""

    kind: Literal["cosine"] = "cosine"
    lr: PositiveFloat = 1e-3
    warmup: Share = 0.1
    final: Share = 0.0


class ConstantConfig(Config):
    """Linear rise to ``lr``, which then stays; with ``cooldown``, to zero at the end."""

    kind: Literal["constant"] = "constant"
    lr: PositiveFloat = 1e-3
    warmup: Share = 0.0
    cooldown: Share = 0.0


ScheduleConfig: TypeAlias = Annotated[
    EdenConfig | Eden2Config | NoamConfig | CosineConfig | ConstantConfig, Field(discriminator="kind")
]


def learning_rate(
    config: EdenConfig | Eden2Config | NoamConfig | CosineConfig | ConstantConfig,
    *,
    step: int,
    epoch: float,
    total_steps: int,
    scale: float = 1.0,
) -> float:
    """Where training stands -> the learning rate.

    Args:
        step: number of the update about to be made, counted from 1 (0 is the state before training).
        epoch: finished passes over the data; whole in the reference, fractions are allowed.
        total_steps: planned updates of the whole run.
        scale: ``schedule_scale`` of the recipe. Eden sees ``step * scale`` updates, so that an hour of
            speech passes through the same phases as a thousand; shares of the run are not affected.
    """
    match config:
        case EdenConfig():
            batches = step * scale
            by_batches = (1.0 + (batches / config.lr_batches) ** 2) ** -0.25
            by_epochs = (1.0 + (epoch / config.lr_epochs) ** 2) ** -0.25
            rate = config.lr * by_batches * by_epochs * _eden_warmup(config, batches)
            return rate * _cooldown(config.cooldown, step, total_steps)
        case Eden2Config():
            batches = step * scale
            by_batches = (1.0 + (batches / config.lr_batches) ** 2) ** -0.5
            rate = config.lr * by_batches * _eden_warmup(config, batches)
            return rate * _cooldown(config.cooldown, step, total_steps)
        case NoamConfig():
            peak = max(1.0, config.warmup * total_steps)
            rate = config.lr * min(step / peak, math.sqrt(peak / max(step, 1)))
            return rate * _cooldown(config.cooldown, step, total_steps)
        case CosineConfig():
            warmup = config.warmup * total_steps
            if step < warmup:
                return config.lr * step / warmup
            done = min(1.0, (step - warmup) / max(1.0, total_steps - warmup))
            return config.lr * (config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * done)))
        case ConstantConfig():
            warmup = config.warmup * total_steps
            rate = config.lr * (step / warmup if step < warmup else 1.0)
            return rate * _cooldown(config.cooldown, step, total_steps)


def _eden_warmup(config: EdenConfig | Eden2Config, batches: float) -> float:
    """Linear from ``warmup_start`` to 1."""
    if batches >= config.warmup_batches:
        return 1.0
    return config.warmup_start + (1.0 - config.warmup_start) * batches / config.warmup_batches


def _cooldown(share: float, step: int, total_steps: int) -> float:
    """1 until the last ``share`` of the run, then linearly down; the last update still moves a little.

    With n = share * total_steps updates of cooldown the factors are n/n, ..., 2/n, 1/n: the step after the
    last one would be 0.
    """
    length = share * total_steps
    if length <= 0:
        return 1.0
    return min(1.0, max(0.0, (total_steps + 1 - step) / max(length, 1.0)))
