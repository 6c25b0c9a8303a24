"""Networks: token by token as all at once, against independent arithmetic; perplexity; the folder."""

from __future__ import annotations

import itertools
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from firstwords.errors import CheckpointError, ConfigError
from firstwords.lm.language_model import kind_of, load_language_model, save_language_model
from firstwords.lm.neural import folder as neural_folder
from firstwords.lm.neural.config import LstmLmConfig, TransformerLmConfig
from firstwords.lm.neural.folder import NeuralLanguageModel, build_network, load_neural, save_neural
from firstwords.lm.neural.lstm import LstmLm
from firstwords.lm.neural.model import NeuralLm
from firstwords.lm.neural.scorer import NeuralScorer, neural_scorer
from firstwords.lm.neural.transformer import TransformerLm
from firstwords.lm.ngram_text import Line
from firstwords.lm.perplexity import measure_perplexity
from firstwords.nn.positions import sinusoids
from firstwords.text.characters import GraphemeConfig, GraphemeTokenizer
from firstwords.text.subwords import SubwordConfig, SubwordTokenizer
from small_networks import KINDS, small_config, small_lm
from small_ngrams import train as train_ngram
from toy_scorers import sentence_score

TEXT = ["ab ba", "abc", "cab ẹ", "b"]
TOKENIZER = GraphemeTokenizer.train(TEXT, GraphemeConfig(min_count=1, bytes=False))


def network_of(kind: str, vocabulary: int = 6) -> NeuralLm[Any]:
    torch.manual_seed(4)
    return build_network(small_config(kind), vocabulary).double().eval()


def lines(*texts: str) -> list[Line]:
    return [Line(text, f"line {i}", len(text)) for i, text in enumerate(texts, start=1)]


@pytest.mark.parametrize("kind", KINDS)
def test_token_by_token_is_all_at_once(kind: str) -> None:
    network = network_of(kind)
    read = torch.tensor([[0, 2, 3, 1, 5], [0, 4, 4, 0, 0]])  # the second ends after two tokens
    whole = network(read)
    state = network.start(2)
    for place in range(5):
        hidden, logits, state = network.hidden(read[:, place], state)
        rows = slice(0, 2 if place < 3 else 1)
        torch.testing.assert_close(hidden[rows], whole[rows, place])
        torch.testing.assert_close(logits[rows], network.logits(whole[rows, place]))
    other = read.clone()
    other[:, 3:] = 1  # what comes later, or stands behind the end
    torch.testing.assert_close(network(other)[:, :3], whole[:, :3])


@pytest.mark.parametrize("kind", KINDS)
def test_a_start_forgets_what_was_before(kind: str) -> None:
    network = network_of(kind)
    _, _, state = network.hidden(torch.tensor([0, 0]), network.start(2))
    _, _, state = network.hidden(torch.tensor([3, 4]), state)
    mixed, _, after = network.hidden(torch.tensor([0, 2]), state)
    torch.testing.assert_close(mixed[0], network(torch.tensor([[0]]))[0, 0])
    torch.testing.assert_close(mixed[1], network(torch.tensor([[0, 4, 2]]))[0, 2])
    found, _, _ = network.hidden(torch.tensor([5, 5]), after)
    torch.testing.assert_close(found[0], network(torch.tensor([[0, 5]]))[0, 1])
    none = network.reorder(after, torch.tensor([], dtype=torch.int64))
    assert network.hidden(torch.tensor([], dtype=torch.int64), none)[1].shape == (0, 6)


