"""Readings put in a new order by a language model: pure functions, and the search for their weights.

    score = first pass + (weight * log P_lm(text) / tokens ^ length_power + word_bonus * words) / divisor

A search that divides its own sums by a power of the length (attention_beam) says so (``Hypothesis.divisor``);
otherwise 1. A sum beside a quotient would count the more, the longer a reading is.

The language model chooses among the readings that the recogniser found; it never writes one. Its part of the
score stands beside the others in ``Hypothesis.parts``, so ``score`` stays their sum.

Weights are tuned on readings of a development set, never of the test set (``tune_rescoring`` refuses it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Annotated

from pydantic import Field, FiniteFloat

from firstwords.config import Config
from firstwords.errors import UsageError
from firstwords.lm.llm_score import TextScore
from firstwords.scoring.error_rate import ErrorRate, word_errors
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.tuning import Errors, check_split

LM, WORDS, CHOICE = "llm", "words", "choice"

_WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.4, 2.0)
_POWERS = (0.0, 0.5, 1.0)
_BONUSES = (-2.0, -1.0, 0.0, 1.0, 2.0, 4.0)


class RescoreConfig(Config):
    """How much the language model says."""

    weight: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.3  # 0: the first pass's scores alone
    length_power: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0  # 0: sums; 1: means over the tokens
    word_bonus: FiniteFloat = 0.0  # nats a word: sums favor short readings


@dataclass(frozen=True)
class Candidate:
    """One reading of a development utterance: what both passes say of it, and how wrong it is."""

    acoustic: float
    score: TextScore
    words: int
    errors: ErrorRate
    divisor: float = 1.0


@dataclass(frozen=True)
class TunedRescoring:
    """The best settings found, the error rate with them, with the first pass alone, and the best possible."""

    config: RescoreConfig
    errors: ErrorRate
    before: ErrorRate
    oracle: ErrorRate


def rescore(
    readings: Sequence[Hypothesis], texts: Sequence[str], scores: Sequence[TextScore], config: RescoreConfig
) -> list[Hypothesis]:
    """Readings, their texts and what a language model says of these -> the same readings, best first.

    Ties stay in the order of the first pass.
    """
    if not len(readings) == len(texts) == len(scores):
        raise ValueError(f"{len(readings)} readings, {len(texts)} texts, {len(scores)} scores")
    scored: list[Hypothesis] = []
    for reading, text, score in zip(readings, texts, scores, strict=True):
        added = {LM: config.weight * _normalized(score, config.length_power) / reading.divisor}
        if config.word_bonus:
            added[WORDS] = config.word_bonus * len(text.split()) / reading.divisor
        total = reading.score + sum(added.values())
        scored.append(replace(reading, score=total, parts={**reading.parts, **added}))
    return sorted(scored, key=lambda reading: -reading.score)


def put_first(readings: Sequence[Hypothesis], choice: int) -> list[Hypothesis]:
    """Readings, best first, and the number of the one to prefer -> that one, then the others as they were.

    The part "choice" lifts its score to that of the reading it replaces.
    """
    if not 0 <= choice < len(readings):
        raise ValueError(f"choice {choice} of {len(readings)} readings")
    chosen = readings[choice]
    lift = max(0.0, readings[0].score - chosen.score)
    first = replace(chosen, score=chosen.score + lift, parts={**chosen.parts, CHOICE: lift})
    return [first, *readings[:choice], *readings[choice + 1 :]]


def candidates(
    readings: Sequence[Hypothesis],
    texts: Sequence[str],
    scores: Sequence[TextScore],
    reference: str,
    *,
    errors: Errors = word_errors,
) -> list[Candidate]:
    """The readings of one utterance and what was said, normalized alike -> what ``tune_rescoring`` needs."""
    return [
        Candidate(reading.score, score, len(text.split()), errors(reference, text), reading.divisor)
        for reading, text, score in zip(readings, texts, scores, strict=True)
    ]


def tune_rescoring(
    utterances: Sequence[Sequence[Candidate]],
    split: str,
    *,
    weights: Sequence[float] = _WEIGHTS,
    length_powers: Sequence[float] = _POWERS,
    word_bonuses: Sequence[float] = _BONUSES,
    any_split: bool = False,
) -> TunedRescoring:
    """Candidates of development utterances -> the settings with the fewest errors.

    Every combination is tried. Of equal ones the smallest weight wins, then the smallest bonus and power:
    what changes least.

    Args:
        split: where the utterances are from; only one called dev or the like is taken.
        any_split: take one of another name, too; never test.
    """
    check_split(split, any_split=any_split)
    tried = [found for found in utterances if found]
    if not tried:
        raise UsageError("There are no readings to tune on.", mend="Give n-best lists of dev utterances.")
    grid = [
        RescoreConfig(weight=weight, length_power=power, word_bonus=bonus)
        for weight, bonus, power in product(
            sorted(weights), sorted(word_bonuses, key=lambda b: (abs(b), b)), sorted(length_powers)
        )
        if weight or not power  # a power without a weight changes nothing
    ]
    if not grid:
        raise UsageError("There are no weights to try.", mend="Give at least one weight.")
    rates = [ErrorRate.total(_best(found, config).errors for found in tried) for config in grid]
    fewest = min(range(len(grid)), key=lambda i: rates[i].errors)
    return TunedRescoring(
        config=grid[fewest],
        errors=rates[fewest],
        before=ErrorRate.total(max(found, key=lambda c: c.acoustic).errors for found in tried),
        oracle=ErrorRate.total(min(found, key=lambda c: c.errors.errors).errors for found in tried),
    )


def _best(found: Sequence[Candidate], config: RescoreConfig) -> Candidate:
    return max(
        found,
        key=lambda c: (
            c.acoustic
            + (config.weight * _normalized(c.score, config.length_power) + config.word_bonus * c.words)
            / c.divisor
        ),
    )


def _normalized(score: TextScore, power: float) -> float:
    return score.log_prob / max(1, score.tokens) ** power
