"""Commands and programs of docs/language-models.md and docs/fusion.md run as they are written."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from firstwords.cli.main import app
from nonsense_model import make_nonsense_model
from small_ngrams import draw_text
from tone_corpus import make_tone_corpus

DOCS = Path(__file__).resolve().parents[3] / "docs"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what the pages speak of."""
    folder = tmp_path_factory.mktemp("home")
    make_nonsense_model(folder / "my-model")
    make_tone_corpus(folder / "corpus", train=4, dev=2, test=2)
    shutil.copy(folder / "corpus" / "audio" / "test-000.wav", folder / "interview.wav")
    (folder / "more-texts").mkdir()
    for seed, name in enumerate(("text.txt", "more-texts/more.txt", "other.txt")):
        (folder / name).write_text("\n".join(draw_text(seed, "aeiou", 40)), encoding="utf-8")
    said = draw_text(9, "aeiou", 8)
    (folder / "dev.txt").write_text("\n".join(f"{line} {line}" for line in said), encoding="utf-8")
    (folder / "names.txt").write_text("aeo\t2\niou\n", encoding="utf-8")
    return folder


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for name, block in found if name == language]


@pytest.mark.parametrize("page", ["language-models.md", "fusion.md"])
def test_commands_and_programs_run(home: Path, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    if page == "fusion.md":
        CliRunner().invoke(app, ["lm", "train", "text.txt", "--to", "lm", "--unit", "char"])
    lines = [line for block in blocks(page, "") for line in block.splitlines()]
    commands = [line for line in lines if line.startswith("firstwords ")]
    assert commands
    for command in commands:
        if "lm import" in command:  # of another tool, for words
            CliRunner().invoke(app, ["lm", "train", "text.txt", "--to", "other"])
            CliRunner().invoke(app, ["lm", "export", "other", "--arpa", "other.arpa"])
        command = command.replace("--minutes 5", "--minutes 0.05")  # the only liberty taken
        result = CliRunner().invoke(app, shlex.split(command)[1:])
        assert result.exit_code == 0, (command, result.output, result.exception)
    names: dict[str, Any] = {}
    for program in blocks(page, "python"):
        exec(program, names)
    assert names["recognizer"].transcribe("interview.wav").text
