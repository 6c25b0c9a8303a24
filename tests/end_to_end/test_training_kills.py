"""A training may be killed at any moment, again and again: the same command ends with the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from firstwords.model.recipe import write_recipe
from firstwords.training.log import read_log
from tone_corpus import make_tone_corpus, tone_recipe

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows cannot fork")
LIVES = Path(__file__).resolve().parents[1] / "lives.py"
CLOCK = ("seconds", "waited")


class Lives:
    """The process that forks trainings (tests/lives.py), and what an undisturbed one ends with."""

    def __init__(self, folder: Path, **training: Any) -> None:
        self.folder = folder
        corpus = make_tone_corpus(folder / "corpus", train=8, dev=1, test=1)
        settings = {"batch_seconds": 5, "average_share": 0.5, "save_every_seconds": 0.001} | training
        write_recipe(folder / "recipe.toml", tone_recipe(**settings))
        self.command = ["train", str(corpus), "--recipe", str(folder / "recipe.toml"), "--device", "cpu"]
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
        """Train into the folder ``name`` -> what became of it."""
        run = self.folder / name
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(
            json.dumps({"command": [*self.command, "--to", str(run)], "run": str(run)} | what),
            file=self.process.stdin,
            flush=True,
        )
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        with self.process:  # closes its pipes, which ends it
            pass

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.said").read_text()[-3000:]

    def die_at(self, point: int) -> None:
        """Killed at one change of the disk, then trained to the end: the same."""
        shutil.rmtree(self.folder / "cut", ignore_errors=True)
        found = self.ask("cut", point=point)
        what = self.points[point - 1]
        assert found == {"code": -9, "again": 0}, (what, found, self.said("cut"))
        assert ending(self.folder / "cut") == self.whole, (point, what)
        assert not list((self.folder / "cut").rglob("*.writing")), (point, what)


def ending(run: Path) -> dict[str, Any]:
    """SHA-256 of the model's and the last checkpoint's weights, and the log without what the clock says."""
    (newest, *_) = sorted((run / "resume").glob("step-*"), reverse=True)
    files = (run / "model.safetensors", newest / "state.safetensors")
    records = read_log(run / "resume" / "log.jsonl")
    return {
        "step": newest.name,
        "weights": [hashlib.sha256(path.read_bytes()).hexdigest() for path in files],
        "log": [{k: v for k, v in record.items() if k not in CLOCK} for record in records],
    }


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lives]:
    """Four steps: the fourth checkpoint removes the first, and other models take the first one's place."""
    lives = Lives(tmp_path_factory.mktemp("short"), steps=4, validate_every=2)
    yield lives
    lives.close()


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lives]:
    lives = Lives(tmp_path_factory.mktemp("long"), steps=60, validate_every=7, save_every_seconds=0.05)
    yield lives
    lives.close()


def test_every_kind_of_change_is_among_the_points(short: Lives) -> None:
    kinds = {point.split()[0] for point in short.points}
    assert {"open", "write", "close", "fsync", "replace", "mkdir", "save_file", "rmtree", "link"} <= kinds
    assert {"identity.json", "log.jsonl"} <= {point.split("/")[-1] for point in short.points}
    # All validations find every letter wrong; of equals the later are kept: at step 2, at 4, and the average.
    assert short.points.count("replace model.safetensors") == 3
    assert "rmtree resume/best-00000002" in short.points


@pytest.mark.parametrize("what", ["replace model.safetensors", "write resume/log.jsonl"])
def test_killed_at_some_changes_of_the_disk(short: Lives, what: str) -> None:
    short.die_at(max(number for number, name in enumerate(short.points, start=1) if name == what))


@pytest.mark.slow
@pytest.mark.timeout(3600)  # on a busy machine
@pytest.mark.parametrize("part", range(16))
def test_killed_at_every_change_of_the_disk(short: Lives, part: int) -> None:
    """Each write (by half), flush, rename, link, removal: of checkpoints, the model folder and the log.

    Of those that occur more than once the last, and of those of checkpoints the first, too: there is no
    other one then.
    """
    kinds = [re.sub(r"-\d{8}", "-N", re.sub(r"[0-9a-f]{64}", "H", name)) for name in short.points]
    chosen = {number for number, kind in enumerate(kinds) if kind not in kinds[number + 1 :]}
    chosen |= {kinds.index(kind) for kind in kinds if "resume/step-N" in kind}
    for number in sorted(chosen)[part::16]:
        short.die_at(number + 1)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(5))
def test_ten_kills_at_random_moments(long: Lives, seed: int) -> None:
    """Together 50 that hit while steps were being made."""
    name, kills, round_ = f"chain-{seed}", 0, 0
    while kills < 10:
        found = long.ask(name, chain={"seed": 100 * seed + round_, "kills": 10 - kills})
        assert found["code"] == 0, (found, long.said(name))
        assert ending(long.folder / name) == long.whole, found
        kills, round_ = kills + len(found["steps"]), round_ + 1
        shutil.rmtree(long.folder / name)
