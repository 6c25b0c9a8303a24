"""The folder of a language model, the text it is made from, and perplexity."""

from __future__ import annotations

import gzip
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from firstwords.errors import CheckpointError, TextError, UsageError
from firstwords.lm.language_model import load_language_model, save_language_model
from firstwords.lm.ngram_text import (
    Line,
    Unit,
    gather,
    held_out,
    measured_corpora,
    read_lines,
    splitter,
    text_files,
)
from firstwords.lm.perplexity import Perplexity, measure_perplexity
from firstwords.lm.writing import check_written_letters
from firstwords.text.characters import GraphemeConfig, GraphemeTokenizer
from firstwords.text.normalize import normalizer
from firstwords.text.subwords import SubwordConfig, SubwordTokenizer
from small_ngrams import draw_text, train

TEXT = draw_text(2, "abcdefgh", 40)
TOKENIZER = GraphemeTokenizer.train(TEXT, GraphemeConfig(min_count=1))


@pytest.mark.parametrize("unit", ["word", "char", "piece"])
def test_saved_and_loaded_scores_the_same(tmp_path: Path, unit: str) -> None:
    lm = train(TEXT, unit, 4, TOKENIZER if unit == "piece" else None)  # pyright: ignore[reportArgumentType]
    save_language_model(tmp_path / "lm", lm)
    again = load_language_model(tmp_path / "lm")
    assert again.header == lm.header
    assert again.model.words == lm.model.words
    for name in ("parent", "word", "log_prob", "backoff", "fail", "next_state"):
        assert np.array_equal(getattr(again.model, name), getattr(lm.model, name)), name
    assert again.log_prob("A b, zz c!") == lm.log_prob("a b zz c")
    first = {p.name: p.read_bytes() for p in (tmp_path / "lm").iterdir() if p.is_file()}
    save_language_model(tmp_path / "lm", lm)
    assert first == {p.name: p.read_bytes() for p in (tmp_path / "lm").iterdir() if p.is_file()}


def test_folders_that_are_none_are_refused(tmp_path: Path) -> None:
    whole, other = tmp_path / "whole", tmp_path / "other"
    save_language_model(whole, train(TEXT, "word"))
    save_language_model(other, train(draw_text(3, "abcdefgh", 40), "word", 2))

    def broken(change: str, name: str, content: bytes | None) -> None:
        folder = tmp_path / "broken"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=change):
            load_language_model(folder)

    broken("no language model", "lm.toml", None)
    broken(r"words.txt cannot be read", "words.txt", None)
    broken(r"ngrams.safetensors cannot be read", "ngrams.safetensors", None)
    broken("fingerprints differ", "words.txt", b"<unk>\n<s>\n</s>\nx\n")
    broken("fingerprints differ", "ngrams.safetensors", (other / "ngrams.safetensors").read_bytes())
    weights = (whole / "ngrams.safetensors").read_bytes()
    broken("no safetensors file", "ngrams.safetensors", weights[:-9])
    broken("no safetensors file", "ngrams.safetensors", b"")
    at = weights.rindex(np.float32(0).tobytes())
    broken("no n-grams", "ngrams.safetensors", weights[:at] + np.float32("nan").tobytes() + weights[at + 4 :])
    header = (whole / "lm.toml").read_bytes()
    broken("format is 2", "lm.toml", header.replace(b"format = 1", b"format = 2"))
    broken("kind is 'llm'", "lm.toml", header.replace(b'"ngram"', b'"llm"'))
    broken("not TOML", "lm.toml", b"\xff")
    (whole / "lm.toml").unlink()
    (whole / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match="in Hugging Face format") as caught:
        load_language_model(whole)
    assert "--rescore" in caught.value.mend
    broken("No normalizer", "lm.toml", header.replace(b'"default"', b'"nothing"'))


def test_another_vocabulary_or_normalizer_is_refused() -> None:
    others = GraphemeTokenizer.train(["xyz"], GraphemeConfig(min_count=1, bytes=False))
    subwords = SubwordTokenizer.train(["abab abab abab"] * 5, SubwordConfig(vocabulary=8))
    with pytest.raises(CheckpointError, match="pieces of another tokenizer"):
        train(TEXT, "piece", 3, TOKENIZER).columns(others)
    with pytest.raises(CheckpointError, match="whole words"):
        train(TEXT, "word").columns(TOKENIZER)
    with pytest.raises(CheckpointError, match="pieces of several"):
        train(TEXT, "char").columns(subwords)
    with pytest.raises(CheckpointError, match="another vocabulary"):
        train(["abc"], "char").columns(others)
    train(TEXT, "word").check_normalizer("score_default")  # writes these words alike
    with pytest.raises(CheckpointError, match=r"'strip_diacritics' is used here \(1 of its words"):
        train(["ọ̀ a b"], "word").check_normalizer("strip_diacritics")
    with pytest.raises(CheckpointError, match="'keep_case' is used here"):
        train(TEXT, "piece", 3, TOKENIZER).check_normalizer("keep_case")
    train(TEXT, "piece", 3, TOKENIZER).check_normalizer("default")


