"""Trainings of language models: exact resume, torn checkpoints, what is refused, time, what is said."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from firstwords.errors import ConfigError, FirstwordsError, TrainingError, UsageError
from firstwords.lm.language_model import save_language_model
from firstwords.lm.neural.folder import load_neural
from firstwords.lm.ngram_text import read_lines
from firstwords.lm.perplexity import measure_perplexity
from firstwords.model.checkpoint import weights_digest
from firstwords.text.characters import GraphemeConfig, GraphemeTokenizer
from firstwords.training.lm.feeding import TextBatch, TextLoader
from firstwords.training.lm.recipe import LmRecipe, LmWanted
from firstwords.training.lm.run import LmResult, train_language_model
from firstwords.training.lm.texts import Sources, read_texts
from firstwords.training.log import read_log
from firstwords.training.progress import Progress
from firstwords.training.session import Run
from small_networks import KINDS
from small_ngrams import draw_text
from small_ngrams import train as train_ngram
from small_texts import corpus, write

SETTINGS = ("training.batch_tokens=120", "training.validate_every=5", "training.precision=fp32")


class Told(Progress):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


def go(
    text: Path,
    to: Path,
    kind: str = "lstm",
    *more: str,
    progress: Progress | None = None,
    tokenizer: GraphemeTokenizer | None = None,
    **options: Any,
) -> LmResult:
    sizes = {"lstm": ("network.dim=12",), "transformer": ("network.dim=12", "network.feedforward=24")}[kind]
    steps = ("training.steps=18", *SETTINGS)
    return train_language_model(
        Sources((text,)),
        to,
        LmWanted(kind=kind, overrides=(*sizes, *steps, *more), **options),
        device="cpu",
        threads=1,
        progress=progress or Progress(quiet=True),
        tokenizer=tokenizer,
    )


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return write(tmp_path / "text.txt", draw_text(3, "abcdef", 120))


def ending(folder: Path) -> dict[str, Any]:
    (newest, *_) = sorted((folder / "resume").glob("step-*"), reverse=True)
    clock = ("seconds", "waited")
    records = read_log(folder / "resume" / "log.jsonl")
    return {
        "files": [(newest / "state.safetensors").read_bytes(), (folder / "model.safetensors").read_bytes()],
        "log": [{k: v for k, v in record.items() if k not in clock} for record in records],
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_run_ends_as_any_other(
    tmp_path: Path, text: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = go(text, tmp_path / "whole", kind)
    assert (whole.outcome, whole.steps) == ("finished", 18)
    real = TextLoader.batch
    for stop in (3, 16):  # the second time while weights are averaged

        def stopping(self: TextLoader, number: int, stop: int = stop) -> TextBatch:
            if number == stop and self.waited:  # not while speed is measured
                signal.raise_signal(signal.SIGTERM)
            return real(self, number)

        monkeypatch.setattr(TextLoader, "batch", stopping)
        assert go(text, tmp_path / "cut", kind).outcome == "interrupted"
    monkeypatch.setattr(TextLoader, "batch", real)
    again = go(text, tmp_path / "cut", kind)
    assert again.numbers == whole.numbers
    assert ending(tmp_path / "cut") == ending(tmp_path / "whole")
    other = go(text, tmp_path / "other", kind, "seed=2")
    digests = [weights_digest(load_neural(tmp_path / n).network.state_dict()) for n in ("whole", "other")]
    assert digests[0] != digests[1]
    assert other.numbers != whole.numbers


@pytest.mark.parametrize("kind", KINDS)
def test_a_torn_newest_checkpoint_gives_way_and_is_named(tmp_path: Path, text: Path, kind: str) -> None:
    whole = go(text, tmp_path / "lm", kind, "training.save_every_seconds=1e-6")
    before = ending(tmp_path / "lm")
    newest = tmp_path / "lm" / "resume" / "step-00000018" / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:99])
    told = Told()
    again = go(text, tmp_path / "lm", kind, "training.save_every_seconds=1e-6", progress=told)
    (said,) = (line for line in told.lines if "step-00000018" in line)
    assert said.endswith("was changed or is torn. The checkpoint before it is used.")
    assert "Going on from step 17 of 18." in told.lines
    assert ending(tmp_path / "lm") == before
    assert again.numbers == whole.numbers


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a model, its resume/ apart."""
    files = (path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: path.read_bytes() for name, path in names.items() if not name.startswith("resume/")}


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


