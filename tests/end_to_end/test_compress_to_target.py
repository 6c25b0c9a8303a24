"""``firstwords compress MODEL --target ...`` with the real steps.

On a model that reads nonsense, quickly, with made-up times; slow: on one that learned tones, with times of
real processes.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from failing_disk import snapshot
from firstwords.compression import prune
from firstwords.compression.history import read_history
from firstwords.data.manifest import load_corpus, write_manifest
from firstwords.inference.recognizer import Recognizer
from firstwords.model.checkpoint import load_model
from firstwords.report import compression
from firstwords.report.compression_probe import Probe
from firstwords.training.progress import Progress
from firstwords.training.run import train_corpus
from nonsense_model import make_nonsense_model
from robustness.commands import Said, firstwords
from tone_corpus import LEARN, make_tone_corpus, tone_recipe

MAIN = "from firstwords.cli.main import main; main()"


@pytest.fixture(scope="module")
def nonsense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("nonsense")
    make_tone_corpus(home / "corpus", train=3, dev=1, test=0)
    make_nonsense_model(home / "model")
    return home


@pytest.fixture
def no_processes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Speed is not measured but made up: a hundredth of real time; names of what was to be measured."""
    asked: list[str] = []

    def fake(folder: Path, samples: Any, rate: int, lengths: Any, **_: Any) -> Probe:
        del samples, rate
        asked.append(folder.name)
        assert (folder / "model.safetensors").is_file()
        return Probe({length: (0.01 * length,) for length in lengths}, 3 * 10**8, 2 * 10**8, 0.1)

    monkeypatch.setattr(compression, "probe", fake)
    return asked


def compress(home: Path, to: Path, target: str, *more: object) -> Said:
    options = ("--corpus", home / "corpus", "--to", to, "--target", target, "--minutes", 0)
    return firstwords("compress", home / "model", *options, "--device", "cpu", *more)


def test_a_target_that_int8_meets(nonsense: Path, tmp_path: Path, no_processes: list[str]) -> None:
    before = snapshot(nonsense / "model")
    # Memory is what comes with the model, 100 MB of 300; it is asked for, so three processes measure.
    said = compress(nonsense, tmp_path / "small", "size<200KB, memory<150MB")
    assert said.code == 0, said.all
    assert "Target met by weights kept in 8 bits" in said.all
    loaded = load_model(tmp_path / "small", device="cpu", check=True)
    assert loaded.model.num_parameters == load_model(nonsense / "model", device="cpu").model.num_parameters
    assert (tmp_path / "small" / "model.safetensors").stat().st_size < 200_000
    assert [step.step for step in read_history(tmp_path / "small").steps] == ["quantize"]
    assert no_processes == ["model"] * 3 + ["int8"] * 3  # once each, the report included
    report = json.loads((tmp_path / "small" / "report" / "compression.json").read_text())
    assert [(v["name"], v["rtf"]["5"], v["model_bytes"]) for v in report["variants"]] == [
        ("model", 0.01, 10**8),
        ("int8", 0.01, 10**8),
    ]
    assert (tmp_path / "small" / "report" / "report.html").is_file()
    assert snapshot(nonsense / "model") == before


@pytest.mark.usefixtures("no_processes")
def test_without_a_folder_the_result_lies_beside_the_model(nonsense: Path, tmp_path: Path) -> None:
    shutil.copytree(nonsense / "model", tmp_path / "model")
    before = snapshot(tmp_path / "model")
    common = ("--corpus", nonsense / "corpus", "--target", "size<200KB", "--minutes", 0, "--device", "cpu")
    assert firstwords("compress", tmp_path / "model", *common).code == 0
    small = tmp_path / "model-small"
    assert (small / "model.safetensors").stat().st_size < 200_000
    assert load_model(small, device="cpu", check=True)
    assert snapshot(tmp_path / "model") == before


