"""A folder in which one process works is refused to others, by the name of the one, until it ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from firstwords.data.corpora.importing import import_corpus
from firstwords.data.manifest import Corpus
from firstwords.errors import WriteError
from firstwords.files import claimed
from firstwords.report.check_files import check_and_write
from firstwords.training.lm.run import train_language_model
from firstwords.training.punctuation import train_punctuation
from firstwords.training.run import train_corpus

HOLDER = """
import sys
from pathlib import Path
from firstwords.files import claimed
with claimed(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has claimed tmp_path/home."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "home")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_claim_ends_with_its_process(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    home = tmp_path / "home"
    for _ in range(2):  # the first refusal has not taken the claim away
        with pytest.raises(WriteError, match=f"in use: process {holder.pid} on .* since 2"), claimed(home):
            pass
    holder.kill()
    holder.wait()
    with claimed(home):
        (home / "work").write_text("done")
    assert [path.name for path in home.iterdir()] == ["work"]


def test_a_claim_leaves_nothing_behind(tmp_path: Path) -> None:
    with claimed(tmp_path / "new" / "inner"):
        assert (tmp_path / "new" / "inner").is_dir()
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("somebody's")
    with claimed(tmp_path / "file"):  # what is wrong with it is said by who writes there
        pass
    assert (tmp_path / "file").read_text() == "somebody's"


NOTHING: Any = None
COMMANDS: dict[str, Callable[[Path], object]] = {
    "import": lambda home: import_corpus(make_source(home), home),
    "check": lambda home: check_and_write(Corpus(home, (), {}), name="home"),
    "train": lambda home: train_corpus(home.parent / "corpus", home, device="cpu"),
    "lm train": lambda home: train_language_model(NOTHING, home, NOTHING, device="cpu"),
    "punctuation train": lambda home: train_punctuation(NOTHING, home),
}


def make_source(home: Path) -> Path:
    (home.parent / "source").mkdir()
    (home.parent / "source" / "a.srt").write_text("")
    return home.parent / "source"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_same_command_in_another_terminal_is_refused(
    command: str, holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    before = sorted((tmp_path / "home").rglob("*"))
    with pytest.raises(WriteError, match=f"in use: process {holder.pid}"):
        COMMANDS[command](tmp_path / "home")
    assert sorted((tmp_path / "home").rglob("*")) == before
