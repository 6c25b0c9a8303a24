"""What is known without a reference, judged against true errors, in the summary and in the files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from firstwords.data.manifest import Utterance
from firstwords.inference.second_pass import SecondPass
from firstwords.lm.llm_score import TextScore, TextScorer
from firstwords.report.evaluate import evaluate, save_evaluation
from firstwords.report.evaluate_quality import score_quality
from firstwords.report.evaluation import Evaluation
from firstwords.report.evaluation_terminal import circumstances
from firstwords.text.characters import GraphemeTokenizer

# id: what was said, what was heard, how sure
HEARD = {
    "right": ("abc", "abc", 0.9),
    "right too": ("a b", "a b", 0.5),
    "wrong": ("abc", "zz", 0.6),
    "silent": ("abc", "", 0.0),
}


class NoZ(TextScorer):
    """A letter costs 1 nat, a z 3."""

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def score(self, texts: Sequence[str], prompt: str = "") -> list[TextScore]:
        self.prompts.append(prompt)
        return [TextScore(-float(len(t) + 2 * t.count("z")), len(t), len(t)) for t in texts]

    def prompt_cut(self, texts: Sequence[str], prompt: str) -> int:
        return 0

    def unwritten(self, texts: Iterable[str]) -> list[str]:
        return []

    def token_count(self, text: str) -> int:
        return len(text)


def second_pass(choose: Callable[[Sequence[str], str], int | None] | None = None) -> SecondPass:
    return SecondPass(NoZ(), GraphemeTokenizer(["<blank>", "a"]), prompt="p", choose=choose)


def evaluation(names: Sequence[str]) -> Evaluation:
    utterances = [
        Utterance(id=name, audio=Path(f"{name}.wav"), duration=1.0, text=HEARD[name][0]) for name in names
    ]
    return evaluate(utterances, [HEARD[name][1] for name in names], replicates=100)


def test_areas_by_hand_and_where_they_stand(tmp_path: Path) -> None:
    confidences = {name: sure for name, (_, text, sure) in HEARD.items() if text}
    plain, second = evaluation(list(HEARD)), second_pass()
    found = score_quality(plain, second, confidences)
    assert found is not None
    assert isinstance(second.scorer, NoZ)
    assert second.scorer.prompts == ["p"]
    assert found.scores == {"right": -1.0, "right too": -1.0, "wrong": -3.0}  # nothing is said of no text
    assert found.wrong == 1
    # right 0.9, 0.5 against wrong 0.6: one pair of two by the confidence alone
    assert {name: area.value for name, area in found.areas.items()} == {
        "text": 1.0,
        "confidence": 0.5,
        "both": 1.0,
    }
    assert all(area.interval.groups == 3 for area in found.areas.values())
    whole = replace(plain, quality=found)
    (line,) = [line for line in circumstances(whole) if line.startswith("Quality without reference")]
    assert "1 of 3 utterances with text have an error; area under the curve 1.00 (1.00–1.00) by the" in line
    save_evaluation(whole, tmp_path / "report", audio=False)
    figures = json.loads((tmp_path / "report" / "evaluation.json").read_text(encoding="utf-8"))["quality"]
    assert (figures["utterances"], figures["with_errors"]) == (3, 1)
    assert figures["area_under_curve"]["confidence"]["value"] == 0.5
    assert figures["area_under_curve"]["confidence"]["interval"]["level"] == 0.95
    lines = (tmp_path / "report" / "hypotheses.jsonl").read_text(encoding="utf-8").splitlines()
    records = {record["id"]: record for record in map(json.loads, lines)}
    assert (records["wrong"]["quality"], records["wrong"]["confidence"]) == (-3.0, 0.6)
    assert "quality" not in records["silent"]
    assert "Quality without reference" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


def test_where_nothing_can_be_told() -> None:
    right = evaluation(["right", "right too"])
    found = score_quality(right, second_pass(), {"right": 0.9, "right too": 0.5})
    assert found is not None
    assert found.areas == {}
    assert "0 of 2 utterances with text have an error, so nothing can be told apart" in " ".join(
        circumstances(replace(right, quality=found))
    )
    assert score_quality(evaluation(["silent"]), second_pass(), {}) is None
    assert score_quality(right, second_pass(choose=lambda texts, prompt: None), {"right": 0.9}) is None


def test_without_a_second_pass_nothing_is_said() -> None:
    plain = evaluation(["right", "wrong"])
    assert plain.quality is None
    assert not any("without reference" in line for line in circumstances(plain))
