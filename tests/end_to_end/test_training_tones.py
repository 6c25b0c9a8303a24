"""From a corpus folder to a model folder, on a corpus whose letters are tones."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from firstwords.data.batch import Batch
from firstwords.data.manifest import load_corpus, write_quarantine
from firstwords.encoders.zipformer.config import ZipformerConfig
from firstwords.errors import CorpusError, TrainingError, UsageError
from firstwords.model.checkpoint import load_model, weights_digest
from firstwords.model.recipe import Recipe, read_recipe, write_recipe
from firstwords.training.log import read_log
from firstwords.training.progress import Progress
from firstwords.training.run import TrainingResult, train_corpus
from firstwords.training.tasks.recognition import RecognitionTask
from firstwords.training.tasks.task import Loss
from tone_corpus import LEARN, make_tone_corpus, tone_recipe

COMMAND = """
import os, sys
os.environ["OMP_NUM_THREADS"] = "1"
import torch, typer
torch.set_num_threads(1)
from firstwords.cli import train
app = typer.Typer()
app.command()(train.run)
if __name__ == "__main__":
    app()
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tone_corpus(tmp_path_factory.mktemp("tones") / "corpus", train=64)


def fit(corpus: Path, folder: Path, recipe: Recipe | None, **settings: object) -> TrainingResult:
    quiet = Progress(quiet=True)
    return train_corpus(corpus, folder, recipe=recipe, device="cpu", threads=1, progress=quiet, **settings)  # type: ignore[arg-type]


def start_command(tmp_path: Path, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    script = tmp_path / "command.py"
    script.write_text(COMMAND)
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments), "--device", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[str], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    log = folder / "resume" / "log.jsonl"
    while time.monotonic() < deadline and process.poll() is None:
        if log.is_file() and log.read_text().count('"kind": "train"') >= step:
            return
        time.sleep(0.05)
    pytest.fail(f"step {step} was not reached: {process.communicate()[0]}")


def digest(folder: Path) -> str:
    (newest, *_) = sorted((folder / "resume").glob("step-*"), reverse=True)
    return weights_digest(load_file(newest / "state.safetensors"))


def test_tones_are_learned(corpus: Path, tmp_path: Path) -> None:
    result = fit(corpus, tmp_path / "run", tone_recipe(steps=300, **LEARN))
    assert result.outcome == "finished"
    assert result.numbers["cer"] < 0.05
    loaded = load_model(tmp_path / "run", device="cpu", check=True)
    assert loaded.tokenizer.decode(loaded.tokenizer.encode("aei ou")) == "aei ou"
    card = (tmp_path / "run" / "card.md").read_text(encoding="utf-8")
    assert "dev CER" in card
    assert "firstwords evaluate" in card
    with pytest.raises(TrainingError, match="begun with another recipe: seed was 1, now 2"):
        fit(corpus, tmp_path / "run", None, overrides=["seed=2"])
    again = fit(corpus, tmp_path / "run", None)  # nothing is left to do, and nothing changes
    assert again.steps == 300
    assert again.numbers == result.numbers


