"""What is carried from segment to segment, and how good a transcript looks."""

from __future__ import annotations

import math

import pytest

from firstwords.errors import UsageError
from firstwords.lm.llm_context import CarriedContext, ContextConfig
from firstwords.lm.llm_quality import transcript_quality
from firstwords.lm.llm_score import TextScore


def words(text: str) -> int:
    return len(text.split())


def test_sure_texts_are_carried_up_to_so_many_tokens() -> None:
    context = CarriedContext(ContextConfig(tokens=5, confidence=0.8))
    assert context.prompt() == ""
    assert context.prompt("A talk. ") == "A talk."
    context = context.after(" one  two ", 0.9, words)
    context = context.after("three four", 0.8, words)
    assert context.prompt("A talk.") == "A talk.\none two\nthree four"
    context = context.after("", 0.0, words)  # silence changes nothing
    assert context.prompt() == "one two\nthree four"
    assert context.after("five six", 0.9, words).prompt() == "three four\nfive six"
    assert context.after("a b c d e f", 0.9, words).prompt() == ""  # too long by itself
    assert context.prompt(separator=" / ") == "one two / three four"


@pytest.mark.parametrize("confidence", [0.79, 0.0, None])
def test_an_unsure_segment_breaks_the_chain(confidence: float | None) -> None:
    context = CarriedContext(ContextConfig(confidence=0.8)).after("one", 0.9, words)
    context = context.after("two", confidence, words)
    assert context.prompt() == ""
    assert context.after("three", 0.9, words).prompt() == "three"


def test_nothing_is_carried_with_no_tokens() -> None:
    assert CarriedContext(ContextConfig(tokens=0)).after("one", 1.0, words).prompt() == ""


def test_quality_by_hand() -> None:
    score = TextScore(-12.0, 4, 6)
    assert transcript_quality(score) == -2.0
    assert transcript_quality(score, 0.5, weight=2.0) == pytest.approx(-2.0 + 2.0 * math.log(0.5))
    assert transcript_quality(score, 0.0, weight=1.0) == pytest.approx(-2.0 + math.log(1e-6))
    assert transcript_quality(TextScore(-3.0, 1, 0)) == -3.0
    with pytest.raises(UsageError, match="not known, but has a weight"):
        transcript_quality(score, None, weight=1.0)
