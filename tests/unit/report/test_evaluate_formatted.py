"""Formatted and unformatted rates side by side, counted by hand."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from firstwords.data.manifest import Utterance
from firstwords.formatting.hotwords import Hotwords
from firstwords.formatting.number_table import load_table
from firstwords.formatting.numbers import Numbers
from firstwords.formatting.stage import Formatter
from firstwords.inference.transcript import Formatted, Segment, Transcript, Word, format_transcript
from firstwords.report.evaluate import evaluate, save_evaluation
from firstwords.report.evaluate_formatted import score_formatted
from firstwords.report.evaluate_model import transcribe_all
from firstwords.report.evaluation import Evaluation
from firstwords.report.evaluation_terminal import print_evaluation

SAID = {"a": "It costs $200.", "b": "From Accra to Lagos.", "c": "Ten"}
HEARD = {"a": "it costs two hundred dollars", "b": "from acra to logos", "c": "ten"}
FORMATTER = Formatter([Numbers(load_table("en")), Hotwords(["Accra", "Lagos"])])


def transcript(text: str) -> Transcript:
    words = tuple(Word(w, float(n), n + 0.5, 0.5) for n, w in enumerate(text.split()))
    return Transcript(text, (Segment(0.0, len(words) - 0.5, text, words, 0.5),), "en", float(len(words)), "")


class Writer:
    def transcribe_many(self, utterances: Iterable[Utterance]) -> Iterator[Transcript]:
        return (format_transcript(transcript(HEARD[u.id]), FORMATTER) for u in utterances)


@pytest.fixture
def evaluation() -> Evaluation:
    rows = [
        Utterance(id=n, text=t, audio=Path(f"{n}.wav"), duration=4.0, split="test") for n, t in SAID.items()
    ]
    formatted: dict[str, Formatted] = {}
    texts, failures = transcribe_all(Writer(), rows, None, formatted)
    assert texts == list(HEARD.values())
    assert not failures
    found = evaluate(rows, texts, model="m", corpus="c", split="test", replicates=50)
    assert score_formatted(found, {}) is None
    return replace(found, formatting=score_formatted(found, formatted, ["Accra", "Lagos"]))


def test_rates_by_hand(evaluation: Evaluation) -> None:
    found = evaluation.formatting
    assert found is not None
    assert found.texts == {"a": "it costs $200", "b": "from Accra to Lagos", "c": "10"}
    # as written: It|it, $200.|$200; From|from, Lagos.|Lagos; Ten|10
    assert (found.words.errors, found.words.reference_length) == (5, 8)
    # normalized: $200 is one word on both sides; Ten|10 is left
    assert (found.scored_words.errors, found.scored_words.reference_length) == (1, 8)
    # letters as written: I, "."; F, "."; Ten -> 10 is two substitutions and a deletion
    assert found.graphemes.errors == 2 + 2 + 3
    assert found.changes == {"numbers": 2, "hotwords": 2}
    assert found.phrases is not None
    before, after = found.phrases
    assert (before.hits, before.misses, before.false_alarms) == (0, 2, 0)
    assert (after.hits, after.misses, after.false_alarms) == (2, 0, 0)
    # unformatted: $200 -> two hundred dollars is 3 errors, acra and logos 2
    assert evaluation.words.errors == 3 + 2


def test_a_hot_word_where_none_was_said_is_a_false_alarm(evaluation: Evaluation) -> None:
    wrong = format_transcript(transcript("ten acra"), FORMATTER).formatted
    assert wrong is not None
    found = score_formatted(evaluation, {"c": wrong}, ["Accra"])
    assert found is not None
    assert found.phrases is not None
    assert [c.false_alarms for c in found.phrases] == [0, 1]


def test_they_stand_in_every_report(evaluation: Evaluation, tmp_path: Path) -> None:
    page = save_evaluation(evaluation, tmp_path, audio=False)
    assert "WER, formatted" in page.read_text(encoding="utf-8")
    assert "false alarms 0" in page.read_text(encoding="utf-8")
    record = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    assert record["formatting"]["word_error_rate"]["errors"] == 5
    assert record["formatting"]["hotwords"]["after"] == {"hits": 2, "misses": 0, "false_alarms": 0}
    lines = (tmp_path / "hypotheses.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["formatted"] for line in lines] == ["it costs $200", "from Accra to Lagos", "10"]
    assert [json.loads(line)["hypothesis"] for line in lines] == list(HEARD.values())
    out = io.StringIO()
    print_evaluation(evaluation, Console(width=120, file=out))
    assert "WER after stages" in out.getvalue()


def test_without_stages_nothing_is_said_of_them(tmp_path: Path) -> None:
    row = Utterance(id="a", text="one", audio=Path("a.wav"), duration=1.0, split="test")
    found = evaluate([row], ["one"], replicates=50)
    save_evaluation(found, tmp_path, audio=False)
    assert "formatting" not in json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    assert "formatted" not in (tmp_path / "hypotheses.jsonl").read_text(encoding="utf-8")
