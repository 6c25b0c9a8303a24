"""``firstwords compress``: what is missing is said at once, and a wrong folder before any question."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from firstwords.cli import compress_plan
from firstwords.cli.main import app
from firstwords.errors import CheckpointError, FirstwordsError, ManifestError, UsageError
from nonsense_model import make_nonsense_model


def refused(*arguments: object) -> FirstwordsError:
    error = CliRunner().invoke(app, ["compress", *map(str, arguments)]).exception
    assert isinstance(error, FirstwordsError), error
    return error


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ([], "--corpus CORPUS, --target"),
        (["--corpus=c", "--to", "small"], 'said: --target "size<1MB, cer<=+1.0" missing'),
        (["--to", "small", "--target=size<1MB"], "said: --corpus CORPUS missing"),
    ],
)
def test_all_that_is_missing_is_named_at_once(tmp_path: Path, given: list[str], missing: str) -> None:
    error = refused(tmp_path / "model", *given)
    assert isinstance(error, UsageError)
    assert missing in error.what
    assert f"firstwords compress {tmp_path / 'model'} --corpus CORPUS --target" in error.mend


def test_help_tells_of_the_form_without_a_step(tmp_path: Path) -> None:
    said = " ".join(CliRunner().invoke(app, ["compress", "--help"]).output.split())
    assert "'firstwords compress MODEL --corpus CORPUS --target LIMITS' chooses the steps" in said
    assert "writes MODEL-small" in said
    done = CliRunner().invoke(app, ["compress", str(tmp_path), "--help"])
    assert done.exit_code == 0
    assert "--target" in done.output


def test_the_result_lies_beside_what_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    monkeypatch.chdir(tmp_path / "real")
    beside = compress_plan._beside  # pyright: ignore[reportPrivateUsage]
    assert beside(tmp_path / "link") == tmp_path / "link-small"
    assert beside(Path("inner")) == Path("inner-small")
    assert beside(Path("inner/")) == Path("inner-small")
    assert beside(Path()) == tmp_path / "real-small"
    monkeypatch.chdir(tmp_path / "real" / "inner")
    assert beside(Path("..")) == tmp_path / "real-small"


@pytest.mark.parametrize("step", ["prune", "distil", "plan"])
def test_a_wrong_folder_is_said_before_any_question(tmp_path: Path, step: str) -> None:
    """Neither prune nor distil is told how long, or what the student shall be."""
    rest: list[object] = ["--target", "size<1MB"] if step == "plan" else []
    rest += ["--corpus", tmp_path / "no-corpus", "--to", tmp_path / "new"]
    error = refused(step, tmp_path / "no-model", *rest)
    assert isinstance(error, CheckpointError)
    assert "no-model' is not a folder" in error.what
    error = refused(step, make_nonsense_model(tmp_path / "model"), *rest)
    assert isinstance(error, ManifestError)
    assert "no-corpus" in error.what
    assert not (tmp_path / "new").exists()