class Told(Progress):
    """What the user is told, kept."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


def test_a_finished_run_whose_weights_are_gone_publishes_its_best_again(corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    fit(corpus, folder, tone_recipe(steps=6, validate_every=2, **LEARN))
    before = (folder / "model.safetensors").read_bytes()
    kept = digest(folder)
    with pytest.raises(TrainingError, match=r"training.minutes was None, now 5.*6 steps are done") as refused:
        fit(corpus, folder, None, minutes=5)
    assert "another --to folder, or go on from the model there: add --from" in refused.value.mend
    (best,) = (folder / "resume").glob("best-*")
    (folder / "model.safetensors").unlink()
    told = Told()
    again = train_corpus(corpus, folder, device="cpu", threads=1, progress=told)
    assert again.finished
    assert (folder / "model.safetensors").read_bytes() == before
    assert digest(folder) == kept
    (said,) = (line for line in told.lines if "gone" in line)
    assert f"resume/{best.name}" in said
    load_model(folder, device="cpu", check=True)
    (folder / "model.safetensors").unlink()
    shutil.rmtree(best)
    told = Told()
    train_corpus(corpus, folder, device="cpu", threads=1, progress=told)
    assert any("so are the weights that were best" in line and "step 6" in line for line in told.lines)
    load_model(folder, device="cpu", check=True)


def test_an_interrupted_run_whose_weights_are_gone_goes_on_as_if_they_were_there(
    corpus: Path, tmp_path: Path
) -> None:
    recipe = tone_recipe(steps=6, validate_every=2, save_every_seconds=1e-6, average_share=0.5, **LEARN)
    fit(corpus, tmp_path / "whole", recipe)
    fit(corpus, tmp_path / "torn", recipe)
    shutil.rmtree(tmp_path / "torn" / "resume" / "step-00000006")
    with pytest.raises(TrainingError) as refused:
        fit(corpus, tmp_path / "torn", None, minutes=5)
    assert "Leave these settings away to go on" in refused.value.mend
    (tmp_path / "torn" / "model.safetensors").unlink()
    fit(corpus, tmp_path / "torn", None)
    assert digest(tmp_path / "torn") == digest(tmp_path / "whole")
    load_model(tmp_path / "torn", device="cpu", check=True)


def test_kill_minus_nine_and_resume_ends_with_the_same_weights(corpus: Path, tmp_path: Path) -> None:
    recipe = tone_recipe(steps=24, validate_every=10, save_every_seconds=0.3, average_share=0.5)
    write_recipe(tmp_path / "recipe.toml", recipe)
    arguments = (corpus, "--recipe", tmp_path / "recipe.toml")
    fit(corpus, tmp_path / "whole", recipe)
    kill_at = int(np.random.default_rng().integers(3, 20))
    process = start_command(tmp_path, *arguments, "--to", tmp_path / "killed", "--workers", "1")
    wait_for_step(tmp_path / "killed", kill_at, process)
    process.kill()
    process.communicate()
    assert not (tmp_path / "killed" / "resume" / "step-00000024").exists()
    process = start_command(tmp_path, *arguments, "--to", tmp_path / "killed")
    said, _ = process.communicate()
    assert process.returncode == 0, said
    assert "Going on from step" in said
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole"), f"killed at step {kill_at}"
    assert stripped(tmp_path / "killed") == stripped(tmp_path / "whole")


def stripped(folder: Path) -> list[dict]:
    """The log without what the clock says."""
    clock = ("seconds", "waited")
    records = read_log(folder / "resume" / "log.jsonl")
    return [{k: v for k, v in r.items() if k not in clock} for r in records if r["kind"] in ("train", "dev")]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for a child process")
def test_ctrl_c_saves_and_the_same_command_goes_on(corpus: Path, tmp_path: Path) -> None:
    write_recipe(tmp_path / "recipe.toml", tone_recipe(steps=100000))
    process = start_command(tmp_path, corpus, "--recipe", tmp_path / "recipe.toml", "--to", tmp_path / "run")
    wait_for_step(tmp_path / "run", 5, process)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "The same command goes on" in said
    saved = int(sorted((tmp_path / "run" / "resume").glob("step-*"))[-1].name[5:])
    assert saved >= 5


def test_a_changed_corpus_or_recipe_is_refused(corpus: Path, tmp_path: Path) -> None:
    own = make_tone_corpus(tmp_path / "corpus", train=12, dev=2, test=1)
    recipe = tone_recipe(steps=2)
    fit(own, tmp_path / "run", recipe)
    lines = (own / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    (own / "manifest.jsonl").write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
    with pytest.raises(TrainingError, match="another corpus"):
        fit(own, tmp_path / "run", recipe)
    (own / "manifest.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    other = recipe.with_(training=recipe.training.with_(batch_seconds=20))
    with pytest.raises(TrainingError, match=r"training\.batch_seconds was 25\.0, now 20\.0"):
        fit(own, tmp_path / "run", other)
    assert fit(own, tmp_path / "run", recipe).steps == 2


def test_a_check_in_between_does_not_make_another_run(corpus: Path, tmp_path: Path) -> None:
    own = make_tone_corpus(tmp_path / "corpus", train=12, dev=2, test=1)
    recipe = tone_recipe(steps=4, save_every_seconds=0.01)
    whole = fit(own, tmp_path / "whole", recipe)
    fit(own, tmp_path / "run", recipe)
    for step in ("00000003", "00000004"):
        shutil.rmtree(tmp_path / "run" / "resume" / f"step-{step}", ignore_errors=True)
    write_quarantine(own, {"train-003": "found while the run was interrupted"})
    again = fit(own, tmp_path / "run", recipe)
    assert again.steps == whole.steps == 4
    assert digest(tmp_path / "run") == digest(tmp_path / "whole")
    (tmp_path / "run" / "resume" / "quarantine.jsonl").unlink()
    with pytest.raises(TrainingError, match="another corpus"):
        fit(own, tmp_path / "run", recipe)


def test_a_torn_newest_checkpoint_gives_way(corpus: Path, tmp_path: Path) -> None:
    recipe = tone_recipe(steps=3, save_every_seconds=0.01)
    fit(corpus, tmp_path / "run", recipe)
    newest = tmp_path / "run" / "resume" / "step-00000003"
    before = digest(tmp_path / "run")
    content = (newest / "state.safetensors").read_bytes()
    (newest / "state.safetensors").write_bytes(content[: len(content) // 2])
    heard: list[str] = []
    progress = Progress(quiet=True)
    progress.say = heard.append  # type: ignore[method-assign]
    train_corpus(corpus, tmp_path / "run", recipe=recipe, device="cpu", threads=1, progress=progress)
    assert any("step-00000003" in text and "before it is used" in text for text in heard)
    assert "Going on from step 2 of 3." in heard
    assert digest(tmp_path / "run") == before


def test_steps_that_are_not_finite_are_skipped_and_their_utterances_named(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One loss, one gradient, then five losses in a row: back to a checkpoint, half the rate, and on."""
    step, loss, set_step = 0, RecognitionTask.loss, RecognitionTask.set_step

    def counted(self: RecognitionTask, number: int, count: float) -> None:
        nonlocal step
        step = number
        set_step(self, number, count)

    def poisoned(self: RecognitionTask, batch: Batch) -> Loss:
        made = loss(self, batch)
        if step == 2 or 6 <= step <= 10:
            bad = torch.tensor(float("nan"))
            return made._replace(total=made.total * bad, each=made.each * bad)
        if step == 4:
            return made._replace(total=made.total + (self.model.ctc.projection.weight.sum() * 0).sqrt())
        return made

    monkeypatch.setattr(RecognitionTask, "loss", poisoned)
    monkeypatch.setattr(RecognitionTask, "set_step", counted)
    result = fit(corpus, tmp_path / "run", tone_recipe(steps=14, save_every_seconds=1e-3, batch_seconds=12))
    assert (result.outcome, result.steps) == ("finished", 14)
    log = read_log(tmp_path / "run" / "resume" / "log.jsonl")
    skipped = [r for r in log if r["kind"] == "skipped"]
    assert [r["step"] + 1 for r in skipped] == [2, 4, 6, 7, 8, 9, 10]
    known = {u.id for u in load_corpus(corpus).usable if u.split == "train"}
    for record in skipped:  # besides utterances, batches hold stretches without speech and joined ones
        named = {name for name in record["utterances"] if not re.fullmatch(r"(negative|joined)-\d+", name)}
        assert named <= known
        assert record["utterances"]
    assert any(known.intersection(r["utterances"]) for r in skipped)
    assert "its gradient is not finite" in skipped[1]["message"]
    (rollback,) = [r for r in log if r["kind"] == "rollback"]
    assert (rollback["step"], rollback["to"]) == (9, 5)
    weights = load_model(tmp_path / "run", device="cpu", check=True).model.state_dict()
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_starting_from_a_model_keeps_the_encoder_and_makes_a_new_head(corpus: Path, tmp_path: Path) -> None:
    fit(corpus, tmp_path / "first", tone_recipe(steps=3))
    other = make_tone_corpus(tmp_path / "corpus", train=12, dev=2, test=1)
    lines = [json.loads(x) for x in (other / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    for line in lines:
        for letter, another in (("a", "ạ̀"), ("e", "ẹ̀"), ("o", "ọ̀")):
            line["text"] = line["text"].replace(letter, another)
    (other / "manifest.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines), encoding="utf-8")
    recipe = tone_recipe(steps=4, freeze_encoder_steps=2, validate_every=2, average_share=0.0)
    result = fit(other, tmp_path / "second", recipe, start_from=tmp_path / "first")
    assert result.steps == 4
    old = load_model(tmp_path / "first", device="cpu").model.state_dict()
    checkpoints = sorted((tmp_path / "second" / "resume").glob("step-*"))
    begun = {
        k.removeprefix("/model/"): v
        for k, v in load_file(checkpoints[0] / "state.safetensors").items()
        if k.startswith("/model/")
    }
    encoder = [name for name in old if name.startswith("encoder.")]
    assert all(torch.equal(begun[name], old[name]) for name in encoder)
    assert begun["heads.ctc.projection.weight"].shape[0] == old["heads.ctc.projection.weight"].shape[0]
    assert not torch.equal(begun["heads.ctc.projection.weight"], old["heads.ctc.projection.weight"])


def test_without_a_recipe_one_is_chosen_and_written(corpus: Path, tmp_path: Path) -> None:
    result = fit(
        corpus, tmp_path / "run", None, size="nano", overrides=["training.steps=1", "training.precision=fp32"]
    )
    recipe = read_recipe(tmp_path / "run" / "recipe.toml")
    assert result.steps == recipe.training.steps == 1
    nano = ZipformerConfig.preset("nano")
    assert recipe.encoder.with_(dropout=nano.dropout, output_downsampling=2) == nano
    with pytest.raises(TrainingError, match=r"encoder\.dims"):
        fit(corpus, tmp_path / "run", None, size="tiny")
    again = fit(corpus, tmp_path / "run", None, size="nano")  # whatever was chosen for the corpus
    assert again.steps == 1


@pytest.mark.parametrize(
    "own",
    [
        'encoder={kind="conformer",dim=16,layers=1,feedforward=16}',
        "encoder.dropout=[0.2,0.1]",
        "encoder.causal=true",
    ],
)
def test_a_size_with_an_encoder_of_ones_own_goes_on(corpus: Path, tmp_path: Path, own: str) -> None:
    overrides = ["training.steps=1", "training.precision=fp32", "heads.ctc={}", own]
    for _ in range(2):
        assert fit(corpus, tmp_path / "run", None, size="nano", overrides=overrides).steps == 1
    with pytest.raises(TrainingError, match="begun with another recipe: seed was 1"):
        fit(corpus, tmp_path / "run", None, size="nano", overrides=[*overrides, "seed=9"])


def test_a_size_beside_a_model_to_start_from_is_refused(corpus: Path, tmp_path: Path) -> None:
    fit(corpus, tmp_path / "first", tone_recipe(steps=1))
    with pytest.raises(UsageError, match="--size nano: with --from"):
        fit(corpus, tmp_path / "run", None, size="nano", start_from=tmp_path / "first")
    assert not (tmp_path / "run").exists()


def test_a_start_that_was_forgotten_is_noticed_before_the_first_step(corpus: Path, tmp_path: Path) -> None:
    fit(corpus, tmp_path / "first", tone_recipe(steps=1))
    recipe = tone_recipe(steps=1)
    fit(corpus, tmp_path / "run", recipe, start_from=tmp_path / "first")
    assert fit(corpus, tmp_path / "run", recipe).steps == 1  # all is in the checkpoint
    for step in (tmp_path / "run" / "resume").glob("step-*"):
        shutil.rmtree(step)
    with pytest.raises(TrainingError, match="another start model"):
        fit(corpus, tmp_path / "run", recipe)


def test_a_corpus_is_not_overwritten(corpus: Path) -> None:
    with pytest.raises(UsageError, match="is a corpus"):
        fit(corpus, corpus, tone_recipe(steps=1))


def test_a_start_that_never_came_to_a_first_step_binds_to_nothing(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / "resume").mkdir(parents=True)
    (tmp_path / "run" / "resume" / "identity.json").write_text('{"recipe": "other", "corpus": "other"}')
    assert fit(corpus, tmp_path / "run", tone_recipe(steps=1)).steps == 1
    (tmp_path / "run" / "recipe.toml").unlink()
    with pytest.raises(TrainingError, match="another recipe"):
        fit(corpus, tmp_path / "run", tone_recipe(steps=2))


def test_what_weights_do_not_depend_on_may_change(corpus: Path, tmp_path: Path) -> None:
    run, recipe = tmp_path / "run", tone_recipe(steps=1)
    fit(corpus, run, recipe)
    path, identity = run / "recipe.toml", run / "resume" / "identity.json"
    path.write_text(path.read_text(encoding="utf-8") + '\n[post]\nstages = ["numbers"]\n', encoding="utf-8")
    for given in (None, recipe):
        assert fit(corpus, run, given).outcome == "finished"
    earlier = path.read_text(encoding="utf-8").replace("mask_warmup = 0\n", "")
    path.write_text(earlier, encoding="utf-8")  # of a version that did not know this setting
    known = json.loads(identity.read_text(encoding="utf-8"))
    identity.write_text(json.dumps(known | {"recipe": hashlib.sha256(earlier.encode()).hexdigest()}))
    assert fit(corpus, run, None).outcome == "finished"
    with pytest.raises(TrainingError, match="another recipe"):
        fit(corpus, run, None, overrides=["training.schedule.lr=0.5"])
    path.write_text(earlier.replace("batch_seconds", "batch_seconds = 1.0 #"), encoding="utf-8")
    with pytest.raises(TrainingError, match="another recipe"):
        fit(corpus, run, None)


def test_a_corpus_without_train_split(tmp_path: Path) -> None:
    own = make_tone_corpus(tmp_path / "corpus", train=0, dev=2, test=1)
    with pytest.raises(CorpusError, match="'dev', 'test'"):
        fit(own, tmp_path / "run", tone_recipe())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="torchrun's rendezvous is not built for Windows")
def test_two_processes_train_together_and_resume(corpus: Path, tmp_path: Path) -> None:
    script = tmp_path / "command.py"
    script.write_text(COMMAND)
    recipe = tone_recipe(steps=8, validate_every=4, batch_seconds=12, save_every_seconds=0.1, processes=1)
    write_recipe(tmp_path / "recipe.toml", recipe)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    arguments = [str(corpus), "--recipe", str(tmp_path / "recipe.toml"), "--to", str(tmp_path / "run")]
    digests = []
    for _ in range(2):
        done = subprocess.run(
            [*torchrun, str(script), *arguments, "--device", "cpu"],
            capture_output=True,
            text=True,
            timeout=300,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr[-3000:]
        digests.append(digest(tmp_path / "run"))
        # The second time: back by some steps, as after a kill.
        for name in ("step-00000008", "step-00000007"):
            shutil.rmtree(tmp_path / "run" / "resume" / name, ignore_errors=True)
    assert digests[0] == digests[1]
    assert load_model(tmp_path / "run", device="cpu").recipe.digest == recipe.digest
