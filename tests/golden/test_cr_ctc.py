"""CR-CTC: both losses of two views and their gradients against golden numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from firstwords.heads.consistency import consistency_loss
from firstwords.heads.ctc import ctc_loss
from firstwords.tensors import Padded, pad


@pytest.mark.parametrize("case", ["case0", "case1"])
def test_two_views(case: str, golden: Path) -> None:
    numbers = json.loads((golden / "cr_ctc.json").read_text(encoding="utf-8"))[case]
    tensors = load_file(golden / "cr_ctc.safetensors")
    values = tensors[f"{case}/in/log_probs"].clone().requires_grad_()
    log_probs = Padded(values, tensors[f"{case}/in/lens"])
    target_lengths = tensors[f"{case}/in/target_lengths"]
    targets = pad(list(tensors[f"{case}/in/targets"].split(target_lengths.tolist())))

    consistency = consistency_loss(log_probs)
    assert consistency.shape == (numbers["N"],)
    assert consistency.sum().item() == pytest.approx(numbers["cr_loss"], rel=1e-5)
    (gradient,) = torch.autograd.grad(consistency.sum(), values)
    expected = tensors[f"{case}/out/grad_cr_wrt_logprobs"]
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))

    loss = ctc_loss(log_probs, targets)
    assert loss.sum().item() == pytest.approx(numbers["ctc_loss"], rel=1e-5)
    (gradient,) = torch.autograd.grad(loss.sum(), values)
    expected = tensors[f"{case}/out/grad_ctc_wrt_logprobs"]
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-5)

    used = numbers["used_in_training"]  # two views count half each
    assert 0.5 * loss.sum().item() == pytest.approx(used["ctc"], rel=1e-5)
    assert 0.5 * consistency.sum().item() == pytest.approx(used["cr"], rel=1e-5)
