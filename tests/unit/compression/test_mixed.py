"""Bits for each block: the knapsack against brute force, harm measured one block at a time."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from firstwords.compression import mixed
from firstwords.compression.choices import blocks, file_bytes, fitting, plan_bytes, uniform
from firstwords.compression.mixed import Option, harm, least_harm, never_less, require_room, sensitivities
from firstwords.errors import UsageError
from firstwords.model.storage import Storage, restored, stored_bytes


def random_classes(seed: int) -> list[list[Option]]:
    draw = np.random.default_rng(seed)
    return [
        [Option(bits, int(draw.integers(1, 40)), float(draw.normal(0.3, 0.4))) for bits in range(4)]
        for _ in range(int(draw.integers(1, 6)))
    ]


def brute_force(classes: list[list[Option]], budget: int) -> float:
    sums = [
        sum(option.harm for option in choice)
        for choice in itertools.product(*classes)
        if sum(option.bytes for option in choice) <= budget
    ]
    return min(sums)


@pytest.mark.parametrize("seed", range(30))
def test_the_choice_is_the_best_of_all(seed: int) -> None:
    classes = random_classes(seed)
    least = sum(min(option.bytes for option in options) for options in classes)
    for budget in (least, least + 7, least + 30, 10_000):
        chosen = least_harm(classes, budget)
        assert all(option in options for option, options in zip(chosen, classes, strict=True))
        assert sum(option.bytes for option in chosen) <= budget
        assert sum(option.harm for option in chosen) == pytest.approx(brute_force(classes, budget))


def test_a_thinned_frontier_is_within_the_budget_and_nearly_as_good(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    classes = [
        [
            Option(b, 1000 * b + int(draw.integers(0, 999)), float(2.0**-b * draw.uniform(0.5, 2)))
            for b in (2, 4, 8)
        ]
        for _ in range(12)
    ]
    exact = least_harm(classes, 50_000)
    monkeypatch.setattr(mixed, "FRONTIER", 200)
    thinned = least_harm(classes, 50_000)
    assert sum(o.bytes for o in thinned) <= 50_000
    harms = [sum(o.harm for o in chosen) for chosen in (exact, thinned)]
    assert harms[0] <= harms[1] <= 1.05 * harms[0]


def test_a_budget_that_cannot_be_met_is_named() -> None:
    with pytest.raises(UsageError, match=r"of 9 bytes cannot be met.*takes 10"):
        least_harm([[Option(2, 4, 0.0)], [Option(2, 6, 1.0), Option(4, 9, 0.0)]], 9)


def test_harm_is_that_of_one_block_alone() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(40, 40), nn.Linear(40, 40))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x = torch.randn(30, 40)
    y = net(x).detach()
    groups = {"0": ["0.weight"], "1": ["1.weight"]}
    ticks: list[int] = []

    def losses() -> torch.Tensor:
        with torch.no_grad():
            return (net(x) - y).square().mean(dim=1)

    found = sensitivities(net, groups, losses, rows=64, bits=(2, 4, 16), progress=lambda: ticks.append(1))  # type: ignore[arg-type]
    assert len(ticks) == 6
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    for number, (block, names) in enumerate(groups.items()):
        assert [option.bits for option in found[block]] == [2, 4, 16]
        harms = [option.harm for option in found[block]]
        assert harms == sorted(harms, reverse=True)
        kept = restored(before, {names[0]: Storage(kind="kmeans", bits=4)})
        other = nn.Sequential(nn.Linear(40, 40), nn.Linear(40, 40))
        other.load_state_dict(kept)
        each = (other(x) - y).square().mean(dim=1).detach().numpy()
        expected = each.mean() + each.std(ddof=1) / np.sqrt(30)
        assert harms[1] == pytest.approx(float(expected), rel=1e-4)
        size = stored_bytes((40, 40), Storage(kind="kmeans", bits=4))
        assert found[block][1].bytes == size, number


def test_what_would_not_be_smaller_stays_a_float() -> None:
    """A codebook of 256 halves takes 512 bytes: more than ten halves."""
    eight = Storage(kind="kmeans", bits=8)
    assert fitting(torch.ones(2, 5), eight).kind == "fp16"
    assert fitting(torch.randn(64, 64), eight) == eight
    assert fitting(torch.randn(64), eight).kind == "fp16"
    assert fitting(torch.tensor([1e6]), eight).kind == "fp32"
    assert fitting(torch.tensor([1e-12]), eight).kind == "fp32"  # would become 0
    assert fitting(torch.full((64, 64), 1e6), eight).kind == "fp32"
    assert fitting(torch.full((64, 64), 1e6), Storage(kind="int8")).kind == "int8"
    assert fitting(torch.full((64, 64), 1e6), Storage(kind="bf16")).kind == "bf16"


def test_plans_and_blocks() -> None:
    state = {
        "encoder.layers.0.feed_in.up.weight": torch.randn(64, 32),
        "encoder.layers.0.feed_in.down.weight": torch.randn(32, 64),
        "encoder.layers.0.feed_in.down.bias": torch.randn(32),
        "heads.ctc.projection.weight": torch.randn(9, 32),
        "count": torch.tensor(3),
    }
    grouped = blocks(state)
    assert list(grouped) == ["encoder.layers.0.feed_in", "heads.ctc"]
    assert len(grouped["encoder.layers.0.feed_in"]) == 2
    plan = uniform(state, Storage(kind="int8"))
    assert "count" not in plan
    assert plan_bytes(state, plan) == 2048 + 4 * 64 + 2048 + 4 * 32 + 64 + 288 + 4 * 9 + 8
    assert plan_bytes(state, plan) < file_bytes(state, plan) < plan_bytes(state, plan) + 3000


def test_harm_is_never_less_than_that_of_more_bits() -> None:
    options = [Option(2, 1, -0.3), Option(4, 2, 0.1), Option(8, 4, 0.05), Option(16, 8, -0.2)]
    assert [option.harm for option in never_less(options)] == [0.1, 0.1, 0.05, 0.0]
    assert harm(torch.tensor([2.0])) == 2.0
    assert harm(torch.tensor([1.0, 3.0])) == pytest.approx(2.0 + math.sqrt(2) / math.sqrt(2))


def test_an_impossible_budget_is_refused_before_anything_is_measured() -> None:
    torch.manual_seed(1)
    state = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 32)).state_dict()
    # 2-bit indices: a quarter of a byte each, a codebook of four 16-bit floats every 64 rows; biases in fp16
    bare = (64 * 64 + 64 * 32) // 4 + 2 * 8 + 2 * (64 + 32)
    with pytest.raises(UsageError, match=r"of 1000 bytes cannot be met.* the file takes (\d+)") as refusal:
        require_room(state, 1000, words=100, rows=64)
    least = int(refusal.value.what.rsplit(maxsplit=1)[-1].rstrip("."))
    assert bare + 100 < least < bare + 100 + 300 * len(state)  # the header
    require_room(state, least, words=100, rows=64)
    with pytest.raises(UsageError):
        require_room(state, least - 1, words=100, rows=64)
