"""Rescoring keeps what belongs to a reading, and gives times to one that has none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from firstwords.inference.second_pass import SecondPass, SecondPassConfig
from firstwords.lm.llm_context import ContextConfig
from firstwords.lm.llm_score import TextScore, TextScorer
from firstwords.search.hypothesis import Hypothesis


def _pass() -> SecondPass:
    """A scorer that likes long texts; a tokenizer that writes numbers."""

    def score(texts: Sequence[str], prompt: str) -> list[TextScore]:
        return [TextScore(log_prob=100.0 * len(text), tokens=1, characters=len(text)) for text in texts]

    scorer = SimpleNamespace(score=score, token_count=len)
    tokenizer = SimpleNamespace(decode=lambda tokens: " ".join(map(str, tokens)))
    return SecondPass(cast(Any, scorer), cast(Any, tokenizer))


def test_chosen_reading_without_times_gets_those_of_the_first() -> None:
    first = Hypothesis((1, 2), -1.0, {}, times=(0.5, 1.0), ends=(0.7, 2.5))
    other = Hypothesis((3, 4, 5, 6), -2.0, {})
    chosen, rest = _pass().alone([first, other])
    assert chosen.tokens == (3, 4, 5, 6)
    assert chosen.times == (0.5, 1.0, 1.5, 2.0)
    assert chosen.ends == (1.0, 1.5, 2.0, 2.5)
    assert (rest.tokens, rest.times, rest.ends) == (first.tokens, first.times, first.ends)


def test_chosen_reading_keeps_its_own_times() -> None:
    first = Hypothesis((1,), -1.0, {}, times=(0.5,), ends=(0.7,))
    other = Hypothesis((3, 4), -2.0, {}, times=(0.1, 0.2), ends=(0.2, 0.4))
    chosen = _pass().alone([first, other])[0]
    assert (chosen.tokens, chosen.times, chosen.ends) == (other.tokens, other.times, other.ends)


def test_nothing_to_share_out() -> None:
    empty = Hypothesis((), -1.0, {}, times=(), ends=())
    assert _pass().alone([empty, Hypothesis((3, 4), -2.0, {})])[0].times is None


def test_scores_of_what_was_chosen_are_kept_where_asked() -> None:
    """What depends on other readings, a score behind a prompt that had to be cut, is asked for anew."""
    asked: list[list[str]] = []

    def score(texts: Sequence[str], prompt: str) -> list[TextScore]:
        asked.append(list(texts))
        return [TextScore(-float(len(text)), 1, len(text), prompt_cut="7" in text) for text in texts]

    usual = _pass()
    second = SecondPass(cast(Any, SimpleNamespace(score=score, token_count=len)), usual.tokenizer)
    readings = [Hypothesis((3,), -1.0, {}), Hypothesis((3, 4), -1.5, {})]
    second.alone(readings)
    assert second.kept is None
    second.kept = {}
    second.alone(readings)
    second.alone([Hypothesis((7,), -1.0, {}), Hypothesis((7, 7), -1.5, {})])
    second.alone([Hypothesis((5,), -1.0, {})])  # nothing to choose from: it was not scored
    assert second.kept == {"3": TextScore(-1.0, 1, 1)}
    asked.clear()
    found = second.scores_of(["5", "3", "7", "5"])
    assert asked == [["5", "7"]]
    assert [one.log_prob for one in found] == [-1.0] * 4
    assert second.scores_of(["3"]) == [TextScore(-1.0, 1, 1)]
    assert len(asked) == 1


class Short(TextScorer):
    """A context of so many words for prompt and text; remembers its prompts."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.prompts: list[str] = []

    def score(self, texts: Sequence[str], prompt: str = "") -> list[TextScore]:
        self.prompts.append(prompt)
        return [TextScore(-1.0, 1, len(t), prompt_cut=self.prompt_cut(texts, prompt)) for t in texts]

    def prompt_cut(self, texts: Sequence[str], prompt: str) -> int:
        return max(0, len(prompt.split()) - (self.limit - max(len(text.split()) for text in texts)))

    def unwritten(self, texts: Iterable[str]) -> list[str]:
        return []

    def token_count(self, text: str) -> int:
        return len(text.split())


@pytest.mark.parametrize(
    ("limit", "prompts", "left_out", "cut"),
    [
        (9, ["D E", "D E\n1", "D E\n1\n2", "D E\n1\n2\n3"], 0, 0),
        (6, ["D E", "D E\n1", "D E\n1\n2", "D E\n3"], 2, 0),  # the last reading has three words
        (5, ["D E", "D E\n1", "D E\n1\n2", "D E"], 3, 0),
        (4, ["D E", "D E\n1", "D E\n2", "D E"], 3, 1),  # too long by itself before the last: it is cut
    ],
)
def test_the_domain_prompt_stays_and_the_oldest_texts_go(
    limit: int, prompts: list[str], left_out: int, cut: int
) -> None:
    scorer = Short(limit)
    config = SecondPassConfig(context=ContextConfig(confidence=0.0))
    second = SecondPass(scorer, _pass().tokenizer, config, prompt="D E")

    def said(*tokens: int) -> list[Hypothesis]:
        sure = Hypothesis(tokens, -1.0, {}, confidences=(1.0,) * len(tokens))
        return [sure, Hypothesis((0,), -2.0, {}, confidences=(1.0,))]

    second.in_order([said(1), said(2), said(3), said(7, 8, 9)])
    assert scorer.prompts == prompts
    assert (second.left_out, second.cut) == (left_out, cut)


def test_what_had_no_room_before_a_long_reading_is_back_before_a_short_one() -> None:
    scorer = Short(4)
    config = SecondPassConfig(context=ContextConfig(confidence=0.0))
    second = SecondPass(scorer, _pass().tokenizer, config, prompt="D")
    sure = {"confidences": (1.0,)}
    one = [Hypothesis((1,), -1.0, {}, **sure), Hypothesis((0,), -2.0, {}, **sure)]
    second.in_order([one, [one[1], Hypothesis((5, 6, 7), -9.0, {})], one])
    assert scorer.prompts == ["D", "D", "D\n1\n0"]
