"""Importance of units against finite differences, numbers by hand, and chance."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from firstwords.compression.families import groups_of
from firstwords.compression.gates import gated
from firstwords.compression.groups import Group
from firstwords.compression.importance import (
    CRITERIA,
    LossOf,
    importance,
    parameters_of,
    weight_scores,
)
from firstwords.encoders.conformer import ConformerConfig
from firstwords.encoders.dnn import DnnConfig
from firstwords.encoders.e_branchformer import EBranchformerConfig
from firstwords.encoders.lstm import LstmConfig
from firstwords.encoders.mobilenet import MobileNetConfig
from firstwords.encoders.quartznet import QuartzNetConfig
from firstwords.model.speech_model import SpeechModel
from firstwords.nn.subsampling import SubsamplingConfig
from firstwords.tensors import Padded
from small_zipformer import SMALL
from tone_corpus import tone_recipe

SMALL_STACK = {
    "dim": 12, "layers": 2, "heads": 2, "feedforward": 8, "subsampling": SubsamplingConfig(channels=3)
}  # fmt: skip
ENCODERS = {
    "zipformer": SMALL,
    "conformer": ConformerConfig(**SMALL_STACK, kernel=5),  # pyright: ignore[reportArgumentType]
    "e_branchformer": EBranchformerConfig(**SMALL_STACK, gate_width=8, kernel=3, merge_kernel=3),  # pyright: ignore[reportArgumentType]
    "lstm": LstmConfig(hidden=5, layers=2),
    "dnn": DnnConfig(hidden=6, layers=2, context=2),
    "mobilenet": MobileNetConfig(channels=(4, 6), blocks=(2, 1), kernels=(3, 5), strides=(2, 2), out=8),
    "quartznet": QuartzNetConfig(
        channels=(5,), kernels=(5,), blocks=(1,), last=(6, 7), repeats=2, subsampling=2
    ),
}


def tiny(name: str) -> SpeechModel:
    """In float64, so that differences can be small."""
    torch.manual_seed(5)
    recipe = tone_recipe().model_copy(update={"encoder": ENCODERS[name]})
    model = SpeechModel(recipe, 6).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def loss_of(model: SpeechModel, seed: int) -> LossOf:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(2, 70, model.frontend.dim, generator=generator, dtype=torch.float64)
    wanted = torch.randn(1, generator=generator, dtype=torch.float64)

    def loss() -> Tensor:
        encoded = model.encoder(Padded(frames, torch.tensor([70, 51]))).values
        return (encoded * wanted).sin().square().sum()

    return loss


@pytest.mark.parametrize("name", ENCODERS)
def test_taylor_is_the_slope_of_the_loss_along_each_gate(name: str) -> None:
    model = tiny(name)
    losses = [loss_of(model, 1), loss_of(model, 2)]
    groups = groups_of(model)
    scores = importance(model, groups, "taylor", losses)
    step = 1e-5
    for group in groups[:: max(1, len(groups) // 12)]:
        for unit in {0, group.units - 1}:
            slopes: list[float] = []
            for loss in losses:
                found: list[float] = []
                for side in (step, -step):
                    gate = torch.ones(group.units, dtype=torch.float64)
                    gate[unit] += side
                    with gated(model, {group: gate}), torch.no_grad():
                        found.append(float(loss()))
                slopes.append(abs(found[0] - found[1]) / (2 * step))
            expected = sum(slopes) / len(slopes)
            assert float(scores[group][unit]) == pytest.approx(expected, rel=2e-3, abs=1e-5), group.name
    assert all(p.grad is None for p in model.parameters())


def of(groups: list[Group], part: str) -> Group:
    return next(group for group in groups if part in group.name)


def test_magnitude_and_number_of_parameters_by_hand() -> None:
    model = tiny("conformer")
    group = of(groups_of(model), "layers.0.feed_in")
    feed = model.get_submodule("encoder.layers.0.feed_in")
    w1, b1 = feed.get_parameter("in_proj.weight"), feed.get_parameter("in_proj.bias")
    w2 = feed.get_parameter("out_proj.weight")
    expected = w1.square().sum(1) + b1.square() + w2.square().sum(0)
    torch.testing.assert_close(importance(model, [group], "magnitude")[group], expected.float())
    assert parameters_of(model, group).tolist() == [12 + 1 + 12] * 8
    heads = of(groups_of(model), "heads")  # 6 wide: q, k, v rows and biases, positions, u, v, out columns
    assert parameters_of(model, heads).tolist() == [3 * 6 * 13 + 6 * 12 + 2 * 6 + 12 * 6] * 2
    layer = of(groups_of(model), "layers.1: layer")
    inside = sum(p.numel() for p in model.get_submodule("encoder.layers.1").parameters())
    assert parameters_of(model, layer).tolist() == [inside]


def test_movement_is_minus_weight_times_slope() -> None:
    model = tiny("dnn")
    (group,) = groups_of(model)
    losses = [loss_of(model, 1), loss_of(model, 2)]
    found = importance(model, [group], "movement", losses)[group]
    sum(loss() for loss in losses).backward()  # pyright: ignore[reportAttributeAccessIssue]
    one, norm, two = (model.get_submodule(f"encoder.{n}") for n in ("layers.0", "norms.0", "layers.1"))
    parts = [
        *((p.detach() * p.grad).flatten(1).sum(1) for p in one.parameters() if p.grad is not None),
        *((p.detach() * p.grad) for p in norm.parameters() if p.grad is not None),
        *((p.detach() * p.grad).sum(0) for p in two.parameters() if p.grad is not None),
    ]
    torch.testing.assert_close(found, -torch.stack(parts).sum(0).float(), rtol=1e-4, atol=1e-5)


def test_units_that_never_act_have_no_activation() -> None:
    model = tiny("conformer")
    groups = groups_of(model)
    group = of(groups, "layers.0.feed_in")
    with torch.no_grad():
        feed = model.get_submodule("encoder.layers.0.feed_in")
        feed.get_parameter("in_proj.weight")[3] = 0.0
        feed.get_parameter("in_proj.bias")[3] = 0.0
    scores = importance(model, groups, "activation", [loss_of(model, 1)])
    assert scores[group][3] == 0.0
    assert (scores[group][[0, 1, 2, 4, 5, 6, 7]] > 0.2).all()
    assert scores[group].max() <= 1.0
    assert all(math.isinf(float(scores[g][0])) for g in groups if g.layer is not None)


def test_random_is_seeded_and_like_no_other() -> None:
    model = tiny("conformer")
    groups = groups_of(model)
    one, two, other = (importance(model, groups, "random", seed=s) for s in (1, 1, 2))
    assert all(torch.equal(one[g], two[g]) for g in groups)
    assert not any(torch.equal(one[g], other[g]) for g in groups)
    losses = [loss_of(model, 1)]
    group = of(groups, "layers.0.feed_in")
    orders = {by: importance(model, groups, by, losses)[group].argsort().tolist() for by in CRITERIA}
    assert all(orders["random"] != order for by, order in orders.items() if by != "random")


def test_single_weights() -> None:
    model = tiny("dnn")
    losses = [loss_of(model, 1)]
    scores = {by: weight_scores(model, by, losses, seed=1) for by in ("taylor", "magnitude", "movement")}
    name = "encoder.layers.0.weight"
    losses[0]().backward()
    w = model.get_parameter(name)
    assert w.grad is not None
    torch.testing.assert_close(scores["taylor"][name], (w * w.grad).abs().detach())
    torch.testing.assert_close(scores["movement"][name], -(w * w.grad).detach())
    torch.testing.assert_close(scores["magnitude"][name], w.abs().detach())
    assert "encoder.norms.0.weight" not in scores["taylor"]
