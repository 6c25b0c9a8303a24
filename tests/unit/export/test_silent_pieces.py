"""Pieces of a converted model that are no text: <unk> is read by no engine, and changes nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_graphs import facts_of

from firstwords.export.decode import OnnxReader, RuntimeReader, TorchReader, tail_samples
from firstwords.export.graphs import Spoken
from firstwords.export.make import make_bundle
from firstwords.export.sherpa import has_sherpa, read_with_sherpa
from firstwords.heads.ctc import CtcConfig, CtcHead
from firstwords.model.checkpoint import load_model, save_model
from firstwords.tensors import pad
from firstwords.text.given import GivenTokenizer
from nonsense_model import CARD
from streaming_model import make_causal_model, talk

UNKNOWN = 3


def test_ids_that_are_no_text() -> None:
    assert GivenTokenizer(["<blank>", "<sos/eos>", "<unk>", "▁a", "b"]).silent == (1, 2)
    assert GivenTokenizer(["<blank>", "▁", "a"]).silent == ()


def test_the_best_of_every_frame_stays_or_is_the_blank() -> None:
    torch.manual_seed(0)
    head = CtcHead(CtcConfig(dropout=0.0), 8, 9).eval()
    frames = pad([torch.randn(200, 8) * 3, torch.randn(0, 8)])
    with torch.no_grad():
        before, after = head.log_probs(frames).values, Spoken(head, (2, 5))(frames).values
        same = Spoken(head, ())(frames).values
    best = before.argmax(dim=-1)
    silent = (best == 2) | (best == 5)
    assert 0 < int(silent.sum()) < silent.numel()
    assert torch.equal(after.argmax(dim=-1), best.masked_fill(silent, 0))
    assert torch.equal(same, before)
    others = [1, 3, 4, 6, 7, 8]
    assert torch.equal(after[..., others], before[..., others])


@pytest.mark.parametrize("streaming", [False, True], ids=["offline", "streaming"])
def test_no_engine_writes_the_name_of_an_unknown_piece(tmp_path: Path, streaming: bool) -> None:
    loaded = load_model(make_causal_model(tmp_path / "letters"), device="cpu")
    pieces = list(loaded.tokenizer.pieces)
    pieces[UNKNOWN] = "<unk>"
    save_model(tmp_path / "model", loaded.model, GivenTokenizer(pieces), card=CARD)
    made = make_bundle(tmp_path / "model", tmp_path / "b", kind="ctc", streaming=streaming)
    facts, sound = facts_of(made), talk(4, seed=1)
    plain = TorchReader(facts, made.loaded.model).read(sound, 16000)
    assert UNKNOWN in plain
    assert len(set(plain)) > 2
    expected = tuple(token for token in plain if token != UNKNOWN)
    assert TorchReader(facts, made.loaded.model, made.loaded.tokenizer.silent).read(sound, 16000) == expected
    for reader in (OnnxReader(facts, made.folder, "fp32"), RuntimeReader(facts, made.folder, "fp32")):
        assert reader.read(sound, 16000) == expected
    if has_sherpa():
        tail = tail_samples(facts) if streaming else 0
        (said,) = read_with_sherpa(made.folder, facts, "fp32", [(sound, 16000)], tail=tail)
        assert "<unk>" not in said.text
        assert "".join(said.text.split()) == "".join(made.loaded.tokenizer.decode(plain).split())
