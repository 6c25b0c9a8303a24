"""The law of pruning, over every encoder and every kind of group: a model from which units were cut computes
what the whole model computes with the gates of these units at zero.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import pytest
import torch
from test_encoder_laws import ENCODERS, encode, make, noise, same
from torch import Tensor, nn

from firstwords.compression.families import FAMILIES, groups_of
from firstwords.compression.gates import gated
from firstwords.compression.groups import KINDS, Group, cut
from firstwords.encoders.encoder import Encoder
from firstwords.model import kinds
from firstwords.model.speech_model import SpeechModel
from firstwords.model.structure import LowRank, Structure, apply_structure
from firstwords.nn.low_rank import worth
from firstwords.tensors import Padded, pad
from tone_corpus import tone_recipe

# One of each kind, a small one; the others are slow.
FAST = (
    "zipformer",
    "listener",
    "quartznet",
    "mobilenet, without gates",
    "resnet",
    "resnet, separable",
    "lstm",
    "dnn, no context",
    "transformer",
    "conformer, batch norm",
    "squeezeformer",
    "e_branchformer",
)
EACH = [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in ENCODERS]
EXACT = 1e-5  # relative to the largest value: other sizes take other kernels


def model_of(name: str) -> SpeechModel:
    model = SpeechModel(tone_recipe(), 5).eval()
    model.encoder = make(name)
    return model


def outputs(model: SpeechModel) -> Padded:
    return encode(model.encoder, noise(131, 90, 61))


def equal(a: Padded, b: Padded) -> None:
    assert torch.equal(a.lengths, b.lengths)
    scale = max(1.0, float(a.values.abs().max()))
    torch.testing.assert_close(a.values, b.values, rtol=0, atol=EXACT * scale)


def every_other(group: Group) -> list[int]:
    """Units to cut: about half of them."""
    if group.layer is not None:
        return [0]
    free = [u for u in range(group.units) if u not in group.always]
    chosen = free[:: 2 if len(free) > 1 else 1]
    return chosen if len(chosen) < group.units else []


def gates(groups: Iterable[Group], removed: dict[Group, list[int]]) -> dict[Group, Tensor]:
    made: dict[Group, Tensor] = {}
    for group in groups:
        made[group] = torch.ones(group.units)
        made[group][removed.get(group, [])] = 0.0
    return made


@pytest.mark.parametrize("name", EACH)
def test_a_cut_group_is_a_group_with_closed_gates(name: str) -> None:
    model = model_of(name)
    groups = groups_of(model)
    assert groups
    assert len({group.name for group in groups}) == len(groups)
    whole = outputs(model)
    with gated(model, gates(groups, {})):
        equal(outputs(model), whole)
    seen: set[str] = set()
    for group in groups:
        place = ".".join(part for part in group.name.split(".") if not part.isdigit())
        if place in seen or not every_other(group):  # one of each sort is enough
            continue
        seen.add(place)
        removed = {group: every_other(group)}
        with gated(model, gates(groups, removed)):
            wanted = outputs(model)
        equal(outputs(model), whole)  # gates leave nothing behind
        smaller = copy.deepcopy(model)
        keep = [u for u in range(group.units) if u not in removed[group]]
        assert group.cut(smaller, keep)
        assert smaller.num_parameters < model.num_parameters
        assert float((wanted.values - whole.values).abs().max()) > 1e-4, group.name
        try:
            equal(outputs(smaller), wanted)
        except AssertionError as error:
            raise AssertionError(f"{group.name}: {error}") from None


@pytest.mark.parametrize("name", EACH)
def test_everything_cut_at_once_and_then_again(name: str) -> None:
    model = model_of(name)
    for _ in range(2):
        groups = groups_of(model)
        removed = {g: every_other(g) for g in groups if g.layer is None}
        layers = [g for g in groups if g.layer is not None]
        removed |= {g: [0] for g in layers[-1:]}
        with gated(model, gates(groups, removed)):
            wanted = outputs(model)
        before = model.num_parameters
        cut(model, removed)
        assert model.num_parameters < before
        equal(outputs(model), wanted)
    again = make(name)  # the structure alone says what became of the network
    shell = SpeechModel(tone_recipe(), 5).eval()
    shell.encoder = again
    apply_structure(shell, Structure.model_validate_json(model.structure.text()))
    shell.load_state_dict(model.state_dict())
    equal(outputs(shell), outputs(model))
    # and the padding law holds for what is left
    utterances = noise(203, 90, 61, 45, 9, 128)
    together = encode(model.encoder, utterances, 3.0)
    for i, utterance in enumerate(utterances):
        alone = encode(model.encoder, [utterance])
        count = int(alone.lengths[0])
        same(together.values[i, :count], alone.values[0, :count])


@pytest.mark.parametrize("name", EACH)
def test_layers_of_a_model_of_low_rank_can_go(name: str) -> None:
    """What low ranks made of the matrices does not hide the layers: one of them goes, all else stays."""
    model = model_of(name)
    whole = [g.name for g in groups_of(model) if g.layer is not None]
    linear = {p: m for p, m in model.encoder.named_modules(prefix="encoder") if isinstance(m, nn.Linear)}
    ranks = {path: worth(m.in_features, m.out_features) for path, m in linear.items()}
    changes = tuple(LowRank(module=path, rank=rank) for path, rank in ranks.items() if rank > 0)
    apply_structure(model, Structure(changes=changes))
    layers = [g for g in groups_of(model) if g.layer is not None]
    assert [g.name for g in layers] == whole
    if not layers:
        return
    before, parameters = outputs(model), model.num_parameters
    cut(model, {layers[-1]: [0]})
    after = outputs(model)
    assert model.num_parameters < parameters
    assert torch.equal(after.lengths, before.lengths)
    assert float((after.values - before.values).abs().max()) > 1e-4


@pytest.mark.parametrize("name", EACH)
def test_what_is_left_can_learn(name: str) -> None:
    """In training mode, with every regulariser; all that is left gets a gradient."""
    model = model_of(name)
    groups = groups_of(model)
    layers = [g for g in groups if g.layer is not None]
    cut(model, {g: every_other(g) for g in groups if g.layer is None} | {g: [0] for g in layers[-1:]})
    model.train()
    frames = noise(150, 120)
    met: set[str] = set()
    for seed in range(6):
        torch.manual_seed(seed)
        model.set_step(20000.0 * (seed % 2))
        model.zero_grad(set_to_none=True)
        model.encoder(pad(frames)).values.square().mean().backward()
        found = {n: p.grad for n, p in model.encoder.named_parameters() if p.grad is not None}
        assert all(grad.isfinite().all() for grad in found.values())
        met |= {n for n, grad in found.items() if bool(grad.any())}
    assert met >= {n for n, _ in model.encoder.named_parameters() if n.endswith("weight") and "norm" not in n}


def test_every_encoder_has_a_family() -> None:
    built = {entry.build for entry in kinds.ENCODERS.values()}
    assert built == set(FAMILIES)
    assert {name.partition(",")[0] for name in FAST} == set(kinds.ENCODERS)
    assert set(FAST) <= set(ENCODERS)


def test_every_kind_of_group_is_met() -> None:
    found = {group.kind for name in ENCODERS for group in groups_of(model_of(name))}
    assert found == set(KINDS)


@pytest.mark.parametrize("name", ["zipformer, causal", "conformer, causal", "lstm, forward"])
def test_a_cut_encoder_streams(name: str) -> None:
    """Steps joined equal one pass with the same chunks, after cuts that differ from layer to layer."""
    model = model_of(name)
    groups = groups_of(model)
    removed = {g: every_other(g) for n, g in enumerate(groups) if g.layer is None and n % 2}
    layers = [g for g in groups if g.layer is not None]
    removed |= {layers[-1]: [0]} if layers else {}
    cut(model, removed)
    assert stepped(model.encoder, noise(150)[0]) < 1e-4


def stepped(encoder: Encoder, frames: Tensor) -> float:
    """The largest difference between steps and a whole pass, over the whole chunks."""
    from firstwords.encoders.encoder import StreamingEncoder

    assert isinstance(encoder, StreamingEncoder)
    chunk, left = encoder.nearest_context(8, 32)
    with torch.no_grad():
        whole = encoder(Padded(frames[None], torch.tensor([len(frames)])), chunk=chunk, left=left).values[0]
        state = encoder.start(1, chunk=chunk, left=left)
        window, hop = encoder.window(chunk), encoder.hop(chunk)
        pieces: list[Tensor] = []
        for start in range(0, len(frames) - window + 1, hop):
            piece = frames[start : start + window][None]
            found, state = encoder.step(Padded(piece, torch.tensor([window])), state)
            pieces.append(found.values[0])
    joined = torch.cat(pieces)
    assert len(joined) > 8
    return float((joined - whole[: len(joined)]).abs().max())
