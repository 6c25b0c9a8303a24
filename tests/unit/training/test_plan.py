from __future__ import annotations

import json

import pytest

from firstwords.training.plan import Plan, Segment, make_plan


def plan(**changes: object) -> Plan:
    settings: dict = {
        "steps": None,
        "epochs": None,
        "minutes": None,
        "steps_in_epoch": 50,
        "seconds_per_step": 0.5,
        "validation_seconds": 2.0,
        "elapsed": 10.0,
        "batch_seconds": 60.0,
        "step_seconds": 55.0,
    }
    return make_plan(**(settings | changes))


def test_the_least_limit_counts() -> None:
    assert plan(steps=300, epochs=10).steps == 300
    assert plan(steps=3000, epochs=10).steps == 500
    assert plan(steps=3000, minutes=1).steps < 120
    assert plan().minutes == 60


def test_minutes_leave_room_for_validations_and_the_end() -> None:
    made = plan(minutes=10)
    validations = made.steps / made.validate_every
    assert 10 + made.steps * 0.5 + validations * 2.0 + 2 * 2.0 <= 600
    assert made.steps * 0.5 > 0.85 * 600


def test_a_slow_validation_is_made_seldom() -> None:
    made = plan(minutes=10, validation_seconds=30.0)
    assert made.steps / made.validate_every == pytest.approx(3, abs=1)


@pytest.mark.parametrize(("seconds", "count"), [(25.0, 2), (50.0, 1), (80.0, 1)])
def test_where_three_validations_are_a_third_of_the_time_there_are_fewer(seconds: float, count: int) -> None:
    """S on one core, 3 minutes, 28 s a validation: one step was planned, and half the time was left."""
    made = plan(minutes=4, validation_seconds=seconds)
    assert -(-made.steps // made.validate_every) == count
    used = 10 + made.steps * 0.5 + (count - 1) * seconds + 2 * seconds
    assert 0.85 * 240 < used <= 240


def test_progress_is_linear_and_ends_at_one() -> None:
    made = plan(steps=200)
    assert [made.progress(s) for s in (0, 50, 200, 300)] == [0, 0.25, 1, 1]
    assert [made.planned_step(s) for s in (1, 57, 200)] == [1, 57, 200]


def test_replanning_keeps_progress_and_ends_at_one() -> None:
    made = Plan(1000, (Segment(0, 0.0, 1000),), 60, 50, 20.0, 10.0)
    changed = made.replanned(400, 400)
    assert changed.last_step == 800
    assert changed.progress(399) == made.progress(399)
    assert changed.progress(400) == pytest.approx(0.4)
    assert changed.progress(600) == pytest.approx(0.7)
    assert changed.progress(800) == 1.0
    assert changed.planned_step(800) == 1000
    again = changed.replanned(600, 400)
    assert again.progress(600) == pytest.approx(0.7)
    assert again.progress(500) == changed.progress(500)
    assert again.last_step == 1000


def test_small_changes_are_not_worth_a_new_plan() -> None:
    made = plan(steps=1000)
    assert made.replanned(400, 590) is made


def test_a_fast_machine_never_gets_more_steps_than_asked_for() -> None:
    made = plan(steps=300, minutes=60)
    assert made.replanned(100, 5000) is made
    assert made.replanned(100, 100).last_step == 200
    assert plan(minutes=60).replanned(100, 50000).last_step == 50100


def test_marks_are_crossed_once() -> None:
    made = plan(steps=30)
    assert [s for s in range(1, 31) if made.crosses(s, (0.1, 0.5))] == [3, 15]


def test_schedule_scale_reaches_the_end_of_the_reference_schedules() -> None:
    short = plan(steps=500)
    assert short.count(150) == pytest.approx(20000)  # in the first third of the run
    long = plan(steps=100000, step_seconds=600.0)
    assert long.schedule_scale == 1.0
    assert plan(steps=500, schedule_scale=2.0).count(500) == 1000


def test_a_plan_survives_json() -> None:
    made = plan(minutes=5).replanned(20, 900)
    assert Plan.from_record(json.loads(json.dumps(made.to_record()))) == made