def test_a_cut_that_is_stopped_goes_on_and_an_unmet_target_ends_with_1(
    nonsense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_processes: list[str]
) -> None:
    before = snapshot(nonsense / "model")
    target = "parameters<85K, size<100KB, rtf<0.001"
    to = tmp_path / "small"
    write = prune._write

    def stopped(*given: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(prune, "_write", stopped)
    with pytest.raises(AssertionError, match="code=130"):  # as after Ctrl-C
        compress(nonsense, to, target, "--attempts", 1)
    assert not (to / "model.safetensors").exists()
    monkeypatch.setattr(prune, "_write", write)
    said = compress(nonsense, to, target, "--attempts", 1)
    assert said.code == 1
    assert "cut before" in said.all  # the round that was done is not done again
    assert "rtf is 0.01, 0.009 above 0.001" in said.err
    assert "parameters is" not in said.err.split("Nearest")[1].split(";", 1)[1]  # that limit is kept
    steps = read_history(to).steps
    assert steps[0].step == "prune"
    small = load_model(to, device="cpu", check=True)
    assert small.model.num_parameters < 85_000
    assert not (to / "rounds").exists()
    assert snapshot(nonsense / "model") == before
    asked = len(no_processes)
    again = compress(nonsense, to, target, "--attempts", 1)  # all is known
    assert again.code == 1
    assert len(no_processes) == asked
    assert "judged" not in again.all
    other = compress(nonsense, to, "size<90KB")
    assert other.code == 2
    assert "begun with another" in other.err


def test_what_cannot_begin_is_said_before_anything_is_written(nonsense: Path, tmp_path: Path) -> None:
    def refused(target: str = "size<200KB", home: Path = nonsense, to: Path | None = None) -> str:
        place = to or tmp_path / "small"
        said = compress(home, place, target)
        assert said.code in (1, 2), said
        assert not (tmp_path / "small").exists()
        return said.err

    assert "Did you mean size?" in refused("sise<1MB")
    assert "no unit 'tb'" in refused("size<1TB")
    assert "is no limit" in refused("size=1MB")
    assert "is no limit" in refused("")
    assert "points more" in refused("size<+1MB")
    (tmp_path / "file").write_text("mine")
    assert "file" in refused(to=tmp_path / "file" / "small")
    assert "not empty" in refused(to=tmp_path / "file")
    (tmp_path / "model").mkdir()
    (tmp_path / "corpus").symlink_to(nonsense / "corpus")
    assert "is not a model" in refused(home=tmp_path)
    alone = tmp_path / "alone"
    (alone / "corpus").mkdir(parents=True)
    (alone / "model").symlink_to(nonsense / "model")
    spoken = [u for u in load_corpus(nonsense / "corpus").utterances if u.split == "train"]
    write_manifest(alone / "corpus" / "manifest.jsonl", spoken)
    assert "no usable utterances in split 'dev'" in refused(home=alone)
    typo = firstwords("compress", "prun", nonsense / "model")
    assert typo.code in (1, 2)
    assert "Did you mean firstwords compress prune?" in typo.err


@pytest.mark.usefixtures("no_processes")
def test_choose_takes_the_one_that_fits(nonsense: Path, tmp_path: Path) -> None:
    assert firstwords("compress", "quantize", nonsense / "model", "--to", tmp_path / "q").code == 0
    common = ("compress", "choose", nonsense / "model", tmp_path / "q", "--corpus", nonsense / "corpus")
    said = firstwords(*common, "--target", "size<200KB")
    assert said.code == 0
    assert f"Take {tmp_path / 'q'}." in said.all
    assert f"Not {nonsense / 'model'}: size is" in said.all
    none = firstwords(*common, "--target", "size<1KB")
    assert none.code == 1
    assert "None of the 2 models keeps to size<1.00KB" in none.err


@pytest.mark.slow
def test_a_model_that_learned_tones(tmp_path: Path) -> None:
    corpus = make_tone_corpus(tmp_path / "corpus", train=48, dev=12, test=12)
    recipe = tone_recipe(steps=320, validate_every=320, workers=0, **LEARN)
    quiet = Progress(quiet=True)
    train_corpus(corpus, tmp_path / "model", recipe=recipe, device="cpu", threads=1, progress=quiet)
    before = snapshot(tmp_path / "model")

    def command(to: str, target: str) -> list[str]:
        options = [
            "--corpus",
            corpus,
            "--to",
            tmp_path / to,
            "--target",
            target,
            "--minutes",
            "0.4",
            "--attempts",
            "2",
        ]
        return [*map(str, ("compress", tmp_path / "model", *options)), "--device", "cpu"]

    def run(to: str, target: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-c", MAIN, *command(to, target)]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    def right(folder: Path) -> int:
        found = Recognizer.load(folder, device="cpu").transcribe_many(load_corpus(corpus).split("test"))
        wanted = [u.text for u in load_corpus(corpus).split("test")]
        return sum(a.text == b for a, b in zip(found, wanted, strict=True))

    met = run("int8", "size<200KB, cer<=+2")
    assert met.returncode == 0, met.stderr
    assert "8 bits" in met.stdout
    assert right(tmp_path / "int8") >= right(tmp_path / "model") - 1

    # cut; killed while it is trained again; the same call goes on
    line = [sys.executable, "-c", MAIN, *command("cut", "parameters<85K, size<160KB, cer<=+5")]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    tuned = tmp_path / "cut" / "attempts" / "cut30-fp32" / "rounds" / "1" / "tuned" / "recipe.toml"
    end = time.monotonic() + 300
    while not tuned.is_file() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()[0]
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()  # closes its pipe, too
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    done = run("cut", "parameters<85K, size<160KB, cer<=+5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cut before" in done.stdout
    assert [s.step for s in read_history(tmp_path / "cut").steps] == ["prune", "quantize"]
    assert load_model(tmp_path / "cut", device="cpu", check=True).model.num_parameters < 85_000

    # what nobody can: the nearest is kept
    no = run("no", "size<1KB, cer<=+1")
    assert no.returncode == 1
    assert "size is" in no.stderr
    assert load_model(tmp_path / "no", device="cpu", check=True)
    assert snapshot(tmp_path / "model") == before
