"""On a processor in bfloat16, single utterances have one of few lengths; what is read stays what it was."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from firstwords.device import Compute
from firstwords.inference.frames import encoded_frames, filled_up
from firstwords.tensors import Padded, pad
from small_models import ENCODERS, small_model
from tone_bundle import RATE

CPU = torch.device("cpu")
FLOAT = Compute(CPU, torch.float32, "a test")
HALF = Compute(CPU, torch.bfloat16, "a test")


def sounds(*seconds: float) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [0.1 * rng.standard_normal(round(s * RATE)).astype(np.float32) for s in seconds]


@pytest.mark.parametrize("rate", [8000, 16000])
def test_few_lengths(rate: int) -> None:
    samples = range(1, 20 * rate + 1, 7)
    filled = [filled_up(n, rate) for n in samples]
    assert len(set(filled)) <= 23
    assert all(
        n <= f <= max(math.ceil(0.5 * rate), math.ceil(2**0.25 * n))
        for n, f in zip(samples, filled, strict=True)
    )
    assert all(filled_up(f, rate) == f for f in set(filled) if f <= 20 * rate)


def test_windows_and_what_an_encoder_cannot_read_stay() -> None:
    assert filled_up(20 * 16000 + 1, 16000) == 20 * 16000 + 1
    assert filled_up(30 * 16000, 16000) == 30 * 16000
    assert filled_up(9 * 16000, 16000) > 9.1 * 16000
    assert filled_up(9 * 16000, 16000, longest=9.1 * 16000) == 9 * 16000


@pytest.mark.parametrize("kind", ENCODERS)
def test_frames_are_what_they_were(kind: str) -> None:
    model = small_model(kind)
    batch = sounds(1.3)
    read = encoded_frames(model, HALF, batch)
    plain = pad([torch.from_numpy(one) for one in batch])
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        wanted = model.encode(plain)
    assert read.lengths.tolist() == wanted.lengths.tolist()
    (length,) = wanted.lengths.tolist()
    got, want = read.values[:, :length], wanted.values[:, :length].float()
    assert torch.linalg.vector_norm(got - want) <= 0.02 * torch.linalg.vector_norm(want)


def test_only_there(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model("conformer")
    encode, seen = model.encode, list[int]()

    def watched(audio: Padded) -> Padded:
        seen.append(audio.values.shape[1])
        assert audio.lengths[0] == round(1.3 * RATE)
        return encode(audio)

    monkeypatch.setattr(model, "encode", watched)
    plain = round(1.3 * RATE)
    encoded_frames(model, FLOAT, sounds(1.3))
    encoded_frames(model, HALF, sounds(1.3, 0.7))
    encoded_frames(model, HALF, sounds(1.3))
    assert seen == [plain, plain, filled_up(plain, RATE)]
    assert seen[2] > plain
