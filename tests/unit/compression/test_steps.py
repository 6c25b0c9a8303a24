"""Steps on folders: written whole, with card and history; the source is untouched, bad orders are refused."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from firstwords.cli.main import app
from firstwords.compression import tuning
from firstwords.compression.history import read_history
from firstwords.compression.steps import (
    LowRankOrders,
    early_exit_model,
    fold_model,
    low_rank_model,
    skip_layers,
)
from firstwords.errors import UsageError
from firstwords.inference.early_exit import read_exit
from firstwords.inference.recognizer import Recognizer
from firstwords.model.checkpoint import LoadedModel, load_model, save_model
from firstwords.model.recipe import Recipe, write_recipe
from firstwords.model.speech_model import SpeechModel
from firstwords.text.characters import GraphemeTokenizer
from firstwords.training.progress import Progress
from firstwords.training.tasks.task import Validation
from tone_corpus import make_tone_corpus, tone_recipe

TOKENIZER = GraphemeTokenizer.train(["aeiou aeiou"] * 3)
QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A corpus, and a Conformer with inner CTC and batch norms."""
    folder = tmp_path_factory.mktemp("steps")
    corpus = make_tone_corpus(folder / "corpus", train=6, dev=2, test=1)
    values = tone_recipe(steps=4, batch_seconds=6, validate_every=4).model_dump()
    values["encoder"] = {
        "kind": "conformer",
        "dim": 16,
        "layers": 3,
        "heads": 2,
        "feedforward": 32,
        "kernel": 7,
        "convolution_norm": "batch",
        "subsampling": {"channels": 8},
    }
    values["heads"] = {"ctc": {"intermediate": [0, 1]}}
    torch.manual_seed(1)
    model = SpeechModel(Recipe.model_validate(values), len(TOKENIZER.pieces)).eval()
    save_model(folder / "model", model, TOKENIZER, card="# model\n")
    return corpus, folder / "model"


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_orders_that_cannot_be_followed_are_no_hindrance_to_others(
    tmp_path: Path, material: tuple[Path, Path]
) -> None:
    corpus, source = material
    with pytest.raises(UsageError, match="with ranks of 1"):
        low_rank_model(source, corpus, tmp_path / "new", LowRankOrders(cut=0.99, minutes=0.1), progress=QUIET)
    assert not (tmp_path / "new").exists()


def test_each_step_writes_a_folder_that_transcribes(tmp_path: Path, material: tuple[Path, Path]) -> None:
    corpus, source = material
    before = contents(source)
    low = low_rank_model(source, corpus, tmp_path / "low", LowRankOrders(cut=0.2), progress=QUIET)
    assert low.parameters[1] <= 0.8 * low.parameters[0]
    assert low.cer is not None
    fold = fold_model(tmp_path / "low", tmp_path / "fold")
    assert fold.parameters[1] < fold.parameters[0] == low.parameters[1]
    short = skip_layers(tmp_path / "fold", corpus, tmp_path / "short", most=1, limit=50.0)
    assert short.parameters[1] < short.parameters[0]
    assert [s.step for s in read_history(tmp_path / "short").steps] == ["low-rank", "fold", "skip-layers"]
    first = read_history(tmp_path / "low").steps[0]
    assert first.from_hash == before["model.safetensors"]
    assert first.settings["cut"] == 0.2
    recognizer = Recognizer.load(tmp_path / "short", device="cpu", check=True)
    recognizer.transcribe(next(iter((corpus / "audio").glob("dev-*.wav"))))
    assert "dev CER" in (tmp_path / "short" / "card.md").read_text()
    assert contents(source) == before


def test_early_exit_is_tuned_on_a_copy(tmp_path: Path, material: tuple[Path, Path]) -> None:
    corpus, source = material
    found = early_exit_model(source, corpus, tmp_path / "exit", most_loss=1.0, measure="confidence")
    assert read_exit(tmp_path / "exit") == found
    assert found.utterances == 2
    assert read_history(tmp_path / "exit").steps[0].step == "early-exit"
    assert (tmp_path / "exit" / "card.md").read_text() == "# model\n"
    used = Recognizer.load(tmp_path / "exit", device="cpu", check=True).early_exit
    assert (used is None) == (found.above > 1.0)  # by the clock, a model this small may gain nothing
    assert not (source / "early_exit.toml").exists()


