"""Each attention mechanism against its equation, frame by frame in plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from firstwords.heads.attention.mechanisms import (
    AdditiveAttentionConfig,
    AdditiveEnergy,
    Attention,
    DotAttentionConfig,
    DotEnergy,
    LocationAttentionConfig,
    Look,
    MechanismConfig,
)
from firstwords.tensors import Padded

QUERY, DIM = 5, 6
SETTINGS: list[MechanismConfig] = [
    DotAttentionConfig(dim=4, sharpening=1.5),
    DotAttentionConfig(dim=4, heads=2),
    AdditiveAttentionConfig(dim=4),
    AdditiveAttentionConfig(dim=4, heads=3),
    LocationAttentionConfig(dim=4, filters=3, radius=2),
    LocationAttentionConfig(dim=4, filters=3, radius=2, heads=2, accumulate=True),
]


def make(config: MechanismConfig) -> Attention:
    torch.manual_seed(5)
    attention = Attention(config, QUERY, DIM).double()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.normal_()
            parameter.requires_grad_(False)
    return attention


def batch() -> Padded:
    values = torch.randn(2, 7, DIM, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values[1, 4:] = 0
    return Padded(values, torch.tensor([7, 4]))


def plain_energy(attention: Attention, head: int, query: Tensor, frames: Tensor, past: Tensor) -> list[float]:
    """e_t of one utterance, one query and one head, by the equations of the module's docstring."""
    energy = attention.energy
    found: list[float] = []
    for t in range(len(frames)):
        if isinstance(energy, DotEnergy):
            dim = energy.key.out_features
            rows = slice(head * dim, (head + 1) * dim)
            phi = (energy.query.weight[rows] @ query + energy.query.bias[rows]).clamp(min=0)
            psi = (energy.key.weight @ frames[t] + energy.key.bias).clamp(min=0)
            found.append(float(phi @ psi) / math.sqrt(dim))
            continue
        assert isinstance(energy, AdditiveEnergy)
        dim = energy.key.out_features
        rows = slice(head * dim, (head + 1) * dim)
        inside = energy.query.weight[rows] @ query + energy.key.weight @ frames[t] + energy.key.bias
        if energy.conv is not None and energy.location is not None:
            radius = energy.conv.padding[0]
            assert isinstance(radius, int)
            seen = torch.zeros(energy.conv.out_channels, dtype=torch.float64)
            for offset in range(-radius, radius + 1):
                if 0 <= t + offset < len(frames):
                    seen += energy.conv.weight[:, 0, radius + offset] * past[t + offset]
            inside = inside + energy.location.weight @ seen
        found.append(float(energy.energy.weight[0] @ inside.tanh()))
    return found


@pytest.mark.parametrize("config", SETTINGS, ids=lambda c: f"{c.kind}{c.heads}")
def test_equals_the_equation(config: MechanismConfig) -> None:
    attention, encoded = make(config), batch()
    queries = torch.randn(2, 3, QUERY, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    memory = attention.memory(encoded)
    look = attention.start(memory, 3)
    look = Look(look.weights.double(), look.past.double())
    for step in range(3):  # the second and third know what the first looked at
        before = look
        context, look = attention(queries * (step + 1), memory, before)
        for b, length in enumerate((7, 4)):
            frames = encoded.values[b, :length]
            for k in range(3):
                contexts: list[Tensor] = []
                for head in range(config.heads):
                    past = before.past[b, k, head]
                    energies = plain_energy(attention, head, queries[b, k] * (step + 1), frames, past)
                    powers = [math.exp(config.sharpening * e) for e in energies]
                    weights = torch.tensor([p / sum(powers) for p in powers], dtype=torch.float64)
                    torch.testing.assert_close(look.weights[b, k, head, :length], weights)
                    assert not look.weights[b, k, head, length:].any()
                    contexts.append(weights @ frames)
                    if attention.accumulate:
                        torch.testing.assert_close(look.past[b, k, head, :length], past[:length] + weights)
                expected = torch.cat(contexts)
                if attention.project is not None:
                    expected = attention.project(expected)
                torch.testing.assert_close(context[b, k], expected)


def test_first_weights_are_even_over_real_frames() -> None:
    attention = make(SETTINGS[-1])
    look = attention.start(attention.memory(batch()), 2)
    torch.testing.assert_close(look.past[1, 0, 0], torch.tensor([0.25] * 4 + [0.0] * 3))
    assert look.past.shape == (2, 2, 2, 7)


@pytest.mark.parametrize("config", SETTINGS, ids=lambda c: f"{c.kind}{c.heads}")
def test_an_utterance_without_frames_has_no_weights(config: MechanismConfig) -> None:
    attention = make(config)
    encoded = Padded(torch.zeros(2, 3, DIM, dtype=torch.float64), torch.tensor([3, 0]))
    memory = attention.memory(encoded)
    look = attention.start(memory, 1)
    query = torch.ones(2, 1, QUERY, dtype=torch.float64)
    context, look = attention(query, memory, Look(look.weights.double(), look.past.double()))
    assert not look.weights[1].any()
    assert bool(context.isfinite().all())