def test_the_lstm_against_its_equations() -> None:
    network = network_of("lstm")
    assert isinstance(network, LstmLm)
    read = [0, 2, 5, 1]
    inputs = [network.embedding.weight[i].detach().numpy() * math.sqrt(12) for i in read]
    for layer in network.layers:
        named = {n: p.detach().numpy() for n, p in layer.named_parameters()}
        hidden, cell, outputs = np.zeros(12), np.zeros(12), list[np.ndarray]()
        for x in inputs:
            gates = named["weight_ih_l0"] @ x + named["weight_hh_l0"] @ hidden
            enter, keep, new, leave = np.split(gates + named["bias_ih_l0"] + named["bias_hh_l0"], 4)
            cell = _sigmoid(keep) * cell + _sigmoid(enter) * np.tanh(new)
            hidden = _sigmoid(leave) * np.tanh(cell)
            outputs.append(hidden)
        inputs = outputs
    np.testing.assert_allclose(network(torch.tensor([read]))[0].detach(), np.array(inputs), atol=1e-12)
    logits = network.embedding.weight.detach().numpy() @ inputs[-1] + network.embedding.bias.detach().numpy()
    found = network.logits(network(torch.tensor([read])))[0, -1].detach()
    np.testing.assert_allclose(found, logits, atol=1e-12)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_the_transformer_against_torchs_own() -> None:
    network = network_of("transformer")
    assert isinstance(network, TransformerLm)
    layers: list[nn.TransformerEncoderLayer] = []
    for block in network.layers:
        oracle = nn.TransformerEncoderLayer(12, 3, 24, 0.0, batch_first=True, norm_first=True).double()
        names = {
            "self_attn.in_proj_weight": "attention.read.weight",
            "self_attn.in_proj_bias": "attention.read.bias",
            "self_attn.out_proj.weight": "attention.write.weight",
            "self_attn.out_proj.bias": "attention.write.bias",
            "linear1.weight": "feedforward.in_proj.weight",
            "linear1.bias": "feedforward.in_proj.bias",
            "linear2.weight": "feedforward.out_proj.weight",
            "linear2.bias": "feedforward.out_proj.bias",
            "norm1.weight": "attention_norm.weight",
            "norm1.bias": "attention_norm.bias",
            "norm2.weight": "feedforward_norm.weight",
            "norm2.bias": "feedforward_norm.bias",
        }
        own = block.state_dict()
        oracle.load_state_dict({theirs: own[ours] for theirs, ours in names.items()})
        layers.append(oracle.eval())
    read = torch.tensor([[0, 2, 5, 1, 1, 3]])
    x = network.embedding.weight[read] * math.sqrt(12)
    x = x + sinusoids(torch.arange(6).float(), 12, halves=True).double()
    later = nn.Transformer.generate_square_subsequent_mask(6, dtype=torch.float64)
    for oracle in layers:
        x = oracle(x, src_mask=later, is_causal=True)
    torch.testing.assert_close(network(read), network.norm(x))


def test_locked_dropout_is_the_same_for_all_tokens() -> None:
    torch.manual_seed(1)
    network = LstmLm(LstmLmConfig(dim=64, layers=1, dropout=0.5), 4)
    x = torch.ones(3, 7, 64)
    dropped = network.train()._locked(x)
    assert torch.equal(dropped, dropped[:, :1].expand_as(x))
    assert not torch.equal(dropped[0], dropped[1])
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(network.eval()._locked(x), x)


@pytest.mark.parametrize("kind", KINDS)
def test_all_sentences_up_to_a_length_and_what_remains_sum_to_one(kind: str) -> None:
    """Brute force: P of every sentence of at most 3 tokens, plus P of every beginning of 4 tokens, is 1."""
    scorer = NeuralScorer(network_of(kind, 4))
    total = 0.0
    for length in range(4):
        for tokens in itertools.product(range(1, 4), repeat=length):
            total += math.exp(sentence_score(scorer, tokens))
    for tokens in itertools.product(range(1, 4), repeat=4):
        state, last, beginning = scorer.start(1), 0, 0.0
        for token in tokens:
            scores, state = scorer.score(torch.tensor([last]), state)
            beginning += float(scores[0, token])
            last = token
        total += math.exp(beginning)
    assert total == pytest.approx(1.0, abs=1e-9)


def test_perplexity_of_a_model_made_by_hand() -> None:
    """Weights of zero leave the biases: units are drawn independently with known probabilities."""
    lm = small_lm("lstm", ["ab", "b"])
    with torch.no_grad():
        for parameter in lm.network.parameters():
            parameter.zero_()
        lm.network.embedding.bias.copy_(torch.tensor([0.25, 0.125, 0.5, 0.125]).log())  # end, <unk>, a, b
    found = measure_perplexity(lm, lines("ab", "", "aab zz"))
    log_prob = math.log(0.5**3 * 0.125**2 * 0.25**2 * 0.125**3)  # the space is not known, nor is z
    assert found.log_prob == pytest.approx(log_prob)
    assert (found.sentences, found.units, found.unknown, found.words, found.letters) == (2, 8, 3, 3, 8)
    assert found.log_prob_unknown == pytest.approx(3 * math.log(0.125))
    assert found.perplexity == pytest.approx(math.exp(-log_prob / 10))
    assert found.perplexity_known == pytest.approx(math.exp(-(log_prob - 3 * math.log(0.125)) / 7))
    assert lm.log_prob("ab") == pytest.approx(math.log(0.5 * 0.125 * 0.25))


