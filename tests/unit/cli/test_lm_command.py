"""``firstwords lm``: from text to a folder, to ARPA and back; what cannot be is said in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from firstwords.cli import main as entry
from firstwords.errors import FirstwordsError, TextError, UsageError
from firstwords.text.characters import GraphemeConfig, GraphemeTokenizer
from small_ngrams import draw_text

RUNNER = CliRunner()


def lm(*arguments: object) -> str:
    result = RUNNER.invoke(entry.app, ["lm", *map(str, arguments)])
    if isinstance(result.exception, FirstwordsError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(draw_text(5, "abcdefg", 60)) + "\n\nSo it is\n", encoding="utf-8")
    return path


def test_train_measure_export_import(tmp_path: Path, text: Path) -> None:
    said = lm("train", text, "--to", tmp_path / "lm", "--order", 3, "--prune", "0 0 1")
    assert "Read 61 sentences" in said
    assert "1 lines without text" in said
    assert "1-grams: 13" in said  # a to g, so, it, is and the three marks
    assert "discounts" in said
    measured = lm("perplexity", tmp_path / "lm", text)
    assert "unknown words: 0 (0.00 %)" in measured
    lm("export", tmp_path / "lm", "--arpa", tmp_path / "x.arpa.gz")
    lm("import", tmp_path / "x.arpa.gz", "--to", tmp_path / "again")
    again = lm("perplexity", tmp_path / "again", text)
    own, remembered = "Its text was compared with no dev or test.\n", "is not written down.\n"
    assert measured.endswith(own)
    assert again.endswith(remembered)  # an ARPA file does not tell
    assert again.rpartition("With which dev")[0] == measured.removesuffix(own)
    (tmp_path / "other.txt").write_text("a zz\n", encoding="utf-8")
    assert "unknown words: 1 (50.00 %)" in lm("perplexity", tmp_path / "lm", tmp_path / "other.txt")


def test_pieces_come_from_a_model_folder(tmp_path: Path, text: Path) -> None:
    GraphemeTokenizer.train(["abcdefg soit"], GraphemeConfig(min_count=1)).save(tmp_path / "m" / "tokenizer")
    (tmp_path / "m" / "recipe.toml").write_text(
        'format = 1\nname = "x"\nlanguage = "xx"\n[text]\nnormalizer = "keep_case"\n', encoding="utf-8"
    )
    lm("train", text, "--to", tmp_path / "lm", "--unit", "piece", "--tokenizer", tmp_path / "m")
    header = (tmp_path / "lm" / "lm.toml").read_text(encoding="utf-8")
    assert 'normalizer = "keep_case"' in header
    assert (tmp_path / "lm" / "tokenizer" / "pieces.txt").is_file()
    assert "per piece" in lm("perplexity", tmp_path / "lm", text)
    lm("export", tmp_path / "lm", "--arpa", tmp_path / "x.arpa")
    again = ["import", tmp_path / "x.arpa", "--to", tmp_path / "again", "--unit", "piece", "--tokenizer"]
    lm(*again, tmp_path / "m" / "tokenizer", "--normalizer", "keep_case")
    assert (tmp_path / "again" / "lm.toml").read_text(encoding="utf-8") == header
    GraphemeTokenizer.train(["abcdefg"], GraphemeConfig(min_count=1)).save(tmp_path / "n" / "tokenizer")
    with pytest.raises(TextError, match=r"line \d+ of .*'i' is no piece of the tokenizer"):
        lm(*again, tmp_path / "n")


def test_text_of_dev_is_refused_dropped_or_kept(tmp_path: Path, text: Path) -> None:
    (tmp_path / "c").mkdir()
    record = {"id": "u1", "audio": "a.wav", "duration": 1, "text": "so, it is!", "split": "dev"}
    (tmp_path / "c" / "manifest.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")
    train = ["train", text, "--to", tmp_path / "lm", "--exclude", tmp_path / "c"]
    with pytest.raises(TextError, match=r"(?s)1 line of .* stands in dev or test.*line 62 .* is 'u1' \(dev"):
        lm(*train)
    assert not (tmp_path / "lm").exists()
    assert "1 lines that stand in dev or test: left out" in lm(*train, "--drop-leaks")
    assert "1-grams: 10" in lm(*train, "--drop-leaks")
    assert "KEPT" in lm(*train, "--allow-leak")
    with pytest.raises(UsageError, match="exclude each other"):
        lm(*train, "--allow-leak", "--drop-leaks")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--unit", "syllable"], "no such unit"),
        (["--unit", "piece"], "needs --tokenizer"),
        (["--order", "0"], "order of 0"),
        (["--prune", "many"], "expected counts"),
        (["--prune", "2"], "first number must be 0"),
        (["--normalizer", "defualt"], "No normalizer"),
        (["--tokenizer", "nowhere"], "not a folder"),
        (["--exclude", "nowhere"], "no corpus"),
    ],
)
def test_options_that_cannot_be(tmp_path: Path, text: Path, options: list[str], says: str) -> None:
    with pytest.raises(FirstwordsError, match=says):
        lm("train", text, "--to", tmp_path / "lm", *options)
    assert not (tmp_path / "lm").exists()


def test_a_corpus_without_dev_and_test_excludes_nothing(tmp_path: Path, text: Path) -> None:
    record = {"id": "a", "audio": "a.wav", "duration": 1, "text": "so it is", "split": "train"}
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "manifest.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")
    for kind in ("ngram", "lstm"):
        with pytest.raises(TextError, match=r"no transcripts in dev or test \(splits: train\)"):
            lm("train", text, "--to", tmp_path / kind, "--kind", kind, "--exclude", tmp_path / "c")
    assert "Read 1 sentences" in lm("train", tmp_path / "c", "--to", tmp_path / "own", "--order", 2)


def test_what_is_strange_in_another_tools_file_is_said(tmp_path: Path) -> None:
    def imported(space: str, log_prob: str) -> str:
        words = ("<unk>", "<s>", "</s>", "a", space)
        lines = "".join(f"{log_prob}\t{word}\n" for word in words)
        path = tmp_path / "x.arpa"
        path.write_text(f"\\data\\\nngram 1=5\n\n\\1-grams:\n{lines}\n\\end\\\n", encoding="utf-8")
        return " ".join(lm("import", path, "--to", tmp_path / "lm", "--unit", "char").split())

    assert imported("▁", "-0.602").endswith("lm.")
    assert "It has no ▁, which is a space among letters" in imported("|", "-0.602")
    assert "add up to 0.164, not to 1" in imported("▁", "-1.386")
    with pytest.raises(TextError, match="a space is written ▁"):
        imported("<space>", "-0.602")
