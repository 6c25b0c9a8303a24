"""The listener: packed sequences give the same numbers, pairs are joined, rates halve."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from firstwords.encoders.listener import Listener, ListenerConfig, in_pairs
from firstwords.nn.recurrent import BidirectionalLstm
from firstwords.tensors import Padded, pad, zero_padding


def sequences(*lengths: int, dim: int = 6) -> Padded:
    generator = torch.Generator().manual_seed(0)
    return pad([torch.randn(n, dim, generator=generator) for n in lengths])


def test_both_directions_equal_packed_sequences() -> None:
    torch.manual_seed(1)
    ours, theirs = BidirectionalLstm(6, 5), nn.LSTM(6, 5, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for part, suffix in ((ours.forward_lstm, ""), (ours.backward_lstm, "_reverse")):
            for name, value in part.named_parameters():
                theirs.get_parameter(name + suffix).copy_(value)
    frames = sequences(9, 4, 1, 7)
    packed = pack_padded_sequence(frames.values, frames.lengths, batch_first=True, enforce_sorted=False)
    expected, _ = pad_packed_sequence(theirs(packed)[0], batch_first=True)
    values = frames.values.clone()
    values[1, 4:] = 100.0  # what stands in the padding is not read
    found = zero_padding(Padded(ours(values, frames.lengths), frames.lengths))
    torch.testing.assert_close(found.values, expected)


def test_pairs() -> None:
    frames = Padded(torch.tensor([[[1.0], [2.0], [3.0]], [[4.0], [0.0], [0.0]]]), torch.tensor([3, 1]))
    joined = in_pairs(frames)
    assert joined.values.tolist() == [[[1.0, 2.0], [3.0, 0.0]], [[4.0, 0.0], [0.0, 0.0]]]
    assert joined.lengths.tolist() == [2, 1]


@pytest.mark.parametrize(("bottom", "layers"), [(0, 2), (1, 3), (2, 1)])
def test_layers(bottom: int, layers: int) -> None:
    listener = Listener(ListenerConfig(width=4, bottom=bottom, layers=layers), 6).train()
    assert (listener.dim, listener.subsampling) == (8, 2**layers)
    encoded = listener(sequences(21, 8))
    assert encoded.values.shape[2] == 8
    assert encoded.lengths.tolist() == [-(-n // 2**layers) for n in (21, 8)]
    encoded.values.square().sum().backward()
    for name, parameter in listener.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


@torch.no_grad()
def test_a_whole_listener_is_torchs_lstms_over_pairs() -> None:
    """A batch against each utterance alone, without padding: normalized, and halved after the first layer."""
    torch.manual_seed(5)
    listener = Listener(ListenerConfig(width=4, bottom=1, layers=2), 6).eval()
    for norm in listener.norms:
        for parameter in norm.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    frames = sequences(21, 8, 5)
    together = listener(
        Padded(2 * frames.values - 3, frames.lengths)
    )  # what stands in the padding is not read
    for row, length in enumerate((21, 8, 5)):
        x = 2 * frames.values[row, :length] - 3
        x = (x - x.mean(dim=0)) / x.std(dim=0, correction=0)
        for n, (layer, norm) in enumerate(zip(listener.layers, listener.norms, strict=True)):
            if n:  # the first is at the full rate
                x = nn.functional.pad(x, (0, 0, 0, len(x) % 2)).reshape(-1, 2 * x.shape[1])
            both = cast("BidirectionalLstm", layer)
            weights = dict(both.forward_lstm.state_dict())
            weights |= {f"{k}_reverse": value for k, value in both.backward_lstm.state_dict().items()}
            theirs = nn.LSTM(x.shape[1], 4, bidirectional=True)
            theirs.load_state_dict(weights)
            x = cast("nn.LayerNorm", norm)(theirs(x)[0])
        assert int(together.lengths[row]) == len(x)
        torch.testing.assert_close(together.values[row, : len(x)], x, rtol=0, atol=1e-5)


def test_runs_in_bfloat16() -> None:
    listener = Listener(ListenerConfig(width=4), 6).eval()
    batch = sequences(13, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        encoded = listener(batch)
    encoded.values.float().sum().backward()
    torch.testing.assert_close(encoded.values.float(), listener(batch).values, rtol=0.1, atol=0.1)
