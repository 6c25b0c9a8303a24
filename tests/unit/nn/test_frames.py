"""Depthwise convolution and splicing against plain loops; the bidirectional LSTM against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from firstwords.nn.depthwise import DepthwiseConv
from firstwords.nn.frames import enter, mask_of, splice, strided
from firstwords.nn.recurrent import BidirectionalLstm, turn
from firstwords.tensors import Padded, pad


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (3, 1), (1, 2), (2, 3)])
@pytest.mark.parametrize("time", [1, 6, 7])
def test_depthwise_convolution_is_a_weighted_sum_around_each_frame(
    stride: int, dilation: int, time: int
) -> None:
    torch.manual_seed(1)
    layer = DepthwiseConv(3, 5, stride=stride, dilation=dilation).requires_grad_(False)
    x = noise(2, time, 3)
    y = layer(x)
    assert y.shape == (2, int(strided(torch.tensor([time]), stride)[0]), 3)
    for b, t, c in [(b, t, c) for b in range(2) for t in range(y.shape[1]) for c in range(3)]:
        total = 0.0
        for k in range(5):
            source = t * stride + (k - 2) * dilation
            if 0 <= source < time:
                total += float(layer.weight[c, 0, k] * x[b, source, c])
        assert float(y[b, t, c]) == pytest.approx(total, abs=1e-5)


@pytest.mark.parametrize(
    ("before", "after", "stride"), [(0, 0, 1), (2, 1, 1), (0, 3, 2), (3, 3, 4), (0, 0, 3)]
)
@pytest.mark.parametrize("time", [1, 4, 9])
def test_spliced_frames_lie_side_by_side(before: int, after: int, stride: int, time: int) -> None:
    x = noise(2, time, 3)
    y = splice(x, before, after, stride)
    assert y.shape == (2, -(-time // stride), (before + 1 + after) * 3)
    for t in range(y.shape[1]):
        for place, source in enumerate(range(t * stride - before, t * stride + after + 1)):
            expected = x[:, source] if 0 <= source < time else torch.zeros(2, 3)
            assert torch.equal(y[:, t, place * 3 : place * 3 + 3], expected)


def test_turning_reverses_each_sequence_and_leaves_padding() -> None:
    x = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0], [0, 0, 0, 0]]).unsqueeze(-1)
    lengths = torch.tensor([4, 2, 0])
    turned = turn(x.float(), lengths)
    assert turned.squeeze(-1).tolist() == [[4, 3, 2, 1], [6, 5, 0, 0], [0, 0, 0, 0]]
    assert torch.equal(turn(turned, lengths), x.float())


def test_bidirectional_lstm_is_torchs_on_each_utterance_alone() -> None:
    torch.manual_seed(1)
    ours, theirs = BidirectionalLstm(5, 4), nn.LSTM(5, 4, batch_first=True, bidirectional=True)
    weights = dict(ours.forward_lstm.named_parameters())
    weights |= {f"{name}_reverse": value for name, value in ours.backward_lstm.named_parameters()}
    theirs.load_state_dict(weights)
    utterances = [noise(n, 5) for n in (7, 3, 1, 6)]
    batch = pad(utterances, 50.0)
    y = ours(batch.values, batch.lengths)
    for row, utterance in enumerate(utterances):
        expected, _ = theirs(utterance[None])
        torch.testing.assert_close(y[row, : len(utterance)], expected[0])


def test_entering_zeroes_padding_and_leaves_at_least_one_frame() -> None:
    x = enter(Padded(torch.full((2, 3, 2), 7.0), torch.tensor([3, 1])))
    assert x.values[1].tolist() == [[7, 7], [0, 0], [0, 0]]
    assert enter(Padded(torch.zeros(2, 0, 2), torch.tensor([0, 0]))).values.shape == (2, 1, 2)
    assert mask_of(torch.tensor([3, 3]), 3) is None
    mask = mask_of(torch.tensor([3, 1]), 3)
    assert mask is not None
    assert mask.tolist() == [[True] * 3, [True, False, False]]
