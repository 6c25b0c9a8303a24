"""Cepstra against kaldi-native-fbank; slopes and normalization against numbers worked out by hand."""

from __future__ import annotations

import kaldi_native_fbank as knf
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from firstwords.config import parse_config
from firstwords.errors import ConfigError
from firstwords.features.deltas import add_deltas, slope
from firstwords.features.mfcc import Mfcc, MfccConfig, cosine_transform, lifter
from firstwords.features.normalize import NormalizeGlobal, NormalizeUtterance
from firstwords.tensors import Padded, pad


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(samples) * 0.1).astype(np.float32)


def kaldi(samples: np.ndarray, config: MfccConfig) -> torch.Tensor:
    options = knf.MfccOptions()
    options.frame_opts.samp_freq = config.sample_rate
    options.frame_opts.dither = 0
    options.frame_opts.snip_edges = config.snip_edges
    options.mel_opts.num_bins = config.mels
    options.mel_opts.low_freq = config.low
    options.mel_opts.high_freq = config.high
    options.num_ceps = config.cepstra
    options.cepstral_lifter = config.lifter
    options.use_energy = False
    mfcc = knf.OnlineMfcc(options)
    mfcc.accept_waveform(config.sample_rate, (samples * config.scale).tolist())
    mfcc.input_finished()
    return torch.from_numpy(np.stack([mfcc.get_frame(i) for i in range(mfcc.num_frames_ready)]))


@pytest.mark.parametrize(
    "config",
    [
        MfccConfig(),
        MfccConfig(cepstra=20, mels=40, high=-400.0),
        MfccConfig(sample_rate=8000, low=100.0),
        MfccConfig(scale=32768.0, snip_edges=True),
        MfccConfig(lifter=0.0, transform="matmul"),
    ],
    ids=lambda c: f"{c.sample_rate}-{c.cepstra}-{c.mels}-{c.lifter:g}-{c.transform}",
)
def test_equals_kaldi(config: MfccConfig) -> None:
    samples = noise(config.sample_rate)
    ours = Mfcc(config)(pad([torch.from_numpy(samples)])).values[0]
    theirs = kaldi(samples, config)
    assert ours.shape == theirs.shape
    assert_close(ours, theirs, atol=3e-3, rtol=0)


def test_alone_equals_batched_with_slopes() -> None:
    mfcc = Mfcc(MfccConfig(deltas=2))
    assert mfcc.dim == 39
    rows = [torch.from_numpy(noise(n, n)) for n in (16000, 9000, 300)]
    together = mfcc(pad(rows, value=0.3))
    for row, samples in enumerate(rows):
        alone = mfcc(pad([samples]))
        n = int(alone.lengths[0])
        assert_close(together.values[row, :n], alone.values[0], atol=1e-3, rtol=0)
        assert not together.values[row, n:].any()


def test_slope_of_a_line_is_its_slope() -> None:
    line = 3 * torch.arange(10.0)[:, None]
    inner = slope(pad([line]))[0, 2:-2]
    assert_close(inner, torch.full_like(inner, 3.0))
    first = slope(pad([line]))[0, 0]  # (1 (3 - 0) + 2 (6 - 0)) / 10
    assert_close(first, torch.tensor([1.5]))


def test_deltas_repeat_the_last_real_frame() -> None:
    short = torch.tensor([[1.0], [2.0], [4.0]])
    batch = pad([torch.zeros(9, 1), short], value=77.0)
    result = add_deltas(batch, 2)
    assert result.values.shape == (2, 9, 3)
    expected = (1 * (4 - 2) + 2 * (4 - 1)) / 10
    assert float(result.values[1, 2, 1]) == pytest.approx(expected)
    assert not result.values[1, 3:].any()


def test_deltas_of_nothing() -> None:
    empty = Padded(torch.zeros(2, 0, 5), torch.tensor([0, 0]))
    assert add_deltas(empty).values.shape == (2, 0, 15)
    assert torch.isfinite(add_deltas(Padded(torch.ones(2, 4, 5), torch.tensor([0, 4]))).values).all()


def test_cosine_transform_is_orthonormal_and_lifter_is_known() -> None:
    matrix = cosine_transform(23, 23)
    assert_close(matrix.T @ matrix, torch.eye(23, dtype=torch.float64))
    weights = lifter(13, 22.0)
    assert float(weights[0]) == 1
    assert float(weights[11]) == pytest.approx(12.0)  # 1 + 11 sin(pi / 2)


def test_impossible_settings_are_refused() -> None:
    for values in ({"cepstra": 30}, {"high": 9000.0}, {"deltas": 3}):
        with pytest.raises(ConfigError, match="mfcc"):
            parse_config(values, MfccConfig, name="mfcc", source="recipe.toml")


def test_exports() -> None:
    mfcc = Mfcc(MfccConfig(deltas=2, transform="matmul"))
    rows, samples = torch.export.Dim("rows", min=1), torch.export.Dim("samples", min=400)
    program = torch.export.export(
        mfcc,
        (Padded(torch.randn(2, 4000), torch.tensor([4000, 3000])),),
        dynamic_shapes=(Padded({0: rows, 1: samples}, {0: rows}),),  # pyright: ignore
    )
    other = Padded(torch.randn(3, 5000), torch.tensor([5000, 3000, 401]))
    assert_close(program.module()(other).values, mfcc(other).values, atol=1e-3, rtol=0)


def test_utterance_normalization() -> None:
    rows = [torch.randn(50, 4) * 3 + 7, torch.randn(20, 4) - 2]
    result = NormalizeUtterance()(pad(rows, value=9.0))
    for row, n in ((0, 50), (1, 20)):
        real = result.values[row, :n]
        assert_close(real.mean(dim=0), torch.zeros(4), atol=1e-5, rtol=0)
        assert_close(real.std(dim=0, correction=0), torch.ones(4), atol=1e-4, rtol=0)
    assert not result.values[1, 20:].any()
    assert_close(result.values[1, :20], NormalizeUtterance()(pad([rows[1]])).values[0])
    centered = NormalizeUtterance(variance=False)(pad(rows))
    assert_close(centered.values[0], rows[0] - rows[0].mean(dim=0), atol=1e-5, rtol=0)
    flat = NormalizeUtterance()(Padded(torch.full((2, 5, 3), 4.0), torch.tensor([5, 0])))
    assert not flat.values.any()


def test_global_normalization_is_saved_and_goes_on() -> None:
    frames = torch.randn(300, 6) * 2 - 5
    norm = NormalizeGlobal(6)
    untouched = pad([frames])
    assert_close(norm(untouched).values, untouched.values)  # before the first frame it does nothing
    norm.update(pad([frames[:100], frames[100:120]], value=50.0))
    loaded = NormalizeGlobal(6)
    loaded.load_state_dict(norm.state_dict())
    loaded.update(pad([frames[120:]]))
    assert_close(loaded.mean.float(), frames.mean(dim=0), atol=1e-5, rtol=0)
    assert_close(loaded.deviation.float(), frames.std(dim=0, correction=0), atol=1e-5, rtol=0)
    result = loaded(pad([frames, frames[:10]]))
    assert_close(result.values[0].mean(dim=0), torch.zeros(6), atol=1e-5, rtol=0)
    assert not result.values[1, 10:].any()
