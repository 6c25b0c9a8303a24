"""Folders of language models as scorers of a recogniser's tokens, and how one folder is told from another."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from firstwords.errors import CheckpointError, UsageError
from firstwords.lm.language_model import NgramLanguageModel, load_language_model, save_language_model
from firstwords.lm.mixture import mix_language_models
from firstwords.lm.neural.folder import load_neural
from firstwords.lm.ngram_scorer import NgramScorer
from firstwords.search.language_models import Speaks, language_model_fingerprint, open_language_model
from firstwords.search.lexicon import LexiconScorer
from firstwords.search.tuned import TunedSetting, add_tuned, find_tuned, read_tuned
from firstwords.text.characters import GraphemeTokenizer
from small_ngrams import train
from toy_scorers import sentence_score

SENTENCES = ["anna bade carl", "carl bade", "anna anna bade", "dean bade carl anna"] * 3
TOKENIZER = GraphemeTokenizer.train(SENTENCES)
SPEAKS = Speaks(TOKENIZER, "default")


def saved(folder: Path, lm: NgramLanguageModel) -> Path:
    save_language_model(folder, lm)
    return folder


def tokens(text: str) -> tuple[int, ...]:
    return tuple(TOKENIZER.encode(text))


def test_letters_are_scored_token_by_token(tmp_path: Path) -> None:
    lm = train(SENTENCES, "char", 4)
    scorer = open_language_model(saved(tmp_path / "lm", lm), SPEAKS)
    assert isinstance(scorer, NgramScorer)
    direct = NgramScorer(lm, TOKENIZER)
    for text in ("anna bade", "carl", ""):
        assert sentence_score(scorer, tokens(text)) == pytest.approx(sentence_score(direct, tokens(text)))


def test_words_get_what_the_word_model_gives_them(tmp_path: Path) -> None:
    lm = train(SENTENCES, "word", 3)
    scorer = open_language_model(saved(tmp_path / "lm", lm), SPEAKS)
    assert isinstance(scorer, LexiconScorer)
    for text in ("anna bade carl", "carl carl dean", "anna", ""):
        assert sentence_score(scorer, tokens(text)) == pytest.approx(lm.log_prob(text), abs=1e-4)
    # A word that is none: the model's price of <unk>, and a nat for each of its letters.
    assert lm.units("anna dada") == ["anna", "dada"]
    assert sentence_score(scorer, tokens("anna dada carl")) == pytest.approx(
        lm.log_prob("anna dada carl") - 4.0, abs=1e-4
    )


def test_words_that_cannot_be_spelled_are_unknown(tmp_path: Path) -> None:
    lm = train([*SENTENCES, "zoe bade", "zoe"], "word", 2)
    narrow = GraphemeTokenizer(["<blank>", "▁", *"abcdelnr"])
    scorer = open_language_model(saved(tmp_path / "lm", lm), Speaks(narrow, "default"))
    ids = tuple(narrow.encode("anna bade"))
    assert sentence_score(scorer, ids) == pytest.approx(lm.log_prob("anna bade"), abs=1e-4)
    none = GraphemeTokenizer(["<blank>", "▁", "x"])
    with pytest.raises(CheckpointError, match="no word that this recogniser's tokenizer can spell"):
        open_language_model(tmp_path / "lm", Speaks(none, "default"))


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    folder = saved(tmp_path / "lm", train(SENTENCES, "word", 2))
    with pytest.raises(CheckpointError, match=r"no language model: lm\.toml is missing"):
        open_language_model(tmp_path, SPEAKS)
    with pytest.raises(CheckpointError, match="no language model"):
        open_language_model(tmp_path / "absent", SPEAKS)
    header = (folder / "lm.toml").read_text(encoding="utf-8")
    (folder / "lm.toml").write_text(header.replace('kind = "ngram"', 'kind = "oracle"'), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"kind is 'oracle'; this version reads 'ngram' or 'lstm'"):
        open_language_model(folder, SPEAKS)
    (folder / "lm.toml").write_text("kind = [", encoding="utf-8")
    with pytest.raises(CheckpointError):
        open_language_model(folder, SPEAKS)
    capitals = saved(tmp_path / "capitals", train(SENTENCES, "char", 2))
    text = (capitals / "lm.toml").read_text(encoding="utf-8")
    assert 'normalizer = "default"' in text
    pieces = saved(tmp_path / "pieces", train(SENTENCES, "piece", 2, TOKENIZER))
    with pytest.raises(CheckpointError, match="another tokenizer"):
        open_language_model(pieces, Speaks(GraphemeTokenizer(["<blank>", "▁", "a"]), "default"))
    with pytest.raises(CheckpointError, match="was made from text of normalizer 'default'"):
        open_language_model(pieces, Speaks(TOKENIZER, "keep_case"))


def test_a_fingerprint_is_of_the_contents(tmp_path: Path) -> None:
    folder = saved(tmp_path / "lm", train(SENTENCES, "char", 3))
    first = language_model_fingerprint(folder)
    assert language_model_fingerprint(shutil.copytree(folder, tmp_path / "elsewhere")) == first
    add_tuned(folder, TunedSetting(model="m", lm=first, search="greedy", weight=0.5))
    assert language_model_fingerprint(folder) == first
    save_language_model(folder, train([*SENTENCES, "dean"], "char", 3))
    assert language_model_fingerprint(folder) != first


def test_choices_are_found_by_recogniser_language_model_and_search(tmp_path: Path) -> None:
    assert read_tuned(tmp_path).tuned == ()
    one = TunedSetting(model="m", lm="a", search="greedy", weight=0.5, bonus=-1.0)
    two = TunedSetting(model="m", lm="a", search="ctc_beam", beam=10, weight=0.7, by="cer", without=0.4)
    three = TunedSetting(model="n", lm="a", search="greedy", weight=0.1)
    for setting in (one, two, three):
        add_tuned(tmp_path, setting)
    assert read_tuned(tmp_path).tuned == (one, two, three)
    better = one.with_(weight=0.6, lm="b")
    add_tuned(tmp_path, better)
    file = read_tuned(tmp_path)
    assert file.tuned == (two, three, better)
    assert find_tuned(file, model="m", lm="b", search="greedy") == better
    assert find_tuned(file, model="m", lm="a", search="greedy") is None
    assert find_tuned(file, model="n", lm="a", search="greedy") == three
    (tmp_path / "tuned.toml").write_text("[[tuned]]\nwieght = 1\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match="wieght"):
        read_tuned(tmp_path)
    with pytest.raises(CheckpointError):  # and nothing is lost by writing over it
        add_tuned(tmp_path, one)
    assert "wieght" in (tmp_path / "tuned.toml").read_text(encoding="utf-8")


def test_a_mixture_adds_its_parts_with_their_shares(tmp_path: Path) -> None:
    letters, words = train(SENTENCES, "char", 4), train(SENTENCES, "word", 3)
    parts = [saved(tmp_path / "letters", letters), saved(tmp_path / "words", words)]
    setting = TunedSetting(model="m", lm="l", search="ctc_beam", weight=1.0, source_weight=0.2)
    add_tuned(parts[0], setting.with_(source=language_model_fingerprint(parts[1])), parts[1])
    assert list(parts[0].rglob("sources"))
    mix_language_models(parts, tmp_path / "mix", [3, 1])
    assert not list((tmp_path / "mix").rglob("tuned.toml"))  # of the part alone
    assert not list((tmp_path / "mix").rglob("sources"))
    moved = tmp_path / "elsewhere"
    shutil.move(tmp_path / "mix", moved)
    for part in parts:
        shutil.rmtree(part)
    scorer = open_language_model(moved, SPEAKS)
    direct = NgramScorer(letters, TOKENIZER)
    for text in ("anna bade carl", "carl dean", ""):
        wanted = 0.75 * sentence_score(direct, tokens(text)) + 0.25 * words.log_prob(text)
        assert sentence_score(scorer, tokens(text)) == pytest.approx(wanted, abs=1e-4)
    # Rows of two sentences at once, in another order, are those of each alone.
    state = scorer.start(2)
    _, state = scorer.score(torch.tensor([0, 0]), state)
    rows, _ = scorer.score(torch.tensor([tokens("a")[0], tokens("c")[0]]), state)
    swapped, _ = scorer.score(
        torch.tensor([tokens("c")[0], tokens("a")[0]]), scorer.reorder(state, torch.tensor([1, 0]))
    )
    torch.testing.assert_close(swapped, rows.flip(0))


def test_a_mixture_is_found_by_its_contents(tmp_path: Path) -> None:
    parts = [saved(tmp_path / str(n), train(SENTENCES, "char", n)) for n in (2, 3)]
    for name, shares in (("mix", None), ("same", [0.5, 0.5]), ("other", [0.6, 0.4])):
        mix_language_models(parts, tmp_path / name, shares)
    prints = {name: language_model_fingerprint(tmp_path / name) for name in ("mix", "same", "other")}
    assert prints["mix"] == prints["same"] != prints["other"]


def test_what_cannot_be_mixed_is_said(tmp_path: Path) -> None:
    one, two = (saved(tmp_path / str(n), train(SENTENCES, "char", n)) for n in (2, 3))
    mix = tmp_path / "mix"
    for folders, shares, why in (
        ([one], None, "needs two language models or more"),
        ([one, two], [1.0], "1 shares for 2 language models"),
        ([one, two], [1.0, 0.0], "A share of 0: it must lie between"),
        ([one, two], [1.0, 1e308], "A share of 1e\\+308"),
        ([one, two], [1.0, float("nan")], "A share of nan"),
    ):
        with pytest.raises(UsageError, match=why):
            mix_language_models(folders, mix, shares)
    with pytest.raises(CheckpointError, match="no language model"):
        mix_language_models([one, tmp_path], mix)
    assert not mix.exists()
    mix_language_models([one, two], mix)
    with pytest.raises(CheckpointError, match="is a mixture itself"):
        mix_language_models([one, mix], tmp_path / "further")
    with pytest.raises(UsageError, match="is there already"):
        mix_language_models([one, two], mix)
    with pytest.raises(CheckpointError, match=r"of kind 'mixture'; an n-gram model is expected"):
        load_language_model(mix)
    with pytest.raises(CheckpointError, match="an LSTM or Transformer is expected"):
        load_neural(mix)
    header = (two / "lm.toml").read_text(encoding="utf-8")
    (two / "lm.toml").write_text(header.replace('"default"', '"score_default"'), encoding="utf-8")
    with pytest.raises(CheckpointError, match="of normalizer 'score_default'"):
        mix_language_models([one, two], tmp_path / "further")
    shutil.copy(two / "lm.toml", mix / "2" / "lm.toml")
    with pytest.raises(CheckpointError, match="its part '2' is of normalizer"):
        open_language_model(mix, SPEAKS)
    shutil.rmtree(mix / "2")
    with pytest.raises(CheckpointError, match="its part '2' is not there"):
        open_language_model(mix, SPEAKS)
    text = (mix / "lm.toml").read_text(encoding="utf-8")
    (mix / "lm.toml").write_text(text.replace('"2"', '"../1"'), encoding="utf-8")
    with pytest.raises(CheckpointError, match="parts"):  # nothing outside the folder is read
        open_language_model(mix, SPEAKS)


def told_of(folder: Path, speaks: Speaks = SPEAKS) -> list[str]:
    told: list[str] = []
    open_language_model(folder, speaks, told.append)
    return told


def test_a_foreign_model_is_told_with_counts(tmp_path: Path) -> None:
    """The recogniser writes a b c d e l n r; bytes and the space are no letters."""
    assert told_of(saved(tmp_path / "own", train(SENTENCES, "char", 3))) == []
    foreign = saved(tmp_path / "foreign", train(["xyz zyx a yb", "zya xx"], "char", 3))
    assert told_of(foreign) == [
        f"Is language model '{foreign}' of this recogniser's language? It has never seen 6 of the 8 pieces "
        "with letters that this recogniser writes ('c', 'd', 'e', 'l', 'n', ...)."
    ]
    # 6 of 8 letters seen are enough, 5 are not: more than a quarter is missing.
    assert told_of(saved(tmp_path / "six", train(["abcdel"], "char", 2))) == []
    assert len(told_of(saved(tmp_path / "five", train(["abcde"], "char", 2)))) == 1


def test_a_foreign_model_of_words_is_told_with_counts(tmp_path: Path) -> None:
    assert told_of(saved(tmp_path / "own", train(SENTENCES, "word", 2))) == []
    foreign = saved(tmp_path / "foreign", train(["xyz zyx bad", "baa naze"], "word", 2))
    assert told_of(foreign) == [
        f"Is language model '{foreign}' of this recogniser's language? It has never seen 3 of the 8 pieces "
        "with letters that this recogniser writes ('c', 'l', 'r'); 3 of its 5 words have letters that "
        "this recogniser does not write ('naze', 'xyz', 'zyx')."
    ]
    # In the same letters, but other words: known only where somebody says which there are.
    alike = saved(tmp_path / "alike", train(["blend lend acne crab", "bread clad"], "word", 2))
    assert told_of(alike) == []
    said = SPEAKS._replace(words=frozenset(["anna", "bade", "carl"]))
    assert told_of(alike, said) == [
        f"Is language model '{alike}' of this recogniser's language? It does not know 3 of 3 words that this "
        "recogniser has to write ('anna', 'bade', 'carl')."
    ]
    half = saved(tmp_path / "half", train(["anna blend lend crab bade bread clad"], "word", 2))
    assert told_of(half, said) == []


def test_a_foreign_part_of_a_mixture_is_told(tmp_path: Path) -> None:
    parts = [
        saved(tmp_path / "own", train(SENTENCES, "char", 3)),
        saved(tmp_path / "foreign", train(["xyz ab"], "char", 2)),
    ]
    mix_language_models(parts, tmp_path / "mix")
    (line,) = told_of(tmp_path / "mix")
    assert line.startswith(f"Is language model '{tmp_path / 'mix' / '2'}' of")
