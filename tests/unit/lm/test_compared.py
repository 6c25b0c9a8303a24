"""What the folder of a language model remembers of the corpora its text was compared with."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from firstwords.cli.main import app
from firstwords.config import read_config
from firstwords.data.manifest import load_corpus
from firstwords.errors import FirstwordsError
from firstwords.lm.compared import COMPARED, Compared, comparison_words
from firstwords.lm.language_model import load_language_model, save_language_model
from firstwords.search.language_models import language_model_fingerprint
from small_ngrams import train
from tone_corpus import make_tone_corpus


def firstwords(*arguments: object) -> Result:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    if result.exception is not None and not isinstance(result.exception, SystemExit | FirstwordsError):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tone_corpus(tmp_path_factory.mktemp("tones") / "corpus", train=8, dev=2, test=3)


def test_an_n_gram_remembers_what_its_text_was_compared_with(corpus: Path, tmp_path: Path) -> None:
    lm, text = tmp_path / "lm", tmp_path / "text.txt"
    text.write_text("ae io\nou ae\n" * 3, encoding="utf-8")
    how = (text, "--to", lm, "--unit", "char", "--order", 2)
    assert firstwords("lm", "train", *how).exit_code == 0
    assert comparison_words(lm) == "Its text was compared with no dev or test."
    bare = language_model_fingerprint(lm)
    assert firstwords("lm", "train", *how, "--exclude", corpus).exit_code == 0
    assert comparison_words(lm) == (
        "Its text was compared with dev and test of corpus (5 utterances): 0 lines stood there."
    )
    assert language_model_fingerprint(lm) == bare  # the same model: what was tuned for it stays
    shown = firstwords("lm", "perplexity", lm, text)
    assert shown.output.splitlines()[-1] == comparison_words(lm)
    (found,) = read_config(lm / COMPARED, Compared).corpora
    assert (found.name, found.utterances) == ("corpus", 5)


def test_what_was_left_out_is_counted(corpus: Path, tmp_path: Path) -> None:
    leaked = load_corpus(corpus).split("test")[0].text or ""
    text = tmp_path / "text.txt"
    text.write_text(f"{leaked}\nae io\nou ae\n", encoding="utf-8")
    how = ("lm", "train", text, "--unit", "char", "--order", 2, "--exclude", corpus)
    for option, said in (
        ("--drop-leaks", "1 lines stood there, left out."),
        ("--allow-leak", "there, KEPT."),
    ):
        assert firstwords(*how, option, "--to", tmp_path / "lm").exit_code == 0
        assert comparison_words(tmp_path / "lm").endswith(said)


def test_of_older_folders_and_of_others_nothing_is_known(tmp_path: Path) -> None:
    save_language_model(tmp_path / "lm", train(["a b", "b"], "char", 2), Compared())
    save_language_model(tmp_path / "lm", train(["a b", "b"], "char", 2))  # such as an import in its place
    assert not (tmp_path / "lm" / COMPARED).exists()
    assert comparison_words(tmp_path / "lm").endswith("is not written down.")
    (tmp_path / "lm" / COMPARED).write_text("lines = 'many'", encoding="utf-8")
    assert "cannot be read: " in comparison_words(tmp_path / "lm")
    load_language_model(tmp_path / "lm")  # it is read all the same
