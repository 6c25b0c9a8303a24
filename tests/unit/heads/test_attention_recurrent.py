"""The LSTM cell of the speller against torch's, and gradients that are made once for many calls."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from firstwords.heads.attention.recurrent import LstmCell, many_times


def test_cell_equals_torch() -> None:
    torch.manual_seed(0)
    ours, theirs = LstmCell(3, 4).double(), nn.LSTMCell(3, 4).double()
    with torch.no_grad():
        theirs.weight_ih.copy_(ours.gates.weight[:, :3])
        theirs.weight_hh.copy_(ours.gates.weight[:, 3:])
        theirs.bias_ih.copy_(ours.gates.bias)
        theirs.bias_hh.zero_()
    x, known = torch.randn(2, 3).double(), torch.randn(2, 16).double()
    state = (torch.randn(2, 4).double(), torch.randn(2, 4).double())
    for found, expected in zip(ours(x, *state, None, ours.gates), theirs(x, state), strict=True):
        torch.testing.assert_close(found, expected)
    plain = ours(x, *state, known, ours.gates)
    with torch.no_grad():
        theirs.bias_hh.copy_(known[0])
    torch.testing.assert_close(plain[0][0], theirs(x, state)[0][0])


@pytest.mark.parametrize("half", [False, True])
def test_gradients_of_many_calls_equal_those_of_autograd(half: bool) -> None:
    torch.manual_seed(1)
    layer = nn.Linear(5, 4)
    inputs = torch.randn(6, 3, 5)
    found: list[list[torch.Tensor]] = []
    for wrap in (lambda linear: linear, many_times):
        layer.zero_grad()
        start = torch.zeros(3, 5, requires_grad=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            read, x = wrap(layer), start
            for given in inputs:  # each call reads what the last one said
                x = given + nn.functional.pad(read(x).tanh(), (0, 1))
            loss = x.float().square().sum()
        for _ in range(2):  # a second backward adds as much again
            loss.backward(retain_graph=True)
        gradients = [start.grad, layer.weight.grad, layer.bias.grad]
        found.append([g for g in gradients if g is not None])
    for ours, theirs in zip(found[1], found[0], strict=True):
        assert ours.dtype is torch.float32
        torch.testing.assert_close(ours, theirs, rtol=0.03 if half else 1e-5, atol=0.05 if half else 1e-5)


def test_without_gradients_it_is_the_layer_itself() -> None:
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        assert many_times(layer) is layer
