"""Language models by the one loop: batches, loss and gradient by brute force, exact resume, known entropy."""

from __future__ import annotations

import itertools
import json
import math
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from firstwords.device import Compute
from firstwords.errors import ConfigError, FirstwordsError, TextError, TrainingError, UsageError
from firstwords.lm.language_model import save_language_model
from firstwords.lm.neural.folder import build_network, load_neural
from firstwords.lm.ngram_text import Line, read_lines
from firstwords.lm.perplexity import measure_perplexity
from firstwords.model.checkpoint import weights_digest
from firstwords.text.characters import GraphemeConfig, GraphemeTokenizer
from firstwords.training.lm.feeding import TextBatch, TextDev, TextLoader, Windows
from firstwords.training.lm.recipe import LmRecipe, LmWanted
from firstwords.training.lm.run import LmResult, train_language_model
from firstwords.training.lm.texts import Sources, hold_out, read_texts
from firstwords.training.log import read_log
from firstwords.training.progress import Progress
from firstwords.training.tasks.language_modelling import LanguageModellingTask
from small_networks import KINDS, small_config
from small_ngrams import draw_text
from small_ngrams import train as train_ngram

CPU = Compute(torch.device("cpu"), torch.float32, "test")
ROW = np.array([0, 3, 1, 0, 2, 0, 4, 4, 4, 4, 4, 0, 1, 2, 3, 0])


def task_of(kind: str) -> LanguageModellingTask:
    torch.manual_seed(4)
    return LanguageModellingTask(build_network(small_config(kind), 6).double(), CPU)


def test_a_row_of_ids_becomes_what_is_read_and_said() -> None:
    windows = Windows(ROW, 3)
    assert windows.lengths.tolist() == [3, 2, 3, 3, 3, 1]  # ends count
    assert windows.sentences.tolist() == [0, 1, 2, 2, 3, 3]
    assert windows.cut == 2
    batch = windows.batch(np.array([1, 3, 4]))
    assert batch.read.tolist() == [[0, 2, 0], [4, 4, 4], [0, 1, 2]]  # the second goes on where it was cut
    assert batch.said.tolist() == [[2, 0, 0], [4, 4, 0], [1, 2, 3]]
    assert batch.lengths.tolist() == [2, 3, 3]
    assert windows.batch(np.array([5])).said.tolist() == [[0]]


def test_every_sentence_comes_once_in_every_epoch() -> None:
    draw = random.Random(1)
    row = np.array([0, *(t for _ in range(300) for t in [*[1] * draw.randint(1, 40), 0])])
    windows = Windows(row, 16)
    loader = TextLoader(windows, batch_tokens=200, max_rows=10, seed=3)
    epochs: list[list[TextBatch]] = []
    for epoch in range(2):
        first = epoch * loader.batches_in_epoch
        epochs.append([loader.batch(first + n) for n in range(loader.batches_in_epoch)])
        assert sum(int(b.lengths.sum()) for b in epochs[-1]) == len(row) - 1
        assert sorted(n for b in epochs[-1] for n in b.numbers) == sorted(windows.sentences.tolist())
        assert max(b.read.numel() for b in epochs[-1]) <= 200
        assert max(len(b.numbers) for b in epochs[-1]) <= 10
    assert [b.numbers for b in epochs[0]] != [b.numbers for b in epochs[1]]
    assert loader.costs() == [b.read.numel() for b in epochs[0]]
    padded = sum(loader.costs()) / (len(row) - 1)
    assert padded < 1.3
    again = TextLoader(windows, batch_tokens=200, max_rows=10, seed=3)
    later = loader.batches_in_epoch + 2
    number, batch = next(again.batches(later))
    assert number == later
    assert batch is not None
    assert torch.equal(batch.read, epochs[1][2].read)
    dev = TextDev(windows, batch_tokens=200)
    assert sorted(n for b in dev for n in b.numbers) == sorted(windows.sentences.tolist())


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradient_are_those_of_the_sentences_one_by_one(kind: str) -> None:
    task = task_of(kind)
    task.model.eval()
    batch = Windows(ROW, 99).batch(np.arange(4))
    made = task.loss(batch)
    made.total.backward()
    gradients = [p.grad.clone() for p in task.model.parameters() if p.grad is not None]
    task.model.zero_grad()
    total = torch.zeros((), dtype=torch.float64)
    for number, sentence in enumerate([[3, 1], [2], [4] * 5, [1, 2, 3]]):
        state, own = task.network.start(1), torch.zeros((), dtype=torch.float64)
        for last, following in zip([0, *sentence], [*sentence, 0], strict=True):
            _, logits, state = task.network.hidden(torch.tensor([last]), state)
            own = own - (logits[0, following] - logits[0].exp().sum().log())
        torch.testing.assert_close(made.each[number], own.detach())
        total = total + own
    total.backward()
    torch.testing.assert_close(made.total, total)
    assert made.size == 15
    for ours, parameter in zip(gradients, task.model.parameters(), strict=True):
        torch.testing.assert_close(ours, parameter.grad)


