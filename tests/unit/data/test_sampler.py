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
    made, seconds = sampler(), durations()
    steps = made.batches_in_epoch(0)
    for epoch in (0, 1, 5):
        batches = [made.planned(epoch * steps + s) for s in range(steps)]
        assert sorted(i for b in batches for i in b.indices) == list(range(500))
        for batch in batches:
            played = [seconds[i] / speed for i, speed in zip(batch.indices, batch.speeds, strict=True)]
            assert max(played) <= batch.longest
            assert len(batch.indices) * batch.longest <= 60


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
    filled = 0.0
    for step in range(steps):
        batch = made.planned(step)
        lengths = [seconds[i] / speed for i, speed in zip(batch.indices, batch.speeds, strict=True)]
        real, padded = real + sum(lengths), padded + max(lengths) * len(lengths)
        filled += made.padded_seconds(batch) * len(lengths)
    assert real / padded > 0.9
    assert real / filled > 0.85  # in few shapes


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
    spread = [np.ptp([r.planned(s).cost / len(r.batch(s)) for r in ranks]) for s in range(steps - 1)]
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


def test_speeds_are_shared_out_equally_and_anew_in_each_epoch() -> None:
    def epoch_of(made: BucketSampler, epoch: int) -> dict[int, float]:
        steps = made.batches_in_epoch(0)
        batches = [made.planned(epoch * steps + s) for s in range(steps)]
        return {i: s for b in batches for i, s in zip(b.indices, b.speeds, strict=True)}

    made = sampler()
    epochs = [epoch_of(made, e) for e in range(30)]
    assert epochs[7] == epoch_of(sampler(), 7)
    for epoch in epochs:
        drawn = list(epoch.values())
        assert {s: 160 <= drawn.count(s) <= 173 for s in (0.9, 1.0, 1.1)} == dict.fromkeys(
            (0.9, 1.0, 1.1), True
        )
    heard = [[epoch[i] for epoch in epochs].count(1.0) for i in range(500)]
    assert 8 < np.mean(heard) < 12
    assert min(heard) >= 1  # nobody is bound to one speed
    assert max(heard) <= 25


def test_no_more_speeds_than_utterances() -> None:
    made = BucketSampler([3.0, 1.0], batch_seconds=60, seed=1, speeds=(0.9, 1.0, 1.1))
    seen = {(made.planned(e).indices, made.planned(e).speeds) for e in range(12)}
    assert all(sorted(indices) == [0, 1] for indices, _ in seen)
    assert len(seen) > 1


def test_no_utterances() -> None:
    with pytest.raises(ValueError, match="no utterances"):
        BucketSampler([], batch_seconds=60, seed=1)
