"""Separable subsampling is FastConformer's: frames and gradients of another implementation."""

from __future__ import annotations

from typing import Any, Literal, cast

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from firstwords.nn.norms import Folded
from firstwords.nn.subsampling import Subsampling, SubsamplingConfig
from firstwords.tensors import Padded, real_frames

CHANNELS, FEATURES, DIM = 256, 80, 16


def copied(theirs: Any, factor: Literal[4, 8]) -> Subsampling:
    """Ours with their weights, for frames without their first feature; what they lack does nothing."""
    config = SubsamplingConfig(factor=factor, channels=CHANNELS, separable=True)
    ours = Subsampling(config, FEATURES - 1, DIM).eval()
    ours.input_norm.variance.fill_(1.0 - 1e-5)  # and its epsilon
    ours.norm = cast("Any", Folded())  # as a part of the projection
    convolutions = [layer for layer in theirs.layers if isinstance(layer, nn.Conv2d)]
    ours.first.load_state_dict(convolutions[0].state_dict())
    for n, (depthwise, mixed) in enumerate(zip(convolutions[1::2], convolutions[2::2], strict=True)):
        ours.strided[n].load_state_dict(depthwise.state_dict())
        cast("nn.Linear", ours.pointwise[n]).load_state_dict(
            {"weight": mixed.weight.flatten(1), "bias": mixed.bias}
        )
    ours.out.load_state_dict({"weight": flattened(theirs.linear.weight), "bias": theirs.linear.bias})
    return ours


def flattened(weight: Tensor) -> Tensor:
    """Their projection reads all bins of a channel, ours all channels of a bin, and not the first bin."""
    return weight.view(DIM, CHANNELS, -1)[:, :, 1:].transpose(1, 2).flatten(1)


@pytest.mark.parametrize("factor", [4, 8])
def test_separable_subsampling_is_that_of_parakeet(factor: Literal[4, 8]) -> None:
    """Against transformers' Parakeet, whose convolutions pad both edges with zeros, of time and of features.

    There frame t sees the input factor * t - (factor - 1) … factor * t + factor - 1, here factor * t …
    factor * t + 2 * factor - 2. So ours reads what they read without the first frame and the first feature,
    and its frame t is their frame t + 1; bins move alike. Their first frame and bin, and a last frame that
    reaches beyond the utterance, see padding: those have no likeness here. Their projection has zeros for
    the first bin; ours leaves that bin out. The 256 channels and 80 features are the published ones.
    """
    parakeet = pytest.importorskip(
        "transformers.models.parakeet.modeling_parakeet",
        reason='transformers with Parakeet is not installed: pip install "firstwords[llm]"',
    )
    from transformers import ParakeetEncoderConfig

    torch.manual_seed(0)
    theirs = parakeet.ParakeetEncoderSubsamplingConv2D(
        ParakeetEncoderConfig(
            hidden_size=DIM,
            num_mel_bins=FEATURES,
            subsampling_factor=factor,
            subsampling_conv_channels=CHANNELS,
        )
    ).eval()
    for layer in theirs.layers:
        if isinstance(layer, nn.Conv2d):  # else differences between frames shrink to a tenth at each one
            nn.init.kaiming_normal_(layer.weight)
    with torch.no_grad():
        theirs.linear.weight.view(DIM, CHANNELS, -1)[:, :, 0] = 0.0
    ours = copied(theirs, factor)

    lengths = torch.tensor([97, 64, 47])
    x = torch.randn(3, 97, FEATURES)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    found = ours(Padded(inputs[0][:, 1:, 1:], lengths - 1))
    mask = real_frames(lengths, 97)
    wanted = theirs(inputs[1], mask)[:, 1 : 1 + found.values.shape[1]]
    real = real_frames(found.lengths, found.values.shape[1])
    # all frames of theirs but the first, and a last one that sees padding
    assert found.lengths.tolist() == [(length - factor) // factor for length in lengths.tolist()]
    assert float(wanted.detach()[real].std(dim=0).mean()) > 0.1  # frames differ, else equality says little
    assert_close(found.values[real], wanted[real], rtol=1e-5, atol=1e-5)

    along = torch.randn(int(real.sum()), DIM)
    (found.values[real] * along).sum().backward()
    (wanted[real] * along).sum().backward()
    assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-4, atol=1e-5)
    close = {"rtol": 1e-4, "atol": 1e-4}  # sums over some thousand places
    convolutions = [layer for layer in theirs.layers if isinstance(layer, nn.Conv2d)]
    mine: list[Any] = [ours.first]
    for depthwise, mixed in zip(ours.strided, ours.pointwise, strict=True):
        mine += [depthwise, mixed]
    for own, other in zip(mine, convolutions, strict=True):
        assert_close(own.weight.grad.view_as(other.weight), other.weight.grad, **close)
        assert_close(own.bias.grad, other.bias.grad, **close)
    assert_close(ours.out.weight.grad, flattened(theirs.linear.weight.grad), **close)
    assert_close(ours.out.bias.grad, theirs.linear.bias.grad, **close)
