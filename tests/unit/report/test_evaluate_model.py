"""A model evaluated on a corpus: fake recognisers that fail, labels, splits, comparison with a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from firstwords.cli import evaluate as command
from firstwords.data.manifest import Corpus, Utterance, write_manifest
from firstwords.encoders.zipformer.config import ZipformerConfig
from firstwords.errors import AudioError, CorpusError, DependencyError, UsageError
from firstwords.heads.ctc import CtcConfig
from firstwords.model.recipe import Recipe, write_recipe
from firstwords.report import evaluate_model as room
from firstwords.report.evaluate_model import (
    compare_with,
    evaluate_model,
    piece_labels,
    transcribe_all,
    utterances_of,
)
from firstwords.text.characters import GraphemeConfig, GraphemeTokenizer
from firstwords.text.normalize import normalizer


@dataclass
class Heard:
    text: str


def utterance(name: str, text: str) -> Utterance:
    return Utterance(id=name, text=text, audio=Path(f"{name}.wav"), duration=4.0, split="test")


class Fake:
    """Transcribes in batches of three and fails a batch with bad audio in it."""

    def __init__(self, bad: set[str]) -> None:
        self.bad = bad

    def transcribe_many(self, utterances: Iterable[Utterance]) -> Iterator[Heard]:
        rows = list(utterances)
        for start in range(0, len(rows), 3):
            batch = rows[start : start + 3]
            for row in batch:
                if row.id in self.bad:
                    raise AudioError(f"'{row.audio}' is empty.")
            yield from (Heard(row.id) for row in batch)


@pytest.mark.parametrize("bad", [set(), {"0"}, {"4"}, {"4", "5", "10"}, {str(i) for i in range(11)}])
def test_bad_audio_is_skipped_and_named(bad: set[str]) -> None:
    rows = [utterance(str(i), "x") for i in range(11)]
    seen: list[tuple[int, int]] = []
    texts, failures = transcribe_all(Fake(bad), rows, lambda done, total: seen.append((done, total)))
    assert texts == [None if r.id in bad else r.id for r in rows]
    assert set(failures) == bad
    assert seen == [(i + 1, 11) for i in range(11)]


def test_whatever_keeps_one_utterance_from_its_transcript_stops_no_run() -> None:
    class Picky:
        def transcribe_many(self, utterances: Iterable[Utterance]) -> Iterator[Heard]:
            for row in utterances:
                if row.id == "1":
                    raise DependencyError("no ffmpeg")
                yield Heard(row.id)

    texts, failures = transcribe_all(Picky(), [utterance(str(i), "x") for i in range(3)])
    assert texts == ["0", None, "2"]
    assert failures == {"1": "no ffmpeg"}


def test_piece_labels_without_bytes_keep_what_has_no_piece() -> None:
    tokenizer = GraphemeTokenizer.train(["abc"], GraphemeConfig(bytes=False))
    labels = piece_labels(tokenizer, normalizer("default"))
    assert labels("A!b") == [*tokenizer.encode("a"), 1, *tokenizer.encode("b")]
    assert labels("aξ") == [*tokenizer.encode("a"), "ξ"]


def test_an_unknown_split_lists_the_known_ones(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, tuple(utterance(str(i), "x") for i in range(6)), {})
    with pytest.raises(CorpusError, match=r"Splits: test \(6\)"):
        utterances_of(corpus, "dev")


class Parrot:
    """Gives each utterance the transcript it was told."""

    def __init__(self, texts: dict[str, str]) -> None:
        self.texts = texts

    def transcribe_many(self, utterances: Iterable[Utterance]) -> Iterator[Heard]:
        return (Heard(self.texts[u.id]) for u in utterances)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder without weights: recipe and tokenizer are all that scoring reads."""
    folder = tmp_path / "model"
    folder.mkdir()
    write_recipe(folder / "recipe.toml", Recipe(encoder=ZipformerConfig(), heads={"ctc": CtcConfig()}))
    GraphemeTokenizer.train(["one two three"]).save(folder / "tokenizer")
    return folder


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    tests = [utterance(name, "One two, three!") for name in "abcd"]
    train = [replace(utterance(f"t{i}", "three"), split="train") for i in range(3)]
    (tmp_path / "corpus").mkdir()
    return Corpus(tmp_path / "corpus", (*tests, *train), {"d": "clipped"})