def test_a_batch_is_halved_and_measured() -> None:
    task = task_of("lstm")
    task.model.eval()
    batch = Windows(ROW, 99).batch(np.arange(4))
    halves = task.halves(batch)
    assert halves is not None
    assert [half.read.shape for half in halves] == [(2, 3), (2, 6)]
    assert sum(float(task.loss(h).total.detach()) for h in halves) == pytest.approx(
        float(task.loss(batch).total.detach())
    )
    assert task.halves(Windows(ROW, 99).batch(np.array([1]))) is None
    assert task.names(batch)[1] == "sentence 2"
    assert task.cost(batch) == 24
    found = task.validate([*halves])
    assert found.objective == pytest.approx(float(task.loss(batch).total.detach()) / 15)
    assert found.numbers["perplexity"] == pytest.approx(math.exp(found.objective))
    assert found.headline == f"dev perplexity {math.exp(found.objective):.3f}"


# --- text ------------------------------------------------------------------------------------------------


def write(path: Path, sentences: list[str]) -> Path:
    path.write_text("\n".join(sentences) + "\n", encoding="utf-8")
    return path


def corpus(folder: Path, dev: str) -> Path:
    folder.mkdir()
    rows = [("t", "good day", "train"), ("d", dev, "dev"), ("e", "never", "test")]
    records = [{"id": i, "audio": "a.wav", "duration": 1, "text": t, "split": s} for i, t, s in rows]
    write(folder / "manifest.jsonl", [json.dumps(r) for r in records])
    return folder


def test_letters_seen_once_are_unknown(tmp_path: Path) -> None:
    text = write(tmp_path / "a.txt", ["aab", "ba c", "ba"])
    dev = write(tmp_path / "b.txt", ["abcd", "..."])
    texts = read_texts(Sources((text,), dev), LmRecipe(), None)
    assert texts.words == ("<blank>", "<unk>", "a", "b")
    assert texts.seen.tolist() == [3, 2, 4, 3]  # of <unk>: the space and c
    assert texts.train.tolist() == [0, 2, 2, 3, 0, 3, 2, 1, 1, 0, 3, 2, 0]
    assert texts.dev.tolist() == [0, 2, 3, 1, 1, 0]
    assert texts.dev_unknown == 2
    assert not texts.held_out


def test_pieces_keep_their_ids(tmp_path: Path) -> None:
    tokenizer = GraphemeTokenizer.train(["abc"], GraphemeConfig(min_count=1, bytes=False))
    text, dev = write(tmp_path / "a.txt", ["ab", "b"]), write(tmp_path / "b.txt", ["cab"])
    texts = read_texts(Sources((text,), dev), LmRecipe(unit="piece"), tokenizer)
    assert texts.words == tokenizer.pieces
    assert texts.train.tolist() == [0, *tokenizer.encode("ab"), 0, *tokenizer.encode("b"), 0]
    assert texts.dev_unknown == 1
    assert texts.seen.tolist() == [2, 0, 1, 2, 0]


