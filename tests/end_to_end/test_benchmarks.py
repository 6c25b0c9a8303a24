"""Benchmarks are run seldom and by hand: each mode still starts and writes what it should."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.slow
def test_architectures_are_compared_without_training(tmp_path: Path) -> None:
    orders = [sys.executable, str(BENCHMARKS / "architectures.py"), "--speed", "--size", "tiny"]
    orders += ["--only", "zipformer", "conformer", "--rounds", "1", "--folder", str(tmp_path)]
    done = subprocess.run(orders, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "speed-tiny.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip(): line for line in table.splitlines() if line.startswith("| ")}
    assert list(rows) == ["variant", "zipformer", "conformer"]
    assert "fp32 8 x 30 s" in rows["variant"]
    assert "memory 30 s MB" in rows["variant"]
    for cell in rows["zipformer"].split("|")[4:-3]:
        assert cell.strip().endswith("(1.00)")
        assert float(cell.split()[0]) > 0
