"""A punctuation model learns a toy language; same seed same weights, killed or not."""

from __future__ import annotations

import io
import json
import os
import random
import re
import shutil
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner, Result

from firstwords.cli.main import app
from firstwords.data.manifest import Utterance, write_manifest
from firstwords.errors import CorpusError, FirstwordsError, TextError, TrainingError, UsageError
from firstwords.formatting.punctuation import Punctuation
from firstwords.formatting.punctuation_model import (
    FORMS,
    HEADER,
    WEIGHTS,
    Punctuator,
    PunctuatorConfig,
    load_punctuator,
)
from firstwords.formatting.stage import Formatter
from firstwords.text.normalize import normalizer
from firstwords.training.punctuation import (
    PunctuationResult,
    measure_punctuation,
    train_punctuation,
)
from firstwords.training.tasks.punctuation import (
    PunctuationLoader,
    PunctuationTask,
    TaughtText,
    Windows,
    read_measured,
    read_taught,
)
from firstwords.training.tasks.task import Loss

DEFAULT = normalizer("default")
SIZES = {"buckets": 512, "dim": 16, "hidden": 16, "layers": 1, "dropout": 0.0}


def toy_lines(count: int, seed: int = 1) -> list[tuple[str, int]]:
    """Questions begin with "is"; names are capitalised; "however" has a comma behind it."""
    generator = random.Random(seed)
    things = [f"{a}{b}" for a in ("ma", "lo", "ti", "ku", "re") for b in ("ni", "so", "pa", "du")]
    lines: list[str] = []
    for _ in range(count):
        words = generator.choices(things, k=generator.randint(2, 5))
        if generator.random() < 0.3:
            words.insert(generator.randrange(1, len(words)), "NATO")
        if generator.random() < 0.4:
            lines.append(f"Is {' '.join(words)}?")
        elif generator.random() < 0.3:
            lines.append(f"However, {' '.join(words)}.")
        else:
            lines.append(f"Then {' '.join(words)}.")
    return [(line, len(line)) for line in lines]


@pytest.fixture(scope="module")
def text() -> TaughtText:
    return read_taught(toy_lines(400), DEFAULT)


def trained(text: TaughtText, folder: Path, *, steps: int = 100, seed: int = 1) -> PunctuationResult:
    return train_punctuation(text, folder, steps=steps, seed=seed, sizes=SIZES, quiet=True)


def test_endless_trouble_ends_with_advice_that_can_be_followed(
    text: TaughtText, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = PunctuationTask.loss

    def spoiled(self: PunctuationTask, batch: Windows) -> Loss:
        return (made := real(self, batch))._replace(total=made.total * float("nan"))

    monkeypatch.setattr(PunctuationTask, "loss", spoiled)
    with pytest.raises(TrainingError, match="Training fails") as caught:
        trained(text, tmp_path / "toy")
    assert "--set" not in caught.value.mend  # 'punctuation train' has none
    assert "--seed" in caught.value.mend


@pytest.fixture(scope="module")
def learned(text: TaughtText, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PunctuationResult]:
    folder = tmp_path_factory.mktemp("punctuation") / "toy"
    return folder, trained(text, folder)


def test_text_is_split_by_what_it_says(text: TaughtText) -> None:
    def sentences(side: str) -> set[str]:
        part = getattr(text, side)
        return {" ".join(part.words[a:b]) for a, b in zip(part.starts, part.starts[1:], strict=False)}

    assert text.marks == (".", "?", ",")
    assert not sentences("train") & sentences("dev")
    assert 0 < len(text.dev.words) < 0.15 * len(text.train.words)
    again = read_taught(toy_lines(400), DEFAULT)
    assert again == text


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "too little text"),
        ([("", 0), ("...", 3)], "too little text"),
        ([("One line.", 9)], "too little text"),
        ([("one", 3), ("two", 3), ("three", 5)], "nothing to learn"),
    ],
)
def test_text_that_teaches_nothing_is_refused(lines: list[tuple[str, int]], said: str) -> None:
    with pytest.raises(TextError, match=said):
        read_taught(lines, DEFAULT)


