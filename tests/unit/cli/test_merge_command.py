"""``firstwords merge``: what its options mean, and what it refuses before anything is read or written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from firstwords.cli.main import app
from firstwords.errors import FirstwordsError
from nonsense_model import make_nonsense_model

PAGE = Path(__file__).resolve().parents[3] / "docs" / "merging.md"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    home = tmp_path_factory.mktemp("models")
    return [make_nonsense_model(home / f"m{seed}", seed=seed) for seed in (1, 2, 3)]


def run(*arguments: object) -> str:
    """The output; a FirstwordsError is raised as it is."""
    done = CliRunner().invoke(app, ["merge", *map(str, arguments)])
    if isinstance(done.exception, FirstwordsError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_an_average_with_weights(folders: list[Path], tmp_path: Path) -> None:
    said = run(*folders[:2], "--to", tmp_path / "new", "--weights", "3 1")
    one, two, new = (weights(f) for f in (*folders[:2], tmp_path / "new"))
    for name, value in new.items():
        torch.testing.assert_close(value, 0.75 * one[name] + 0.25 * two[name])
    assert "0.7500 of" in said
    assert "gate against non-speech is open" in said
    card = (tmp_path / "new" / "card.md").read_text(encoding="utf-8")
    assert "| merged | average, weights 3 1 |" in card


def test_task_arithmetic(folders: list[Path], tmp_path: Path) -> None:
    base, plus, minus = folders
    options = ("--task", plus, "--subtract", minus, "--scale", 0.5)
    run("--base", base, *options, "--to", tmp_path / "new")
    found, b, p, m = (weights(f) for f in (tmp_path / "new", base, plus, minus))
    for name, value in found.items():
        expected = b[name] + 0.5 * (p[name] - b[name]) - 0.5 * (m[name] - b[name])
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)
    card = (tmp_path / "new" / "card.md").read_text(encoding="utf-8")
    assert "task arithmetic on m1, scale 0.5: + m2 - m3" in card


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("A B", "--to is missing"),
        ("A --to X", "1 models: a merge needs at least two"),
        ("--to X", "0 models"),
        ("A B --to X --scale 0.5", "need --base"),
        ("A B --to X --task C", "need --base"),
        ("A B --to X --base C --task C", "--base goes with"),
        ("--base A --to X", "--base without --task"),
        ("--base A --task B --weights 1 --to X", "--base goes with"),
        ("--base A --task B --scale inf --to X", "expected a number"),
        ("A B --to X --soup best --corpus C", "no such soup"),
        ("A B --to X --soup greedy", "chooses by the error on dev"),
        ("A B --to X --soup greedy --corpus C --weights 1,1", "chooses the weights itself"),
        ("A B --to X --weights much", "expected numbers"),
        ("A B --to X --weights 1", "1 weights for 2 models"),
        ("A B --to X --weights -1,2", "from 0 up"),
        ("A B --to X --split dev", "--split belongs to --corpus"),
        ("A B --to X --device cpu", "--device belongs to --corpus"),
        ("A B --to A", "is not empty"),
        ("A nowhere --to X", "is not a folder"),
    ],
)
def test_what_contradicts_itself_is_refused(
    folders: list[Path], tmp_path: Path, options: str, said: str
) -> None:
    names = dict(zip("ABC", folders, strict=True)) | {"X": tmp_path / "X"}
    with pytest.raises(FirstwordsError) as caught:
        run(*(names.get(word, word) for word in options.split()))
    assert said in caught.value.what
    assert caught.value.mend
    assert not (tmp_path / "X").exists()


def test_the_page_names_every_option_and_no_other() -> None:
    import json

    known = json.loads(Path(__file__).with_name("options.json").read_text(encoding="utf-8"))
    named = set(re.findall(r"--[a-z]+", PAGE.read_text(encoding="utf-8")))
    options = {option for option in known["merge"] if option.startswith("--")}
    assert options <= named
    assert named <= options | set(known["evaluate"]) | set(known["train"])
