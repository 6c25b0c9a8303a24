"""Weights tuned on dev: the best of what is tried, never on test."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from firstwords.errors import SearchError
from firstwords.scoring.error_rate import ErrorRate, grapheme_errors, word_errors
from firstwords.search.ctc_beam import CtcBeamSearch
from firstwords.search.fusion import Scorers, TokenBonus, Weighted
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.interface import CtcBeamConfig, LanguageModelConfig
from firstwords.search.trials import Said, by_n_best, by_search, sentence_log_probs
from firstwords.search.tuning import PLAIN, TAKEN_OFF, Grid, Setting, tune
from firstwords.tensors import pad
from toy_scorers import TrigramScorer

LETTERS = " abc"


def spell(tokens: Sequence[int]) -> str:
    return " ".join(LETTERS[token] for token in tokens)


def valley(weight: float, bonus: float) -> list[str]:
    """Texts of one long utterance: errors grow with the distance from (0.55, 1.2)."""
    wrong = round(20 * abs(weight - 0.55) + 4 * abs(bonus - 1.2))
    return [" ".join(["x"] * wrong + ["a"] * (40 - wrong))]


def test_the_valley_is_found_beyond_the_grid() -> None:
    asked: list[Setting] = []

    def read(setting: Setting) -> list[str]:
        asked.append(setting)
        return valley(setting.weight, setting.bonus)

    found = tune(read, [" ".join(["a"] * 40)], split="dev")
    assert len(asked) == len(set(asked)) < 60  # nothing is read twice
    assert found.setting.weight == pytest.approx(0.55, abs=0.06)
    assert found.setting.bonus == pytest.approx(1.2, abs=0.26)
    assert found.rate == found.tried[found.setting]
    assert found.rate.errors == min(rate.errors for rate in found.tried.values())
    assert found.without.errors == round(20 * 0.55 + 4 * 1.2)
    seen: dict[Setting, ErrorRate] = {}
    tune(read, [" ".join(["a"] * 40)], split="dev", told=seen.__setitem__)
    assert list(seen.items()) == list(found.tried.items())


def ridge(setting: Setting) -> list[str]:
    """Errors by what the language model says beyond what is taken off, and by how far 0.3 is taken off."""
    beyond, off = setting.weight - setting.source_weight, setting.source_weight
    wrong = round(100 * abs(beyond - 0.5) + 20 * abs(off - 0.3) + 4 * abs(setting.bonus))
    return [" ".join(["x"] * min(wrong, 200) + ["a"] * (200 - min(wrong, 200)))]


def test_what_is_taken_off_is_found_where_no_coordinate_leads() -> None:
    """At (0.5, 0) more of either weight alone makes it worse; more of both makes it better."""
    reference = [" ".join(["a"] * 200)]
    plain = tune(ridge, reference, split="dev")
    assert plain.setting == plain.untouched
    assert plain.rate.errors == 6
    found = tune(ridge, reference, split="dev", grid=Grid(source_weight=TAKEN_OFF))
    assert found.setting == Setting(0.8, 0.0, 0.3)
    assert found.rate.errors == 0
    assert found.untouched == plain.setting
    assert set(plain.tried) < set(found.tried)
    assert len(found.tried) < 150  # of 504 combinations, and those between
    rates = found.along("source_weight")
    assert list(rates) == sorted(rates)
    assert rates[0.0] == plain.rate
    assert rates[0.3] == found.rate
    again = tune(ridge, reference, split="dev", grid=Grid(source_weight=TAKEN_OFF))
    assert list(again.tried.items()) == list(found.tried.items())


def test_the_right_one_of_two_is_taken_off() -> None:
    def read(setting: Setting) -> list[str]:
        wrong = round(20 * abs(setting.internal_weight - 0.2) + 10 * setting.source_weight)
        wrong += round(20 * abs(setting.weight - 0.5))
        return [" ".join(["x"] * wrong + ["a"] * (60 - wrong))]

    grid = Grid(source_weight=TAKEN_OFF, internal_weight=TAKEN_OFF)
    found = tune(read, [" ".join(["a"] * 60)], split="dev", grid=grid)
    assert found.setting == Setting(0.5, 0.0, 0.0, 0.2)
    assert found.rate.errors == 0


@pytest.mark.parametrize("harm", [0, 30])
def test_what_does_not_help_is_not_taken_off(harm: int) -> None:
    """Neither where it changes nothing nor where it does harm."""

    def read(setting: Setting) -> list[str]:
        wrong = round(20 * abs(setting.weight - 0.5) + harm * setting.taken_off) + 3
        return [" ".join(["x"] * wrong + ["a"] * (99 - wrong))]

    grid = Grid(source_weight=TAKEN_OFF, internal_weight=TAKEN_OFF)
    found = tune(read, [" ".join(["a"] * 99)], split="dev", grid=grid)
    assert found.setting == found.untouched == Setting(0.5)
    assert {setting.taken_off > 0 for setting in found.tried} == {True, False}


def test_a_grid_counts_its_combinations() -> None:
    assert Grid((0, 1), (0, 1, 2)).combinations == 6
    assert Grid((0, 1), (0, 1, 2), (0, 1), (0, 1, 2, 3)).combinations == 48
    assert list(Grid().axes) == ["weight", "bonus"]
    assert list(Grid(internal_weight=(0, 1)).axes) == ["weight", "bonus", "internal_weight"]
    assert Grid().usual_trials < Grid(source_weight=TAKEN_OFF).usual_trials


def test_of_equals_the_least_is_taken() -> None:
    found = tune(lambda _: ["same text"], ["some text"], split="dev")
    assert found.setting == Setting(0.0, 0.0)
    assert found.rate == ErrorRate(substitutions=1, reference_length=2)


@pytest.mark.parametrize("split", ["test", "Test", "test-clean", "fr_test", "test2", "dev+test"])
def test_test_is_refused(split: str) -> None:
    for any_split in (False, True):
        with pytest.raises(SearchError, match="not tuned on"):
            tune(lambda _: ["a"], ["a"], split=split, any_split=any_split)


@pytest.mark.parametrize(
    "split",
    ["train", "training", "train-clean-100", "eval", "eval92", "fr_eval", "evaluation", "latest", "all"],
)
def test_what_is_no_dev_is_refused_unless_it_is_meant(split: str) -> None:
    with pytest.raises(SearchError, match="not tuned on"):
        tune(lambda _: ["a"], ["a"], split=split)
    assert tune(lambda _: ["a"], ["a"], split=split, any_split=True).rate.errors == 0


@pytest.mark.parametrize("split", ["dev", "validation", "valid2", "dev-clean", "fr_dev", "val", "tuning"])
def test_what_is_dev_is_taken(split: str) -> None:
    assert tune(lambda _: ["a"], ["a"], split=split).rate.errors == 0


def test_nothing_to_tune_by_is_an_error() -> None:
    with pytest.raises(SearchError, match="no reference"):
        tune(lambda _: ["", ""], ["", ""], split="dev")


def task(utterances: int) -> tuple[list[np.ndarray], TrigramScorer, list[str]]:
    """Sentences that a language model knows, in noise."""
    lm = TrigramScorer(4, 1, spread=3.0)
    generator = torch.Generator().manual_seed(2)
    frames: list[np.ndarray] = []
    references: list[str] = []
    while len(frames) < utterances:
        tokens, before, last = [], 0, 0
        while last or not tokens:
            chances = lm.table[before, last].exp()
            before, last = last, int(torch.multinomial(chances, 1, generator=generator))
            tokens.append(last)
        del tokens[-1]
        if not 4 <= len(tokens) <= 10:
            continue
        time = 2 * len(tokens)
        logits = 1.2 * torch.randn(time, 4, generator=generator, dtype=torch.float64)
        logits[range(0, time, 2), tokens] += 2.0
        logits[range(1, time, 2), 0] += 3.0
        frames.append(logits.log_softmax(-1).numpy())
        references.append(spell(tuple(tokens)))
    return frames, lm, references


def test_search_by_log_probs_lowers_the_error_rate() -> None:
    frames, lm, references = task(8)
    read = by_search(frames, Scorers(lm), CtcBeamConfig(beam=4), spell)
    found = tune(read, references, split="dev", grid=Grid((0.0, 0.3, 0.6), (0.0, 1.0)))
    assert found.setting.weight > 0
    assert found.rate.errors < found.without.errors
    again = ErrorRate.total(itertools.starmap(word_errors, zip(references, read(found.setting), strict=True)))
    assert again == found.rate
    plain = CtcBeamSearch(CtcBeamConfig(beam=4), 1.0)(pad([torch.from_numpy(one) for one in frames]))
    assert read(Setting(0.0, 0.0)) == [spell(own[0].tokens) for own in plain]


def test_nothing_of_the_training_transcripts_is_taken_off() -> None:
    """There is no model of them here, whatever a recipe says of its weight."""
    frames, lm, _ = task(2)
    plain = CtcBeamConfig(beam=4)
    asked = plain.with_(language_model=LanguageModelConfig(source_weight=0.2))
    setting = Setting(0.3, 0.5)
    assert by_search(frames, Scorers(lm), asked, spell)(setting) == by_search(
        frames, Scorers(lm), plain, spell
    )(setting)


def read_by_n_best(utterances: int, scorers: Scorers) -> tuple[list[list[Hypothesis]], list[Said], list[str]]:
    """Readings of a wide beam, what the models say of them, and the references."""
    frames, _, references = task(utterances)
    search = CtcBeamSearch(CtcBeamConfig(beam=20, n_best=20), 1.0)
    readings = search(pad([torch.from_numpy(one) for one in frames]))
    said = [
        Said(
            *(
                None if one is None else sentence_log_probs(one, [r.tokens for r in own])
                for one in (scorers.language_model, scorers.source)
            )  # pyright: ignore[reportArgumentType]
        )
        for own in readings
    ]
    return readings, said, references


def test_n_best_is_chosen_by_all() -> None:
    lm, source, internal = (TrigramScorer(4, seed, spread=3.0) for seed in (1, 5, 6))
    readings, said, references = read_by_n_best(5, Scorers(lm, source))
    said = [
        one._replace(internal=[internal.log_prob(r.tokens) for r in own])
        for one, own in zip(said, readings, strict=True)
    ]
    read = by_n_best(readings, said, spell)
    seen: set[tuple[str, ...]] = set()
    for setting in (
        PLAIN,
        Setting(0.5),
        Setting(0.5, 1.5),
        Setting(0.0, -1.0),
        Setting(0.5, 0.5, 0.4),
        Setting(0.5, 0.5, 0.0, 0.7),
        Setting(0.5, 0.5, 0.3, 0.3),
        Setting(0.0, 0.0, 0.9, 0.9),  # where no language model takes its place, the own one stays
    ):

        def score(reading: Hypothesis, by: Setting = setting) -> float:
            off = by.internal_weight if by.weight else 0.0
            return (
                reading.score
                + by.weight * lm.log_prob(reading.tokens)
                + by.bonus * len(reading.tokens)
                - by.source_weight * source.log_prob(reading.tokens)
                - off * internal.log_prob(reading.tokens)
            )

        assert read(setting) == [spell(max(own, key=score).tokens) for own in readings]
        seen.add(tuple(read(setting)))
    assert len(seen) >= 6  # they are different choices
    found = tune(read, references, split="dev", errors=grapheme_errors)
    assert found.rate.errors <= found.without.errors


def test_n_best_that_are_impossible_stay_so() -> None:
    """Taken off or not, as in a search."""
    never = float("-inf")
    known, unknown = Hypothesis((1, 2), -5.0, {}), Hypothesis((1, 3), -1.0, {})
    for said in (
        Said([-1.0, never]),
        Said([-1.0, -1.0], [-1.0, never]),
        Said([-1.0, -1.0], None, [-1.0, never]),
    ):
        read = by_n_best([[known, unknown]], [said], spell)
        assert read(PLAIN) == [spell(unknown.tokens)]
        assert read(Setting(0.5, 0.0, 0.1, 0.1)) == [spell(known.tokens)]


def learned_twice(utterances: int) -> tuple[list[list[Hypothesis]], list[Said], list[str]]:
    """Readings of a recogniser that believes in the sentences it was trained on; others are spoken here."""
    source = TrigramScorer(4, 5, spread=3.0)
    lm = task(1)[1]
    readings, said, references = read_by_n_best(utterances, Scorers(lm, source))
    believed = [
        [replace(r, score=r.score + 0.5 * source.log_prob(r.tokens)) for r in own] for own in readings
    ]
    return believed, said, references


def test_a_source_model_that_was_learned_is_taken_off() -> None:
    """The recogniser counts it with 0.5: about as much is taken off, and fewer errors are left."""
    readings, said, references = learned_twice(30)
    read = by_n_best(readings, said, spell)
    found = tune(read, references, split="dev", grid=Grid(source_weight=TAKEN_OFF))
    assert found.setting.source_weight == pytest.approx(0.5, abs=0.2)
    assert found.setting.weight > 0
    untouched = found.tried[found.untouched]
    assert found.rate.errors < 0.9 * untouched.errors
    assert untouched.errors < found.without.errors
    other, said, references = learned_twice(60)  # 30 utterances that nothing was chosen on
    read = by_n_best(other[30:], said[30:], spell)

    def rate(setting: Setting) -> int:
        pairs = zip(references[30:], read(setting), strict=True)
        return ErrorRate.total(itertools.starmap(word_errors, pairs)).errors

    assert rate(found.setting) < rate(found.untouched)


def test_a_source_model_that_says_nothing_is_not_taken_off() -> None:
    """It is as sure of each reading as of the others."""
    readings, said, references = learned_twice(30)
    same = [one._replace(source=[-4.0] * len(one.language_model)) for one in said]
    grid = Grid(source_weight=TAKEN_OFF)
    found = tune(by_n_best(readings, same, spell), references, split="dev", grid=grid)
    assert found.setting == found.untouched
    assert found.setting.source_weight == 0
    assert found.setting == tune(by_n_best(readings, same, spell), references, split="dev").setting


def test_a_search_takes_a_source_model_off() -> None:
    frames, lm, _ = task(4)
    source = TrigramScorer(4, 5, spread=3.0)
    config = CtcBeamConfig(beam=6)
    read = by_search(frames, Scorers(lm, source), config, spell)
    setting = Setting(0.6, 0.5, 0.4)
    helping = [
        Weighted("lm", 0.6, lm),
        Weighted("source", -0.4, source),
        Weighted("bonus", 0.5, TokenBonus(4)),
    ]
    expected = CtcBeamSearch(config, 1.0, helping)(pad([torch.from_numpy(one) for one in frames]))
    assert read(setting) == [spell(own[0].tokens) for own in expected]
    assert read(setting) != read(setting._replace(source_weight=0.0))


def test_n_best_of_a_search_that_divides_by_the_length() -> None:
    """Among readings of several lengths the additions are divided as the scores were."""
    short = Hypothesis((1, 2), -1.0, {}, divisor=3.0)
    long = Hypothesis((1, 2, 3, 3), -1.2, {}, divisor=5.0)
    read = by_n_best([[short, long]], [Said([-1.0, -9.0])], spell)
    assert read(Setting(0.0, 0.0)) == [spell(short.tokens)]
    # -1 + 2 b / 3 against -1.2 + 4 b / 5: equal at 1.5
    assert read(Setting(0.0, 1.4)) == [spell(short.tokens)]
    assert read(Setting(0.0, 1.6)) == [spell(long.tokens)]
    # -1 - 1 / 3 + 2 b / 3 against -1.2 - 9 / 5 + 4 b / 5: equal at 12.5
    assert read(Setting(1.0, 12.4)) == [spell(short.tokens)]
    assert read(Setting(1.0, 12.6)) == [spell(long.tokens)]
