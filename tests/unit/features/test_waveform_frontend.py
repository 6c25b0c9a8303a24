"""Convolutions over raw samples: equal to another implementation's, frame by frame, and they learn."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch.testing import assert_close

from firstwords.features.waveform import Waveform, WaveformConfig
from firstwords.tensors import Padded, pad


def test_the_layers_are_those_of_wav2vec() -> None:
    """Against the feature encoder of transformers' Wav2Vec2, whose layers have the same norms."""
    wav2vec2 = pytest.importorskip("transformers.models.wav2vec2.modeling_wav2vec2")
    from transformers import Wav2Vec2Config

    torch.manual_seed(0)
    config = WaveformConfig(channels=(6, 7, 8), kernels=(10, 8, 4), strides=(5, 4, 2), norm="layer")
    ours = Waveform(config).eval()
    theirs = wav2vec2.Wav2Vec2FeatureEncoder(
        Wav2Vec2Config(
            conv_dim=(6, 7, 8),
            conv_kernel=(10, 8, 4),
            conv_stride=(5, 4, 2),
            conv_bias=True,
            feat_extract_norm="layer",
            num_feat_extract_layers=3,
        )
    ).eval()
    for n, layer in enumerate(theirs.conv_layers):
        layer.conv.load_state_dict(ours.convolutions[n].state_dict())
        with torch.no_grad():
            ours.norms[n].weight.uniform_(0.5, 1.5)
            ours.norms[n].bias.uniform_(-0.5, 0.5)
        layer.layer_norm.load_state_dict(ours.norms[n].state_dict())
    samples = 0.1 * torch.randn(2, 4000)
    with torch.no_grad():
        frames = ours(Padded(samples, torch.tensor([4000, 4000]))).values
        wanted = theirs(torch.nn.functional.pad(samples, (ours.before, ours.after))).transpose(1, 2)
    assert frames.shape == (2, 100, 8)
    assert_close(frames, wanted, atol=1e-5, rtol=1e-5)


def test_a_frame_hears_its_window_and_no_more() -> None:
    torch.manual_seed(1)
    config = WaveformConfig()
    assert (config.window_samples, config.shift_samples, config.dim) == (465, 160, 80)  # 29 ms, 10 ms
    frontend = Waveform(config).eval()
    samples = (0.1 * torch.randn(1, 3200)).requires_grad_()
    frames = frontend(Padded(samples, torch.tensor([3200])))
    assert frames.lengths.tolist() == [20]
    frames.values[0, 10].square().sum().backward()
    assert samples.grad is not None
    heard = samples.grad[0].nonzero()[:, 0]
    first = 10 * 160 - frontend.before
    assert (int(heard.min()), int(heard.max())) == (first, first + 464)


def test_statistics_are_those_of_what_is_heard() -> None:
    """In training: more padding behind the batch changes no frame, and no running mean."""
    torch.manual_seed(2)
    rows = [0.1 * torch.randn(n) for n in (4000, 2500)]
    frontends = [Waveform(WaveformConfig()) for _ in range(2)]
    frontends[1].load_state_dict(frontends[0].state_dict())
    short, long = frontends[0](pad(rows)), frontends[1](pad(rows, least=6000))
    assert short.lengths.tolist() == long.lengths.tolist() == [25, 15]
    assert_close(long.values[:, :25], short.values, atol=1e-5, rtol=1e-5)
    assert not long.values[:, 25:].any()
    for one, other in zip(frontends[0].buffers(), frontends[1].buffers(), strict=True):
        assert_close(one, other)


def test_weights_of_all_layers_get_a_gradient() -> None:
    frontend = Waveform(WaveformConfig())
    frontend(Padded(0.1 * torch.randn(2, 1600), torch.tensor([1600, 700]))).values[..., ::2].sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in frontend.convolutions.parameters())


@pytest.mark.parametrize("samples", [0, 1, 159, 160])
def test_hardly_a_sound(samples: int) -> None:
    frames = Waveform(WaveformConfig())(Padded(torch.zeros(1, samples), torch.tensor([samples])))
    assert frames.values.shape == (1, samples // 160, 80)
    assert frames.lengths.tolist() == [samples // 160]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"strides": (5, 4, 2, 2)}, "5 channels, 5 kernels, 4 strides"),
        ({"kernels": (4, 8, 4, 4, 4)}, "a stride of 5 passes over samples with a kernel of 4"),
        ({"channels": (), "kernels": (), "strides": ()}, "0 channels"),
    ],
)
def test_layers_that_do_not_fit_are_refused(changes: dict[str, tuple[int, ...]], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        WaveformConfig(**changes)  # pyright: ignore[reportArgumentType]
