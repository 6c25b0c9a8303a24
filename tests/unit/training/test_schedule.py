"""Learning rates by hand, and through a recipe."""

from __future__ import annotations

import math

import pytest

from firstwords.config import Config, dump_config, parse_config
from firstwords.errors import ConfigError
from firstwords.training.schedule import (
    ConstantConfig,
    CosineConfig,
    Eden2Config,
    EdenConfig,
    NoamConfig,
    ScheduleConfig,
    learning_rate,
)


class Holder(Config):
    schedule: ScheduleConfig = EdenConfig()


def curve(config: object, total: int, *, epoch: float = 0.0, scale: float = 1.0) -> list[float]:
    return [
        learning_rate(config, step=k, epoch=epoch, total_steps=total, scale=scale)  # pyright: ignore[reportArgumentType]
        for k in range(1, total + 1)
    ]


def test_eden_by_hand() -> None:
    config = EdenConfig(lr=0.04, lr_batches=100, lr_epochs=2, warmup_batches=0)
    # at step = lr_batches and epoch = lr_epochs both factors are 2^-1/4
    rate = learning_rate(config, step=100, epoch=2, total_steps=1000)
    assert rate == pytest.approx(0.04 / math.sqrt(2))
    config = EdenConfig(lr=0.04, warmup_batches=500, warmup_start=0.1, lr_batches=1e9)
    assert learning_rate(config, step=250, epoch=0, total_steps=1000) == pytest.approx(0.04 * 0.55)


def test_scale_counts_updates_of_the_reference() -> None:
    """A run of 100 steps with scale 50 passes through what 5000 updates pass through."""
    for config in (EdenConfig(), Eden2Config()):
        short = curve(config, 100, scale=50)
        long = curve(config, 5000)
        assert short == pytest.approx(long[49::50], rel=1e-12)


def test_cooldown_ends_at_nearly_nothing_and_leaves_the_rest_alone() -> None:
    plain, cooled = curve(EdenConfig(), 100), curve(EdenConfig(cooldown=0.2), 100)
    assert cooled[:80] == plain[:80]
    factors = [c / p for c, p in zip(cooled[80:], plain[80:], strict=True)]
    assert factors == pytest.approx([k / 20 for k in range(20, 0, -1)])
    beyond = learning_rate(EdenConfig(cooldown=0.2), step=150, epoch=0, total_steps=100)
    assert beyond == 0.0


def test_noam_peaks_where_the_warmup_ends() -> None:
    rates = curve(NoamConfig(lr=1e-3, warmup=0.1), 1000)
    assert max(rates) == rates[99] == pytest.approx(1e-3)
    assert rates[49] == pytest.approx(5e-4)
    assert rates[399] == pytest.approx(5e-4)


def test_cosine() -> None:
    rates = curve(CosineConfig(lr=2.0, warmup=0.1, final=0.25), 100)
    assert rates[4] == pytest.approx(1.0)
    assert rates[9] == pytest.approx(2.0)
    assert rates[54] == pytest.approx(2.0 * (0.25 + 0.75 * 0.5))
    assert rates[99] == pytest.approx(0.5)


def test_constant() -> None:
    rates = curve(ConstantConfig(lr=1.0, warmup=0.1, cooldown=0.5), 10)
    assert rates == pytest.approx([1.0] * 5 + [1.0, 0.8, 0.6, 0.4, 0.2])
    assert curve(ConstantConfig(lr=3.0), 4) == [3.0] * 4


@pytest.mark.parametrize("kind", [EdenConfig, Eden2Config, NoamConfig, CosineConfig, ConstantConfig])
@pytest.mark.parametrize("total", [1, 2, 7, 100])
def test_every_schedule_is_usable_on_any_run(kind: type[EdenConfig], total: int) -> None:
    for config in (kind(), kind.model_validate({"lr": 0.5})):
        rates = curve(config, total)
        assert all(0 <= rate <= config.lr for rate in rates)
        assert any(rate > 0 for rate in rates)
        assert all(math.isfinite(learning_rate(config, step=k, epoch=0, total_steps=0)) for k in (0, 1, 5))


def test_schedules_are_chosen_by_kind_in_a_recipe() -> None:
    for config in (EdenConfig(), Eden2Config(), NoamConfig(), CosineConfig(), ConstantConfig()):
        holder = Holder(schedule=config)
        assert parse_config(holder.model_dump(), Holder, name="recipe", source="test") == holder
        assert f'kind = "{config.kind}"' in dump_config(holder)
    with pytest.raises(ConfigError, match="warm_up"):
        parse_config({"schedule": {"kind": "noam", "warm_up": 1}}, Holder, name="recipe", source="test")
