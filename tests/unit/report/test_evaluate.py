"""An evaluation by hand, its files, a fake recogniser that fails, and two systems compared."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from rich.console import Console

from firstwords.data.manifest import Utterance
from firstwords.errors import CorpusError, WriteError
from firstwords.report.evaluate import compare, evaluate, folder_for, save_evaluation
from firstwords.report.evaluation import Confusion
from firstwords.report.evaluation_json import read_hypotheses, to_json
from firstwords.report.evaluation_terminal import print_evaluation
from firstwords.scoring.error_rate import ErrorRate


@dataclass
class Heard:
    text: str


def utterance(name: str, text: str | None, **fields: Any) -> Utterance:
    values: dict[str, Any] = {"audio": Path(f"{name}.wav"), "duration": 4.0, "split": "test", **fields}
    return Utterance(id=name, text=text, **values)


UTTERANCES = [
    utterance("a", "Ọjọ́ dára.", speaker="s1", labels={"accent": "north"}),
    utterance("b", "Ọjọ́ dára!", speaker="s1", duration=1.0, labels={"accent": "south"}),
    utterance("c", "Ó dàbọ̀", speaker="s2", duration=12.0, labels={"accent": "south"}),
    utterance("d", "", speaker="s2", duration=5.0),
    utterance("e", None),
    utterance("f", "unread"),
]
HEARD = ["ọjọ́ dára", "ojo dára dára", "ó", "", "anything", None]


def evaluation(**options: Any) -> Any:
    heard = [None if t is None else Heard(t) for t in HEARD]
    return evaluate(UTTERANCES, heard, replicates=200, model="m", corpus="c", split="test", **options)


def test_totals_by_hand() -> None:
    got = evaluation(failures={"f": "no such file"}, seconds=2.2)
    # a right; b: ọjọ́ -> ojo and one word too many; c: the second word lost; d silent and right
    assert got.words == ErrorRate(1, 1, 1, 6)
    # b: two letters replaced and " dára" put in; c: " dàbọ̀" lost
    assert got.graphemes == ErrorRate(2, 5, 5, 8 + 8 + 6)
    assert got.total("bare_graphemes") == ErrorRate(0, 5, 5, 22)
    assert got.total("labels") == ErrorRate(2, 4, 4, 7 + 7 + 5)  # the same without spaces
    assert got.skipped == {"e": "no reference text", "f": "no such file"}
    assert got.silent == (1, 1)
    assert got.real_time_factor == pytest.approx(0.1)
    assert [r.utterance.id for r in got.worst()] == ["b", "c"]
    assert got.word_interval.unit == "utterance"
    assert got.words.match_error_rate == pytest.approx(3 / 7)


def test_raw_counts_case_and_punctuation() -> None:
    got = evaluate([utterance("x", "Yes, it is.")], ["yes it is"], replicates=10)
    assert got.words.errors == 0
    assert got.total("raw_words") == ErrorRate(2, 0, 0, 3)
    assert got.total("raw_graphemes").errors == 3


def test_baselines() -> None:
    nothing, commonest = evaluation().baselines
    assert (nothing.words.rate, nothing.graphemes.rate) == (1.0, 1.0)
    assert commonest.text == "ọjọ́ dára"
    assert commonest.words == ErrorRate(2, 0, 2, 6)
    trained = evaluation(training_texts=["Ó", "ó.", "ọjọ́"]).baselines[1]
    assert (trained.text, trained.words) == ("ó", ErrorRate(2, 3, 1, 6))


def test_tables() -> None:
    tables = evaluation().tables
    assert set(tables) == {"duration", "speaker", "accent"}
    assert [(r.value, r.utterances) for r in tables["duration"]] == [
        ("0–2 s", 1), ("2–5 s", 1), ("5–10 s", 1), ("10–20 s", 1),
    ]  # fmt: skip
    assert {r.value: r.utterances for r in tables["accent"]} == {"north": 1, "south": 2, "(not stated)": 1}
    for rows in tables.values():
        assert ErrorRate.total(r.words for r in rows) == evaluation().words
    assert [r.value for r in tables["speaker"]] == ["s1", "s2"]


def test_confusions() -> None:
    got = evaluation()
    assert Confusion("ọjọ́", "ojo", 1) in got.word_confusions
    assert Confusion(None, "dára", 1) in got.word_confusions
    assert Confusion("dàbọ̀", None, 1) in got.word_confusions
    assert {(c.said, c.written) for c in got.grapheme_confusions} >= {("ọ", "o"), ("ọ́", "o"), (" ", None)}
    assert sum(c.count for c in got.grapheme_confusions) == got.graphemes.errors


def test_nothing_to_score_is_said() -> None:
    with pytest.raises(CorpusError, match="nothing to score: 1 utterances"):
        evaluate([utterance("e", None)], ["x"])
    with pytest.raises(ValueError, match="zip"):
        evaluate(UTTERANCES, ["x"])


def with_audio(folder: Path) -> tuple[list[Utterance], list[str]]:
    """One short file, one stretch of a long file, one file that is not there; a hostile transcript."""
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000 * 3).astype(np.float32)
    soundfile.write(folder / "whole.wav", noise[:16_000], 16_000)
    soundfile.write(folder / "long.flac", noise, 16_000)
    return [
        utterance("whole", "مرحبا <b>&amp;</b>", audio=folder / "whole.wav", duration=1.0, language="ar"),
        utterance("stretch", "two words", audio=folder / "long.flac", start=1.0, duration=1.0),
        utterance("gone", "no file", audio=folder / "gone.wav"),
    ], ["<script>alert(1)</script>", "two", ""]


def test_files(tmp_path: Path) -> None:
    utterances, heard = with_audio(tmp_path)
    got = evaluate(utterances, heard, replicates=50, corpus="c", note="synthetic voices")
    page = save_evaluation(got, tmp_path / "out")
    html = page.read_text(encoding="utf-8")
    assert html.count("<audio") == 2
    assert "data:audio/flac" in html
    assert "data:audio/wav" in html
    assert "Audio of gone" in html
    assert "synthetic voices" in html
    assert "<script" not in html
    assert "<b>" not in html
    assert 'lang="ar"' in html
    figures = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    assert figures["word_error_rate"]["errors"] == got.words.errors
    assert figures["normalizer"] == "score_default"
    assert read_hypotheses(tmp_path / "out" / "hypotheses.jsonl") == dict(
        zip(["whole", "stretch", "gone"], heard, strict=True)
    )
    save_evaluation(got, tmp_path / "quiet", audio=False)
    assert "<audio" not in (tmp_path / "quiet" / "report.html").read_text(encoding="utf-8")


def test_json_is_strict_even_where_a_rate_is_infinite() -> None:
    got = evaluate([utterance("n", "")], ["noise"], replicates=10)
    text = json.dumps(to_json(got), allow_nan=False)
    assert json.loads(text)["word_error_rate"]["rate"] is None


def shown(got: Any) -> str:
    console = Console(width=150, record=True, file=None, quiet=False)
    with console.capture() as caught:
        print_evaluation(got, console)
    return caught.get()


def test_terminal() -> None:
    text = shown(evaluation(seconds=2.2, hardware="a [small] machine", failures={"f": "no such file"}))
    for expected in (
        "50.0 %", "CER without diacritics", "LER", "MER", "normalizer score_default",
        "Real-time factor 0.100", "a [small] machine", "says nothing", "4 utterances",
        "fewer than 10 speakers", "1 of 1 gave empty text", "f (no such file)",
    ):  # fmt: skip
        assert expected in text


def test_without_an_error_the_rule_of_three_speaks() -> None:
    text = shown(evaluate([utterance(str(i), "a b c d") for i in range(15)], ["a b c d"] * 15, replicates=10))
    assert "0.0–5.0 %" in text
    assert "rule of three" in text
    assert "Only" not in text
    few = evaluate([utterance("a", "a b c d")], ["a b c d"], replicates=10)
    assert "Only 1 utterance to draw from" in shown(few)
    assert to_json(few)["word_error_rate"]["interval"]["high"] == 0.75


def test_only_non_speech_is_evaluated_and_shown(tmp_path: Path) -> None:
    rows = [utterance(str(i), "") for i in range(3)]
    got = evaluate(rows, ["", "", "word"], replicates=10, corpus="noise")
    assert got.silent == (2, 3)
    assert "2 of 3 gave empty text" in shown(got)
    save_evaluation(got, tmp_path, audio=False)
    read = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    assert read["word_error_rate"]["rate"] is None


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(WriteError, match=r"cannot be written"):
        save_evaluation(evaluation(), tmp_path / "file" / "below", audio=False)


def systems(count: int = 40) -> tuple[Any, Any]:
    utterances = [utterance(f"u{i}", "one two three four five", speaker=f"s{i % 12}") for i in range(count)]
    good = ["one two three four five"] * (count - 4) + ["one two three four"] * 4
    bad = ["one too three"] * (count - 4) + ["one two three four"] * 4
    return (
        evaluate(utterances, bad, model="old", replicates=10),
        evaluate(utterances, good, model="new", replicates=10),
    )


def test_a_better_system_is_found_significantly_better() -> None:
    old, new = systems()
    found = compare(old, new, replicates=1000).comparison
    assert found is not None
    assert (found.first, found.second, found.utterances) == ("old", "new", 40)
    assert found.words.difference == pytest.approx(new.words.rate - old.words.rate)
    assert found.words.significant
    assert found.words.interval.unit == "speaker"
    assert found.matched_pairs_p < 1e-6
    text = shown(compare(old, new, replicates=1000))
    assert "significantly better" in text
    assert "p < 0.0001" in text
    assert "40 utterances, 2.7 minutes, 12 speakers" in text
    assert "significantly worse" in shown(compare(new, old, replicates=1000))


def test_comparison_needs_the_same_references() -> None:
    old, new = systems()
    other = evaluate([utterance("u0", "else")], ["else"], replicates=10)
    with pytest.raises(CorpusError, match="'u0' has two different references"):
        compare(old, other)
    with pytest.raises(CorpusError, match="no utterance in common"):
        compare(old, evaluate([utterance("z", "else")], ["else"], replicates=10))
    with pytest.raises(ValueError, match="score_turkic"):
        compare(old, evaluate([utterance("u0", "a")], ["a"], replicates=10, scoring="score_turkic"))
    assert compare(new, new, replicates=100).comparison.words.p_value == 1.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no hypotheses"),
        ("{", "line 1 of"),
        ("[1]", "no text 'id'"),
        ('{"id": "a", "hypothesis": 3}', "no text 'id'"),
        ('{"id": "a", "hypothesis": "x"}\n' * 2, "stands twice"),
    ],
)
def test_hostile_hypotheses(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "hypotheses.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(CorpusError, match=message):
        read_hypotheses(path)


def test_reports_of_models_in_folders_of_one_name_do_not_replace_each_other(tmp_path: Path) -> None:
    def saved(model: str, corpus: str = "/data/c") -> str:
        made = replace(evaluation(), made_from={"model": model, "corpus": corpus})
        folder = folder_for(made, tmp_path, ending="-lm")
        save_evaluation(made, folder, audio=False)
        return folder.name

    assert saved("/models/first/m") == "m-c-test-lm"
    assert saved("/models/second/m") == "second-m-c-test-lm"
    assert saved("/home/second/m") == "second-m-c-test-lm-2"
    assert saved("/models/first/m", "/other/c") == "first-m-c-test-lm"
    assert saved("/models/first/m") == "m-c-test-lm"  # the same again: replaced
    assert saved("/home/second/m") == "second-m-c-test-lm-2"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "first-m-c-test-lm", "m-c-test-lm", "second-m-c-test-lm", "second-m-c-test-lm-2",
    ]  # fmt: skip


def test_a_report_of_which_nobody_knows_the_model_is_left_alone(tmp_path: Path) -> None:
    made = replace(evaluation(), made_from={"model": "/models/first/m", "corpus": "/data/c"})
    for number, content in enumerate(('{"model": "m"}', "[]", "{torn")):
        home = tmp_path / str(number)
        (home / "m-c-test").mkdir(parents=True)
        (home / "m-c-test" / "evaluation.json").write_text(content, encoding="utf-8")
        assert folder_for(made, home).name == "first-m-c-test"
    (tmp_path / "file").write_text("x", encoding="utf-8")
    assert folder_for(made, tmp_path / "file").name == "m-c-test"
