"""The filterbank against kaldi-native-fbank, and the promises of a front end."""

from __future__ import annotations

import kaldi_native_fbank as knf
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from firstwords.config import parse_config
from firstwords.errors import ConfigError
from firstwords.features.fbank import Fbank, FbankConfig, cut_windows, mel_filters
from firstwords.tensors import Padded, pad

# float32 FFTs of different libraries differ in the last bits, which the logarithm of a quiet band shows.
WORST, MEAN = 2e-3, 1e-4


def kaldi(samples: np.ndarray, config: FbankConfig) -> torch.Tensor:
    options = knf.FbankOptions()
    options.frame_opts.samp_freq = config.sample_rate
    options.frame_opts.dither = 0
    options.frame_opts.frame_length_ms = config.window_ms
    options.frame_opts.frame_shift_ms = config.shift_ms
    options.frame_opts.snip_edges = config.snip_edges
    options.frame_opts.preemph_coeff = config.preemphasis
    options.frame_opts.window_type = {"povey": "povey", "hann": "hanning"}[config.window]
    options.mel_opts.num_bins = config.mels
    options.mel_opts.low_freq = config.low
    options.mel_opts.high_freq = config.high
    fbank = knf.OnlineFbank(options)
    fbank.accept_waveform(config.sample_rate, (samples * config.scale).tolist())
    fbank.input_finished()
    frames = [fbank.get_frame(i) for i in range(fbank.num_frames_ready)]
    return torch.from_numpy(np.stack(frames)) if frames else torch.zeros(0, config.mels)


def noise(samples: int, seed: int = 0, level: float = 0.1) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(samples) * level).astype(np.float32)


@pytest.mark.parametrize("transform", ["fft", "matmul"])
@pytest.mark.parametrize(
    "config",
    [
        FbankConfig(),
        FbankConfig(mels=40),
        FbankConfig(mels=23, high=0.0, low=0.0),
        FbankConfig(sample_rate=8000, mels=64),
        FbankConfig(sample_rate=11025),  # window of 275 samples: odd
        FbankConfig(sample_rate=44100, window="hann"),
        FbankConfig(window_ms=32, shift_ms=16, high=7000.0, preemphasis=0.9),
        FbankConfig(snip_edges=True),
        FbankConfig(scale=32768.0),
    ],
    ids=lambda c: f"{c.sample_rate}-{c.mels}-{c.window}-{c.window_ms:g}-{c.snip_edges}-{c.scale:g}",
)
def test_equals_kaldi(config: FbankConfig, transform: str) -> None:
    samples = noise(config.sample_rate + 137) + 0.05  # with an offset that must be removed
    ours = Fbank(config.with_(transform=transform))(pad([torch.from_numpy(samples)]))
    theirs = kaldi(samples, config)
    assert ours.values.shape[1:] == theirs.shape
    difference = (ours.values[0] - theirs).abs()
    assert float(difference.max()) < WORST
    assert float(difference.mean()) < MEAN


@pytest.mark.parametrize("samples", [0, 1, 79, 80, 81, 119, 120, 200, 239, 240, 399, 400, 401, 560, 1000])
@pytest.mark.parametrize("snip_edges", [False, True])
def test_short_utterances_equal_kaldi(samples: int, snip_edges: bool) -> None:
    config = FbankConfig(snip_edges=snip_edges)
    values = noise(samples, seed=samples)
    ours = Fbank(config)(Padded(torch.from_numpy(values)[None], torch.tensor([samples])))
    theirs = kaldi(values, config)
    assert int(ours.lengths[0]) == len(theirs) == ours.values.shape[1]
    assert_close(ours.values[0], theirs, atol=WORST, rtol=0)


@pytest.mark.parametrize("transform", ["fft", "matmul"])
def test_alone_equals_batched_whatever_stands_in_the_padding(transform: str) -> None:
    fbank = Fbank(FbankConfig(transform=transform))
    rows = [torch.from_numpy(noise(n, seed=n)) for n in (16000, 12345, 400, 100, 81)]
    batch = pad(rows, value=0.7)
    together = fbank(batch)
    for row, samples in enumerate(rows):
        alone = fbank(pad([samples]))
        n = int(alone.lengths[0])
        assert int(together.lengths[row]) == n
        assert_close(together.values[row, :n], alone.values[0], atol=1e-4, rtol=0)
        assert not together.values[row, n:].any()