@pytest.mark.parametrize(
    "gone", [("model.safetensors",), ("lm.toml",), ("tokenizer",), ("lm.toml", "words.txt")]
)
def test_a_model_that_is_gone_from_a_finished_run_is_written_again(
    tmp_path: Path, text: Path, gone: tuple[str, ...]
) -> None:
    tokenizer = GraphemeTokenizer.train(["abcdef"], GraphemeConfig(min_count=1))
    folder, options = tmp_path / "lm", {"tokenizer": tokenizer, "unit": "piece"}
    whole = go(text, folder, **options)
    before = contents(folder)
    (best,) = (folder / "resume").glob("best-*")
    for name in gone:
        remove(folder / name)
    told = Told()
    again = go(text, folder, progress=told, **options)
    (said,) = (line for line in told.lines if "gone" in line)
    assert f"'{folder / gone[0]}' is gone" in said
    assert f"resume/{best.name}" in said
    assert contents(folder) == before
    assert again.numbers == whole.numbers
    shutil.rmtree(best)
    remove(folder / gone[0])
    told = Told()
    go(text, folder, progress=told, **options)
    assert any("so are the weights that were best" in line and "step 18" in line for line in told.lines)
    load_neural(folder)


def test_an_interrupted_run_whose_model_is_gone_goes_on_as_if_it_were_there(
    tmp_path: Path, text: Path
) -> None:
    go(text, tmp_path / "whole", "lstm", "training.save_every_seconds=1e-6")
    go(text, tmp_path / "cut", "lstm", "training.save_every_seconds=1e-6")
    shutil.rmtree(tmp_path / "cut" / "resume" / "step-00000018")
    (tmp_path / "cut" / "model.safetensors").unlink()
    go(text, tmp_path / "cut", "lstm", "training.save_every_seconds=1e-6")
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_best_checkpoint_that_is_torn_is_named(tmp_path: Path, text: Path) -> None:
    assert go(text, tmp_path / "lm").numbers
    (best,) = (tmp_path / "lm" / "resume").glob("best-*")
    (best / "state.json").write_text("{")
    told = Told()
    assert not go(text, tmp_path / "lm", progress=told).numbers
    assert any(str(best) in line and "was changed or is torn." in line for line in told.lines)


def test_the_best_weights_are_those_of_the_folder(tmp_path: Path, text: Path) -> None:
    """What was reported of dev is what the folder says of the same sentences."""
    result = go(text, tmp_path / "lm")
    lm = load_neural(tmp_path / "lm")
    texts = read_texts(Sources((text,)), LmRecipe(), None)
    sentences = "".join("\n" if i == 0 else lm.words[i].replace("▁", " ") for i in texts.dev[1:].tolist())
    found = measure_perplexity(lm, read_lines([write(tmp_path / "dev.txt", sentences.splitlines())]))
    assert found.perplexity == pytest.approx(result.numbers["perplexity"], rel=1e-5)
    assert found.units + found.sentences == result.numbers["tokens"]
    log = read_log(tmp_path / "lm" / "resume" / "log.jsonl")
    best = min(r["perplexity"] for r in log if r["kind"] == "dev")
    assert best == pytest.approx(result.numbers["perplexity"])
    assert {r["weights"] for r in log if r["kind"] == "dev"} == {"last", "averaged"}
    assert all(r["tokens"] > 0 for r in log if r["kind"] == "train")


def test_another_experiment_is_refused(tmp_path: Path, text: Path) -> None:
    go(text, tmp_path / "lm", "lstm", "training.steps=2")

    def refused(kind: type[FirstwordsError], words: str, *arguments: Any, **options: Any) -> None:
        with pytest.raises(kind, match=words):
            go(*arguments, **options)

    steps = "training.steps=2"
    refused(TrainingError, "another recipe: training.steps was 2, now 18", text, tmp_path / "lm")
    refused(UsageError, "the recipe is of kind 'lstm'", text, tmp_path / "lm", "transformer", steps)
    text.write_text(text.read_text() + "a b a\n", encoding="utf-8")
    refused(TrainingError, "begun with another text", text, tmp_path / "lm", "lstm", steps)
    save_language_model(tmp_path / "n", train_ngram(["a b"], "word", 2))
    refused(UsageError, "kind 'ngram' is there", text, tmp_path / "n")
    folder = corpus(tmp_path / "c", "so")
    refused(UsageError, "this folder is a corpus", text, folder)
    (tmp_path / "m").mkdir()
    write(tmp_path / "m" / "recipe.toml", ["[encoder]", 'kind = "lstm"'])
    refused(UsageError, "this folder is a recogniser", text, tmp_path / "m")
    (tmp_path / "f").mkdir()
    write(tmp_path / "f" / "recipe.toml", ["seed = 1"])
    refused(TrainingError, "nothing to resume from", text, tmp_path / "f")
    # A model that was handed on without its recipe is a finished one all the same.
    alone = tmp_path / "alone"
    shutil.copytree(tmp_path / "lm", alone, ignore=shutil.ignore_patterns("recipe.toml", "resume"))
    before = {path.name: path.read_bytes() for path in alone.iterdir() if path.is_file()}
    refused(TrainingError, "nothing to resume from", text, alone, "lstm", steps)
    assert before == {path.name: path.read_bytes() for path in alone.iterdir() if path.is_file()}
    assert "lm.toml" in before
    refused(ConfigError, "Did you mean 'dropout'", text, tmp_path / "x", "lstm", "network.dropuot=0.1")
    assert not (tmp_path / "x").exists()


