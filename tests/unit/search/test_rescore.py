"""Re-ranking: only the order changes, scores are sums of parts, weights by counting errors, never on test."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstwords.errors import SearchError, UsageError
from firstwords.lm.llm_score import TextScore
from firstwords.scoring.error_rate import ErrorRate, word_errors
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.rescore import Candidate, RescoreConfig, candidates, put_first, rescore, tune_rescoring

numbers = st.floats(-50, 0)
lists = st.lists(st.tuples(numbers, numbers, st.integers(0, 9)), min_size=0, max_size=8)


def reading(number: int, score: float) -> Hypothesis:
    return Hypothesis((number,), score, {"ctc": score}, (0.0,), (0.1,), (0.5,))


def test_by_hand() -> None:
    found = [reading(1, -1.0), reading(2, -2.0), reading(3, -9.0)]
    scores = [TextScore(-10.0, 4, 9), TextScore(-4.0, 4, 9), TextScore(-1.0, 1, 9)]
    texts = ["a b c", "a b", "a"]
    config = RescoreConfig(weight=0.5, length_power=0.5, word_bonus=1.0)
    # -1 - 0.5 * 10 / 2 + 3;  -2 - 0.5 * 4 / 2 + 2;  -9 - 0.5 * 1 + 1
    ordered = rescore(found, texts, scores, config)
    assert [(h.tokens, h.score) for h in ordered] == [((1,), -0.5), ((2,), -1.0), ((3,), -8.5)]
    assert ordered[0].parts == {"ctc": -1.0, "llm": -2.5, "words": 3.0}
    plain = rescore(found, texts, scores, RescoreConfig(weight=1.0))
    assert [(h.tokens, h.score) for h in plain] == [((2,), -6.0), ((3,), -10.0), ((1,), -11.0)]
    assert plain[0].parts == {"ctc": -2.0, "llm": -4.0}
    assert (plain[0].times, plain[0].ends, plain[0].confidences) == ((0.0,), (0.1,), (0.5,))


@settings(deadline=None)
@given(lists, st.floats(0, 3), st.sampled_from([0.0, 0.5, 1.0]), st.floats(-3, 3))
def test_only_the_order_changes(
    items: list[tuple[float, float, int]], weight: float, power: float, bonus: float
) -> None:
    items.sort(key=lambda item: -item[0])
    found = [reading(i, acoustic) for i, (acoustic, _, _) in enumerate(items)]
    scores = [TextScore(log_prob, size, size) for _, log_prob, size in items]
    texts = ["w " * size for _, _, size in items]
    config = RescoreConfig(weight=weight, length_power=power, word_bonus=bonus)
    ordered = rescore(found, texts, scores, config)
    assert sorted(h.tokens for h in ordered) == [h.tokens for h in found]
    assert [h.score for h in ordered] == sorted((h.score for h in ordered), reverse=True)
    for h in ordered:
        assert h.score == pytest.approx(sum(h.parts.values()))
        assert h.parts["ctc"] == found[h.tokens[0]].score
    assert rescore(found, texts, scores, RescoreConfig(weight=0.0)) == [
        Hypothesis(h.tokens, h.score, {**h.parts, "llm": 0.0}, h.times, h.ends, h.confidences) for h in found
    ]


@given(st.lists(numbers, min_size=1, max_size=6), st.data())
def test_a_choice_comes_first_and_nothing_else_moves(scores: list[float], data: st.DataObject) -> None:
    found = [reading(i, s) for i, s in enumerate(sorted(scores, reverse=True))]
    choice = data.draw(st.integers(0, len(found) - 1))
    ordered = put_first(found, choice)
    assert [h.tokens[0] for h in ordered] == [choice, *(i for i in range(len(found)) if i != choice)]
    assert ordered[1:] == [h for h in found if h.tokens[0] != choice]
    assert ordered[0].score == pytest.approx(found[0].score)
    assert ordered[0].score == pytest.approx(sum(ordered[0].parts.values()))


def test_a_choice_that_is_none() -> None:
    with pytest.raises(ValueError, match="choice 2 of 2"):
        put_first([reading(0, -1.0), reading(1, -2.0)], 2)
    with pytest.raises(ValueError, match="1 readings, 0 texts, 1 scores"):
        rescore([reading(0, -1.0)], [], [TextScore(0.0, 0, 0)], RescoreConfig())


def one(acoustic: float, log_prob: float, errors: int) -> Candidate:
    return Candidate(acoustic, TextScore(log_prob, 2, 5), 2, ErrorRate(errors, 0, 0, 5))


def test_the_weight_with_the_fewest_errors() -> None:
    # Right where -1 + w * -8 < -2 + w * -4, that is w > 0.25, and where w < 0.5 in the second.
    dev = [[one(-1, -8, 2), one(-2, -4, 0)], [one(-1, -4, 0), one(-2, -2, 3)]]
    found = tune_rescoring(dev, "dev", length_powers=[0.0], word_bonuses=[0.0])
    assert found.config == RescoreConfig(weight=0.3)
    assert (found.errors.errors, found.before.errors, found.oracle.errors) == (0, 2, 0)
    only_large = tune_rescoring(dev, "dev", weights=[0.0, 1.0], length_powers=[0.0], word_bonuses=[0.0])
    assert (only_large.config.weight, only_large.errors.errors) == (0.0, 2)  # 1.0 makes three


def test_what_changes_least_wins_among_equals() -> None:
    same = [[one(-1, -8, 1), one(-2, -9, 1)]]
    assert tune_rescoring(same, "dev").config == RescoreConfig(weight=0.0)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(numbers, numbers, st.integers(0, 4)), min_size=1, max_size=4),
        min_size=1,
        max_size=5,
    )
)
def test_tuning_tries_everything(items: list[list[tuple[float, float, int]]]) -> None:
    dev = [[one(*item) for item in found] for found in items]
    weights, powers, bonuses = (0.0, 0.5, 1.0), (0.0, 1.0), (-1.0, 0.0)
    found = tune_rescoring(dev, "dev", weights=weights, length_powers=powers, word_bonuses=bonuses)

    def errors(weight: float, power: float, bonus: float) -> int:
        total = 0
        for options in dev:
            best = max(
                options,
                key=lambda c: c.acoustic + weight * c.score.log_prob / 2**power + bonus * c.words,
            )
            total += best.errors.errors
        return total

    every = [errors(w, p, b) for w, p, b in itertools.product(weights, powers, bonuses)]
    assert found.errors.errors == min(every)
    assert found.oracle.errors <= found.errors.errors <= found.before.errors
    assert errors(found.config.weight, found.config.length_power, found.config.word_bonus) == min(every)


def test_never_on_test() -> None:
    for split in ("test", "Test-clean"):
        with pytest.raises(SearchError, match="Weights are not tuned on"):
            tune_rescoring([[one(-1, -8, 2)]], split)
    with pytest.raises(UsageError, match="no readings"):
        tune_rescoring([[], []], "dev")


def test_candidates_count_words_and_errors() -> None:
    found = candidates(
        [reading(1, -1.0), reading(2, -3.0)],
        ["a b", "a c d"],
        [TextScore(-5.0, 3, 3), TextScore(-6.0, 4, 5)],
        "a b c",
    )
    assert [(c.acoustic, c.words, c.errors) for c in found] == [
        (-1.0, 2, word_errors("a b c", "a b")),
        (-3.0, 3, word_errors("a b c", "a c d")),
    ]


def test_what_a_search_has_divided_the_language_model_is_divided_by() -> None:
    # sums -8 and -6, divided by 4 and 2; the language model says -10 and -8 with a weight of 0.5
    long = Hypothesis((1, 2, 3), -2.0, {"attention": -2.0}, divisor=4.0)
    short = Hypothesis((1,), -3.0, {"attention": -3.0}, divisor=2.0)
    scores = [TextScore(-10.0, 3, 9), TextScore(-8.0, 1, 3)]
    config = RescoreConfig(weight=0.5, word_bonus=0.2)
    ordered = rescore([long, short], ["a b c", "a"], scores, config)
    assert [h.tokens for h in ordered] == [(1, 2, 3), (1,)]
    assert [h.score for h in ordered] == pytest.approx([(-8 - 5 + 0.6) / 4, (-6 - 4 + 0.2) / 2])
    assert ordered[0].parts == pytest.approx({"attention": -2.0, "llm": -1.25, "words": 0.15})
    # undivided, the long reading would lose: -2 - 5 < -3 - 4 + ...
    candidate = candidates([long], ["a b c"], scores[:1], "a b c")[0]
    assert (candidate.acoustic, candidate.divisor) == (-2.0, 4.0)
