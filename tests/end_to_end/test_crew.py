"""Several processes of this machine that train as one (training/crew.py)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from firstwords.errors import TrainingError
from firstwords.model.recipe import write_recipe
from firstwords.training import crew as crew_module
from firstwords.training.crew import crew, crew_size
from firstwords.training.run import train_corpus
from tone_corpus import make_tone_corpus, tone_recipe

GO = """
import sys
from pathlib import Path
from firstwords.training.run import train_corpus
from firstwords.model.recipe import read_recipe
train_corpus(Path(sys.argv[1]), Path(sys.argv[2]), recipe=read_recipe(Path(sys.argv[3])), threads=2)
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tone_corpus(tmp_path_factory.mktemp("tones") / "corpus")


def steps_of(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "resume" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [r for r in map(json.loads, lines) if r["kind"] == "train"]


def test_two_processes_share_each_step(corpus: Path, tmp_path: Path) -> None:
    recipe = tone_recipe(steps=4, processes=2, validate_every=4)
    result = train_corpus(corpus, tmp_path / "run", recipe=recipe, threads=2)
    assert result.outcome == "finished"
    both = [r["audio"] for r in steps_of(tmp_path / "run")]
    assert len(both) == 4
    # Each took half a batch of at most 25 s at the slowest speed.
    assert all(5 < seconds <= 25 * 1.1 for seconds in both)
    assert "WORLD_SIZE" not in os.environ
    again = train_corpus(corpus, tmp_path / "run", threads=2)
    assert again.steps == 4


def test_who_gets_a_crew() -> None:
    tones = tone_recipe(steps=100000)
    free = 64 << 30
    assert crew_size(tones, device="cpu", threads=2, free_bytes=free) == 2
    assert crew_size(tones, device="cpu", threads=16, free_bytes=None) == 4
    assert crew_size(tones, device="cpu", threads=16, free_bytes=5 << 30) == 2
    assert crew_size(tones, device="cpu", threads=2, free_bytes=1 << 30) == 1
    assert crew_size(tones, device="cpu", threads=1, free_bytes=free) == 1
    assert crew_size(tones, device="cuda", threads=8, free_bytes=free) == 1
    assert crew_size(tone_recipe(steps=50), device="cpu", threads=2, free_bytes=free) == 1
    assert crew_size(tone_recipe(steps=None, minutes=0.5), device="cpu", threads=2, free_bytes=free) == 1
    large = tones.with_(encoder=tones.encoder.preset("S"))  # type: ignore[union-attr]
    assert crew_size(large, device="cpu", threads=2, free_bytes=free) == 1


def test_a_process_that_fails_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Each takes half a second to start python, and says why it ends.
    orders = {"corpus_folder": str(tmp_path / "none"), "run_folder": "", "start_from": None}
    monkeypatch.setattr(crew_module.sys, "executable", sys.executable)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "torch.py").write_text("raise ImportError('torch is broken here')")
    explained = pytest.raises(TrainingError, match="trained along ended: ImportError: torch is broken here")
    with explained, crew(2, orders, threads=1):
        raise RuntimeError("connection closed by peer")


@pytest.mark.slow
def test_a_killed_crew_goes_on_to_the_same_weights(corpus: Path, tmp_path: Path) -> None:
    write_recipe(tmp_path / "recipe.toml", tone_recipe(steps=60, processes=2, save_every_seconds=0.5))

    def command(run: str) -> list[str]:
        return [sys.executable, "-c", GO, str(corpus), str(tmp_path / run), str(tmp_path / "recipe.toml")]

    subprocess.run(command("whole"), check=True, capture_output=True)
    killed = subprocess.Popen(command("killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for_steps(tmp_path / "killed", 20, killed)
    others = children_of(killed.pid)
    assert others
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    deadline = time.monotonic() + 20
    while any(is_running(process) for process in others):
        assert time.monotonic() < deadline, "the other process did not end with the first"
        time.sleep(0.1)
    subprocess.run(command("killed"), check=True, capture_output=True)
    one, two = ((tmp_path / run / "model.safetensors").read_bytes() for run in ("whole", "killed"))
    assert one == two
    losses = [[r["loss"] for r in steps_of(tmp_path / run)] for run in ("whole", "killed")]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_the_end_of_another_process_is_explained(corpus: Path, tmp_path: Path) -> None:
    write_recipe(tmp_path / "recipe.toml", tone_recipe(steps=100000, processes=2))
    first = subprocess.Popen(
        [sys.executable, "-c", GO, str(corpus), str(tmp_path / "run"), str(tmp_path / "recipe.toml")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_steps(tmp_path / "run", 5, first)
    for process in children_of(first.pid):
        os.kill(process, signal.SIGKILL)
    _, said = first.communicate(timeout=60)
    assert first.returncode != 0
    assert "A process that trained along ended" in said
    assert "processes=1" in said


def wait_for_steps(run: Path, steps: int, process: subprocess.Popen[Any]) -> None:
    log = run / "resume" / "log.jsonl"
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text(encoding="utf-8").count('"train"') >= steps):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def children_of(parent: int) -> list[int]:
    found: list[int] = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(status.parent.name))
    return found


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
