"""Multiply-accumulates against numbers worked out by hand, and the promises of recipes/reference_1m.toml."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from firstwords.encoders.dnn import Dnn, DnnConfig
from firstwords.encoders.encoder import Encoder
from firstwords.encoders.lstm import Lstm, LstmConfig
from firstwords.encoders.mobilenet import MobileNet, MobileNetConfig
from firstwords.encoders.quartznet import QuartzNet, QuartzNetConfig
from firstwords.encoders.resnet import ResNet, ResNetConfig
from firstwords.encoders.zipformer import Zipformer, ZipformerConfig
from firstwords.errors import ConfigError
from firstwords.model.cost import Cost, count_macs, model_cost
from firstwords.model.recipe import Recipe, read_recipe
from firstwords.model.speech_model import SpeechModel
from firstwords.nn.depthwise import DepthwiseConv
from firstwords.tensors import Padded

RECIPES = Path(__file__).resolve().parents[3] / "recipes"
FRAMES = 1000  # ten seconds


def per_second(encoder: Encoder) -> float:
    """Multiply-accumulates of an encoder alone, per second of ten that it reads."""
    encoder.eval()
    return count_macs(lambda: encoder(Padded(torch.zeros(1, FRAMES, 80), torch.tensor([FRAMES])))) / 10


def test_products_convolutions_attention_and_einsum_are_counted() -> None:
    a, b = torch.ones(2, 3, 4), torch.ones(2, 4, 5)
    assert count_macs(lambda: a @ b) == 2 * 3 * 4 * 5
    assert count_macs(lambda: torch.einsum("bij,bjk->bik", a, b)) == 2 * 3 * 4 * 5
    assert count_macs(lambda: F.linear(a, torch.ones(7, 4), torch.ones(7))) == 6 * 4 * 7
    assert count_macs(lambda: nn.Conv1d(6, 8, 3, groups=2)(torch.ones(2, 6, 10))) == 2 * 8 * 8 * 3 * 3
    q, k, v = torch.ones(2, 4, 6, 8), torch.ones(2, 4, 5, 8), torch.ones(2, 4, 5, 8)
    scores_and_sums = 2 * (2 * 4 * 6 * 5 * 8)
    assert count_macs(lambda: F.scaled_dot_product_attention(q, k, v)) == scores_and_sums
    assert count_macs(lambda: a.exp().sum()) == 0


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_lstm_layers_are_counted_packed_or_not(bidirectional: bool, packed: bool) -> None:
    layer = nn.LSTM(5, 6, num_layers=2, batch_first=True, bidirectional=bidirectional)
    x = torch.ones(3, 7, 5)
    both = 2 if bidirectional else 1
    per_frame = both * 4 * 6 * (5 + 6) + both * 4 * 6 * (both * 6 + 6)
    if packed:
        whole = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([7, 5, 2]), batch_first=True)
        assert count_macs(lambda: layer(whole)) == (7 + 5 + 2) * per_frame
    else:
        assert count_macs(lambda: layer(x)) == 3 * 7 * per_frame


def zipformer_macs(config: ZipformerConfig, frames: int, mels: int) -> int:
    """Layer by layer, from the paper's figures 1 and 2."""
    first, second, third = config.embed_channels
    time, bins = frames - 2, mels  # no padding in time
    macs = time * bins * first * 9
    time, bins = (time - 3) // 2 + 1, (bins - 3) // 2 + 1
    macs += time * bins * second * first * 9
    time, bins = time - 2, (bins - 3) // 2 + 1
    macs += time * bins * third * second * 9
    macs += time * bins * (third * 49 + 2 * third * 3 * third)  # ConvNeXt
    macs += time * bins * third * config.dims[0]
    for i, dim in enumerate(config.dims):
        t = -(-time // config.downsampling[i])
        heads, value = config.heads[i], config.value_head_dim[i]
        query, position = config.query_head_dim[i], config.position_head_dim[i]
        weights = t * dim * heads * (2 * query + position) + heads * t * t * query
        weights += (2 * t - 1) * config.position_dim * heads * position
        # Rows of the position scores are made 128 at a time, each block as wide as its rows reach.
        rows = [min(128, t - start) for start in range(0, t, 128)]
        weights += sum(heads * count * (count + t - 1) * position for count in rows)
        attention = 2 * (2 * t * dim * heads * value + heads * t * t * value)
        hidden = 3 * dim // 4
        nonlinear = t * dim * 3 * hidden + t * t * hidden + t * hidden * dim
        convolution = 2 * (t * dim * 2 * dim + t * dim * config.kernels[i] + t * dim * dim)
        width = config.feedforward[i]
        feed = sum(2 * t * dim * size for size in (width * 3 // 4, width, width * 5 // 4))
        macs += config.layers[i] * (weights + attention + nonlinear + convolution + feed)
    return macs


@pytest.mark.parametrize("size", ["tiny", "S"])
def test_zipformer_costs_what_its_layers_add_up_to(size: str) -> None:
    """With everything that happens inside its own autograd functions (nn/sharing.py)."""
    config = ZipformerConfig.preset(size)
    encoder = Zipformer(config, 80)
    found = per_second(encoder)
    assert found == pytest.approx(zipformer_macs(config, FRAMES, 80) / 10, rel=1e-9)
    if size == "S":  # published: 1.22 GFLOP, counted by another tool
        assert Cost(0, found).flops_per_second == pytest.approx(1.22e9, rel=0.02)


def test_quartznet_costs_what_its_layers_add_up_to() -> None:
    config = QuartzNetConfig(
        channels=(8, 12), kernels=(5, 7), blocks=(1, 2), repeats=3, last=(14, 10), last_kernel=9
    )
    macs = 500 * 80 * (11 + 8) + 250 * 8 * (11 + 8)
    for dim, out, kernel in ((8, 8, 5), (8, 12, 7), (12, 12, 7)):
        macs += 250 * (dim * (kernel + out) + 2 * out * (kernel + out) + dim * out)
    macs += 250 * (12 * (9 + 14) + 14 * 10)
    assert per_second(QuartzNet(config)) == macs / 10


def test_mobilenet_costs_what_its_layers_add_up_to() -> None:
    config = MobileNetConfig(
        channels=(8, 12), blocks=(1, 2), kernels=(5, 7), strides=(2, 2), expansion=4, out=16
    )
    macs = FRAMES * 80 * 8
    for dim, out, kernel, before, after in (
        (8, 8, 5, 1000, 500),
        (8, 12, 7, 500, 250),
        (12, 12, 7, 250, 250),
    ):
        wide = 4 * dim
        macs += before * dim * wide + after * wide * (kernel + out) + 2 * wide * (wide // 4)
    macs += 250 * 12 * 16
    assert per_second(MobileNet(config)) == macs / 10


def test_resnet_costs_what_its_layers_add_up_to() -> None:
    config = ResNetConfig(channels=(4, 6), blocks=(1, 2), strides=(2, 1, 2), out=10)
    macs = 500 * 40 * 4 * 9
    macs += 500 * 40 * 2 * 4 * 4 * 9
    macs += 250 * 20 * (6 * 4 * 9 + 6 * 6 * 9 + 6 * 4)
    macs += 250 * 20 * 2 * 6 * 6 * 9
    macs += 250 * 20 * 6 * 10
    assert per_second(ResNet(config)) == macs / 10


def test_separable_resnet_costs_what_its_layers_add_up_to() -> None:
    config = ResNetConfig(channels=(4, 6), blocks=(1, 2), strides=(2, 1, 2), out=10, separable=True)
    macs = 500 * 40 * 4 * 9
    macs += 500 * 40 * 2 * 4 * (9 + 4)
    macs += 250 * 20 * (4 * (9 + 6) + 6 * (9 + 6) + 6 * 4)
    macs += 250 * 20 * 2 * 6 * (9 + 6)
    macs += 250 * 20 * 6 * 10
    assert per_second(ResNet(config)) == macs / 10


@pytest.mark.parametrize("bidirectional", [False, True])
def test_lstm_costs_what_its_layers_add_up_to(bidirectional: bool) -> None:
    config = LstmConfig(hidden=8, layers=2, bidirectional=bidirectional)
    both = 2 if bidirectional else 1
    macs = 250 * both * 4 * 8 * ((6 * 80 + 8) + (both * 8 + 8))
    assert per_second(Lstm(config)) == macs / 10


def test_dnn_costs_what_its_layers_add_up_to() -> None:
    config = DnnConfig(context=3, hidden=12, layers=3)
    assert per_second(Dnn(config)) == 25 * (7 * 80 * 12 + 2 * 12 * 12)


def test_a_separable_convolution_takes_at_least_four_times_less_than_a_plain_one() -> None:
    """Mission: MobileNet's reason to be. 160 channels, kernel 17, in parameters and in work."""
    plain = nn.Conv1d(160, 160, 17, padding=8, bias=False)
    depthwise, pointwise = DepthwiseConv(160, 17), nn.Linear(160, 160, bias=False)
    x = torch.ones(1, 100, 160)
    separable = count_macs(lambda: pointwise(depthwise(x)))
    assert 4 * separable <= count_macs(lambda: plain(x.transpose(1, 2)))
    assert 4 * (depthwise.weight.numel() + pointwise.weight.numel()) <= plain.weight.numel()


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_recipes_can_be_read(path: Path) -> None:
    if path.stem == "ctc":  # a base
        with pytest.raises(ConfigError, match="encoder"):
            read_recipe(path)
    else:
        named = (path.stem, path.stem.removesuffix("_hour"), path.stem.removesuffix("_voices"))
        assert read_recipe(path).encoder.kind in (*named, "zipformer", "listener")


def test_reference_1m_has_a_million_parameters_and_at_most_half_a_giga_mac() -> None:
    recipe = read_recipe(RECIPES / "reference_1m.toml")
    cost = model_cost(SpeechModel(recipe, 40))
    assert 0.95e6 <= cost.parameters <= 1.05e6
    assert cost.macs_per_second <= 0.5e9
    assert cost.parameters == pytest.approx(1.00e6, rel=0.01)  # the figures in the recipe's head
    assert cost.macs_per_second == pytest.approx(0.034e9, rel=0.015)


def test_a_models_cost_is_encoder_and_head() -> None:
    recipe = Recipe.model_validate(
        {"encoder": {"kind": "dnn", "hidden": 12, "layers": 1}, "heads": {"ctc": {}}}
    )
    model = SpeechModel(recipe, 41)
    cost = model_cost(model)
    assert cost.macs_per_second == per_second(model.encoder) + 25 * 12 * 41
    assert cost.parameters == model.num_parameters == sum(p.numel() for p in model.parameters())
    assert cost.flops_per_second == 2 * cost.macs_per_second
    assert model.training
