"""Transducer losses, ranges, predictor and joiner against golden numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from firstwords.heads.transducer.joiner import Joiner
from firstwords.heads.transducer.lattice import Topology
from firstwords.heads.transducer.predictor import StatelessConfig, StatelessPredictor
from firstwords.heads.transducer.pruned import band_loss, prune_ranges, simple_paths
from firstwords.heads.transducer.rnnt import next_tokens, rnnt_loss
from firstwords.tensors import Padded

LOSS = 1e-5  # relative
GRADIENT = 2e-5  # absolute
FULL = ("full0", "full1", "full2")
PRUNED = ("pruned0", "pruned1")


@pytest.fixture(scope="module")
def cases(golden: Path) -> dict[str, Any]:
    return json.loads((golden / "rnnt.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tensors(golden: Path) -> dict[str, Tensor]:
    return load_file(golden / "rnnt.safetensors")


def near(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max().item() <= GRADIENT


def same(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours.double(), theirs.double(), rtol=LOSS, atol=0)


@pytest.mark.parametrize(
    ("case", "topology", "delay", "name"),
    [
        *((case, "regular", 0.0, "") for case in FULL),
        *((case, "regular", 0.0, "k2_regular_") for case in FULL),
        *((case, "regular", 0.1, "k2_regular_delay_penalty_0.1_") for case in FULL),
        *((case, kind, 0.0, f"k2_{kind}_") for case in FULL[:2] for kind in ("modified", "constrained")),
    ],
)
def test_full_loss(
    case: str, topology: Topology, delay: float, name: str, cases: dict[str, Any], tensors: dict[str, Tensor]
) -> None:
    logits = tensors[f"{case}/in/logits"].clone().requires_grad_()
    loss = rnnt_loss(
        logits,
        tensors[f"{case}/in/logit_lengths"],
        Padded(tensors[f"{case}/in/targets"], tensors[f"{case}/in/target_lengths"]),
        blank=cases[case]["blank"],
        topology=topology,
        delay_penalty=delay,
    )
    same(loss.detach(), tensors[f"{case}/out/{name}loss"])
    gradient = tensors.get(f"{case}/out/{name}grad_logits_of_sum")
    if gradient is not None:
        loss.sum().backward()
        assert logits.grad is not None
        near(logits.grad, gradient)


@pytest.mark.parametrize("case", FULL)
def test_full_loss_in_float64(case: str, cases: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    logits = tensors[f"{case}/in/logits"].double().requires_grad_()
    targets = Padded(tensors[f"{case}/in/targets"], tensors[f"{case}/in/target_lengths"])
    loss = rnnt_loss(logits, tensors[f"{case}/in/logit_lengths"], targets, blank=cases[case]["blank"])
    torch.testing.assert_close(
        loss.detach(), tensors[f"{case}/out/bruteforce_float64_loss"], rtol=1e-12, atol=1e-12
    )
    loss.sum().backward()
    assert logits.grad is not None
    expected = tensors[f"{case}/out/float64_grad_logits_of_sum"]
    torch.testing.assert_close(logits.grad, expected, rtol=1e-12, atol=1e-12)


def pruned_inputs(case: str, tensors: dict[str, Tensor]) -> tuple[Padded, Tensor, Padded]:
    am = tensors[f"{case}/in/am"].clone().requires_grad_()
    lm = tensors[f"{case}/in/lm"].clone().requires_grad_()
    frames, tokens = tensors[f"{case}/in/T"], tensors[f"{case}/in/U"]
    return Padded(am, frames), lm, Padded(tensors[f"{case}/in/symbols"], tokens)


@pytest.mark.parametrize("case", PRUNED)
def test_simple_loss(case: str, tensors: dict[str, Tensor]) -> None:
    am, lm, targets = pruned_inputs(case, tensors)
    paths = simple_paths(am, lm, targets)
    same(-paths.log_prob.detach(), tensors[f"{case}/out/simple/loss"])
    paths.log_prob.sum().neg().backward()
    assert am.values.grad is not None
    assert lm.grad is not None
    near(am.values.grad, tensors[f"{case}/out/simple/grad_am"])
    near(lm.grad, tensors[f"{case}/out/simple/grad_lm"])


SCALES = [("pruned0", 0.0, 0.0), ("pruned0", 0.25, 0.0), ("pruned1", 0.25, 0.0), ("pruned1", 0.2, 0.1)]


@pytest.mark.parametrize(("case", "lm_scale", "am_scale"), SCALES)
def test_smoothed_and_pruned_loss(
    case: str, lm_scale: float, am_scale: float, cases: dict[str, Any], tensors: dict[str, Tensor]
) -> None:
    am, lm, targets = pruned_inputs(case, tensors)
    name = f"{case}/out/smoothed_lm{lm_scale}_am{am_scale}"
    # The reference averages over the whole batch, padding included.
    average = (lm.softmax(dim=2).mean(dim=(0, 1)) + torch.finfo(lm.dtype).tiny).log()
    paths = simple_paths(
        am, lm, targets, lm_scale=lm_scale, am_scale=am_scale, average_lm=average[None] if am_scale else None
    )
    same(-paths.log_prob.detach(), tensors[f"{name}/loss"])
    paths.log_prob.sum().neg().backward()
    assert am.values.grad is not None
    assert lm.grad is not None
    near(am.values.grad, tensors[f"{name}/grad_am"])
    near(lm.grad, tensors[f"{name}/grad_lm"])
    near(paths.tokens.transpose(1, 2)[:, :-1], tensors[f"{name}/px_grad"][:, :, :-1])
    near(paths.blanks.transpose(1, 2), tensors[f"{name}/py_grad"])

    rows = lm.shape[1]
    for width in cases[case]["s_ranges"]:
        part = f"{name}/s_range{width}"
        starts, widths = prune_ranges(paths, am.lengths, targets.lengths, width)
        theirs = tensors[f"{part}/ranges"]
        band = theirs.shape[2]
        assert widths.tolist() == [band] * len(widths)
        places = starts[:, :, None] + torch.arange(band)
        assert torch.equal(places, theirs)
        frame = tensors[f"{case}/in/am_j"][:, :, None]
        history = tensors[f"{case}/in/lm_j"]
        logits = torch.tanh(frame + history[torch.arange(len(history))[:, None, None], places])
        logits = logits @ tensors[f"{case}/in/W"].t() + tensors[f"{case}/in/b"]
        near(logits, tensors[f"{part}/logits"])
        logits = tensors[f"{part}/logits"].clone().requires_grad_()
        log_probs = logits.log_softmax(dim=-1)
        labels = next_tokens(targets.values, rows)[:, None].expand(-1, starts.shape[1], -1).gather(2, places)
        token = log_probs.gather(3, labels[..., None])[..., 0]
        loss = band_loss(token, log_probs[..., 0], am.lengths, targets.lengths, starts, widths, rows)
        same(loss.detach(), tensors[f"{part}/loss"])
        loss.sum().backward()
        assert logits.grad is not None
        near(logits.grad, tensors[f"{part}/grad_logits"])


@pytest.mark.parametrize("case", PRUNED)
def test_unpruned_loss_of_the_joint_scores(case: str, tensors: dict[str, Tensor]) -> None:
    am, _, targets = pruned_inputs(case, tensors)
    frame, history = tensors[f"{case}/in/am_j"][:, :, None], tensors[f"{case}/in/lm_j"][:, None]
    logits = torch.tanh(frame + history) @ tensors[f"{case}/in/W"].t() + tensors[f"{case}/in/b"]
    same(rnnt_loss(logits, am.lengths, targets), tensors[f"{case}/out/unpruned_loss"])


@pytest.fixture(scope="module")
def modules(golden: Path) -> dict[str, Tensor]:
    return load_file(golden / "modules.safetensors")


@pytest.mark.parametrize("case", ["decoder", "decoder_infer"])
def test_predictor(case: str, modules: dict[str, Tensor]) -> None:
    predictor = StatelessPredictor(StatelessConfig(dim=16, context=2), 20)
    predictor.load_state_dict(
        {name: modules[f"decoder/weights/{name}"] for name in ("embedding.weight", "conv.weight")}
    )
    tokens = modules[f"{case}/in/y"]
    if case == "decoder":  # padded on the left as in training
        tokens = torch.nn.functional.pad(tokens, (1, 0), value=-1)
    near(predictor.read(tokens), modules[f"{case}/out/y"])


def test_joiner(modules: dict[str, Tensor]) -> None:
    names = {"encoder_proj": "encoder_proj", "decoder_proj": "predictor_proj", "output_linear": "output"}
    joiner = Joiner(32, 16, 24, 20)
    for theirs, ours in names.items():
        weights = {part: modules[f"joiner/weights/{theirs}.{part}"] for part in ("weight", "bias")}
        joiner.get_submodule(ours).load_state_dict(weights)
    frame = modules["joiner/in/encoder_out"].clone().requires_grad_()
    history = modules["joiner/in/decoder_out"].clone().requires_grad_()
    logits = joiner(frame, history)
    near(logits, modules["joiner/out/y"])
    logits.backward(modules["joiner/in/gy"])
    assert frame.grad is not None
    assert history.grad is not None
    near(frame.grad, modules["joiner/grad/encoder_out"])
    near(history.grad, modules["joiner/grad/decoder_out"])
    for theirs, ours in names.items():
        for part in ("weight", "bias"):
            gradient = joiner.get_parameter(f"{ours}.{part}").grad
            assert gradient is not None
            near(gradient, modules[f"joiner/pgrad/{theirs}.{part}"])
