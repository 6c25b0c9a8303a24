from __future__ import annotations

from firstwords.training.monitor import PRIOR_WEIGHT, BlankMonitor


def feed(monitor: BlankMonitor, steps: range, total: int, blank: float, loss: float = 5.0) -> list[str]:
    said = [monitor.update(step / total, blank=blank, loss=loss) for step in steps]
    return [text for text in said if text]


def test_a_stuck_model_is_helped_once_and_left_alone_when_letters_appear() -> None:
    monitor = BlankMonitor()
    said = feed(monitor, range(1, 400), 1000, blank=0.999)
    assert len(said) == 1
    assert "100% of the audio with silence" in said[0]
    assert monitor.stuck
    assert monitor.prior_weight == PRIOR_WEIGHT
    said = feed(monitor, range(400, 700), 1000, blank=0.7)
    assert len(said) == 1
    assert "Letters have appeared" in said[0]
    assert monitor.prior_weight == 0
    assert feed(monitor, range(700, 1000), 1000, blank=0.999) == []


def test_a_third_of_the_run_may_be_silent() -> None:
    monitor = BlankMonitor()
    assert feed(monitor, range(1, 349), 1000, blank=0.999) == []
    assert monitor.prior_weight == 0


def test_an_ordinary_run_is_left_alone() -> None:
    monitor = BlankMonitor()
    assert feed(monitor, range(1, 80), 1000, blank=1.0) == []
    assert feed(monitor, range(80, 1000), 1000, blank=0.75) == []
    assert not monitor.stuck


def test_a_growing_loss_halves_the_rate_once_in_a_while() -> None:
    monitor = BlankMonitor()
    feed(monitor, range(1, 300), 1000, blank=0.7, loss=2.0)
    asked = []
    for step in range(300, 700):
        monitor.update(step / 1000, blank=0.7, loss=6.0)
        if monitor.asks_for_half_rate(step):
            asked.append(step)
    assert len(asked) == 2  # 2 -> 3 -> 6 nats, and 200 steps apart
    assert asked[1] - asked[0] > 200


def test_small_losses_may_double() -> None:
    monitor = BlankMonitor()
    feed(monitor, range(1, 200), 1000, blank=0.7, loss=0.1)
    for step in range(300, 700):
        monitor.update(step / 1000, blank=0.7, loss=0.6)
        assert not monitor.asks_for_half_rate(step)
    monitor.update(0.7, blank=0.7, loss=60.0)
    assert monitor.asks_for_half_rate(700)


def test_the_weighed_loss_is_not_compared_with_the_ordinary_one() -> None:
    """Half as large while letters are weighed by their rarity: what comes after has not grown."""
    monitor = BlankMonitor()
    feed(monitor, range(1, 400), 1000, blank=0.999, loss=20.0)
    assert monitor.prior_weight
    feed(monitor, range(400, 600), 1000, blank=0.95, loss=8.0)
    asked = []
    for step in range(600, 1000):
        monitor.update(step / 1000, blank=0.5, loss=19.0 if step < 800 else 40.0)
        if monitor.asks_for_half_rate(step):
            asked.append(step)
    assert monitor.prior_weight == 0
    assert len(asked) == 1
    assert asked[0] > 800


def test_a_state_of_before_is_gone_on_with() -> None:
    monitor, copy = BlankMonitor(), BlankMonitor()
    feed(monitor, range(1, 150), 1000, blank=0.5)
    record = monitor.to_record()
    del record["compared"]
    copy.load(record)
    assert copy == monitor


def test_state_survives() -> None:
    monitor, copy = BlankMonitor(), BlankMonitor()
    feed(monitor, range(1, 150), 1000, blank=0.999)
    copy.load(monitor.to_record())
    assert copy == monitor
