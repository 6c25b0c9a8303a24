"""What learns while a model is quantized: gradients of centroids, rounding that is that of real 8 bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from firstwords.compression.calibration import MagnitudeHistogram, input_scales
from firstwords.compression.learned import RoundedInput, learned_state, round_layers, share_weights
from firstwords.model.speech_model import SpeechModel
from firstwords.model.storage import Storage, restored
from firstwords.nn.int8 import Int8Linear, channel_scales
from firstwords.tensors import Padded
from tone_corpus import tone_recipe


def small_net() -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


KMEANS = Storage(kind="kmeans", bits=2, rows=3)


def test_shared_weights_are_what_storage_gives() -> None:
    net = small_net()
    plan = {"0.weight": KMEANS, "2.weight": Storage(kind="int8")}
    names = list(net.state_dict())
    expected = restored({"w": net[0].weight.detach()}, {"w": KMEANS})["w"]
    assert share_weights(net, plan) == ["0.weight"]  # int8 has no centroids
    torch.testing.assert_close(net[0].weight.detach(), expected, rtol=0, atol=0)
    state = learned_state(net, names)
    assert list(state) == names
    torch.testing.assert_close(state["0.weight"], expected, rtol=0, atol=0)


def test_the_gradient_of_a_centroid_is_the_sum_over_its_weights() -> None:
    """Against finite differences in float64, and against dL/dw summed by hand."""
    net = small_net()
    share_weights(net, {"0.weight": KMEANS})
    net.double()
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(1)).double()
    shared = net[0].parametrizations.weight
    books = shared.original
    assert books.shape == (3, 4)  # 8 rows in groups of 3, 2 bits

    def loss() -> torch.Tensor:
        return net(x).square().sum()

    loss().backward()
    found = books.grad.clone()
    step = 1e-6
    with torch.no_grad():
        for group in range(3):
            for place in range(4):
                books[group, place] += step
                above = float(loss())
                books[group, place] -= 2 * step
                below = float(loss())
                books[group, place] += step
                assert float(found[group, place]) == pytest.approx((above - below) / (2 * step), abs=1e-5)
    weight = net[0].weight.detach().requires_grad_()
    y = torch.nn.functional.linear(x, weight, net[0].bias.detach())
    net[2](torch.tanh(y)).square().sum().backward()
    indices = shared[0].indices.long()
    by_hand = torch.zeros(12, dtype=torch.float64)
    for number, gradient in zip(indices.tolist(), weight.grad.flatten().tolist(), strict=True):
        by_hand[number] += gradient
    torch.testing.assert_close(found.flatten(), by_hand)


def test_recurrent_layers_are_left_alone() -> None:
    lstm = nn.Sequential(nn.LSTM(4, 4))
    names = list(lstm.state_dict())
    assert share_weights(lstm, {"0.weight_ih_l0": KMEANS, "0.bias_ih_l0": Storage(kind="fp16")}) == []
    before = learned_state(lstm, names)
    optimizer = torch.optim.AdamW(lstm.parameters(), lr=0.1)
    lstm(torch.ones(2, 3, 4))[0].square().sum().backward()
    optimizer.step()
    moved = {name for name, tensor in learned_state(lstm, names).items() if not tensor.equal(before[name])}
    assert moved == {"0.weight_hh_l0", "0.bias_ih_l0", "0.bias_hh_l0"}


def test_rounded_layers_compute_what_8_bit_integers_do() -> None:
    net = small_net()
    x = 3 * torch.randn(20, 6, generator=torch.Generator().manual_seed(4))
    scale = 0.02  # clips what is beyond 2.54
    real = Int8Linear(net[0], scale)
    (rounded,) = round_layers(net, {"0": scale})
    net.eval()
    assert isinstance(rounded, RoundedInput)
    torch.testing.assert_close(net[0](x), real(x), rtol=1e-5, atol=1e-5)
    # and so does the layer that is made of the weights it leaves behind
    state = learned_state(net, ["0.weight", "0.bias"])
    layer = nn.Linear(6, 8)
    kept = restored({"weight": state["0.weight"]}, {"weight": Storage(kind="int8")})
    layer.load_state_dict({"weight": kept["weight"], "bias": state["0.bias"]})
    torch.testing.assert_close(net[0](x), Int8Linear(layer, rounded.value)(x), rtol=1e-5, atol=1e-5)


def test_gradients_pass_the_rounding_but_not_the_clipping() -> None:
    net = nn.Sequential(nn.Linear(3, 2))
    round_layers(net, {"0": 0.01})
    x = torch.tensor([[0.5, 5.0, -5.0]], requires_grad=True)  # 1.27 is the largest that is not clipped
    net.eval()
    net(x).sum().backward()
    original = net[0].parametrizations.weight.original
    rounded = net[0].weight.detach()
    torch.testing.assert_close(x.grad[0], torch.tensor([float(rounded[:, 0].sum()), 0.0, 0.0]))
    clipped = torch.tensor([0.5, 1.27, -1.27]).expand(2, 3)
    torch.testing.assert_close(original.grad, clipped, rtol=1e-5, atol=1e-6)
    step = channel_scales(original)
    torch.testing.assert_close(rounded / step[:, None], (original / step[:, None]).round().detach())


def test_the_scale_of_an_input_follows_until_it_is_frozen() -> None:
    rounded = RoundedInput(1.0)
    x = torch.full((10, 10), 254.0)
    rounded.train()
    rounded(x)
    assert rounded.value == pytest.approx(1.0 + 0.01 * (2.0 - 1.0))
    rounded.frozen = True
    rounded(x)
    assert rounded.value == pytest.approx(1.01)
    rounded.frozen = False
    rounded.eval()
    rounded(x)
    assert rounded.value == pytest.approx(1.01)


@pytest.mark.parametrize("percent", [50.0, 99.0, 99.99])
def test_percentiles_of_a_histogram_that_grows(percent: float) -> None:
    draw = np.random.default_rng(0)
    parts = [draw.standard_t(3, size=size) * scale for size, scale in ((1, 1e-3), (5000, 1.0), (20000, 7.0))]
    histogram = MagnitudeHistogram()
    for part in parts:
        histogram.add(torch.from_numpy(part))
    everything = np.abs(np.concatenate(parts))
    expected = np.quantile(everything, percent / 100, method="inverted_cdf")
    found = histogram.percentile(percent)
    assert expected * (1 - 1e-6) <= found <= expected + 1.001 * histogram.width
    assert histogram.width < everything.max() / 2000
    assert int(histogram.counts.sum()) == len(everything)


def test_silence_and_what_is_no_number_make_no_scale() -> None:
    histogram = MagnitudeHistogram()
    histogram.add(torch.zeros(5))
    histogram.add(torch.zeros(0, 3))
    histogram.add(torch.tensor([float("nan"), float("inf")]))
    assert histogram.percentile(99.99) == 0.0
    histogram.add(torch.tensor([-2.0]))
    assert histogram.percentile(99.99) == pytest.approx(2.0)


def test_scales_of_inputs_come_from_what_layers_hear() -> None:
    torch.manual_seed(0)
    model = SpeechModel(tone_recipe(), 9).eval()
    name = "encoder.stacks.0.layers.0.feed_forward1.in_proj"
    heard: list[torch.Tensor] = []
    hook = model.get_submodule(name).register_forward_pre_hook(lambda m, given: heard.append(given[0]))
    clips = [Padded(torch.randn(1, size), torch.tensor([size])) for size in (8000, 12000)]
    with torch.no_grad():
        for clip in clips:
            model.encode(clip)
    hook.remove()
    scales = input_scales(model, [name], clips, percent=100.0)
    largest = max(float(x.abs().max()) for x in heard)
    assert scales[name] == pytest.approx(largest / 127, rel=2e-3)
    assert not model.get_submodule(name)._forward_pre_hooks
