"""Bundles of models that were cut, folded or made thin: every engine reads what such a model reads."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from test_graphs import facts_of, graph, noise, run, same

from firstwords.compression.families import groups_of
from firstwords.compression.folding import folded
from firstwords.compression.groups import cut
from firstwords.compression.low_rank import factored
from firstwords.encoders.zipformer.encoder import Zipformer
from firstwords.export.decode import OnnxReader, RuntimeReader, TorchReader, tail_samples
from firstwords.export.make import Made, make_bundle
from firstwords.export.sherpa import has_sherpa, read_with_sherpa, shown
from firstwords.model.checkpoint import load_model, save_model
from firstwords.model.recipe import Recipe
from firstwords.model.speech_model import SpeechModel
from firstwords.tensors import Padded, pad
from firstwords.text.characters import GraphemeTokenizer
from nonsense_model import CARD
from streaming_model import causal_recipe, make_causal_model, talk
from tone_corpus import tone_recipe

SOUNDS = [talk(2.5, seed=1), talk(1.3, seed=2), np.zeros(40, np.float32)]


def two_layers(folder: Path) -> Path:
    """A causal model with stacks of two layers of four heads."""
    encoder = causal_recipe().encoder.model_dump() | {"layers": [2, 2], "heads": [4, 4]}
    return make_causal_model(folder, encoder=encoder)


@torch.no_grad()
def letters_for(model: SpeechModel) -> None:
    """A head that hears letters and blanks in every sound."""
    mean = model.encode(pad([torch.from_numpy(talk(8))])).values[0].mean(dim=0)
    assert model.ctc is not None
    head = model.ctc.projection
    head.weight.normal_(0, 3, generator=torch.Generator().manual_seed(2))
    head.bias.fill_(-1e3)
    head.bias[:7] = -head.weight[:7] @ mean
    head.bias[0] += 3


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose layers lost different things: one a head and values, the next half of its channels."""
    folder = tmp_path_factory.mktemp("pruned")
    loaded = load_model(two_layers(folder / "whole"), device="cpu")
    groups = groups_of(loaded.model)
    removed = {}
    for place, group in enumerate(groups):
        free = [unit for unit in range(group.units) if unit not in group.always]
        if group.layer is None and len(free) > 1 and (place % 2 or "layers.0.self_attn" in group.name):
            removed[group] = free[:: 2 + place % 3]
    layers = [group for group in groups if group.layer is not None]
    cut(loaded.model, removed | {layers[-1]: [0]})
    assert loaded.model.structure
    letters_for(loaded.model)
    save_model(folder / "model", loaded.model, loaded.tokenizer, card=CARD)
    return folder / "model"


def every_engine_agrees(made: Made) -> None:
    facts, model = facts_of(made), made.loaded.model
    expected = [TorchReader(facts, model).read(samples, 16000) for samples in SOUNDS]
    assert min(len(tokens) for tokens in expected[:2]) >= 3
    for reader in (OnnxReader(facts, made.folder, "fp32"), RuntimeReader(facts, made.folder, "fp32")):
        assert [reader.read(samples, 16000) for samples in SOUNDS] == expected
    if has_sherpa():
        assert facts["sherpa_onnx"]
        tail = tail_samples(facts) if facts["streaming"] else 0
        said = read_with_sherpa(made.folder, facts, "fp32", [(s, 16000) for s in SOUNDS], tail=tail)
        wanted = [shown(made.loaded.tokenizer.pieces, tokens) for tokens in expected]
        assert [one.pieces for one in said] == wanted


@pytest.mark.parametrize("streaming", [False, True], ids=["offline", "streaming"])
def test_a_pruned_model(pruned: Path, tmp_path: Path, streaming: bool) -> None:
    made = make_bundle(pruned, tmp_path / "b", kind="ctc", streaming=streaming, chunk_ms=320)
    every_engine_agrees(made)


def test_states_of_layers_that_differ_are_filled_up(pruned: Path, tmp_path: Path) -> None:
    made = make_bundle(pruned, tmp_path / "b", kind="ctc", streaming=True, chunk_ms=320)
    model, facts = made.loaded.model, facts_of(made)
    assert model.ctc is not None
    encoder = cast("Zipformer", model.encoder)
    window, hop = facts["chunk"]["frames"], facts["chunk"]["shift"]
    own = encoder.start(1, chunk=hop // 2, left=facts["chunk"]["left"] // 2)
    widths = [tensor.shape[2] for layers in own.stacks for cache in layers for tensor in cache[:4]]
    given = [
        s["shape"][-1]
        for s in facts["states"]
        if s["name"].split("_")[1] in ("key", "nonlin", "val1", "val2")
    ]
    assert sum(a < b for a, b in zip(widths, given, strict=True)) >= 4  # cut out and filled up
    assert sum(len(layers) for layers in own.stacks) == 3  # of four
    steps, state = graph(made, "model"), own
    states = [np.zeros(s["shape"], s["dtype"]) for s in facts["states"]]
    x = noise(1, 3 * hop + window, 80)
    for number in range(4):
        piece = x[:, number * hop : number * hop + window]
        with torch.inference_mode():
            encoded, state = encoder.step(Padded(piece, torch.tensor([window])), state)
            wanted = model.ctc.log_probs(encoded).values
        got, *states = run(steps, piece, *states)
        same(got, wanted.numpy())


def thin(model: SpeechModel) -> SpeechModel:
    """Every feed-forward layer as two thin ones."""
    names = [
        name
        for name, module in model.encoder.named_modules(prefix="encoder")
        if isinstance(module, torch.nn.Linear) and ".feed" in name
    ]
    assert names
    return factored(model, {}, dict.fromkeys(names, 9), method="plain")


def test_a_thin_model(tmp_path: Path) -> None:
    loaded = load_model(make_causal_model(tmp_path / "whole"), device="cpu")
    save_model(tmp_path / "model", thin(loaded.model), loaded.tokenizer, card=CARD)
    every_engine_agrees(make_bundle(tmp_path / "model", tmp_path / "b", kind="ctc"))


def test_a_folded_model(tmp_path: Path) -> None:
    """A Conformer whose batch norms became part of the convolutions beside them."""
    encoder = {
        "kind": "conformer",
        "dim": 24,
        "layers": 2,
        "heads": 2,
        "feedforward": 32,
        "subsampling": {"channels": 8},
        "kernel": 9,
        "convolution_norm": "batch",
    }
    values = tone_recipe().model_dump() | {"encoder": encoder}
    tokenizer = GraphemeTokenizer.train(["aeiou aeiou aeiou"] * 5)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        whole = SpeechModel(Recipe.model_validate(values), len(tokenizer.pieces)).eval()
    letters_for(whole)
    model, places = folded(whole)
    assert places
    save_model(tmp_path / "model", model, tokenizer, card=CARD)
    made = make_bundle(tmp_path / "model", tmp_path / "b", kind="ctc")
    assert made.loaded.model.structure
    every_engine_agrees(made)