def test_text_that_cannot_hold_the_letters_of_the_recogniser_is_refused() -> None:
    """Its own words are all such as the recogniser writes: it just never saw the others."""
    marked = GraphemeTokenizer.train(["ọ̀ a b"] * 5)
    with pytest.raises(CheckpointError, match="'ọ̀' for one, cannot stand in it"):
        check_written_letters("default", "strip_diacritics", marked, "lm")
    check_written_letters("default", "default", marked, "lm")
    check_written_letters("default", "strip_diacritics", GraphemeTokenizer.train(["o a b."] * 5), "lm")


def test_units() -> None:
    assert splitter("char")("ọ̀ b") == ["ọ̀", "▁", "b"]
    assert splitter("word")("ọ̀ b") == ["ọ̀", "b"]
    assert splitter("piece", TOKENIZER)("a b") == ["a", "▁", "b"]
    with pytest.raises(UsageError, match="needs the tokenizer"):
        splitter("piece")


def lines(*texts: str) -> list[Line]:
    return [Line(text, f"line {i}", len(text)) for i, text in enumerate(texts, start=1)]


def test_texts_of_all_kinds_are_read(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\n")
    (tmp_path / "in" / "b.txt.gz").write_bytes(gzip.compress("drei ọ̀\n".encode()))
    (tmp_path / "in" / "c.pdf").write_bytes(b"%")
    files = text_files([tmp_path / "a.txt", tmp_path / "in", tmp_path / "in" / "b.txt.gz"])
    found = list(read_lines(files))
    assert [line.text for line in found] == ["one", "two", "drei ọ̀"]
    assert found[1].where == f"line 2 of '{tmp_path / 'a.txt'}'"
    (tmp_path / "bad.txt").write_bytes(b"good\n\nb\xe9d\n")
    with pytest.raises(TextError, match=r"line 3 of '.*bad.txt' is not UTF-8: .*byte 2"):
        list(read_lines(text_files([tmp_path / "bad.txt"])))
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(b"x y\n" * 99)[:-9])
    with pytest.raises(TextError, match="no whole gzip file"):
        list(read_lines([tmp_path / "cut.txt.gz"]))
    (tmp_path / "none").mkdir()
    with pytest.raises(TextError, match="holds no text"):
        text_files([tmp_path / "none"])
    with pytest.raises(TextError, match="does not exist"):
        text_files([tmp_path / "nowhere"])


