"""What a newcomer does: the page 'your language in an afternoon', word for word, and the quickstart.

On a corpus of tones, with less time; nothing else is changed.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tone_corpus import RATE, random_text, sing

PAGE = Path(__file__).resolve().parents[2] / "docs" / "afternoon.md"


def make_recordings(folder: Path, count: int = 40) -> Path:
    folder.mkdir()
    generator = np.random.default_rng(5)
    for number in range(count):
        text = random_text(generator)
        soundfile.write(folder / f"clip_{number:03d}.wav", sing(text, generator), RATE)
        (folder / f"clip_{number:03d}.txt").write_text(text, encoding="utf-8")
    return folder


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
        timeout=300,
        env=os.environ | {"PYTHONIOENCODING": "utf-8", "NO_COLOR": "1", "COLUMNS": "200"},
    )


def firstwords(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    words = shlex.split(line)
    assert words[0] == "firstwords"
    return run([sys.executable, "-m", "firstwords.cli.main", *words[1:]], folder)


def test_afternoon_page_word_for_word(tmp_path: Path) -> None:
    make_recordings(tmp_path / "recordings")
    blocks = re.findall(r"```(bash|python)\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert [kind for kind, _ in blocks] == ["bash"] * 5 + ["python"]
    for kind, block in blocks:
        if kind == "python":
            result = run([sys.executable, "-c", block], tmp_path)
            assert result.returncode == 0, result.stderr[-2000:]
            continue
        for line in block.strip().splitlines():
            result = firstwords(line.replace("--minutes 90", "--minutes 0.1"), tmp_path)
            assert result.returncode == 0, f"{line}\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}"
    assert len(list((tmp_path / "drafts").glob("*.srt"))) == 40
    assert (tmp_path / "corpus" / "check" / "report.html").is_file()
    assert (tmp_path / "model" / "card.md").is_file()


@pytest.mark.timeout(400)
def test_quickstart_with_own_recordings_goes_on_where_it_was(tmp_path: Path) -> None:
    make_recordings(tmp_path / "recordings")
    line = "firstwords quickstart --to made --corpus recordings --minutes 0.1"
    first = firstwords(line, tmp_path)
    assert first.returncode == 0, f"{first.stdout[-2000:]}\n{first.stderr[-2000:]}"
    for words in ("WER", "95 % interval", "Report:", "never trained on", "said ", "heard ", "Next"):
        assert words in first.stdout
    assert len([x for x in first.stdout.splitlines() if x.startswith("  firstwords ")]) == 3
    page = (tmp_path / "made" / "report.html").read_text(encoding="utf-8")
    assert "How well it hears" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    weights = (tmp_path / "made" / "model" / "model.safetensors").read_bytes()
    again = firstwords(line, tmp_path)
    assert again.returncode == 0, again.stderr[-2000:]
    assert "Imported earlier" in again.stdout
    assert "Checked earlier" in again.stdout
    assert (tmp_path / "made" / "model" / "model.safetensors").read_bytes() == weights
    other = firstwords("firstwords quickstart --to made --minutes 0.1", tmp_path)
    assert other.returncode != 0
    assert "Traceback" not in other.stderr
