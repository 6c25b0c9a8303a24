"""CTC loss, searches and forced alignment against golden numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from firstwords.heads.ctc import ctc_loss
from firstwords.search.align import align
from firstwords.search.ctc_beam import prefix_beam
from firstwords.search.greedy import greedy_search
from firstwords.search.search import CtcBeamConfig
from firstwords.tensors import Padded


@pytest.fixture(scope="module")
def numbers(golden: Path) -> dict[str, Any]:
    return json.loads((golden / "ctc.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tensors(golden: Path) -> dict[str, Tensor]:
    return load_file(golden / "ctc.safetensors")


def frames_of(tensors: dict[str, Tensor], case: str) -> NDArray[np.float64]:
    return tensors[f"{case}/log_probs"].double().numpy()


@pytest.mark.parametrize("case", ["big", "small0", "small1"])
def test_greedy(case: str, numbers: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    values = tensors[f"{case}/log_probs"]
    batch = Padded(values[None], torch.tensor([len(values)]))
    (reading,) = greedy_search(batch, frame_seconds=0.04)
    assert list(reading.tokens) == numbers[case]["greedy"]
    if case == "big":
        assert reading.score == pytest.approx(numbers[case]["greedy_path_logprob"], rel=1e-9)


@pytest.mark.parametrize("width", [1, 2, 4, 8, 16])
def test_prefix_beam_of_every_width(width: int, numbers: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    expected = numbers["big"]["prefix_beam"][str(width)]
    found = prefix_beam(frames_of(tensors, "big"), CtcBeamConfig(beam=width))
    assert [list(tokens) for tokens, _ in found][: len(expected)] == [tokens for tokens, _ in expected]
    for (_, score), (_, right) in zip(found, expected, strict=False):
        assert score == pytest.approx(right, abs=1e-9)


@pytest.mark.parametrize("width", [1, 2, 4, 8, 16])
def test_icefall_variant_tries_as_many_symbols_as_the_beam(
    width: int, numbers: dict[str, Any], tensors: dict[str, Tensor]
) -> None:
    expected = numbers["big"]["icefall_ctc_prefix_beam_search"][str(width)]
    config = CtcBeamConfig(beam=width, tokens_per_frame=width)
    found = prefix_beam(frames_of(tensors, "big"), config)
    assert [list(tokens) for tokens, _ in found][: len(expected)] == [tokens for tokens, _ in expected]
    for (_, score), (_, right) in zip(found, expected, strict=False):
        assert score == pytest.approx(right, rel=1e-6)  # the reference computes in float32


@pytest.mark.parametrize("case", ["small0", "small1"])
def test_wide_beam_is_enumeration(case: str, numbers: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    expected = {tuple(tokens): score for tokens, score in numbers[case]["all_label_sequences_logprob"]}
    found = dict(prefix_beam(frames_of(tensors, case), CtcBeamConfig(beam=2000)))
    assert set(found) == set(expected)
    for tokens, score in expected.items():
        assert found[tokens] == pytest.approx(score, abs=1e-9)


def test_exact_value_of_the_best(numbers: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    values = tensors["big/log_probs"].double()
    for width, expected in numbers["big"]["exact_logprob_of_best"].items():
        tokens = torch.tensor(numbers["big"]["prefix_beam"][width][0][0])
        loss = ctc_loss(
            Padded(values[None], torch.tensor([len(values)])),
            Padded(tokens[None], torch.tensor([len(tokens)])),
        )
        assert -float(loss[0]) == pytest.approx(expected, abs=1e-9)


def test_loss_and_gradient(numbers: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    log_probs = tensors["loss/log_probs"].double().transpose(0, 1).contiguous().requires_grad_()
    loss = ctc_loss(
        Padded(log_probs, tensors["loss/input_lengths"]),
        Padded(tensors["loss/targets"], tensors["loss/target_lengths"]),
    )
    assert loss.tolist() == pytest.approx(numbers["loss"]["loss"], abs=1e-9)
    loss.sum().backward()
    assert log_probs.grad is not None
    torch.testing.assert_close(
        log_probs.grad.transpose(0, 1), tensors["loss/grad_log_probs_of_sum"], rtol=0, atol=1e-9
    )


def test_forced_alignment(numbers: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    for row, expected in enumerate(numbers["loss"]["forced_align_torchaudio"]):
        frames = int(tensors["loss/input_lengths"][row])
        tokens = tensors["loss/targets"][row, : int(tensors["loss/target_lengths"][row])].tolist()
        found = align(tensors["loss/log_probs"][:frames, row], tokens)
        assert list(found.path) == expected["path"]
        assert found.score == pytest.approx(expected["sum_logprob"], rel=1e-6)  # float32 in the reference