def test_bad_orders_are_refused_and_leave_nothing(tmp_path: Path, material: tuple[Path, Path]) -> None:
    corpus, source = material
    bad: list[tuple[LowRankOrders, str]] = [
        (LowRankOrders(), "one of --energy and --cut"),
        (LowRankOrders(energy=1.5), "energy 1.5"),
        (LowRankOrders(cut=0.0), "cut 0"),
        (LowRankOrders(cut=0.99), "of the parameters would go"),
        (LowRankOrders(energy=0.9, minutes=-1.0), "minutes -1"),
        (LowRankOrders(energy=0.9, only=("nothing",)), "No linear layer"),
        (LowRankOrders(energy=0.9999999, only=("*feed_in.in_proj",)), "nothing would become smaller"),
    ]
    for orders, said in bad:
        with pytest.raises(UsageError, match=said):
            low_rank_model(source, corpus, tmp_path / "to", orders, progress=QUIET)
        assert not (tmp_path / "to").exists()
    with pytest.raises(UsageError, match="itself"):
        fold_model(source, source)
    with pytest.raises(UsageError, match="not empty"):
        fold_model(source, corpus)
    with pytest.raises(UsageError, match="Raise --limit"):
        skip_layers(source, corpus, tmp_path / "to", most=1, limit=1e-9)
    fold_model(source, tmp_path / "folded")
    with pytest.raises(UsageError, match="nothing to fold"):
        fold_model(tmp_path / "folded", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_distil_by_the_command_line(tmp_path: Path, material: tuple[Path, Path]) -> None:
    """A student of another architecture, with the teacher's pieces; the same command says it is there."""
    corpus, teacher = material
    values = tone_recipe(steps=2, batch_seconds=6, validate_every=2).model_dump()
    values["training"]["specaugment"]["probability"] = 0.9  # the command turns the warp off
    values["encoder"] = {"kind": "dnn", "hidden": 16, "layers": 2}
    write_recipe(tmp_path / "student.toml", Recipe.model_validate(values))
    command = ["compress", "distil", str(teacher), "--corpus", str(corpus), "--to", str(tmp_path / "to")]
    command += ["--recipe", str(tmp_path / "student.toml"), "--device", "cpu", "--workers", "0"]
    runner = CliRunner()
    done = runner.invoke(app, command)
    assert done.exit_code == 0, (done.output, done.exception)
    student = load_model(tmp_path / "to", device="cpu")
    assert student.tokenizer.pieces == TOKENIZER.pieces
    assert student.recipe.encoder.kind == "dnn"
    assert student.recipe.distillation is not None
    assert student.recipe.distillation.teacher == str(teacher.resolve())
    assert student.recipe.training.specaugment.time_warp == 0
    steps = read_history(tmp_path / "to").steps
    assert [s.step for s in steps] == ["distil"]
    assert steps[0].settings["teacher"] == "model"
    log = (tmp_path / "to" / "resume" / "log.jsonl").read_text().splitlines()
    records: list[dict[str, Any]] = [json.loads(line) for line in log]
    assert any("teacher_frames" in record for record in records)
    for wrong, said in (
        (["--size", "nano"], "contradict"),
        (["--set", "distillation.temprature=2"], "temperature"),
    ):
        failed = runner.invoke(app, [*command[:-1], "0", "--to", str(tmp_path / "other"), *wrong])
        assert failed.exit_code != 0
        assert said in str(failed.exception) + failed.output


@pytest.mark.slow
def test_low_rank_with_fine_tuning_goes_on_where_it_was(
    tmp_path: Path, material: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, source = material
    orders = LowRankOrders(cut=0.2, minutes=0.1)
    real = tuning.tune

    def stopped(*given: Any, **named: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "tune", stopped)
    with pytest.raises(KeyboardInterrupt):
        low_rank_model(source, corpus, tmp_path / "to", orders, progress=QUIET)
    monkeypatch.setattr(tuning, "tune", real)
    other = LowRankOrders(cut=0.3, minutes=0.1)
    with pytest.raises(UsageError, match="other orders"):
        low_rank_model(source, corpus, tmp_path / "to", other, progress=QUIET)
    found = low_rank_model(source, corpus, tmp_path / "to", orders, progress=QUIET)
    assert found.parameters[1] <= 0.8 * found.parameters[0]
    tuned = load_model(tmp_path / "to" / "tuning" / "tuned", device="cpu")
    assert tuned.recipe.distillation is not None
    assert load_model(tmp_path / "to", device="cpu").recipe.distillation is None
    with pytest.raises(UsageError, match="finished"):
        low_rank_model(source, corpus, tmp_path / "to", orders, progress=QUIET)


@pytest.mark.parametrize("helps", [True, False])
def test_low_rank_keeps_what_errs_less(
    helps: bool, tmp_path: Path, material: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule of pruning: fine-tuning that made it worse on dev is left out, and the card says so."""
    corpus, source = material

    def marked(model: SpeechModel) -> bool:
        return bool((next(model.encoder.parameters()) == 7).all())

    def tune(folder: Path, start: LoadedModel, *_: Any, **__: Any) -> Path:
        other = copy.deepcopy(start.model)
        with torch.no_grad():
            next(other.encoder.parameters()).fill_(7)
        save_model(folder, other, start.tokenizer, card="")
        return folder

    def error(_: object, model: SpeechModel) -> Validation:
        return Validation(float(marked(model) != helps), {"cer": 1.0, "wer": 1.0}, ())

    monkeypatch.setattr(tuning, "tune", tune)
    monkeypatch.setattr(tuning.Material, "error", error)
    orders = LowRankOrders(cut=0.2, minutes=1.0)
    found = low_rank_model(source, corpus, tmp_path / "to", orders, progress=QUIET)
    assert marked(load_model(tmp_path / "to", device="cpu").model) == helps
    card = (tmp_path / "to" / "card.md").read_text()
    assert ("worse on dev" in card) == ("worse on dev" in " ".join(found.said)) == (not helps)
