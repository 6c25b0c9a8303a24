"""Weights tuned on dev: the best of what is tried, never on test."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from firstwords.errors import SearchError
from firstwords.scoring.error_rate import ErrorRate, grapheme_errors, word_errors
from firstwords.search.ctc_beam import CtcBeamSearch
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.interface import CtcBeamConfig, LanguageModelConfig
from firstwords.search.tuning import Setting, by_n_best, by_search, tune
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
        return valley(*setting)

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
    read = by_search(frames, lm, CtcBeamConfig(beam=4), spell)
    found = tune(read, references, split="dev", weights=(0.0, 0.3, 0.6), bonuses=(0.0, 1.0))
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
    assert by_search(frames, lm, asked, spell)(setting) == by_search(frames, lm, plain, spell)(setting)


def test_n_best_is_chosen_by_all_three() -> None:
    frames, lm, references = task(5)
    search = CtcBeamSearch(CtcBeamConfig(beam=20, n_best=20), 1.0)
    readings = search(pad([torch.from_numpy(one) for one in frames]))
    said = [[lm.log_prob(reading.tokens) for reading in own] for own in readings]
    read = by_n_best(readings, said, spell)
    for setting in (Setting(0.0, 0.0), Setting(0.5, 0.0), Setting(0.5, 1.5), Setting(0.0, -1.0)):
        expected = [
            max(
                (
                    r.score + setting.weight * lm.log_prob(r.tokens) + setting.bonus * len(r.tokens),
                    spell(r.tokens),
                )
                for r in own
            )[1]
            for own in readings
        ]
        assert read(setting) == expected
    found = tune(read, references, split="dev", errors=grapheme_errors)
    assert found.rate.errors <= found.without.errors


def test_n_best_of_a_search_that_divides_by_the_length() -> None:
    """Among readings of several lengths the additions are divided as the scores were."""
    short = Hypothesis((1, 2), -1.0, {}, divisor=3.0)
    long = Hypothesis((1, 2, 3, 3), -1.2, {}, divisor=5.0)
    read = by_n_best([[short, long]], [[-1.0, -9.0]], spell)
    assert read(Setting(0.0, 0.0)) == [spell(short.tokens)]
    # -1 + 2 b / 3 against -1.2 + 4 b / 5: equal at 1.5
    assert read(Setting(0.0, 1.4)) == [spell(short.tokens)]
    assert read(Setting(0.0, 1.6)) == [spell(long.tokens)]
    # -1 - 1 / 3 + 2 b / 3 against -1.2 - 9 / 5 + 4 b / 5: equal at 12.5
    assert read(Setting(1.0, 12.4)) == [spell(short.tokens)]
    assert read(Setting(1.0, 12.6)) == [spell(long.tokens)]