def test_batches_are_a_function_of_seed_and_number(text: TaughtText) -> None:
    first, second = (PunctuationLoader(text.train, seed=3, rows=4) for _ in range(2))
    rows = first.batches(5)
    assert [next(rows) for _ in range(3)] == [(n, second.batch(n)) for n in (5, 6, 7)]
    assert second.batch(5) != PunctuationLoader(text.train, seed=4, rows=4).batch(5)
    for window in second.batch(5):
        assert 0 < len(window.words) <= 96
        assert len(window.words) == len(window.marks) == len(window.cases)


def test_the_loss_is_a_sum_of_cross_entropies(text: TaughtText) -> None:
    torch.manual_seed(1)
    task = PunctuationTask(Punctuator(PunctuatorConfig.model_validate({"marks": text.marks, **SIZES})).eval())
    batch = PunctuationLoader(text.train, seed=1, rows=3).batch(0)
    loss = task.loss(batch)
    assert loss.size == sum(len(window.words) for window in batch)
    for window, each in zip(batch, loss.each, strict=True):
        scores = task.punctuator(task.punctuator.bags([window.words]))
        by_hand = sum(
            -torch.log_softmax(logits[0, n], 0)[label]
            for logits, labels in ((scores.marks, window.marks), (scores.cases, window.cases))
            for n, label in enumerate(labels)
        )
        torch.testing.assert_close(each, by_hand)
    torch.testing.assert_close(loss.total, loss.each.sum())
    halves = task.halves(batch)
    assert halves is not None
    torch.testing.assert_close(sum(task.loss(half).total for half in halves), loss.total)
    assert task.halves(batch[:1]) is None


def test_the_toy_language_is_learned(learned: tuple[Path, PunctuationResult]) -> None:
    folder, result = learned
    assert result.outcome == "finished"
    assert result.tally is not None
    assert result.tally.words == len(result.text.dev.words)
    assert result.tally.all_cases.f1 > 0.95
    assert result.tally.marks["."].f1 > 0.5  # "?" hangs on a word far before and takes more steps
    assert result.tally.marks[","].f1 > 0.8
    stage = Punctuation(load_punctuator(folder))
    written = Formatter([stage]).text("however mani nato tiso then loso kudu")
    assert written.startswith("However, mani NATO tiso")
    assert "Then loso" in written


def test_measured_on_other_text(learned: tuple[Path, PunctuationResult]) -> None:
    tally = measure_punctuation(learned[0], toy_lines(50, seed=9))
    assert tally.words == len(read_measured(toy_lines(50, seed=9), DEFAULT, ()).words)
    assert tally.all_cases.f1 > 0.9
    with pytest.raises(TextError, match="no text"):
        measure_punctuation(learned[0], [("...", 3)])


def test_the_same_seed_gives_the_same_weights_killed_or_not(
    text: TaughtText, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(text, tmp_path / "whole", steps=12)
    assert whole.outcome == "finished"
    original = PunctuationLoader.batch

    def stops(self: PunctuationLoader, number: int) -> object:
        if number == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, number)

    with monkeypatch.context() as patched:
        patched.setattr(PunctuationLoader, "batch", stops)
        stopped = trained(text, tmp_path / "killed", steps=12)
    assert (stopped.outcome, stopped.steps, stopped.tally) == ("interrupted", 7, None)
    resumed = trained(text, tmp_path / "killed", steps=12)
    assert (resumed.outcome, resumed.steps) == ("finished", 12)
    assert (tmp_path / "killed" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()
    assert resumed.tally == whole.tally
    other = trained(text, tmp_path / "other", steps=12, seed=2)
    assert other.outcome == "finished"
    assert (tmp_path / "other" / WEIGHTS).read_bytes() != (tmp_path / "whole" / WEIGHTS).read_bytes()
    again = trained(text, tmp_path / "whole", steps=12)  # it is finished: nothing is trained
    assert again.tally == whole.tally


def told(text: TaughtText, folder: Path, **settings: Any) -> tuple[str, PunctuationResult]:
    """What a run says, and what comes of it."""
    out = io.StringIO()
    console = Console(file=out, width=400)
    result = train_punctuation(text, folder, steps=12, sizes=SIZES, console=console, **settings)
    return out.getvalue(), result


def test_a_torn_newest_checkpoint_gives_way_and_is_named(text: TaughtText, tmp_path: Path) -> None:
    said, whole = told(text, tmp_path, save_every_seconds=1e-6)
    assert "12 steps are planned" in said
    assert "Training finished after 12 steps" in said
    before = (tmp_path / WEIGHTS).read_bytes()
    newest = tmp_path / "resume" / "step-00000012" / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:99])
    said, again = told(text, tmp_path, save_every_seconds=1e-6)
    assert "step-00000012" in said
    assert "was changed or is torn. The checkpoint before it is used." in said
    assert "Going on from step 11 of 12." in said
    assert (tmp_path / WEIGHTS).read_bytes() == before
    assert again.tally == whole.tally


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("gone", [(WEIGHTS,), (HEADER,), (HEADER, FORMS, WEIGHTS)])
def test_a_model_that_is_gone_from_a_finished_run_is_written_again(
    text: TaughtText, tmp_path: Path, gone: tuple[str, ...]
) -> None:
    _, whole = told(text, tmp_path)
    before = contents(tmp_path)
    (best,) = (tmp_path / "resume").glob("best-*")
    for name in gone:
        (tmp_path / name).unlink()
    said, again = told(text, tmp_path)
    assert f"'{tmp_path / gone[0]}' is gone" in said
    assert f"resume/{best.name}" in said
    assert contents(tmp_path) == before
    assert again.tally == whole.tally