def test_a_tokenizer_of_something_else_is_left_alone(tmp_path: Path, text: Path) -> None:
    tokenizer = GraphemeTokenizer.train(["abcdef"], GraphemeConfig(min_count=1))
    tokenizer.save(tmp_path / "x" / "tokenizer")
    before = {p: p.read_bytes() for p in (tmp_path / "x" / "tokenizer").iterdir()}
    for unit in ("piece", "char"):
        with pytest.raises(UsageError, match=r"something else is there already \(found: tokenizer"):
            train_language_model(
                Sources((text,)), tmp_path / "x", LmWanted(unit=unit), tokenizer=tokenizer, device="cpu"
            )
    assert {p: p.read_bytes() for p in (tmp_path / "x" / "tokenizer").iterdir()} == before
    assert [p.name for p in (tmp_path / "x").iterdir()] == ["tokenizer"]
    (tmp_path / "x" / "resume").mkdir()  # of an earlier start with pieces
    go(text, tmp_path / "x", "lstm", "training.steps=2")
    assert load_neural(tmp_path / "x").header.unit == "char"
    assert not (tmp_path / "x" / "tokenizer").exists()


def test_the_time_that_is_asked_for_is_kept(tmp_path: Path, text: Path) -> None:
    quick = LmWanted(kind="lstm", minutes=0.06, overrides=("training.epochs=100000", "network.dim=12"))
    result = train_language_model(
        Sources((text,)), tmp_path / "lm", quick, device="cpu", threads=1, progress=Progress(quiet=True)
    )
    assert result.outcome in ("finished", "stopped early", "time over")
    assert result.elapsed < 8


def test_a_run_that_ended_early_is_not_gone_on_with_and_says_so_again(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that is overdue, or another validation without a gain, would make other weights of it."""

    def trained(folder: str, minutes: float, *overrides: str) -> LmResult:
        wanted = LmWanted(
            kind="lstm", minutes=minutes, overrides=("network.dim=12", "training.steps=30", *overrides)
        )
        return train_language_model(
            Sources((text,)),
            tmp_path / folder,
            wanted,
            device="cpu",
            threads=1,
            progress=Progress(quiet=True),
        )

    stopped = "training.schedule.lr=1e-9", "training.validate_every=2", "training.early_stop=2"
    for folder, minutes, over_at, overrides, outcome in (
        ("early", 5.0, 99, stopped, "stopped early"),
        ("late", 5.0, 3, (), "time over"),
        ("before the first step", 1e-4, 0, (), "finished"),  # the plan was one step
    ):
        monkeypatch.setattr(Run, "overdue", property(lambda run, at=over_at: run.step >= at))
        first = trained(folder, minutes, *overrides)
        assert first.outcome == outcome
        assert 0 < first.steps < 30
        assert first.numbers  # of a model, however short the time was
        assert (tmp_path / folder / "model.safetensors").is_file()
        again = trained(folder, minutes, *overrides)
        assert (again.outcome, again.steps, again.numbers) == (outcome, first.steps, first.numbers)


def test_what_a_run_says(tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(text, [*text.read_text().splitlines(), "", "a " * 90])
    train_language_model(
        Sources((text,)),
        tmp_path / "lm",
        LmWanted(
            kind="lstm", overrides=("training.steps=2", "training.window=50", "network.dim=12", *SETTINGS)
        ),
        device="cpu",
        threads=1,
    )
    said = capsys.readouterr().out
    assert "1 lines without text" in said
    assert "1 lines have more than 50 letters: they are read in parts." in said
    assert "are unknown (0.00 %)" in said
    assert "tokens per second" in said
    assert "dev perplexity" in said
    assert "Best on dev (step 2): perplexity" in said
