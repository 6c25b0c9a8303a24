"""Laws of streaming encoders, by the interface alone: windows joined equal one pass, to the last frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from firstwords.encoders.conformer import Conformer, ConformerConfig
from firstwords.encoders.encoder import StreamingEncoder
from firstwords.encoders.lstm import Lstm, LstmConfig
from firstwords.encoders.zipformer import Zipformer
from firstwords.encoders.zipformer.config import ZipformerConfig
from firstwords.errors import ConfigError
from firstwords.model import kinds
from firstwords.nn.subsampling import SubsamplingConfig
from firstwords.tensors import Padded, pad
from small_zipformer import SMALL

MELS = 80
TOLERANCE = 2e-5  # as in test_encoder_laws.py

CONFORMER: dict[str, Any] = {
    "dim": 16,
    "layers": 2,
    "heads": 2,
    "feedforward": 24,
    "kernel": 7,
    "causal": True,
    "subsampling": SubsamplingConfig(channels=8),
}
STREAMING: dict[str, Callable[[], StreamingEncoder[Any]]] = {
    "zipformer": lambda: Zipformer(SMALL.with_(causal=True, chunks=(8, 16, -1)), MELS),
    "zipformer, nano": lambda: Zipformer(ZipformerConfig.preset("nano").with_(causal=True), MELS),
    "zipformer, 50 Hz": lambda: Zipformer(SMALL.with_(causal=True, output_downsampling=1), MELS),
    "conformer": lambda: Conformer(ConformerConfig(**CONFORMER), MELS),
    "lstm": lambda: Lstm(LstmConfig.preset("nano").with_(bidirectional=False), MELS),
}


def test_every_kind_that_can_stream_obeys_these_laws() -> None:
    can = {
        name
        for name, kind in kinds.ENCODERS.items()
        if issubclass(cast("type", kind.build), StreamingEncoder)
    }
    assert {name.partition(",")[0] for name in STREAMING} == can


def make(name: str) -> StreamingEncoder[Any]:
    torch.manual_seed(5)
    encoder = STREAMING[name]().eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return encoder


def stream(encoder: StreamingEncoder[Any], x: Tensor, chunk: int, left: int) -> Tensor:
    """Frames (T, mels) window by window, the last ones filled up with nonsense -> (T', dim)."""
    total = int(encoder.output_lengths(torch.tensor([len(x)]))[0])
    window, hop = encoder.window(chunk), encoder.hop(chunk)
    state, parts, at = encoder.start(1, chunk=chunk, left=left), [x.new_zeros(0, encoder.dim)], 0
    while sum(map(len, parts)) < total:
        part = x[at : at + window]
        filled = torch.nn.functional.pad(part, (0, 0, 0, window - len(part)), value=50.0)
        encoded, state = encoder.step(Padded(filled[None], torch.tensor([len(part)])), state)
        parts.append(encoded.values[0, : int(encoded.lengths[0])])
        at += hop
    return torch.cat(parts)


@pytest.mark.parametrize("name", STREAMING)
def test_a_stream_equals_one_pass_to_the_last_frame(name: str) -> None:
    encoder = make(name)
    chunk, left = encoder.nearest_context(16, 32)
    generator = torch.Generator().manual_seed(1)
    first = encoder.hop(chunk) + 7
    for frames in (first, first + 1, first + 2, first + 7, first + 12, first + 13, 3 * first + 3):
        x = torch.randn(frames, MELS, generator=generator)
        with torch.no_grad():
            whole = encoder(pad([x]), chunk=chunk, left=left)
            joined = stream(encoder, x, chunk, left)
        assert joined.shape == whole.values[0].shape, frames
        torch.testing.assert_close(joined, whole.values[0], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", STREAMING)
def test_a_window_gives_its_chunk_and_no_frame_is_left_between_two(name: str) -> None:
    encoder = make(name)
    for wanted in (1, 15, 16, 33, 64):
        chunk, left = encoder.nearest_context(wanted, 64)
        assert encoder.nearest_context(chunk, left) == (chunk, left)
        assert encoder.hop(chunk) == chunk * encoder.hop(1) <= encoder.window(chunk)
        x = torch.zeros(1, encoder.window(chunk), MELS)
        with torch.no_grad():
            encoded, _ = encoder.step(
                Padded(x, torch.tensor([x.shape[1]])), encoder.start(1, chunk=chunk, left=left)
            )
        assert int(encoded.lengths[0]) == encoded.values.shape[1] == encoder.hop(chunk) // encoder.subsampling


@pytest.mark.parametrize("name", STREAMING)
def test_rows_of_a_step_end_each_where_it_ends(name: str) -> None:
    encoder = make(name)
    chunk, left = encoder.nearest_context(16, 32)
    window = encoder.window(chunk)
    x = torch.randn(3, window, MELS, generator=torch.Generator().manual_seed(2))
    lengths = torch.tensor([window, window - 9, window - 25])
    state = encoder.start(3, chunk=chunk, left=left)
    with torch.no_grad():
        _, state = encoder.step(Padded(x, torch.tensor([window] * 3)), state)
        together, _ = encoder.step(Padded(x, lengths), state)
        for row, length in enumerate(lengths.tolist()):
            start = encoder.start(1, chunk=chunk, left=left)
            _, before = encoder.step(Padded(x[row : row + 1], torch.tensor([window])), start)
            alone, _ = encoder.step(Padded(x[row : row + 1], torch.tensor([length])), before)
            count = int(alone.lengths[0])
            assert count == int(together.lengths[row])
            torch.testing.assert_close(
                together.values[row, :count], alone.values[0, :count], rtol=0, atol=TOLERANCE
            )


def test_the_widest_context_of_the_training_serves_whole_recordings() -> None:
    frames = pad([torch.randn(200, MELS, generator=torch.Generator().manual_seed(3))])
    for chunks, lefts, same in (((8, -1), (32, -1), (-1, -1)), ((8, 16), (32, 64), (16, 64))):
        torch.manual_seed(5)
        config = SMALL.with_(causal=True, chunks=chunks, left_contexts=lefts)
        encoder = Zipformer(config, MELS).eval()
        with torch.no_grad():
            given = encoder(frames, chunk=same[0], left=same[1])
            assert torch.equal(encoder(frames).values, given.values)
    assert encoder.nearest_context(16, None) == (16, 64)


def test_what_is_not_causal_says_so() -> None:
    encoder = Zipformer(SMALL, MELS)
    assert not encoder.causal
    with pytest.raises(ConfigError, match="cannot stream"):
        encoder.start(1, chunk=8, left=32)