def test_no_sentence_is_on_both_sides() -> None:
    sentences = [tuple(str(n % 40)) for n in range(200)]
    learned, measured = hold_out(sentences, 0.1, seed=1)
    assert len(measured) == 4
    assert not set(learned) & set(measured)
    assert len(learned) == 180
    assert hold_out(sentences, 0.1, seed=1) == (learned, measured)
    assert hold_out(sentences, 0.1, seed=2)[1] != measured
    assert len(hold_out([("a",), ("b",)], 0.01, seed=1)[1]) == 1
    with pytest.raises(TextError, match="one sentence again and again"):
        hold_out([("a",)] * 5, 0.1, seed=1)


def test_dev_and_test_are_not_learned(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "c", "so it is")
    text = write(tmp_path / "a.txt", ["So it is!", "never", "abc", "cba"])
    recipe = LmRecipe()
    with pytest.raises(TextError, match=r"(?s)2 lines of the text stand in dev or test.*is 'd' \(dev"):
        read_texts(Sources((text,), exclude=(folder,)), recipe, None)
    kept = read_texts(Sources((text,), exclude=(folder,), leaks="drop"), recipe, None)
    assert kept.leaks.count == 2
    with pytest.raises(TextError, match=r"line 1 .* is utterance 'd' of .* \(--dev\)"):
        read_texts(Sources((text,), dev=folder), recipe, None)
    measured = read_texts(Sources((text,), dev=folder, leaks="drop"), recipe, None)
    assert int((measured.dev == 0).sum()) == 2  # the dev split alone
    assert measured.leaks.count == 2  # "never" is of its test
    with pytest.raises(TextError, match=r"(?s)2 lines of the text stand.*line 2 .* is 'e' \(test of"):
        read_texts(Sources((text,), dev=folder), recipe, None)
    (tmp_path / "e").mkdir()
    write(tmp_path / "e" / "manifest.jsonl", ['{"id": "t", "audio": "a.wav", "duration": 1, "text": "x"}'])
    with pytest.raises(TextError, match=r"no transcripts in a dev split \(splits: none\)"):
        read_texts(Sources((text,), dev=tmp_path / "e"), recipe, None)


def test_a_leak_is_found_whatever_the_normalizer(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "c", "Isparta")
    text = write(tmp_path / "a.txt", ["Isparta", "isparta", "\u0131sparta", "abc", "cba"])
    recipe = LmRecipe(normalizer="turkic")
    assert read_texts(Sources((text,), exclude=(folder,), leaks="drop"), recipe, None).leaks.count == 3
    dev = write(tmp_path / "dev.txt", ["Isparta"])
    assert read_texts(Sources((text,), dev, leaks="drop"), recipe, None).leaks.count == 3


# --- whole runs ------------------------------------------------------------------------------------------

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


def test_recipes_can_be_read() -> None:
    recipes = Path(__file__).resolve().parents[3] / "recipes" / "lm"
    for path in recipes.glob("*.toml"):
        assert LmWanted(path).fresh().network.kind == path.stem
        assert LmWanted(path, kind=path.stem, size="small", minutes=3).fresh().training.minutes == 3
    assert {p.stem for p in recipes.glob("*.toml")} == set(KINDS)
    assert LmWanted(kind="transformer", size="small").fresh().network.dim == 256
    for kind in KINDS:  # what the files say is what is used without one
        assert LmWanted(kind=kind).fresh() == LmWanted(recipes / f"{kind}.toml").fresh()
    lower = LmWanted(kind="transformer", overrides=("training.schedule.lr=0.1",)).fresh().training.schedule
    assert (lower.lr, lower.kind) == (0.1, "cosine")
    for first, kind in ((None, "transformer"), ("transformer", "lstm"), ("lstm", "transformer")):
        chosen = LmWanted(kind=first, overrides=(f"network.kind={kind}",)).fresh()
        assert chosen == LmWanted(kind=kind).fresh()  # with the schedule of its kind
    lower = LmWanted(overrides=("network.kind=transformer", "training.schedule.lr=0.1")).fresh()
    assert lower.training.schedule.model_dump() == {
        **LmWanted(kind="transformer").fresh().training.schedule.model_dump(),
        "lr": 0.1,
    }
    other = LmWanted(overrides=("training.schedule.kind=constant", "training.schedule.lr=0.2")).fresh()
    assert (other.training.schedule.kind, other.training.schedule.lr) == ("constant", 0.2)
    for wrong in ("network.kind=[1]", "network=5", "training=5", "network.kind=rnn"):
        with pytest.raises(ConfigError):
            LmWanted(overrides=(wrong,)).fresh()
    with pytest.raises(UsageError, match="--kind rnn: no such kind"):
        LmWanted(kind="rnn").fresh()


