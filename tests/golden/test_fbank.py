"""Filterbank and cepstra against the shared reference numbers, and an excerpt kept in this repository.

Tolerances of the golden set: filterbank 2e-3 at most and 1e-4 on average (three reference libraries differ
from each other by 4e-4 and 4e-6), cepstra and their slopes 3e-3.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
import torch
from safetensors.torch import load_file

from firstwords.features.fbank import Fbank, FbankConfig
from firstwords.features.frontend import Frontend
from firstwords.features.mfcc import Mfcc, MfccConfig
from firstwords.tensors import Padded, pad

CASES = {
    "knf_fbank80": FbankConfig(),
    "knf_fbank80_int16scale": FbankConfig(scale=32768.0),
    "knf_fbank80_snip": FbankConfig(snip_edges=True),
    "torchaudio_fbank80": FbankConfig(),
    "lhotse_fbank80": FbankConfig(),
    "knf_mfcc13": MfccConfig(),
    "knf_mfcc13_int16scale": MfccConfig(scale=32768.0),
    "torchaudio_mfcc13": MfccConfig(),
}


def frontend(name: str, transform: str) -> Frontend:
    config = CASES[name].with_(transform=transform)
    return Fbank(config) if isinstance(config, FbankConfig) else Mfcc(config)


def check(ours: torch.Tensor, reference: torch.Tensor, name: str) -> None:
    assert ours.shape == reference.shape
    difference = (ours - reference).abs()
    worst = 2e-3 if "fbank" in name else 3e-3
    assert float(difference.max()) <= worst
    if "fbank" in name:
        assert float(difference.mean()) <= 1e-4


@pytest.fixture(scope="module")
def utterances(golden: Path) -> list[torch.Tensor]:
    files = [golden / "fbank" / f"utt{i}.wav" for i in (0, 1)]
    return [torch.from_numpy(soundfile.read(file, dtype="float32")[0]) for file in files]


@pytest.fixture(scope="module")
def reference(golden: Path) -> dict[str, torch.Tensor]:
    return load_file(golden / "fbank" / "fbank.safetensors")


@pytest.mark.parametrize("transform", ["fft", "matmul"])
@pytest.mark.parametrize("name", CASES)
def test_alone_and_batched(
    name: str, transform: str, utterances: list[torch.Tensor], reference: dict[str, torch.Tensor]
) -> None:
    module = frontend(name, transform)
    together = module(pad(utterances))
    for i, samples in enumerate(utterances):
        expected = reference[f"utt{i}/{name}"]
        check(module(pad([samples])).values[0], expected, name)
        check(together.values[i, : together.lengths[i]], expected, name)


def test_slopes(utterances: list[torch.Tensor], reference: dict[str, torch.Tensor]) -> None:
    result = Mfcc(MfccConfig(scale=32768.0, deltas=2))(pad(utterances))
    for i in (0, 1):
        frames = result.values[i, : result.lengths[i]]
        for order, name in enumerate(("delta", "deltadelta"), start=1):
            expected = reference[f"utt{i}/{name}_of_knf_mfcc13_int16scale"]
            check(frames[:, 13 * order : 13 * (order + 1)], expected, name)


EXCERPT = load_file(Path(__file__).parent / "data" / "fbank_excerpt.safetensors")


@pytest.mark.parametrize("transform", ["fft", "matmul"])
@pytest.mark.parametrize("name", sorted(set(EXCERPT) & set(CASES)))
def test_excerpt_in_the_repository(name: str, transform: str) -> None:
    samples = EXCERPT["samples"].float() / 32768
    frames = frontend(name, transform)(Padded(samples[None], torch.tensor([len(samples)]))).values[0]
    check(frames[: len(EXCERPT[name])], EXCERPT[name], name)


def test_slopes_of_the_excerpt() -> None:
    samples = EXCERPT["samples"].float() / 32768
    frames = Mfcc(MfccConfig(scale=32768.0, deltas=2))(pad([samples])).values[0]
    for order, name in enumerate(("delta", "deltadelta"), start=1):
        expected = EXCERPT[f"{name}_of_knf_mfcc13_int16scale"]
        check(frames[: len(expected), 13 * order : 13 * (order + 1)], expected, name)
