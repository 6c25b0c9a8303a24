"""A dataclass as a parameter of a command: its fields are options, and come back as the dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from firstwords.cli.option_group import grouped

Beam = Annotated[int | None, typer.Option("--beam", help="Width.", min=1)]
Others = Annotated[list[Path] | None, typer.Option("--with", help="More.")]


@dataclass(frozen=True, kw_only=True)
class Search:
    beam: Beam = None
    others: Others = None


@dataclass(frozen=True, kw_only=True)
class Reading:
    name: Annotated[str, typer.Option("--name", help="Has no default.")]
    search: Search
    beam: Annotated[float, typer.Option("--second-beam", help="Same field, another group.")] = 0.5


LINE = ["model", "--fast", "--name", "--beam", "--with", "--second-beam", "--last"]
given: list[tuple[Path, bool, Reading, str]] = []


@grouped
def run(
    model: Annotated[Path, typer.Argument(help="Model.")],
    *,
    fast: Annotated[bool, typer.Option("--fast", help="First.")] = False,
    reading: Reading,
    last: Annotated[str, typer.Option("--last", help="Last.")] = "z",
) -> None:
    """Read.

    In groups.
    """
    given.append((model, fast, reading, last))


@pytest.fixture
def app() -> typer.Typer:
    given.clear()
    app = typer.Typer()
    app.command()(run)
    return app


def test_fields_are_options_in_the_order_of_the_parameters(app: typer.Typer) -> None:
    command = get_command(app)
    assert [parameter.opts[0] for parameter in command.params if parameter.opts[0] in LINE] == LINE
    assert command.help == "Read.\n\nIn groups."


def test_what_was_given_comes_back_as_groups(app: typer.Typer) -> None:
    words = ["m", "--last", "y", "--with", "a", "--name", "n", "--beam", "3", "--with", "b"]
    assert CliRunner().invoke(app, words).exit_code == 0
    search = Search(beam=3, others=[Path("a"), Path("b")])
    assert given == [(Path("m"), False, Reading(name="n", search=search), "y")]


def test_defaults_are_those_of_the_fields(app: typer.Typer) -> None:
    assert CliRunner().invoke(app, ["m", "--name", "n"]).exit_code == 0
    ((_, _, reading, last),) = given
    assert (reading.beam, reading.search.beam, last) == (0.5, None, "z")
    assert not reading.search.others


@pytest.mark.parametrize(
    ("words", "named"),
    [(["m"], "--name"), (["--name", "n"], "model"), (["m", "--name", "n", "--beam", "0"], "--beam")],
)
def test_what_is_missing_or_wrong_is_named_as_on_the_command_line(
    app: typer.Typer, words: list[str], named: str
) -> None:
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2
    assert named in refused.output
    assert not given