def test_the_time_that_is_asked_for_is_kept(tmp_path: Path, text: Path) -> None:
    quick = LmWanted(kind="lstm", minutes=0.06, overrides=("training.epochs=100000", "network.dim=12"))
    result = train_language_model(
        Sources((text,)), tmp_path / "lm", quick, device="cpu", threads=1, progress=Progress(quiet=True)
    )
    assert result.outcome in ("finished", "stopped early", "time over")
    assert result.elapsed < 8


def test_a_run_that_ended_early_is_not_gone_on_with_and_says_so_again(tmp_path: Path, text: Path) -> None:
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
    for folder, minutes, overrides, outcome in (
        ("early", 5.0, stopped, "stopped early"),
        ("late", 1e-4, (), "time over"),
    ):
        first = trained(folder, minutes, *overrides)
        assert first.outcome == outcome
        assert 0 < first.steps < 30  # time that was over before the first step leaves a model, too
        assert (tmp_path / folder / "lm.toml").is_file()
        assert first.numbers
        again = trained(folder, minutes, *overrides)
        assert (again.outcome, again.steps, again.numbers) == (outcome, first.steps, first.numbers)


# A first-order chain over three letters and the end: every conditional probability is known.
CHAIN = {
    0: [0.0, 0.7, 0.2, 0.1],
    1: [0.1, 0.1, 0.7, 0.1],
    2: [0.2, 0.1, 0.1, 0.6],
    3: [0.4, 0.5, 0.05, 0.05],
}


def drawn(seed: int, count: int) -> list[str]:
    draw = random.Random(seed)
    sentences: list[str] = []
    while len(sentences) < count:
        last, letters = 0, ""
        while True:
            last = draw.choices(range(4), CHAIN[last])[0]
            if last == 0:
                break
            letters += "_abc"[last]
        sentences.append(letters)
    return sentences


def true_perplexity(sentences: list[str]) -> float:
    nats, tokens = 0.0, 0
    for sentence in sentences:
        ids = [0, *("_abc".index(letter) for letter in sentence), 0]
        nats -= sum(math.log(CHAIN[a][b]) for a, b in itertools.pairwise(ids))
        tokens += len(ids) - 1
    return math.exp(nats / tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_a_made_up_grammar_is_learned_to_its_entropy(tmp_path: Path, kind: str) -> None:
    dev = drawn(2, 300)
    text = write(tmp_path / "text.txt", drawn(1, 2500))
    settings = (
        "training.batch_tokens=1500",
        "training.precision=fp32",
        "training.schedule.lr=0.03",
        "network.layers=1",
        "network.dropout=0.0",
    )
    sizes = {
        "lstm": ("training.steps=120", "network.dim=16"),
        "transformer": ("training.steps=240", "network.dim=32", "network.feedforward=32"),
    }
    result = train_language_model(
        Sources((text,), write(tmp_path / "dev.txt", dev), leaks="allow"),
        tmp_path / "lm",
        LmWanted(kind=kind, overrides=(*settings, *sizes[kind])),
        device="cpu",
        threads=1,
        progress=Progress(quiet=True),
    )
    truth = true_perplexity(dev)
    assert truth < 2.7  # 3.9 for the best model that forgets the last letter
    assert result.numbers["perplexity"] == pytest.approx(truth, rel=0.015)
    lm = load_neural(tmp_path / "lm")
    found = measure_perplexity(lm, (Line(s, "", 0) for s in dev))
    assert found.perplexity == pytest.approx(result.numbers["perplexity"], rel=1e-4)
    probabilities = np.exp(lm.score([np.array([2, 3])])[0])  # P(a), P(b | a), P(end | a b)
    np.testing.assert_allclose(probabilities, [0.7, 0.7, 0.2], atol=0.08)


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
