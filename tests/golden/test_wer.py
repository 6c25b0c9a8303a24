"""Word and character errors equal kaldialign's and jiwer's totals on 200 pairs (see golden/README.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from firstwords.scoring.error_rate import ErrorRate, sequence_errors, word_errors


def character_errors(reference: str, hypothesis: str) -> ErrorRate:
    """Of code points without white space: what most tools call CER; ours counts what readers call letters."""
    return sequence_errors(*([c for c in text if not c.isspace()] for text in (reference, hypothesis)))


@pytest.fixture(scope="module")
def reference(golden: Path) -> dict[str, Any]:
    return json.loads((golden / "wer.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("unit", "count"), [("word", word_errors), ("char", character_errors)])
def test_all_pairs(reference: dict[str, Any], unit: str, count: Any) -> None:
    """Totals exact; the split equals either tool's."""
    pairs = reference["pairs"]
    assert len(pairs) == 200
    total = ErrorRate()
    for pair in pairs:
        got = count(pair["ref"], pair["hyp"])
        total += got
        tools = [tool for tool in (pair[unit]["kaldialign"], pair[unit]["jiwer"]) if tool is not None]
        assert {got.errors} == {tool["sub"] + tool["del"] + tool["ins"] for tool in tools}, pair["id"]
        split = (got.substitutions, got.deletions, got.insertions)
        assert split in [(tool["sub"], tool["del"], tool["ins"]) for tool in tools], pair["id"]
        assert got.reference_length == len(pair[f"ref_{unit}s"])
    totals = reference["totals"]
    kaldialign = totals[f"{unit}_kaldialign"]
    assert total.errors == kaldialign["sub"] + kaldialign["del"] + kaldialign["ins"]
    assert total.reference_length == totals[f"{unit}_ref_tokens"]
    assert total.rate == pytest.approx(totals[f"{unit}_corpus_error_rate"], rel=1e-12)