def test_matmul_equals_fft() -> None:
    batch = pad([torch.from_numpy(noise(16000))])
    one, other = (Fbank(FbankConfig(transform=t))(batch).values for t in ("fft", "matmul"))
    assert float((one - other).abs().mean()) < 1e-5
    assert_close(one, other, atol=1e-3, rtol=0)


def test_silence_is_the_floor() -> None:
    frames = Fbank(FbankConfig())(Padded(torch.zeros(1, 1600), torch.tensor([1600])))
    assert_close(frames.values, torch.full((1, 10, 80), -15.9424), atol=1e-4, rtol=0)


def test_float32_inside_autocast() -> None:
    batch = pad([torch.from_numpy(noise(4000))])
    for transform in ("fft", "matmul"):
        fbank = Fbank(FbankConfig(transform=transform))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = fbank(batch).values
        assert inside.dtype is torch.float32
        assert torch.equal(inside, fbank(batch).values)


def test_dither_is_fixed_and_lifts_silence() -> None:
    fbank = Fbank(FbankConfig(dither=1e-4))
    silence = Padded(torch.zeros(2, 4000), torch.tensor([4000, 3000]))
    first, second = fbank(silence), fbank(silence)
    assert torch.equal(first.values, second.values)
    assert float(first.values[0].mean()) > -15.5
    assert_close(first.values[0, :17], first.values[1, :17])


@pytest.mark.parametrize("transform", ["fft", "matmul"])
def test_exports_with_free_batch_and_time(transform: str) -> None:
    fbank = Fbank(FbankConfig(transform=transform))

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fbank = fbank

        def forward(self, values: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            frames = self.fbank(Padded(values, lengths))
            return frames.values, frames.lengths

    rows, samples = torch.export.Dim("rows", min=1), torch.export.Dim("samples", min=400)
    example = (torch.randn(2, 4000), torch.tensor([4000, 3000]))
    shapes = {"values": {0: rows, 1: samples}, "lengths": {0: rows}}
    program = torch.export.export(Plain(), example, dynamic_shapes=shapes)
    other = (torch.randn(3, 5555), torch.tensor([5555, 4444, 410]))
    values, lengths = program.module()(*other)
    expected = fbank(Padded(*other))
    assert torch.equal(lengths, expected.lengths)
    assert_close(values, expected.values, atol=1e-4, rtol=0)


def test_nothing_in_the_state_dict() -> None:
    assert not Fbank(FbankConfig()).state_dict()


def test_filters_are_triangles_that_overlap_to_one() -> None:
    filters = mel_filters(20, 512, 16000, 100.0, 7600.0)
    assert filters.shape == (256, 20)
    inner = filters.sum(dim=1)[10:200]  # between the first and the last peak two neighbors add to one
    assert_close(inner, torch.ones_like(inner))


def test_frame_shift_is_in_seconds() -> None:
    fbank = Fbank(FbankConfig(sample_rate=8000, mels=40))
    assert (fbank.dim, fbank.frame_shift) == (40, 0.01)


@pytest.mark.parametrize(
    "values", [{"low": 8000.0}, {"high": 9000.0}, {"shift_ms": 30.0}, {"high": -8000.0}, {"shift_ms": 0.01}]
)
def test_impossible_settings_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="fbank"):
        parse_config(values, FbankConfig, name="fbank", source="recipe.toml")


@given(width=st.integers(1, 30), shift=st.integers(1, 12), more=st.integers(0, 90), rows=st.integers(0, 3))
def test_windows_of_blocks_are_those_of_an_unfold(width: int, shift: int, more: int, rows: int) -> None:
    samples = torch.arange(rows * (width + more), dtype=torch.float32).reshape(rows, width + more)
    assert torch.equal(cut_windows(samples, width, shift), samples.unfold(1, width, shift))