@pytest.mark.parametrize("text", ["ab\nc d\n".encode(code) for code in ("utf-16", "utf-16-le", "utf-16-be")])
def test_utf_16_is_no_text_of_letters_and_nuls(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(text)
    with pytest.raises(TextError, match=r"line 1 of '.*a.txt' is not UTF-8, but UTF-16"):
        list(read_lines([tmp_path / "a.txt"]))


def test_compressed_text_is_known_by_its_bytes_and_a_lone_return_ends_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(gzip.compress(b"one\rtwo\r\nthree\r\n\nfive"))
    (tmp_path / "plain.txt.gz").write_bytes(b"six")
    found = list(read_lines([tmp_path / "a.txt", tmp_path / "plain.txt.gz"]))
    assert [line.text for line in found] == ["one", "two", "three", "", "five", "six"]
    assert found[4].where == f"line 5 of '{tmp_path / 'a.txt'}'"
    assert [line.size for line in found] == [4, 5, 7, 1, 4, 3]


@pytest.mark.parametrize("unit", ["char", "word"])
@pytest.mark.parametrize("line", ["<s> a </s>", "a <UNK> b"])
def test_marks_of_sentences_are_refused_whatever_is_counted(unit: Unit, line: str) -> None:
    with pytest.raises(TextError, match=r"line 2 holds <(s|unk)>, which marks sentences"):
        gather(lines("a", line), split=splitter(unit), normalize=normalizer("default"))


def test_text_becomes_ids_in_the_order_of_letters() -> None:
    found = gather(lines("b A!", "...", "c a"), split=str.split, normalize=normalizer("default"))
    assert found.words == ["<unk>", "<s>", "</s>", "a", "b", "c"]
    assert found.tokens.tolist() == [1, 4, 3, 2, 1, 5, 3, 2]
    assert (found.sentences, found.empty) == (2, 1)
    with pytest.raises(TextError, match="line 2 holds <s>"):
        gather(lines("a", "<s> a </s>"), split=str.split, normalize=normalizer("default"))
    with pytest.raises(TextError, match="2 empty lines"):
        gather(lines("", "?!"), split=str.split, normalize=normalizer("default"))


def corpus(folder: Path) -> Path:
    folder.mkdir()
    rows = [("t", "Good day!", "train"), ("d", "So it is.", "dev"), ("e", "Good night", "test"),
            ("x", "more", "extra"), ("v", "Nobody", "validation")]  # fmt: skip
    records = [{"id": i, "audio": "a.wav", "duration": 1, "text": t, "split": s} for i, t, s in rows]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return folder


def test_what_stands_in_dev_or_test_is_found(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "c")
    files = text_files([folder])
    assert [line.text for line in read_lines(files)] == ["Good day!"]
    measured = measured_corpora(files, [folder])
    assert len(measured) == 1  # that the text comes from, and named again
    held = held_out(measured, normalizer("default"))
    text = lines("good day", "GOOD NIGHT!", "so it is", "so it is, good night")

    def read(leaks: str) -> list[str]:
        found = gather(text, split=str.split, normalize=normalizer("default"), held=held, leaks=leaks)  # pyright: ignore[reportArgumentType]
        assert found.leaks.count == 2
        return [found.words[i] for i in found.tokens]

    with pytest.raises(TextError, match=r"(?s)2 lines .* stand in dev or test:.*line 2: 'good night' is 'e'"):
        read("refuse")
    assert read("drop") == ["<s>", "good", "day", "</s>", "<s>", "so", "it", "is", "good", "night", "</s>"]
    assert read("allow").count("<s>") == 4
    (folder / "manifest.jsonl").write_text(
        '{"id": "d", "audio": "a.wav", "duration": 1, "text": "x", "split": "dev"}\n', encoding="utf-8"
    )
    with pytest.raises(TextError, match=r"no transcripts in a train split \(splits: dev\)"):
        list(read_lines(files))


@pytest.mark.parametrize(
    ("name", "test", "trained"),
    [
        ("turkic", "Isparta", ["Isparta", "ISPARTA", "isparta", "\u0131sparta"]),
        ("strip_diacritics", "caf\u00e9", ["caf\u00e9", "CAFE\u0301", "cafe"]),
        ("default", "Isparta", ["ISPARTA!"]),
    ],
)
def test_a_leak_is_found_whatever_the_normalizer(
    tmp_path: Path, name: str, test: str, trained: list[str]
) -> None:
    record = {"id": "e", "audio": "a.wav", "duration": 1, "text": test, "split": "test"}
    (tmp_path / "manifest.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")
    normalize = normalizer(name)
    held = held_out(measured_corpora([], [tmp_path]), normalize)
    found = gather(lines(*trained, "another"), split=str.split, normalize=normalize, held=held, leaks="drop")
    assert found.leaks.count == len(trained)
    assert found.words[3:] == ["another"]


def test_perplexity_accounts_for_unknown_words() -> None:
    lm = train(["a b", "a"], "word", 2)  # probabilities as in test_bigrams_worked_by_hand
    found = measure_perplexity(lm, lines("A b", "", "a zz"))
    known = [0.625, 0.375, 0.6875, 0.625]
    unknown, end = 0.5 * 0.125, 0.375  # <unk> after a; </s> after <unk>, a unigram
    assert found.log_prob == pytest.approx(sum(map(math.log, [*known, unknown, end])))
    assert (found.sentences, found.units, found.unknown, found.words, found.letters) == (2, 4, 1, 4, 7)
    assert found.unknown_rate == 0.25
    assert found.perplexity == pytest.approx(math.prod([*known, unknown, end]) ** (-1 / 6))
    assert found.perplexity_known == pytest.approx(math.prod([*known, end]) ** (-1 / 5))
    assert found.bits_per_letter == pytest.approx(-found.log_prob / math.log(2) / 9)
    assert found + Perplexity() == found
    letters = measure_perplexity(train(TEXT, "char"), lines("a b", "c"))
    assert letters.perplexity_per_word == pytest.approx(math.exp(-letters.log_prob / 5))
    assert letters.perplexity == pytest.approx(math.exp(-letters.log_prob / 6))
    with pytest.raises(TextError, match="no text"):
        measure_perplexity(lm, lines("", "!"))
