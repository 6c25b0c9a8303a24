"""Running averages: weights, buffers, and resume."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from firstwords.errors import TrainingError
from firstwords.training.averaging import Average, RunningAverage, set_weights


def model_at(value: float, seen: int) -> nn.Module:
    model = nn.BatchNorm1d(2)
    with torch.no_grad():
        model.weight.fill_(value)
        assert model.running_mean is not None
        assert model.num_batches_tracked is not None
        model.running_mean.fill_(10 * value)
        model.num_batches_tracked.fill_(seen)
    return model


def test_weights_and_buffers_are_averaged_and_counters_copied() -> None:
    average = RunningAverage(period=2)
    taken = [average.update(model_at(float(k), k), k) for k in range(7)]
    assert taken == [False, False, True, False, True, False, True]
    found = average.snapshot()
    assert found.count == average.count == 3
    assert found.values["weight"].tolist() == [4.0, 4.0]
    assert found.values["running_mean"].tolist() == [40.0, 40.0]
    assert found.values["num_batches_tracked"].item() == 6
    assert found.values["weight"].dtype is torch.float64


def test_a_snapshot_does_not_move_on() -> None:
    average = RunningAverage(period=1)
    average.update(model_at(1.0, 1), 1)
    snapshot = average.snapshot()
    average.update(model_at(3.0, 2), 2)
    assert snapshot.values["weight"].tolist() == [1.0, 1.0]
    assert average.snapshot().values["weight"].tolist() == [2.0, 2.0]


def test_the_average_does_not_follow_the_model() -> None:
    model = model_at(1.0, 1)
    average = RunningAverage(period=1)
    average.update(model, 1)
    set_weights(model, model_at(5.0, 2).state_dict())
    assert average.snapshot().values["weight"].tolist() == [1.0, 1.0]
    assert average.snapshot().values["num_batches_tracked"].item() == 1


def test_resume_is_exact() -> None:
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(20, generator=generator).tolist()
    straight, stopped = RunningAverage(3), RunningAverage(3)
    for k, number in enumerate(numbers):
        if k == 11:
            file = io.BytesIO()
            torch.save(stopped.state_dict(), file)
            file.seek(0)
            stopped = RunningAverage(7)
            stopped.load_state_dict(torch.load(file, weights_only=True))
        straight.update(model_at(number, k), k)
        stopped.update(model_at(number, k), k)
    for name, value in straight.snapshot().values.items():
        assert torch.equal(value, stopped.snapshot().values[name])


def test_set_weights_keeps_the_number_format() -> None:
    model = model_at(0.0, 0)
    average = RunningAverage(1)
    average.update(model_at(2.0, 5), 1)
    set_weights(model, average.snapshot().values)
    assert model.state_dict()["weight"].dtype is torch.float32
    assert model.state_dict()["weight"].tolist() == [2.0, 2.0]
    assert model.state_dict()["num_batches_tracked"].item() == 5


def test_an_average_of_another_model_is_refused() -> None:
    with pytest.raises(TrainingError, match="does not belong"):
        set_weights(nn.Linear(2, 2), Average(1, {"weight": torch.zeros(2, 2)}).values)
    with pytest.raises(TrainingError, match="at least 1"):
        RunningAverage(0)
