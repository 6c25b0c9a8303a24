"""Which units go: exact counts, floors, targets that are met within one unit."""

from __future__ import annotations

import copy

import pytest
import torch

from firstwords.compression.families import groups_of
from firstwords.compression.groups import cut, span
from firstwords.compression.importance import CRITERIA, importance, parameters_of
from firstwords.compression.selection import floors, macs_of, select, shares, smallest
from firstwords.encoders.conformer import ConformerConfig
from firstwords.encoders.listener import ListenerConfig
from firstwords.encoders.squeezeformer import SqueezeformerConfig
from firstwords.model.cost import model_cost
from firstwords.model.speech_model import SpeechModel
from firstwords.nn.subsampling import SubsamplingConfig
from small_zipformer import SMALL
from tone_corpus import tone_recipe

STACK = {"dim": 24, "layers": 4, "heads": 4, "feedforward": 48, "subsampling": SubsamplingConfig(channels=8)}
ENCODERS = {
    "zipformer": SMALL,
    "conformer": ConformerConfig(**STACK, kernel=5),  # pyright: ignore[reportArgumentType]
    "squeezeformer": SqueezeformerConfig(**STACK, kernel=5, reduce_at=1, recover_at=3),  # pyright: ignore[reportArgumentType]
    "listener": ListenerConfig(width=16, layers=3),
}


def model_of(name: str) -> SpeechModel:
    torch.manual_seed(1)
    return SpeechModel(tone_recipe().model_copy(update={"encoder": ENCODERS[name]}), 6).eval()


def test_units_and_entries() -> None:
    assert span(3).tolist() == [[0], [1], [2]]
    assert span(2, each=2, offsets=(0, 10)).tolist() == [[0, 1, 10, 11], [2, 3, 12, 13]]


def test_the_share_grows_as_a_cubic() -> None:
    assert shares(0.3, 1) == [pytest.approx(0.3)]
    three = shares(0.6, 3)
    assert three == [pytest.approx(0.6 * (1 - x**3)) for x in (2 / 3, 1 / 3, 0)]
    assert three[1] - three[0] > three[2] - three[1]


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("share", [0.1, 0.3])
def test_the_target_is_met_within_one_unit(name: str, share: float) -> None:
    """And the count that was kept while selecting is that of the model which was cut."""
    model = model_of(name)
    groups = groups_of(model)
    least, total = floors(groups), model.num_parameters
    target = round(total * (1 - share))
    scores = importance(model, groups, "random", seed=3)
    largest = max(float(parameters_of(model, group).max()) for group in groups if group.layer is None)
    chosen = select(model, groups, scores, target=target, least=least)
    cut(model, chosen.removed)
    assert model.num_parameters == chosen.parameters
    assert target - largest < chosen.parameters <= target


@pytest.mark.parametrize("name", ENCODERS)
def test_rounds_reach_the_target_and_keep_the_floors(name: str) -> None:
    model = model_of(name)
    groups = groups_of(model)
    least, total = floors(groups, 0.25), model.num_parameters
    sizes = {group.name: group.units for group in groups}
    reach = 1 - smallest(model, groups, least) / total
    for number, share in enumerate(shares(0.9 * reach, 3)):
        now = groups_of(model)
        scores = importance(model, now, "random", seed=number)
        target = round(total * (1 - share))
        cut(model, select(model, now, scores, target=target, least=least).removed)
        assert model.num_parameters <= target
    left = {group.name: group.units for group in groups_of(model) if group.layer is None}
    assert all(left[n] >= max(1, 0.25 * sizes[n]) for n in left)


def test_what_matters_least_goes_first() -> None:
    model = model_of("conformer")
    groups = [group for group in groups_of(model) if group.kind == "feedforward"]
    scores = {g: torch.arange(g.units, dtype=torch.float32) + 100 * n for n, g in enumerate(groups)}
    each = int(parameters_of(model, groups[0])[0])
    target = model.num_parameters - 5 * each
    chosen = select(model, groups, scores, target=target, least=floors(groups))
    assert dict(chosen.removed) == {groups[0]: (0, 1, 2, 3, 4)}
    scores[groups[0]][:] = float("inf")  # what cannot be judged stays
    chosen = select(model, groups, scores, target=target, least=floors(groups))
    assert dict(chosen.removed) == {groups[1]: (0, 1, 2, 3, 4)}


def test_nothing_goes_below_the_smallest() -> None:
    model = model_of("zipformer")
    groups = groups_of(model)
    least = floors(groups)
    bottom = smallest(model, groups, least)
    for by in ("magnitude", "random"):
        assert by in CRITERIA
        scores = importance(model, groups, by)
        assert select(model, groups, scores, target=0, least=least).parameters >= bottom
    units = [g for g in groups if g.layer is None]
    chosen = select(model, units, importance(model, units, "random"), target=0, least=least)
    cut(model, chosen.removed)
    assert model.num_parameters == chosen.parameters
    assert model_cost(model).macs_per_second > 0  # it still runs


def test_computation_of_a_unit_is_what_its_absence_saves() -> None:
    model = model_of("conformer")
    group = next(g for g in groups_of(model) if g.kind == "feedforward")
    (found,) = macs_of(model, [group]).values()
    smaller = copy.deepcopy(model)
    cut(smaller, {group: range(8)})
    saved = model_cost(model, seconds=2).macs_per_second - model_cost(smaller, seconds=2).macs_per_second
    assert found.tolist() == [pytest.approx(saved / 8)] * group.units
