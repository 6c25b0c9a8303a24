"""Weights of a language model, chosen on dev by the error rate; never on test.

The recogniser is run once. What is tried again and again works on what it left: the log-probabilities of
every utterance (``by_search``: exact, a search for every setting) or its n-best readings (``by_n_best``:
quick, and blind to what is not among them).

    weight   0     0.1   0.2   0.4 ...       coarse: one coordinate after the other, until neither helps
    bonus    0     0.5   1     2 ...         fine: between the neighbours of the best
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from firstwords.errors import SearchError
from firstwords.nn.scorer import TokenScorer
from firstwords.scoring.error_rate import ErrorRate, word_errors
from firstwords.search.ctc_beam import CtcBeamSearch, prefix_readings
from firstwords.search.fusion import Scorers, Weighted, weigh
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.interface import CtcBeamConfig, LanguageModelConfig
from firstwords.tensors import pad

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0)  # published optima lie between 0.2 and 2
BONUSES = (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
_DEV = ("dev", "val", "tun", "heldout")  # how splits begin on which something may be chosen
_FINE = 2  # times that the steps are halved


class Setting(NamedTuple):
    """``search.language_model.weight`` and ``search.language_model.bonus`` (nats per token)."""

    weight: float
    bonus: float


Reader = Callable[[Setting], Sequence[str]]  # texts of the dev utterances, in the order of the references
Errors = Callable[[str, str], ErrorRate]  # of a reference and a hypothesis
Told = Callable[[Setting, ErrorRate], None]


@dataclass(frozen=True)
class Tuned:
    """The best setting, its error rate, and all that was tried in the order of the trials."""

    setting: Setting
    rate: ErrorRate
    tried: dict[Setting, ErrorRate]

    @property
    def without(self) -> ErrorRate:
        """The error rate without a language model."""
        return self.tried[Setting(0.0, 0.0)]


def tune(
    read: Reader,
    references: Sequence[str],
    *,
    split: str,
    weights: Sequence[float] = WEIGHTS,
    bonuses: Sequence[float] = BONUSES,
    errors: Errors = word_errors,
    told: Told | None = None,
    any_split: bool = False,
) -> Tuned:
    """The setting with the fewest errors; of equals the one with the smaller weight, then bonus.

    Args:
        read: pure: the same setting gives the same texts, normalized for scoring as the references are.
        split: name of what the utterances belong to; only one called dev or the like is taken.
        errors: ``word_errors`` for WER, ``grapheme_errors`` for CER.
        told: called with every setting as soon as it has been tried.
        any_split: take one of another name, too; never test.
    """
    check_split(split, any_split=any_split)
    if not any(references):
        raise SearchError(
            f"Split '{split}' has no reference text to tune by.", mend="Give dev utterances with transcripts."
        )
    tried: dict[Setting, ErrorRate] = {}

    def rate(setting: Setting) -> tuple[int, float, float]:
        if setting not in tried:
            texts = read(setting)
            tried[setting] = ErrorRate.total(
                errors(reference, text) for reference, text in zip(references, texts, strict=True)
            )
            if told is not None:
                told(setting, tried[setting])
        return tried[setting].errors, setting.weight, abs(setting.bonus)

    best = Setting(0.0, 0.0)
    rate(best)
    best = _descend(rate, min(best, Setting(0.3, 0.0), key=rate), sorted(weights), sorted(bonuses))
    for halving in range(1, _FINE + 1):
        best = _descend(
            rate,
            best,
            [w for w in _between(weights, best.weight, halving) if w >= 0],
            _between(bonuses, best.bonus, halving),
        )
    return Tuned(best, tried[best], tried)


def check_split(split: str, *, any_split: bool = False) -> None:
    """SearchError for a split on which weights are not tuned: all but 'dev', 'valid', 'fr_dev', 'tune2' ...

    Args:
        any_split: somebody said that this one is meant; what is called test is refused all the same.
    """
    refuse_kept(split, any_split=any_split)
    if not any_split and not any(part.startswith(_DEV) for part in _parts(split)):
        raise SearchError(
            f"Weights are not tuned on '{split}': by its name it need not be a split to choose on.",
            mend="Tune on dev (--split dev). If this split is neither trained on nor kept for the last word, "
            "say so: 'firstwords lm tune' takes --any-split.",
        )


def refuse_kept(split: str, *, any_split: bool = False) -> None:
    """SearchError for a split kept for the last word ('test-clean', 'fr_test', 'eval92'), and for train."""
    parts = _parts(split)
    if any(part.startswith("test") for part in parts) or (
        not any_split and any(part.startswith("eval") for part in parts)
    ):
        kept = "test" if any(part.startswith("test") for part in parts) else "an evaluation split"
        raise SearchError(
            f"Weights are not tuned on '{split}': what is chosen on {kept} says nothing of new speech.",
            mend="Tune on dev (--split dev), then evaluate on test once.",
        )
    if not any_split and any(part.startswith("train") for part in parts):
        raise SearchError(
            f"Weights are not tuned on '{split}': the model knows these texts by heart.",
            mend="Tune on dev (--split dev).",
        )


def _parts(split: str) -> list[str]:
    return re.split(r"[^a-z]+", split.lower())


def by_search(
    log_probs: Sequence[NDArray[np.floating]],
    language_model: TokenScorer[Any],
    config: CtcBeamConfig,
    text: Callable[[Sequence[int]], str],
    *,
    is_speech: Callable[[Hypothesis], bool] | None = None,
) -> Reader:
    """CTC log-probabilities (T, V) of every utterance -> what the search reads with a setting.

    Args:
        config: of the search; weight and bonus of its language model are those of the setting, and no model
            of the training transcripts is taken off.
        text: tokens -> text, normalized for scoring.
        is_speech: readings that it refuses are none; None: all are speech.
    """

    def best(one: NDArray[np.float64], scorers: Sequence[Weighted]) -> Sequence[int]:
        if is_speech is None:
            return prefix_readings(one, config, scorers)[0].tokens
        search = CtcBeamSearch(config, 1.0, scorers)  # times are not asked for
        ((reading, *_),) = search(pad([torch.from_numpy(one)]))
        return reading.tokens if is_speech(reading) else ()

    def read(setting: Setting) -> list[str]:
        own = LanguageModelConfig(weight=setting.weight, bonus=setting.bonus)
        found: list[str] = []
        for one in log_probs:
            scorers = weigh(Scorers(language_model), own, one.shape[1])
            found.append(text(best(one.astype(np.float64), scorers)))
        return found

    return read


def by_n_best(
    readings: Sequence[Sequence[Hypothesis]],
    log_probs: Sequence[Sequence[float]],
    text: Callable[[Sequence[int]], str],
) -> Reader:
    """N-best readings of every utterance -> the best of them with a setting.

    What is added is divided by what the search divided its own scores by (``Hypothesis.divisor``).

    Args:
        readings: made without a language model.
        log_probs: that of the language model for each reading and its end.
        text: tokens -> text, normalized for scoring.
    """
    tables: list[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], list[str]]] = []
    for own, scores in zip(readings, log_probs, strict=True):
        count = np.array([float(len(reading.tokens)) for reading in own])
        divisor = np.array([reading.divisor for reading in own])
        heard = np.array([reading.score for reading in own])
        texts = [text(reading.tokens) for reading in own]
        tables.append((heard, np.array(scores) / divisor, count / divisor, texts))

    def read(setting: Setting) -> list[str]:
        # 0 times what is impossible is nothing, as in a search without a language model.
        return [
            texts[
                int(
                    np.argmax(
                        heard + (setting.weight * said if setting.weight else 0.0) + setting.bonus * count
                    )
                )
            ]
            for heard, said, count, texts in tables
        ]

    return read


def _descend(
    rate: Callable[[Setting], Any], best: Setting, weights: Sequence[float], bonuses: Sequence[float]
) -> Setting:
    """The best along one coordinate, then along the other, until neither brings anything."""
    while True:
        before = best
        best = min((best, *(best._replace(weight=weight) for weight in weights)), key=rate)
        best = min((best, *(best._replace(bonus=bonus) for bonus in bonuses)), key=rate)
        if best == before:
            return best


def _between(values: Sequence[float], at: float, halving: int) -> list[float]:
    """A step to each side of a value, as long as those to its neighbours halved so often."""
    below = max((v for v in values if v < at - 1e-9), default=at)
    above = min((v for v in values if v > at + 1e-9), default=at)
    share = 0.5**halving
    return [round(at - share * (at - below), 6), round(at + share * (above - at), 6)]
