"""Attention, positions, subsampling and dropout against plain loops and torch's own modules."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from firstwords.errors import ConfigError
from firstwords.nn.attention import RelativeSelfAttention, SelfAttention
from firstwords.nn.convolution import ConvolutionModule, DepthwiseOverTime
from firstwords.nn.dropout import Dropout, skip_for_some
from firstwords.nn.input_norm import InputNorm
from firstwords.nn.positions import LearnedPositions, SinusoidalPositions, distances, sinusoids
from firstwords.nn.subsampling import Subsampling, SubsamplingConfig
from firstwords.tensors import Padded, pad, real_frames

DIM, HEADS = 8, 2


def transformer_xl(attention: RelativeSelfAttention, x: Tensor, seen: list[list[int]]) -> Tensor:
    """arXiv:1901.02860, section 3.3, one frame after the other; ``seen`` are the sources of each frame."""
    width, time = DIM // HEADS, len(x)
    q, k, v = F.linear(x, attention.in_proj.weight, attention.in_proj.bias).split(DIM, dim=1)
    out = torch.zeros(time, DIM, dtype=x.dtype)
    for head in range(HEADS):
        part = slice(head * width, (head + 1) * width)
        u, w = attention.content_bias[part], attention.position_bias[part]
        for i in range(time):
            scores = []
            for j in seen[i]:
                place = torch.tensor([float(i - j)])
                r = attention.position_proj(sinusoids(place, DIM).to(x.dtype)[0])[part]
                scores.append(((q[i, part] + u) @ k[j, part] + (q[i, part] + w) @ r) / math.sqrt(width))
            weights = torch.stack(scores).softmax(0)
            out[i, part] = sum(p * v[j, part] for p, j in zip(weights, seen[i], strict=True))  # type: ignore[assignment]
    return attention.out_proj(out)


def relative() -> RelativeSelfAttention:
    torch.manual_seed(2)
    return RelativeSelfAttention(DIM, HEADS).double()


def test_relative_attention_is_that_of_the_paper() -> None:
    attention, x = relative(), torch.randn(2, 6, DIM, dtype=torch.float64)
    real = real_frames(torch.tensor([6, 4]), 6)
    ours = attention(x, distances(6, 6, DIM, x), ~real[:, None, None])
    for row, length in enumerate((6, 4)):
        theirs = transformer_xl(attention, x[row, :length], [list(range(length))] * length)
        torch.testing.assert_close(ours[row, :length], theirs, rtol=0, atol=1e-7)  # sinusoids are float32


def test_relative_attention_step_sees_what_was_cached() -> None:
    attention, x = relative(), torch.randn(1, 7, DIM, dtype=torch.float64)
    _, cache = attention.step(
        x[:, :4],
        distances(4, 8, DIM, x),
        torch.zeros(1, 4, 2 * DIM, dtype=torch.float64),
        torch.arange(8)[None, None, None] < 4,
    )
    ours, after = attention.step(
        x[:, 4:], distances(3, 7, DIM, x), cache, torch.zeros(1, 1, 1, 7, dtype=torch.bool)
    )
    theirs = transformer_xl(attention, x[0], [list(range(7))] * 7)
    torch.testing.assert_close(ours[0], theirs[4:], rtol=0, atol=1e-7)
    assert after.shape == cache.shape


def test_plain_attention_is_torchs_own() -> None:
    torch.manual_seed(2)
    theirs = nn.MultiheadAttention(DIM, HEADS, batch_first=True)
    ours = SelfAttention(DIM, HEADS)
    ours.load_state_dict(
        {
            "in_proj.weight": theirs.in_proj_weight,
            "in_proj.bias": torch.randn(3 * DIM),
            "out_proj.weight": theirs.out_proj.weight,
            "out_proj.bias": torch.randn(DIM),
        }
    )
    theirs.load_state_dict(
        {
            "in_proj_weight": theirs.in_proj_weight,
            "in_proj_bias": ours.in_proj.bias,
            "out_proj.weight": theirs.out_proj.weight,
            "out_proj.bias": ours.out_proj.bias,
        }
    )
    x, padded = torch.randn(2, 6, DIM), ~real_frames(torch.tensor([6, 4]), 6)
    expected, _ = theirs(x, x, x, key_padding_mask=padded)
    torch.testing.assert_close(ours(x, padded[:, None, None]), expected, rtol=0, atol=1e-6)


def test_an_utterance_without_frames_gives_no_nan_nor_its_gradient() -> None:
    hidden = torch.ones(1, 1, 1, 3, dtype=torch.bool)
    for attention, extra in ((SelfAttention(DIM, HEADS), ()), (RelativeSelfAttention(DIM, HEADS), (1,))):
        x = torch.randn(1, 3, DIM, requires_grad=True)
        positions = [distances(3, 3, DIM, x) for _ in extra]
        attention(x, *positions, hidden).sum().backward()
        assert x.grad is not None
        assert bool(x.grad.isfinite().all())


def test_sinusoids_by_hand() -> None:
    table = sinusoids(torch.tensor([0.0, 3.0, -3.0]), 4)
    row = [math.sin(3), math.cos(3), math.sin(0.03), math.cos(0.03)]
    torch.testing.assert_close(table[0], torch.tensor([0.0, 1.0, 0.0, 1.0]))
    torch.testing.assert_close(table[1], torch.tensor(row))
    torch.testing.assert_close(table[2], torch.tensor([-row[0], row[1], -row[2], row[3]]))
    x = torch.zeros(1, 4, 4)
    torch.testing.assert_close(SinusoidalPositions()(x)[0, 3], torch.tensor(row))
    torch.testing.assert_close(distances(2, 3, 4, x), sinusoids(torch.tensor([2.0, 1.0, 0.0, -1.0]), 4))


def test_learned_positions_end_with_their_table() -> None:
    positions = LearnedPositions(5, 4)
    x = torch.zeros(2, 5, 4)
    assert torch.equal(positions(x)[1], positions.table)
    with pytest.raises(ConfigError, match=r"6 frames are more than the 5 positions .*\n.*max_frames"):
        positions(torch.zeros(2, 6, 4))


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_subsampling_is_a_chain_of_torch_convolutions(
    factor: Literal[2, 4, 8], separable: bool, norm: Literal["batch", "layer"]
) -> None:
    torch.manual_seed(1)
    ours = Subsampling(SubsamplingConfig(factor=factor, channels=6, separable=separable, norm=norm), 40, 10)
    x = torch.randn(2, 50, 40)
    ours.input_norm.eval()
    y = ours.first(x.unsqueeze(1)).relu()
    for n, layer in enumerate(ours.strided):
        y = layer(y)
        if separable:
            point = ours.pointwise[n]
            y = F.conv2d(y, point.weight[:, :, None, None], point.bias)  # type: ignore[index, arg-type]
        y = y.relu()
    y = ours.out(y.permute(0, 2, 3, 1).flatten(2))
    if norm == "layer":
        expected = F.layer_norm(y, (10,))
    else:
        expected = F.batch_norm(y.transpose(1, 2), None, None, training=True).transpose(1, 2)
    found = ours(Padded(x, torch.tensor([50, 50])))
    # the input norm divides by sqrt(1 + 1e-5); over utterances a variance of 0.001 makes that 1 % of eps
    torch.testing.assert_close(found.values, expected, rtol=0, atol=5e-5 if norm == "layer" else 5e-4)
    assert found.lengths.tolist() == [expected.shape[1]] * 2


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_windows_of_subsampling_join(factor: int) -> None:
    config = SubsamplingConfig(factor=factor, channels=4, separable=True)  # type: ignore[arg-type]
    subsampling, x = Subsampling(config, 40, 10).eval(), torch.randn(1, config.window(9), 40)
    whole = subsampling(Padded(x, torch.tensor([x.shape[1]])))
    assert whole.lengths.tolist() == [9]
    assert config.output_lengths(torch.tensor([x.shape[1] - 1])).tolist() == [8]
    parts = [x[:, factor * at : factor * at + config.window(3)] for at in (0, 3, 6)]
    joined = torch.cat([subsampling(Padded(p, torch.tensor([p.shape[1]]))).values for p in parts], dim=1)
    torch.testing.assert_close(joined, whole.values, rtol=0, atol=1e-5)


def test_too_few_features_for_the_factor_are_refused() -> None:
    with pytest.raises(ConfigError, match="13 features per frame are too few for a subsampling by 8"):
        Subsampling(SubsamplingConfig(factor=8), 13, 10)
    Subsampling(SubsamplingConfig(factor=8), 15, 10)


def test_input_norm_knows_all_real_frames_that_training_heard() -> None:
    torch.manual_seed(0)
    norm = InputNorm(3)
    parts = [torch.randn(n, 3) * torch.tensor([1.0, 4.0, 0.1]) - 8 for n in (40, 7, 300)]
    assert torch.equal(
        norm.eval()(Padded(parts[0][None], torch.tensor([40]))), parts[0][None] / (1 + 1e-5) ** 0.5
    )
    norm.train()
    norm(pad(parts[:2], 99.0))
    norm(Padded(torch.zeros(1, 5, 3), torch.tensor([0])))
    last = norm(pad(parts[2:]))
    heard = torch.cat(parts)
    deviation = heard.std(dim=0, correction=0)
    torch.testing.assert_close(norm.mean, heard.mean(dim=0))
    torch.testing.assert_close(norm.variance, deviation.square())
    expected = (parts[2] - heard.mean(dim=0)) / (deviation.square() + 1e-5).sqrt()
    torch.testing.assert_close(last[0], expected, rtol=1e-4, atol=1e-4)
    before = norm.mean.clone()
    torch.testing.assert_close(norm.eval()(pad(parts[2:])), last, rtol=0, atol=0)
    assert torch.equal(norm.mean, before)


@pytest.mark.parametrize("causal", [False, True])
def test_depthwise_convolution_over_time(causal: bool) -> None:
    layer, x = DepthwiseOverTime(3, 5, causal=causal), torch.randn(2, 9, 3)
    real = real_frames(torch.tensor([9, 6]), 9)
    zeroed = x * real.unsqueeze(2)
    around = (4, 0) if causal else (2, 2)
    expected = layer.conv(F.pad(zeroed.transpose(1, 2), around)).transpose(1, 2)
    torch.testing.assert_close(layer(x, real), expected, rtol=0, atol=1e-6)
    if causal:
        cache, parts = torch.zeros(2, 4, 3), []
        for part in (slice(0, 1), slice(1, 4), slice(4, 9)):
            y, cache = layer.step(x[:, part], cache, real[:, part])
            parts.append(y)
        torch.testing.assert_close(torch.cat(parts, dim=1), expected, rtol=0, atol=1e-6)


def test_batch_statistics_of_the_convolution_module_ignore_padding() -> None:
    torch.manual_seed(4)
    modules = [ConvolutionModule(DIM, 3, norm="batch") for _ in range(2)]
    modules[1].load_state_dict(modules[0].state_dict())
    x = torch.randn(1, 7, DIM)
    alone = modules[0](x)
    padded = torch.cat((x, torch.full((1, 30, DIM), 9.0)), dim=1)
    together = modules[1](padded, real_frames(torch.tensor([7]), 37))
    torch.testing.assert_close(together[:, :7], alone, rtol=0, atol=1e-6)
    for one, other in zip(modules[0].buffers(), modules[1].buffers(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(probability: float, dtype: torch.dtype) -> None:
    dropout = Dropout(probability)
    torch.manual_seed(0)
    x = torch.ones(100, 1003, dtype=dtype, requires_grad=True)
    y = dropout(x)
    share = round(256 * probability) / 256
    zeros = y == 0
    # 5 standard deviations of a share of 100300 draws; every place of a random word, every row and column
    assert float(zeros.float().mean()) == pytest.approx(
        share, abs=5 * (share * (1 - share) / y.numel()) ** 0.5
    )
    by_place = zeros.flatten()[: 8 * 12000].view(-1, 8).float().mean(dim=0)
    assert by_place.sub(share).abs().max() < 5 * (share * (1 - share) / 12000) ** 0.5
    torch.testing.assert_close(y[~zeros], torch.full_like(y[~zeros], 1 / (1 - share)))
    y.backward(torch.full_like(y, 2.0))
    assert x.grad is not None
    assert torch.equal(x.grad, 2 * y.detach())
    torch.manual_seed(0)
    assert torch.equal(dropout(x), y)
    assert not torch.equal(dropout(x), y)
    assert dropout.eval()(x) is x


def test_skipped_utterances_keep_what_went_in() -> None:
    torch.manual_seed(0)
    before, after = torch.zeros(4000, 1, 2), torch.ones(4000, 1, 2)
    mixed = skip_for_some(before, after, 0.25)
    assert torch.equal(mixed[..., 0], mixed[..., 1])
    assert float(mixed.mean()) == pytest.approx(0.75, abs=0.035)  # 5 standard deviations
    assert skip_for_some(before, after, 0.0) is after
