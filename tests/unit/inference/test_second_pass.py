"""Rescoring keeps what belongs to a reading, and gives times to one that has none."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

from firstwords.inference.second_pass import SecondPass
from firstwords.lm.llm_score import TextScore
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
