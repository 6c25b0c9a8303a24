"""``firstwords lm train --kind lstm`` and what the options say together."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from firstwords.cli import main as entry
from firstwords.errors import FirstwordsError, TextError, UsageError
from firstwords.lm.neural.folder import load_neural
from firstwords.search.language_models import Speaks, open_language_model
from firstwords.text.characters import GraphemeConfig, GraphemeTokenizer
from small_ngrams import draw_text
from tone_corpus import make_tone_corpus

RUNNER = CliRunner()
QUICK = ("--set", "training.steps=3", "--set", "network.dim=12", "--device", "cpu")


def lm(*arguments: object) -> str:
    result = RUNNER.invoke(entry.app, ["lm", *map(str, arguments)])
    if isinstance(result.exception, FirstwordsError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(draw_text(5, "abcdefg", 60)), encoding="utf-8")
    return path


def test_train_and_measure(tmp_path: Path, text: Path) -> None:
    said = lm("train", text, "--kind", "lstm", "--to", tmp_path / "lm", *QUICK)
    assert "firstwords lm perplexity" in said
    assert "8 letters" not in said  # 10: two marks, the space, a to g
    assert "10 letters; to learn 57 sentences" in said
    measured = lm("perplexity", tmp_path / "lm", text)
    assert "perplexity per letter and end" in measured
    assert "perplexity per word and end" in measured
    assert "unknown letters: 0" in measured
    again = lm("train", text, "--kind", "lstm", "--to", tmp_path / "lm", *QUICK)
    assert "Going on from step 3 of 3" in again
    assert lm("perplexity", tmp_path / "lm", text) == measured
    with pytest.raises(UsageError, match="is being trained there, or was"):
        lm("train", text, "--to", tmp_path / "lm")


def test_a_corpus_of_dev_is_one_that_text_was_compared_with(tmp_path: Path, text: Path) -> None:
    notice = "No corpus was named"
    assert notice in lm(
        "train", text, "--kind", "lstm", "--to", tmp_path / "a", "--dev", text, "--allow-leak", *QUICK
    )
    corpus = make_tone_corpus(tmp_path / "corpus", train=1, dev=2, test=1)
    said = lm("train", text, "--kind", "lstm", "--to", tmp_path / "b", "--dev", corpus, *QUICK)
    assert notice not in said
    assert "compared with dev and test of corpus (3 utterances)" in lm("perplexity", tmp_path / "b", text)


def test_an_ngram_model_replaces_no_network(tmp_path: Path, text: Path) -> None:
    lm("train", text, "--kind", "lstm", "--to", tmp_path / "lm", *QUICK)
    lm("train", text, "--to", tmp_path / "n", "--order", 2)
    lm("export", tmp_path / "n", "--arpa", tmp_path / "n.arpa")
    names = ("lm.toml", "model.safetensors")
    before = [(tmp_path / "lm" / name).read_bytes() for name in names]
    with pytest.raises(UsageError, match="is being trained there, or was"):
        lm("import", tmp_path / "n.arpa", "--to", tmp_path / "lm")
    shutil.rmtree(tmp_path / "lm" / "resume")  # as one does with a finished model
    for arguments in (
        ["train", text],
        ["import", tmp_path / "n.arpa"],
        ["import", tmp_path / "missing.arpa"],
    ):
        with pytest.raises(UsageError, match="a language model of kind 'lstm' is there"):
            lm(*arguments, "--to", tmp_path / "lm")
    assert [(tmp_path / "lm" / name).read_bytes() for name in names] == before
    lm("import", tmp_path / "n.arpa", "--to", tmp_path / "n")  # one of its own kind may be replaced


def test_pieces_of_a_model(tmp_path: Path, text: Path) -> None:
    tokenizer = GraphemeTokenizer.train(["abcdefg"], GraphemeConfig(min_count=1))
    tokenizer.save(tmp_path / "m" / "tokenizer")
    (tmp_path / "m" / "recipe.toml").write_text('[text]\nnormalizer = "keep_case"\n', encoding="utf-8")
    train = ["train", text, "--kind", "transformer", "--tokenizer", tmp_path / "m"]
    lm(*train, "--to", tmp_path / "lm", *QUICK, "--set", "network.heads=2")
    found = load_neural(tmp_path / "lm")
    assert (found.header.unit, found.header.normalizer) == ("piece", "keep_case")
    assert found.columns(tokenizer).tolist() == list(range(len(tokenizer.pieces)))
    lm(*train, "--to", tmp_path / "letters", "--unit", "char", *QUICK, "--set", "network.heads=2")
    assert load_neural(tmp_path / "letters").header.unit == "char"


def test_a_recipe_file(tmp_path: Path, text: Path) -> None:
    (tmp_path / "r.toml").write_text('unit = "char"\n[network]\nkind = "transformer"\n', encoding="utf-8")
    lm("train", text, "--recipe", tmp_path / "r.toml", "--to", tmp_path / "lm", "--size", "tiny", *QUICK)
    assert load_neural(tmp_path / "lm").header.kind == "transformer"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--kind", "rnn"], "--kind rnn: no such kind"),
        (["--kind", "lstm", "--unit", "word"], "knows letters or pieces"),
        (["--kind", "lstm", "--unit", "piece"], "needs the tokenizer"),
        (["--kind", "lstm", "--order", "3"], "--order: only an n-gram"),
        (["--kind", "lstm", "--prune", "0"], "--prune: only an n-gram"),
        (["--minutes", "3"], "--minutes: an n-gram model has none"),
        (["--device", "cpu"], "--device: an n-gram model has none"),
        (["--kind", "ngram", "--recipe", "x.toml"], "contradict"),
    ],
)
def test_options_that_contradict(tmp_path: Path, text: Path, options: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        lm("train", text, "--to", tmp_path / "lm", *options)
    assert not (tmp_path / "lm").exists()


def test_text_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("...\n", encoding="utf-8")
    with pytest.raises(TextError, match="no text to make a language model from"):
        lm("train", tmp_path / "t.txt", "--kind", "lstm", "--to", tmp_path / "lm")


def test_a_mixture_is_made_and_has_no_perplexity(tmp_path: Path, text: Path) -> None:
    lm("train", text, "--kind", "lstm", "--to", tmp_path / "net", *QUICK)
    lm("train", text, "--unit", "char", "--to", tmp_path / "n", "--order", 2)
    said = lm("mix", tmp_path / "net", tmp_path / "n", "--share", 1, "--share", 3, "--to", tmp_path / "both")
    assert f"25% {tmp_path / 'net'}" in said
    assert "firstwords lm tune" in said
    assert not (tmp_path / "both" / "1" / "resume").exists()
    speaks = Speaks(GraphemeTokenizer.train(["abcdefg"]), "default")
    scores, _ = (scorer := open_language_model(tmp_path / "both", speaks)).score(
        torch.tensor([0]), scorer.start(1)
    )
    parts = [open_language_model(tmp_path / name, speaks) for name in ("net", "n")]
    alone = [part.score(torch.tensor([0]), part.start(1))[0].double() for part in parts]
    torch.testing.assert_close(scores, 0.25 * alone[0] + 0.75 * alone[1])
    with pytest.raises(UsageError, match="has no perplexity"):
        lm("perplexity", tmp_path / "both", text)
    with pytest.raises(UsageError, match="a language model of kind 'mixture' is there"):
        lm("train", text, "--to", tmp_path / "both")
    with pytest.raises(UsageError, match="a language model of kind 'mixture' is there"):
        lm("train", text, "--kind", "lstm", "--to", tmp_path / "both", *QUICK)