def test_another_text_or_seed_does_not_go_on_in_the_same_folder(text: TaughtText, tmp_path: Path) -> None:
    trained(text, tmp_path, steps=2)
    with pytest.raises(TrainingError, match="another seed"):
        trained(text, tmp_path, steps=2, seed=5)
    with pytest.raises(TrainingError, match="another text"):
        trained(read_taught(toy_lines(300), DEFAULT), tmp_path, steps=2)


def test_a_finished_model_is_not_overwritten(text: TaughtText, tmp_path: Path) -> None:
    trained(text, tmp_path, steps=2)
    shutil.rmtree(tmp_path / "resume")
    before = (tmp_path / WEIGHTS).read_bytes()
    for seed in (1, 5):
        with pytest.raises(TrainingError, match="finished punctuation model"):
            trained(text, tmp_path, steps=2, seed=seed)
    assert (tmp_path / WEIGHTS).read_bytes() == before
    assert not (tmp_path / "resume").exists()


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("manifest.jsonl", "", "is a corpus"),
        ("recipe.toml", '[encoder]\nkind = "zipformer"\n', "is a recogniser"),
        ("recipe.toml", "[network]\n", "is a language model"),
        ("lm.toml", "", "is a language model"),
    ],
)
def test_folders_of_other_things_are_refused(
    text: TaughtText, tmp_path: Path, file: str, content: str, said: str
) -> None:
    (tmp_path / file).write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=said):
        trained(text, tmp_path, steps=2)
    assert [path.name for path in tmp_path.iterdir()] == [file]
    book = tmp_path / "none.txt"  # the folder is looked at before the text
    assert isinstance(firstwords("punctuation", "train", book, "--to", tmp_path).exception, UsageError)


def test_what_is_shown_and_logged_speaks_of_words(text: TaughtText, tmp_path: Path) -> None:
    out = io.StringIO()
    train_punctuation(text, tmp_path, steps=2, sizes=SIZES, console=Console(file=out, width=120))
    assert re.search(r"step 2: dev F1 marks \d+\.\d %, case \d+\.\d % \(\w+ weights", out.getvalue())
    records = [json.loads(line) for line in (tmp_path / "resume" / "log.jsonl").read_text().splitlines()]
    steps = [record for record in records if "waited" in record]
    assert len(steps) == 2
    assert all(record["words"] > 0 and "audio" not in record for record in steps)


