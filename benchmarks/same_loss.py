"""Does a refactor give the same losses as the commit before it, bit for bit?

    python benchmarks/same_loss.py [BEFORE] [AFTER]     commits; default: HEAD~1 HEAD

Checks both commits out aside (git worktree), lets each train 20 steps of its recipe of tones on one corpus,
on one thread, and compares loss and gradient norm of every step. Exit code 1 where any of them differs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TRAIN = """
import sys
from pathlib import Path
from firstwords.training.run import train_corpus
from tone_corpus import make_tone_corpus, tone_recipe
corpus, run = Path(sys.argv[1]), Path(sys.argv[2])
if not corpus.exists():
    make_tone_corpus(corpus)
train_corpus(corpus, run, recipe=tone_recipe(steps=20), device="cpu", workers=0, threads=1)
"""


def git(*arguments: str) -> str:
    """A git command in this repository -> what it printed."""
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def losses(commit: str, tree: Path, corpus: Path, folder: Path) -> list[tuple[float, float]]:
    """Train -> loss and gradient norm of every step; JSON keeps every bit of a float."""
    git("worktree", "add", "--detach", str(tree), commit)
    try:
        path = os.pathsep.join([str(tree / "src"), str(tree / "tests")])
        environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", TRAIN, str(corpus), str(folder)]
        if subprocess.run(
            command, env=environment, cwd=tree, stdout=subprocess.DEVNULL, check=False
        ).returncode:
            sys.exit(f"{commit} does not train; see above. Commits before 'train_corpus' cannot be compared.")
    finally:
        git("worktree", "remove", "--force", str(tree))
    lines = (folder / "resume" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [(r["loss"], r["grad_norm"]) for r in map(json.loads, lines) if r["kind"] == "train"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("before", nargs="?", default="HEAD~1")
    parser.add_argument("after", nargs="?", default="HEAD")
    options = parser.parse_args()
    commits = [git("rev-parse", "--short", f"{name}^{{commit}}") for name in (options.before, options.after)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        before, after = (
            losses(commit, folder / f"tree-{number}", folder / "corpus", folder / f"run-{number}")
            for number, commit in enumerate(commits)
        )
    for step, (one, other) in enumerate(zip(before, after, strict=False), start=1):
        if one != other:
            sys.exit(f"Step {step}: loss, gradient norm {one} at {commits[0]}, {other} at {commits[1]}.")
    if len(before) != 20 or len(after) != 20:
        sys.exit(f"{len(before)} steps at {commits[0]}, {len(after)} at {commits[1]}, not 20.")
    print(
        f"{commits[0]} and {commits[1]}: 20 equal losses and gradient norms, the last loss {after[-1][0]!r}"
    )


if __name__ == "__main__":
    main()