@pytest.mark.parametrize("kind", KINDS)
def test_a_sentence_scores_as_its_tokens_do_one_by_one(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = small_lm(kind, TEXT, TOKENIZER)
    scorer = neural_scorer(lm, TOKENIZER)
    texts = ["ab", "", "cab ẹ b", "b"]
    ids = [lm.ids(lm.units(text)) for text in texts]
    together = lm.score(ids)
    for text, own, scores in zip(texts, ids, together, strict=True):
        assert len(scores) == len(own) + 1
        assert scores.sum() == pytest.approx(sentence_score(scorer, tuple(TOKENIZER.encode(text))), abs=1e-4)
    monkeypatch.setattr(neural_folder, "_TOKENS", 5)  # batches of one or two
    for one, two in zip(lm.score(ids), together, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)
    monkeypatch.setattr(neural_folder, "LONGEST", 3)
    parts = lm.score(ids)
    assert [len(p) for p in parts] == [len(t) for t in together]
    np.testing.assert_allclose(parts[2][:3], together[2][:3], atol=1e-5)
    assert not np.allclose(
        parts[2][3:], together[2][3:], atol=1e-5
    )  # the second part begins without the first


def test_letters_of_another_tokenizer() -> None:
    """What the model does not know shares <unk>; what is no piece is shared out."""
    lm = small_lm("lstm", ["abc d", "ab"])
    other = GraphemeTokenizer.train(["ab xyẹ"], GraphemeConfig(min_count=1, bytes=False))
    scorer = neural_scorer(lm, other)
    columns = lm.columns(other)
    names = [lm.words[c] for c in columns]
    assert names == ["<blank>", "▁", "a", "b", "<unk>", "<unk>", "<unk>"]
    scores, state = scorer.score(torch.tensor([0]), scorer.start(1))
    lm.network.requires_grad_(False)
    _, logits, own = lm.network.hidden(torch.tensor([0]), lm.network.start(1))
    weights = logits.double().exp()[0]
    kept = [float(weights[c]) / (3 if lm.words[c] == "<unk>" else 1) for c in columns]
    expected = np.array(kept) / sum(kept)
    np.testing.assert_allclose(scores.exp()[0].numpy(), expected, rtol=1e-5)
    scores, _ = scorer.score(torch.tensor([3]), state)
    _, logits, _ = lm.network.hidden(torch.tensor([lm.words.index("b")]), own)
    assert float(scores[0, 2] - scores[0, 0]) == pytest.approx(
        float(logits[0, lm.words.index("a")] - logits[0, 0]), abs=1e-5
    )


def test_pieces_that_were_never_seen_count_as_unknown() -> None:
    tokenizer = GraphemeTokenizer.train(["abcd"], GraphemeConfig(min_count=1))
    lm = small_lm("transformer", ["ab", "ba"], tokenizer)
    found = measure_perplexity(lm, lines("acd", "b"))
    assert (found.units, found.unknown) == (4, 2)
    assert lm.columns(tokenizer).tolist() == list(range(len(tokenizer.pieces)))


def test_models_of_another_vocabulary_or_normalizer_are_refused() -> None:
    others = GraphemeTokenizer.train(["xyz"], GraphemeConfig(min_count=1, bytes=False))
    subwords = SubwordTokenizer.train(["abab abab abab"] * 5, SubwordConfig(vocabulary=8))
    with pytest.raises(CheckpointError, match="pieces of another tokenizer"):
        neural_scorer(small_lm("lstm", TEXT, TOKENIZER), others)
    with pytest.raises(CheckpointError, match="pieces of several"):
        neural_scorer(small_lm("lstm", TEXT), subwords)
    with pytest.raises(CheckpointError, match="another vocabulary"):
        neural_scorer(small_lm("lstm", ["abc"]), others)
    small_lm("lstm", ["ab"]).check_normalizer("score_default")
    with pytest.raises(CheckpointError, match=r"'strip_diacritics' is used here \(1 of its words"):
        small_lm("lstm", TEXT).check_normalizer("strip_diacritics")


def test_sizes_have_names() -> None:
    assert LstmLmConfig.preset("tiny") == LstmLmConfig()
    assert TransformerLmConfig.preset("small").layers == 6
    with pytest.raises(ConfigError, match="No language model size is called 'huge'"):
        TransformerLmConfig.preset("huge")
    with pytest.raises(ValueError, match="multiple of heads"):
        TransformerLmConfig(dim=130, heads=4)
    millions = [_parameters(c) for c in (LstmLmConfig.preset("tiny"), TransformerLmConfig.preset("tiny"))]
    millions += [_parameters(c) for c in (LstmLmConfig.preset("small"), TransformerLmConfig.preset("small"))]
    assert [round(m, 1) for m in millions] == [0.4, 0.8, 2.4, 4.7]  # as the docstring of config.py says


def _parameters(config: Any) -> float:
    return sum(p.numel() for p in build_network(config, 0).parameters()) / 1e6


# --- the folder ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pieces", [False, True])
def test_saved_and_loaded_scores_the_same(tmp_path: Path, kind: str, pieces: bool) -> None:
    lm = small_lm(kind, TEXT, TOKENIZER if pieces else None)
    save_neural(tmp_path / "lm", lm)
    again = load_neural(tmp_path / "lm")
    assert kind_of(tmp_path / "lm") == kind
    assert (again.header, again.words) == (lm.header, lm.words)
    assert np.array_equal(again.seen, lm.seen)
    assert again.log_prob("Ab, ẹ!") == lm.log_prob("ab ẹ")
    if not pieces:
        assert measure_perplexity(again, lines("ab qq")).unknown == 2
    first = contents(tmp_path / "lm")
    save_neural(tmp_path / "lm", lm)
    assert contents(tmp_path / "lm") == first


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_folders_that_are_none_are_refused(tmp_path: Path) -> None:
    whole, other = tmp_path / "whole", tmp_path / "other"
    save_neural(whole, small_lm("lstm", TEXT, TOKENIZER))
    save_neural(other, small_lm("transformer", TEXT, TOKENIZER))

    def broken(change: str, name: str, content: bytes | None) -> None:
        folder = tmp_path / "broken"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=change):
            load_neural(folder)

    broken("no language model", "lm.toml", None)
    broken(r"words.txt cannot be read", "words.txt", None)
    broken(r"model.safetensors cannot be read", "model.safetensors", None)
    broken("fingerprints differ", "words.txt", b"<blank>\na\n")
    broken("fingerprints differ", "model.safetensors", (other / "model.safetensors").read_bytes())
    weights = (whole / "model.safetensors").read_bytes()
    broken("no safetensors file", "model.safetensors", weights[:-9])
    broken("no safetensors file", "model.safetensors", b"")
    header = (whole / "lm.toml").read_bytes()
    broken("format is 2", "lm.toml", header.replace(b"format = 1", b"format = 2"))
    broken("kind is 'llm'", "lm.toml", header.replace(b'"lstm"', b'"llm"'))
    broken("differ", "lm.toml", header.replace(b'kind = "lstm"', b'kind = "transformer"', 1))
    broken("No normalizer", "lm.toml", header.replace(b'"default"', b'"nothing"'))
    broken(
        r"lm.network.dims: no such setting. Did you mean 'dim'",
        "lm.toml",
        header.replace(b"dim =", b"dims ="),
    )
    broken("not TOML", "lm.toml", b"\xff")
    stored = load_file(whole / "model.safetensors")
    marks = neural_folder._read_weights(whole)[1]

    def rewritten(change: dict[str, Tensor | None]) -> bytes:
        kept = {n: v for n, v in (stored | change).items() if v is not None}
        save_file(kept, tmp_path / "x.safetensors", metadata={"fingerprint": marks})
        return (tmp_path / "x.safetensors").read_bytes()

    bias = stored["embedding.bias"]
    changes = ({"embedding.bias": None}, {"more": bias.clone()}, {"embedding.bias": bias[1:]}, {"seen": None},
               {"embedding.bias": bias * math.nan}, {"embedding.bias": bias.half()})  # fmt: skip
    for change in changes:
        name = next(iter(change))
        broken(f"no network of this size: '{name}'", "model.safetensors", rewritten(change))
    (tmp_path / "begun" / "resume").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="run the same 'firstwords lm train' again"):
        load_neural(tmp_path / "begun")


def test_the_other_kind_of_model_is_named(tmp_path: Path) -> None:
    save_neural(tmp_path / "lm", small_lm("lstm", TEXT))
    with pytest.raises(CheckpointError, match="kind 'lstm'; an n-gram model is expected"):
        load_language_model(tmp_path / "lm")
    save_language_model(tmp_path / "n", train_ngram(["a b"], "word", 2))
    assert kind_of(tmp_path / "n") == "ngram"
    with pytest.raises(CheckpointError, match="kind 'ngram'; an LSTM or Transformer is expected"):
        load_neural(tmp_path / "n")


def test_the_words_must_be_the_tokenizers(tmp_path: Path) -> None:
    lm = small_lm("lstm", TEXT, TOKENIZER)
    swapped = NeuralLanguageModel(
        lm.header, lm.network, (lm.words[0], *lm.words[:0:-1]), lm.seen, lm.tokenizer
    )
    save_neural(tmp_path / "lm", swapped)
    with pytest.raises(CheckpointError, match=r"words.txt does not hold the units"):
        load_neural(tmp_path / "lm")