def test_an_error_names_windows_of_words(
    text: TaughtText, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = PunctuationTask.loss

    def infinite(self: PunctuationTask, batch: Windows) -> Loss:
        loss = original(self, batch)
        return loss._replace(total=loss.total * float("inf"), each=loss.each * float("inf"))

    monkeypatch.setattr(PunctuationTask, "loss", infinite)
    with pytest.raises(TrainingError) as caught:
        trained(text, tmp_path, steps=40)
    said = f"{caught.value.what} {caught.value.mend}"
    assert "windows: 'words " in said
    assert "utterance" not in said
    assert "listen" not in said


def firstwords(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit | FirstwordsError):
        raise result.exception
    return result


def test_the_commands(tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_text("".join(f"{line}\n" for line, _ in toy_lines(60)), encoding="utf-8")
    folder = tmp_path / "model"
    done = firstwords("punctuation", "train", book, "--to", folder, "--steps", 3, "--language", "xx")
    assert done.exit_code == 0, done.output
    assert "held-out words" in done.output
    assert "all marks" in done.output
    assert load_punctuator(folder).config.language == "xx"
    measured = firstwords("punctuation", "measure", folder, book)
    assert measured.exit_code == 0, measured.output
    assert "mark ?" in measured.output
    missing = firstwords("punctuation", "measure", tmp_path / "none", book)
    assert isinstance(missing.exception, FirstwordsError)
    empty = tmp_path / "empty.txt"
    empty.write_text("\n", encoding="utf-8")
    assert isinstance(firstwords("punctuation", "train", empty, "--to", folder).exception, TextError)


def test_text_of_dev_and_test_is_not_learned(tmp_path: Path) -> None:
    """However it is written: "Is kudu?" is what "is kudu" of dev says."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    rows = [
        Utterance(id=split, text=said, audio=tmp_path / "a.wav", duration=1.0, split=split)
        for split, said in (("train", "mani loso"), ("dev", "is kudu"))
    ]
    write_manifest(corpus / "manifest.jsonl", rows)
    book = tmp_path / "book.txt"
    lines = ["Is kudu?", *(line for line, _ in toy_lines(60))]
    book.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    options = ("punctuation", "train", book, "--to", tmp_path / "model", "--steps", 2)
    refused = firstwords(*options, "--exclude", corpus)
    assert isinstance(refused.exception, TextError)
    assert "1 line of the text stands in dev or test" in str(refused.exception)
    assert "earlier version" not in str(refused.exception)
    assert not (tmp_path / "model").exists()
    both = firstwords(*options, "--drop-leaks", "--allow-leak")
    assert isinstance(both.exception, UsageError)
    dropped = firstwords(*options, "--exclude", corpus, "--drop-leaks")
    assert dropped.exit_code == 0, dropped.output
    assert "left out" in dropped.output
    assert "60 lines" in dropped.output


def test_a_run_that_was_begun_with_leaks_goes_on_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says how; and the bar counts lines that are left out."""
    corpus, folder = tmp_path / "corpus", tmp_path / "model"
    corpus.mkdir()
    utterance = Utterance(id="d", text="is kudu", audio=tmp_path / "a.wav", duration=1.0, split="dev")
    write_manifest(corpus / "manifest.jsonl", [utterance])
    book = tmp_path / "book.txt"
    lines = ["Is kudu?", *(line for line, _ in toy_lines(60))]
    book.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    options = ("punctuation", "train", book, "--to", folder, "--steps", 2, "--exclude", corpus)
    begun = firstwords(*options, "--allow-leak")
    assert begun.exit_code == 0, begun.output
    refused = firstwords(*options)
    assert isinstance(refused.exception, TextError)
    assert f"A run in '{folder}' that an earlier version began goes on with --allow-leak." in str(
        refused.exception
    )
    again = firstwords(*options, "--allow-leak")
    assert "Going on from step 2 of 2" in again.output
    seen: list[int] = []

    @contextmanager
    def bar(*_: object) -> Generator[Callable[[int], None]]:
        yield seen.append

    monkeypatch.setattr("firstwords.cli.punctuation.reading_bar", bar)
    assert firstwords(*options[:4], tmp_path / "other", *options[5:], "--drop-leaks").exit_code == 0
    assert sum(seen) == book.stat().st_size


def test_of_a_corpus_the_dev_split_is_measured(
    tmp_path: Path, learned: tuple[Path, PunctuationResult]
) -> None:
    said = {"train": "Then mani loso tiso.", "dev": "Is kudu?", "test": "However, reni mani."}
    rows = [
        Utterance(id=split, text=text, audio=tmp_path / "a.wav", duration=1.0, split=split)
        for split, text in said.items()
    ]
    write_manifest(tmp_path / "manifest.jsonl", rows)
    measured = firstwords("punctuation", "measure", learned[0], tmp_path)
    assert measured.output.startswith("2 words:"), measured.output
    measured = firstwords("punctuation", "measure", learned[0], tmp_path, "--split", "test")
    assert measured.output.startswith("3 words:"), measured.output
    unknown = firstwords("punctuation", "measure", learned[0], tmp_path, "--split", "best")
    assert isinstance(unknown.exception, CorpusError)
