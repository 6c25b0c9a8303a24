"""docs/corpora.md names every layout and every option of the command, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import typer

from firstwords.cli.import_ import run
from firstwords.data.corpora import LAYOUTS

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "corpora.md").read_text(encoding="utf-8")


def options() -> set[str]:
    app = typer.Typer()
    app.command()(run)
    command = typer.main.get_command(app)
    return {name for parameter in command.params for name in parameter.opts if name.startswith("--")}


def test_every_layout_has_a_section_and_stands_in_the_help() -> None:
    assert set(re.findall(r"^### .*`(\w+)`$", PAGE, re.MULTILINE)) == set(LAYOUTS)
    app = typer.Typer()
    app.command()(run)
    (layout,) = [p for p in typer.main.get_command(app).params if "--layout" in p.opts]
    assert set(re.findall(r"\w+", layout.help or "")) - {"or", "auto"} == set(LAYOUTS)


def test_every_option_is_explained_and_none_is_invented() -> None:
    shown = set(re.findall(r"--[a-z][a-z-]+", PAGE))
    assert options() - {"--help", "--install-completion", "--show-completion"} == shown
