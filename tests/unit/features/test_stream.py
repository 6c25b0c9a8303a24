"""Pieces joined equal the whole."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from firstwords.errors import ConfigError
from firstwords.features.fbank import Fbank, FbankConfig
from firstwords.features.mfcc import Mfcc, MfccConfig
from firstwords.features.stream import StreamingFbank, StreamingMfcc, open_stream
from firstwords.tensors import pad

CONFIGS = [
    FbankConfig(),
    FbankConfig(snip_edges=True),
    FbankConfig(sample_rate=8000, mels=40, transform="matmul"),
    FbankConfig(sample_rate=11025),
    FbankConfig(dither=1e-3, scale=32768.0),
    FbankConfig(window_ms=32, shift_ms=16),
]
FBANKS = [Fbank(config) for config in CONFIGS]


@given(
    which=st.integers(0, len(CONFIGS) - 1),
    samples=st.one_of(st.integers(0, 600), st.integers(600, 9000)),
    cuts=st.lists(st.integers(0, 9000), max_size=12),
)
@settings(max_examples=120, deadline=None)
def test_joined_equals_whole(which: int, samples: int, cuts: list[int]) -> None:
    fbank = FBANKS[which]
    values = torch.randn(samples, generator=torch.Generator().manual_seed(samples)) * 0.1
    stream = StreamingFbank(fbank)
    state, parts = stream.start(), []
    places = [0, *sorted(min(c, samples) for c in cuts), samples]
    for start, end in itertools.pairwise(places):
        frames, state = stream.step(values[None, start:end], state)
        parts.append(frames)
        assert state.received == end
        assert state.held.shape[1] < fbank.width
    joined = torch.cat([*parts, stream.finish(state)], dim=1)
    whole = fbank(pad([values])).values
    assert joined.shape == whole.shape
    assert_close(joined, whole, atol=1e-3, rtol=0)


def test_frames_come_out_as_soon_as_their_samples_are_there() -> None:
    fbank = Fbank(FbankConfig())
    stream = StreamingFbank(fbank)
    state = stream.start()
    frames, state = stream.step(torch.randn(1, 400), state)
    assert frames.shape[1] == 1  # frame 0 ends at sample 279, frame 1 at 439
    frames, state = stream.step(torch.randn(1, 40), state)
    assert frames.shape[1] == 1
    frames, state = stream.step(torch.randn(1, 159), state)
    assert frames.shape[1] == 0
    frames, state = stream.step(torch.randn(1, 1), state)
    assert frames.shape[1] == 1


def test_rows_run_in_step() -> None:
    fbank = Fbank(FbankConfig())
    stream = StreamingFbank(fbank)
    values = torch.randn(3, 5000)
    state, parts = stream.start(rows=3), []
    for start in range(0, 5000, 800):
        frames, state = stream.step(values[:, start : start + 800], state)
        parts.append(frames)
    joined = torch.cat([*parts, stream.finish(state)], dim=1)
    assert_close(joined, fbank(pad(list(values))).values, atol=1e-3, rtol=0)


def test_steady_steps_export() -> None:
    """A step in the middle of a stream has fixed shapes: 5 shifts in, 5 frames out."""
    fbank = Fbank(FbankConfig(transform="matmul"))
    stream = StreamingFbank(fbank)
    _, state = stream.step(torch.randn(1, 960), stream.start())

    class Step(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fbank = fbank

        def forward(self, samples: torch.Tensor, held: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            frames, after = stream.step(samples, state._replace(held=held))
            return frames, after.held

    piece = torch.randn(1, 800)
    program = torch.export.export(Step(), (piece, state.held))
    frames, held = program.module()(piece, state.held)
    expected, after = stream.step(piece, state)
    assert frames.shape[1] == 5
    assert held.shape == state.held.shape
    assert_close(frames, expected)
    assert_close(held, after.held)


def test_windows_too_far_apart_are_refused() -> None:
    with pytest.raises(ConfigError, match="shift_ms"):
        StreamingFbank(Fbank(FbankConfig(shift_ms=20.0)))


@pytest.mark.parametrize(
    "frontend",
    [*FBANKS, Mfcc(MfccConfig(deltas=2))],
    ids=[*(str(n) for n in range(len(FBANKS))), "mfcc"],
)
@pytest.mark.parametrize("frames", [0, 1, 2, 3, 30])
def test_no_sample_too_many_is_waited_for(frontend: Fbank | Mfcc, frames: int) -> None:
    stream = open_stream(frontend)
    needed = stream.samples_for(frames)
    got, _ = stream.step(torch.zeros(1, needed), stream.start())
    assert got.shape[1] >= frames
    if frames > 2:
        short, _ = stream.step(torch.zeros(1, needed - 1), stream.start())
        assert got.shape[1] == short.shape[1] + 1 == frames


@pytest.mark.parametrize("deltas", [0, 1, 2])
@pytest.mark.parametrize("samples", [0, 90, 300, 700, 4000])
@pytest.mark.parametrize("piece", [11, 160, 900, 5000])
def test_cepstra_joined_equal_the_whole(deltas: int, samples: int, piece: int) -> None:
    """Also where the stream is shorter than the reach of the slopes (300 samples are 2 frames)."""
    mfcc = Mfcc(MfccConfig(deltas=deltas))
    values = torch.randn(samples, generator=torch.Generator().manual_seed(samples)) * 0.1
    stream, parts = open_stream(mfcc), list[torch.Tensor]()
    assert isinstance(stream, StreamingMfcc)
    state = stream.start()
    for start in range(0, samples, piece):
        frames, state = stream.step(values[None, start : start + piece], state)
        parts.append(frames)
    joined, whole = torch.cat([*parts, stream.finish(state)], dim=1), mfcc(pad([values])).values
    assert joined.shape == whole.shape
    assert_close(joined, whole, atol=2e-3, rtol=0)


def test_slopes_wait_for_four_frames_and_no_more() -> None:
    stream = StreamingMfcc(Mfcc(MfccConfig(deltas=2)))
    state = stream.start()
    frames, state = stream.step(torch.randn(1, 280 + 160 * 9), state)  # ten frames are complete
    assert frames.shape[1] == 6
    for _ in range(20):
        frames, state = stream.step(torch.randn(1, 160), state)
        assert frames.shape[1] == 1
        assert state.cepstra.shape[1] == 8
    assert stream.finish(state).shape[1] == 4 + 1  # and the one that its mirrored end completes
