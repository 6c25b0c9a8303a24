"""``firstwords import`` at the terminal: the summary, and faults that name their mend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import typer
from typer.testing import CliRunner

from firstwords.cli.import_ import length, run
from firstwords.errors import CorpusError, UsageError

app = typer.Typer()
app.command()(run)


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Ten speakers, each with two recordings and transcripts, and eight recordings without."""
    root = tmp_path / "talks"
    for n in range(10):
        folder = root / f"speaker [{n}]"
        folder.mkdir(parents=True)
        for i in range(2):
            soundfile.write(folder / f"{i}.wav", np.full(8000, 0.1, np.float32), 8000)
            (folder / f"{i}.txt").write_text(f"neno {n} {i}", encoding="utf-8")
    for i in range(8):
        soundfile.write(root / f"alone{i}.wav", np.full(800, 0.1, np.float32), 8000)
    return root


def test_the_summary_shows_splits_notes_what_was_left_out_and_the_next_command(
    recordings: Path, tmp_path: Path
) -> None:
    target = tmp_path / "corpus"
    result = CliRunner().invoke(
        app, [str(recordings), "--to", str(target), "--language", "sw"], env={"COLUMNS": "200"}
    )
    assert result.exit_code == 0, result.output
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    assert "split utterances length speakers recordings" in lines
    assert "train 16 16.0 s 8 16" in lines
    assert "dev 2 2.0 s 1 2" in lines
    assert "test 2 2.0 s 1 2" in lines
    assert "all 20 20.0 s 10 20" in lines
    assert "Language: sw" in lines
    assert "Left out: 8" in lines
    assert any(line.startswith("... and 3 more") for line in lines)
    assert any("speaker [0]" in line for line in lines)  # brackets are no markup
    assert lines[-1] == f"Next: firstwords check {target}"
    assert (target / "manifest.jsonl").is_file()


@pytest.mark.parametrize(
    ("arguments", "kind", "named"),
    [
        (["--speakers", "tier"], UsageError, "--speakers tier"),
        (["--language", "Kiswahili!"], UsageError, "--language"),
        (["--layout", "praat"], UsageError, "--layout praat"),
        (["--column", "text"], UsageError, "--column text"),
        (["--dev", "0.6", "--test", "0.6"], UsageError, "--dev"),
        (["--layout", "elan"], CorpusError, "nothing to import"),
    ],
)
def test_faults_are_our_errors(
    arguments: list[str], kind: type[Exception], named: str, recordings: Path, tmp_path: Path
) -> None:
    result = CliRunner().invoke(app, [str(recordings), "--to", str(tmp_path / "corpus"), *arguments])
    assert isinstance(result.exception, kind)
    assert named in str(result.exception)
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize(("hours", "shown"), [(2.4123, "2.41 h"), (0.205, "12.3 min"), (8 / 3600, "8.0 s")])
def test_lengths_read_well(hours: float, shown: str) -> None:
    assert length(hours) == shown


def test_the_next_command_can_be_typed_where_a_folder_holds_a_blank(recordings: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(recordings), "--to", str(tmp_path / "mein körpus")])
    assert f'firstwords check "{tmp_path / "mein körpus"}"' in result.output.replace("\n", "")
