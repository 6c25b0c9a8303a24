"""A Squeezeformer layer against its formulas, written frame by frame in numpy (arXiv:2206.00888).

Nothing of the layer is used but its weights; the positions are computed anew, too.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pytest
import torch

from firstwords.encoders.squeezeformer import SqueezeformerConfig, SqueezeformerLayer
from firstwords.encoders.stack import View
from firstwords.nn.positions import distances

Array: TypeAlias = npt.NDArray[np.float64]
Weights: TypeAlias = dict[str, Array]
TIME, DIM, HEADS, KERNEL = 7, 8, 2, 5


def affine(w: Weights, name: str, row: Array) -> Array:
    return w[f"{name}.weight"] @ row + w[f"{name}.bias"]


def swish(row: Array) -> Array:
    return row / (1 + np.exp(-row))


def layer_norm(w: Weights, name: str, row: Array) -> Array:
    centred = row - row.mean()
    return centred / math.sqrt((centred**2).mean() + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def place(distance: int) -> Array:
    """Sines and cosines of a distance by turns (arXiv:1706.03762, section 3.5)."""
    row = np.empty(DIM)
    for i in range(DIM // 2):
        angle = distance / 10000 ** (2 * i / DIM)
        row[2 * i], row[2 * i + 1] = math.sin(angle), math.cos(angle)
    return row


def attention(w: Weights, x: Array) -> Array:
    """[(q_i + u) · k_j + (q_i + v) · W_r R_(i-j)] / sqrt(d), head by head (arXiv:1901.02860, section 3.3)."""
    width, out = DIM // HEADS, np.empty_like(x)
    qkv = [affine(w, "attention.module.in_proj", row) for row in x]
    u, v = w["attention.module.content_bias"], w["attention.module.position_bias"]
    for i in range(TIME):
        heads = np.empty(DIM)
        for h in range(HEADS):
            own = slice(h * width, (h + 1) * width)
            scores = np.empty(TIME)
            for j in range(TIME):
                key = qkv[j][DIM : 2 * DIM][own]
                far = (w["attention.module.position_proj.weight"] @ place(i - j))[own]
                query = qkv[i][:DIM][own]
                scores[j] = ((query + u[own]) @ key + (query + v[own]) @ far) / math.sqrt(width)
            share = np.exp(scores - scores.max())
            share /= share.sum()
            heads[own] = sum(share[j] * qkv[j][2 * DIM :][own] for j in range(TIME))
        out[i] = affine(w, "attention.module.out_proj", heads)
    return out


def convolution(w: Weights, x: Array, norm: str) -> Array:
    name = "convolution.module"
    wide = [swish(affine(w, f"{name}.in_proj", row)) for row in x]
    kernel, out = w[f"{name}.depthwise.conv.weight"][:, 0], np.empty_like(x)
    for t in range(TIME):
        row = w[f"{name}.depthwise.conv.bias"].copy()
        for k in range(KERNEL):
            source = t + k - KERNEL // 2
            if 0 <= source < TIME:
                row += kernel[:, k] * wide[source]
        if norm == "batch":
            row = (row - w[f"{name}.norm.running_mean"]) / np.sqrt(w[f"{name}.norm.running_var"] + 1e-5)
            row = row * w[f"{name}.norm.weight"] + w[f"{name}.norm.bias"]
        else:
            row = layer_norm(w, f"{name}.norm", row)
        out[t] = affine(w, f"{name}.out_proj", swish(row))
    return out


def feed(w: Weights, name: str, x: Array) -> Array:
    return np.stack(
        [affine(w, f"{name}.module.out_proj", swish(affine(w, f"{name}.module.in_proj", row))) for row in x]
    )


def whole(w: Weights, x: Array, norm: str) -> Array:
    """Scale and shift before, sum and norm after each of MHA, FF, convolution, FF (figure 4)."""
    for name in ("attention", "feed_after_attention", "convolution", "feed_after_convolution"):
        scaled = x * w[f"{name}.scale"] + w[f"{name}.shift"]
        if name == "attention":
            made = attention(w, scaled)
        elif name == "convolution":
            made = convolution(w, scaled, norm)
        else:
            made = feed(w, name, scaled)
        x = np.stack([layer_norm(w, f"{name}.norm", row) for row in x + made])
    return x


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_a_whole_layer_is_that_of_the_paper(norm: str) -> None:
    torch.manual_seed(4)
    config = SqueezeformerConfig.model_validate(
        {"dim": DIM, "heads": HEADS, "feedforward": 12, "kernel": KERNEL, "layers": 2}
        | {"reduce_at": 0, "recover_at": 1, "convolution_norm": norm}
    )
    layer = SqueezeformerLayer(config).eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        for name, value in layer.named_buffers():
            if value.is_floating_point():
                value.copy_(0.5 + torch.rand_like(value) if "var" in name else torch.randn_like(value))
    x = torch.randn(1, TIME, DIM)
    positions = distances(TIME, TIME, DIM, x)
    with torch.no_grad():
        found = layer(x, View(positions=positions, hidden=None, real=None))
    weights = {name: value.double().numpy() for name, value in layer.state_dict().items()}
    expected = whole(weights, x[0].double().numpy(), norm)
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=0, atol=2e-5)
