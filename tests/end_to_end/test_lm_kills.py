"""The training of a language model may be killed at any moment: the same command ends with the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from firstwords.lm.neural.folder import load_neural
from firstwords.training.log import read_log
from small_ngrams import draw_text

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows cannot fork")
LIVES = Path(__file__).resolve().parents[1] / "lives.py"
SETTINGS = ("network.dim=12", "network.layers=1", "training.precision=fp32", "training.average_share=0.5",
            "training.save_every_seconds=0.001", "training.batch_tokens=120")  # fmt: skip


class Lives:
    """The process that forks trainings (tests/lives.py), and what an undisturbed one ends with."""

    def __init__(self, folder: Path, *settings: str) -> None:
        self.folder = folder
        text = folder / "text.txt"
        text.write_text("\n".join(draw_text(3, "abcdef", 80)), encoding="utf-8")
        chosen = [part for setting in (*SETTINGS, *settings) for part in ("--set", setting)]
        self.command = ["lm", "train", str(text), "--kind", "lstm", "--device", "cpu", *chosen]
        self.process = subprocess.Popen(
            [sys.executable, str(LIVES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        )
        assert self.ask("whole", point=0)["code"] == 0, self.said("whole")
        self.points = (folder / "whole.points").read_text().splitlines()
        self.whole = ending(folder / "whole")

    def ask(self, name: str, **what: Any) -> dict[str, Any]:
        run = self.folder / name
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(
            json.dumps({"command": [*self.command, "--to", str(run)], "run": str(run)} | what),
            file=self.process.stdin,
            flush=True,
        )
        return json.loads(self.process.stdout.readline())

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.said").read_text()[-3000:]

    def die_at(self, point: int) -> None:
        shutil.rmtree(self.folder / "cut", ignore_errors=True)
        found = self.ask("cut", point=point)
        what = self.points[point - 1]
        assert found == {"code": -9, "again": 0}, (what, found, self.said("cut"))
        assert ending(self.folder / "cut") == self.whole, (point, what)
        assert not list((self.folder / "cut").rglob("*.writing")), (point, what)
        load_neural(self.folder / "cut")


def ending(run: Path) -> dict[str, Any]:
    (newest, *_) = sorted((run / "resume").glob("step-*"), reverse=True)
    files = sorted(p for p in run.iterdir() if p.is_file())
    records = read_log(run / "resume" / "log.jsonl")
    return {
        "step": newest.name,
        "files": [(p.name, hashlib.sha256(p.read_bytes()).hexdigest()) for p in files],
        "state": hashlib.sha256((newest / "state.safetensors").read_bytes()).hexdigest(),
        "log": [{k: v for k, v in record.items() if k not in ("seconds", "waited")} for record in records],
    }


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lives]:
    lives = Lives(tmp_path_factory.mktemp("short"), "training.steps=4", "training.validate_every=2")
    yield lives
    with lives.process:
        pass


@pytest.mark.parametrize(
    "what", ["replace model.safetensors", "replace recipe.toml", "write resume/log.jsonl", "replace lm.toml"]
)
def test_killed_at_some_changes_of_the_disk(short: Lives, what: str) -> None:
    short.die_at(max(number for number, name in enumerate(short.points, start=1) if name == what))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(8))
def test_killed_at_every_change_of_the_disk(short: Lives, part: int) -> None:
    for number in range(1, len(short.points) + 1)[part::8]:
        short.die_at(number)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_kills_at_random_moments(tmp_path: Path) -> None:
    lives = Lives(
        tmp_path, "training.steps=150", "training.validate_every=11", "training.save_every_seconds=0.02"
    )
    kills, round_ = 0, 0
    while kills < 10:
        found = lives.ask("chain", chain={"seed": round_, "kills": 10 - kills})
        assert found["code"] == 0, (found, lives.said("chain"))
        assert ending(tmp_path / "chain") == lives.whole, found
        kills, round_ = kills + len(found["steps"]), round_ + 1
        shutil.rmtree(tmp_path / "chain")
    with lives.process:
        pass