def test_a_model_is_evaluated(model: Path, corpus: Corpus) -> None:
    heard = {"a": "one two three", "b": "one too three", "c": ""}
    got = evaluate_model(model, corpus, "test", recognizer=Parrot(heard), device="cpu", note="look")
    assert (got.model, got.corpus, got.split, got.note) == ("model", "corpus", "test", "look")
    assert (got.words.errors, got.words.reference_length) == (4, 9)
    # 13 letters and spaces: one is wrong in b, all are lost in c
    assert (got.total("labels").errors, got.total("labels").reference_length) == (1 + 13, 39)
    assert got.skipped == {"d": "quarantined: clipped"}
    assert got.made_from == {"model": str(model.resolve()), "corpus": str(corpus.folder.resolve())}
    assert got.baselines[1].text == "three"
    assert got.baselines[1].words.rate == pytest.approx(2 / 3)
    assert "torch" in got.hardware
    assert got.real_time_factor is not None


def test_two_models_and_a_file_compared(model: Path, corpus: Corpus, tmp_path: Path) -> None:
    right, wrong = dict.fromkeys("abc", "one two three"), dict.fromkeys("abc", "one")
    mine = evaluate_model(model, corpus, "test", recognizer=Parrot(right), device="cpu")
    compared, before = compare_with(mine, model, corpus, recognizer=Parrot(wrong), device="cpu")
    assert before.words.rate == pytest.approx(2 / 3)
    assert compared.comparison is not None
    assert compared.comparison.words.difference == pytest.approx(-2 / 3)
    path = tmp_path / "hypotheses.jsonl"
    path.write_text('{"id": "a", "hypothesis": "one"}\n{"id": "x", "hypothesis": "y"}', encoding="utf-8")
    compared, before = compare_with(mine, path, corpus)
    assert before.skipped == {"b": "not in hypotheses.jsonl", "c": "not in hypotheses.jsonl"}
    assert compared.comparison is not None
    assert compared.comparison.utterances == 1


def test_the_command(model: Path, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_manifest(corpus.folder / "manifest.jsonl", corpus.utterances)
    heard = dict.fromkeys("abcd", "one two")
    monkeypatch.setattr(room, "_load", lambda folder, device: Parrot(heard))
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(command.run)
    done = CliRunner().invoke(
        app, [str(model), str(corpus.folder), "--against", str(model), "--device", "cpu"]
    )
    assert done.exit_code == 0, done.output
    assert "33.3 %" in done.output
    assert "no significant difference" in done.output
    folder = tmp_path / "evaluation" / "model-corpus-test"
    assert {p.name for p in folder.iterdir()} == {"evaluation.json", "hypotheses.jsonl", "report.html"}


@pytest.mark.parametrize(
    ("option", "what"),
    [
        ("--against", "absent"),
        ("--against", "empty"),
        ("--against", "bad.jsonl"),
        ("--against", "other.jsonl"),
        ("--out", "bad.jsonl"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_transcribed(
    model: Path, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, what: str
) -> None:
    write_manifest(corpus.folder / "manifest.jsonl", corpus.utterances)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.jsonl").write_text("{}", encoding="utf-8")
    (tmp_path / "other.jsonl").write_text('{"id": "x", "hypothesis": "y"}', encoding="utf-8")

    def loaded(folder: Path, device: str) -> Parrot:
        raise AssertionError("a model was loaded first")

    monkeypatch.setattr(room, "_load", loaded)
    app = typer.Typer()
    app.command()(command.run)
    done = CliRunner().invoke(app, [str(model), str(corpus.folder), option, str(tmp_path / what)])
    assert isinstance(done.exception, CorpusError | UsageError)
    assert what in done.exception.what
