"""ScaledAdam, Eden and model averaging against golden numbers of the reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from firstwords.training.averaging import RunningAverage, set_weights
from firstwords.training.scaled_adam import ScaledAdam
from firstwords.training.schedule import Eden2Config, EdenConfig, learning_rate

CASES = ("plain", "other_hparams", "clip2", "clip_small_period", "clip_inf", "two_groups", "eden")


@pytest.fixture(scope="module")
def cases(golden: Path) -> dict[str, Any]:
    return json.loads((golden / "optim.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tensors(golden: Path) -> dict[str, Tensor]:
    return load_file(golden / "optim.safetensors")


def build(case: dict[str, Any], parameters: dict[str, torch.nn.Parameter]) -> ScaledAdam:
    settings = dict(case["kwargs"])
    if "groups" in case:
        groups = [{"params": [parameters[n] for n in g["names"]], "lr": g["lr"]} for g in case["groups"]]
        return ScaledAdam(groups, **settings)
    return ScaledAdam(parameters.values(), **settings)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("resume_at", [None, 7])
def test_scaled_adam(
    name: str, resume_at: int | None, cases: dict[str, Any], tensors: dict[str, Tensor]
) -> None:
    case = cases[name]
    parameters = {p: torch.nn.Parameter(tensors[f"{name}/init/{p}"].clone()) for p in case["params"]}
    optimizer = build(case, parameters)
    eden = EdenConfig(lr=case["kwargs"]["lr"], **case["eden"]) if "eden" in case else None
    for k in range(case["steps"]):
        if k == resume_at:  # a fresh optimizer that loads the state goes on exactly
            state = optimizer.state_dict()
            optimizer = build(case, parameters)
            optimizer.load_state_dict(state)
        if eden is not None:
            optimizer.param_groups[0]["lr"] = learning_rate(eden, step=k + 1, epoch=0, total_steps=20)
        for p, parameter in parameters.items():
            parameter.grad = tensors[f"{name}/grads/{p}"][k].clone()
        optimizer.step()
        for p, parameter in parameters.items():
            expected = tensors[f"{name}/values/{p}"][k]
            error = float((parameter.detach() - expected).abs().max())
            assert error <= 2e-6 * max(float(expected.abs().max()), 1e-30), (p, k, error)


def test_clip_inf_case_really_contains_infinity(tensors: dict[str, Tensor]) -> None:
    grads = [v for n, v in tensors.items() if n.startswith("clip_inf/grads/")]
    assert any(torch.isinf(g[8]).any() for g in grads)


def test_eden_tables(cases: dict[str, Any]) -> None:
    for table in cases["eden_schedule"]["tables"]:
        config = EdenConfig.model_validate({"lr": table["base_lr"], "warmup_start": 0.5, **table["kw"]})
        for batch, epoch, expected in table["rows"]:
            got = learning_rate(config, step=batch, epoch=epoch, total_steps=1_000_000)
            assert got == pytest.approx(expected, rel=1e-12, abs=0)


def test_eden2_tables(cases: dict[str, Any]) -> None:
    for table in cases["eden2_schedule"]["tables"]:
        config = Eden2Config.model_validate({"lr": table["base_lr"], "warmup_start": 0.5, **table["kw"]})
        for batch, expected in table["rows"]:
            got = learning_rate(config, step=batch, epoch=0, total_steps=1_000_000)
            assert got == pytest.approx(expected, rel=1e-12, abs=0)


class Small(torch.nn.Module):
    """The model of the averaging case."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2, 3))
        self.bias = torch.nn.Parameter(torch.zeros(2))


def test_running_average(cases: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    period = cases["averaging"]["average_period"]
    model, average = Small(), RunningAverage(period)
    for k in range(1, 6):
        set_weights(model, {n: tensors[f"averaging/cur{k}/{n}"] for n in ("weight", "bias")})
        assert not average.update(model, period * k - 1)
        assert average.update(model, period * k)
        found = average.snapshot()
        for name in ("weight", "bias"):
            got = found.values[name]
            assert got.dtype is torch.float64
            torch.testing.assert_close(got, tensors[f"averaging/avg{k}/{name}"], rtol=1e-6, atol=1e-6)
