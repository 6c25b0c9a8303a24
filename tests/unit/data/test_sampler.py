from __future__ import annotations

import numpy as np
import pytest

from firstwords.data.sampler import BucketSampler, cost_of


def durations(count: int = 500) -> list[float]:
    return np.random.default_rng(3).uniform(1, 15, count).tolist()


def sampler(**changes: object) -> BucketSampler:
    settings: dict = {"batch_seconds": 60, "seed": 7, "speeds": (0.9, 1.0, 1.1)} | changes
    return BucketSampler(settings.pop("durations", durations()), **settings)


def test_every_utterance_once_an_epoch_and_within_the_limit() -> None:
    made = sampler()
    steps = made.batches_in_epoch(0)
    for epoch in (0, 1, 5):
        batches = [made.batch(epoch * steps + s) for s in range(steps)]
        assert sorted(i for b in batches for i in b) == list(range(500))
        assert max(len(b) * made.lengths[b].max() for b in batches) <= 60  # seconds, at the slowest speed


def test_a_step_is_the_same_whatever_came_before() -> None:
    walked, jumped = sampler(), sampler()
    for step in range(200):
        walked.batch(step)
    assert walked.batch(200) == jumped.batch(200)
    assert walked.batch(3) == sampler().batch(3)  # and backwards


def test_epochs_and_seeds_differ() -> None:
    made = sampler()
    steps = made.batches_in_epoch(0)
    first, second = ([tuple(made.batch(e * steps + s)) for s in range(steps)] for e in (0, 1))
    assert first != second
    assert len(set(first) & set(second)) <= 2  # other company in nearly every batch
    assert made.batch(0) != sampler(seed=8).batch(0)


def test_padding_is_little() -> None:
    made, seconds = sampler(), durations()
    steps = made.batches_in_epoch(0)
    real = padded = 0.0
    for step in range(steps):
        lengths = [seconds[i] for i in made.batch(step)]
        real, padded = real + sum(lengths), padded + max(lengths) * len(lengths)
    assert real / padded > 0.9


def test_first_epoch_from_short_to_long() -> None:
    made, seconds = sampler(sorted_first_epoch=True), durations()
    steps = made.batches_in_epoch(0)
    means = [np.mean([seconds[i] for i in made.batch(s)]) for s in range(steps)]
    assert means[0] < 3
    assert means[-1] > 13
    assert np.corrcoef(means, np.arange(steps))[0, 1] > 0.95
    later = [np.mean([seconds[i] for i in made.batch(steps + s)]) for s in range(steps)]
    assert abs(np.corrcoef(later, np.arange(steps))[0, 1]) < 0.5


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_the_epoch_of_one(world_size: int) -> None:
    alone = sampler()
    ranks = [sampler(world_size=world_size, rank=r) for r in range(world_size)]
    steps = ranks[0].batches_in_epoch(0)
    assert {r.batches_in_epoch(0) for r in ranks} == {steps}
    batches = [r.batch(s) for s in range(steps) for r in ranks]
    assert {tuple(sorted(b)) for b in batches} == {
        tuple(sorted(alone.batch(s))) for s in range(alone.batches)
    }
    spread = [np.ptp([r.cost(r.batch(s)) / len(r.batch(s)) for r in ranks]) for s in range(steps - 1)]
    assert np.mean(spread) < 2  # seconds per utterance


def test_long_text_counts() -> None:
    seconds, tokens = [5.0] * 100, [20] * 99 + [8000]
    made = BucketSampler(seconds, tokens=tokens, batch_seconds=60, seed=1)
    (of_long,) = [b for s in range(made.batches_in_epoch(0)) if 99 in (b := made.batch(s))]
    assert of_long == [99]
    assert cost_of(5, 8000) > 40


def test_one_utterance_longer_than_a_batch() -> None:
    made = BucketSampler([1.0, 90.0], batch_seconds=60, seed=1)
    assert sorted(map(tuple, (made.batch(0), made.batch(1)))) == [(0,), (1,)]


def test_speed_is_a_function_of_epoch_and_utterance() -> None:
    made = sampler()
    drawn = [made.speed(e, i) for e in range(20) for i in range(20)]
    assert drawn == [sampler().speed(e, i) for e in range(20) for i in range(20)]
    assert {s: drawn.count(s) > 90 for s in (0.9, 1.0, 1.1)} == {0.9: True, 1.0: True, 1.1: True}


def test_no_utterances() -> None:
    with pytest.raises(ValueError, match="no utterances"):
        BucketSampler([], batch_seconds=60, seed=1)
