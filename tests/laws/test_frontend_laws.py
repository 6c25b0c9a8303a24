"""Laws of every front end: padding changes nothing, lengths and widths are as promised, states stay clean."""

from __future__ import annotations

import tomllib

import pytest
import torch
from torch.testing import assert_close

from firstwords.config import dump_config, parse_config
from firstwords.features.frontend import Frontend
from firstwords.model.kinds import FRONTENDS
from firstwords.tensors import Padded, pad

LENGTHS = (16000, 11111, 2400, 800)


def build(kind: str) -> Frontend:
    entry = FRONTENDS[kind]
    frontend = entry.build(entry.config())
    assert isinstance(frontend, Frontend)
    return frontend.eval()


def waveforms() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [0.1 * torch.randn(n, generator=generator) for n in LENGTHS]


@pytest.mark.parametrize("kind", FRONTENDS)
def test_padding_and_neighbors_do_not_change_frames(kind: str) -> None:
    frontend = build(kind)
    rows = waveforms()
    together, reversed_order = frontend(pad(rows, value=0.5)), frontend(pad(rows[::-1]))
    for row, samples in enumerate(rows):
        alone = frontend(pad([samples]))
        n = int(alone.lengths[0])
        assert n == alone.values.shape[1] == int(together.lengths[row])
        assert_close(together.values[row, :n], alone.values[0], atol=1e-3, rtol=0)
        assert_close(reversed_order.values[-1 - row, :n], alone.values[0], atol=1e-3, rtol=0)
        assert not together.values[row, n:].any()


@pytest.mark.parametrize("kind", FRONTENDS)
def test_lengths_are_known_without_computing(kind: str) -> None:
    frontend = build(kind)
    sounds = [torch.randn(n, generator=torch.Generator().manual_seed(n)) for n in (1, 80, 399, 1601, 8000)]
    assert frontend(pad(sounds)).lengths.tolist() == frontend.num_frames(pad(sounds).lengths).tolist()
    for sound in sounds:
        alone = pad([sound])
        assert frontend(alone).values.shape[1] == int(frontend.num_frames(alone.lengths)[0])


@pytest.mark.parametrize("kind", FRONTENDS)
def test_width_and_frame_shift(kind: str) -> None:
    frontend = build(kind)
    frames = frontend(pad(waveforms()))
    assert frames.values.shape[2] == frontend.dim
    assert frames.values.dtype is torch.float32
    for samples, n in zip(LENGTHS, frames.lengths.tolist(), strict=True):
        assert abs(n * frontend.frame_shift - samples / 16000) <= 3 * frontend.frame_shift


@pytest.mark.parametrize("kind", FRONTENDS)
def test_settings_survive_toml(kind: str) -> None:
    config = FRONTENDS[kind].config()
    assert parse_config(tomllib.loads(dump_config(config)), type(config), name=kind, source="test") == config


@pytest.mark.parametrize("kind", FRONTENDS)
def test_silence_and_full_scale_are_finite(kind: str) -> None:
    frontend = build(kind)
    square = torch.where(torch.arange(4000) % 50 < 25, 1.0, -1.0)
    frames = frontend(Padded(torch.stack([torch.zeros(4000), square]), torch.tensor([4000, 4000])))
    assert torch.isfinite(frames.values).all()
