"""Weights of a language model, and of what is taken off beside it, chosen on dev by the error rate.

The recogniser is run once. What is tried again and again works on what it left (trials.py). A ``Grid`` says
which values there are; few of their combinations are tried:

    weight   0     0.1   0.2   0.4 ...       coarse: one coordinate after the other, until none helps
    bonus    0     0.5   1     2 ...         fine: between the neighbours of the best

Where a model of text may be taken off (fusion.py), weight and bonus are chosen without it first. From that
place each of its weights is tried, alone and with as much more of the language model: what is taken off here
may have to be put on there, and no single coordinate leads from one to the other. The best of these is where
all coordinates start anew. So the result is never worse than without, and 0 where nothing better was found.

It is never test on which anything is chosen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, NamedTuple, TypeAlias

from firstwords.errors import SearchError
from firstwords.scoring.error_rate import ErrorRate, word_errors

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0)  # published optima lie between 0.2 and 2
BONUSES = (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
TAKEN_OFF = (0.0, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8)  # published optima lie between 0.1 and 0.4
_DEV = ("dev", "val", "tun", "heldout")  # how splits begin on which something may be chosen
_FINE = 2  # times that the steps are halved
_USUAL, _MORE = 50, 50  # settings that are tried, about; and where something may be taken off

Axis: TypeAlias = Literal["weight", "bonus", "source_weight", "internal_weight"]
TakenOff: TypeAlias = Literal["source_weight", "internal_weight"]


class Setting(NamedTuple):
    """Fields of ``search.language_model``; as they stand here nothing has a say."""

    weight: float = 0.0
    bonus: float = 0.0  # nats per token
    source_weight: float = 0.0
    internal_weight: float = 0.0

    @property
    def taken_off(self) -> float:
        """How much all models of text together that are taken off say."""
        return self.source_weight + self.internal_weight


PLAIN = Setting()


class Grid(NamedTuple):
    """The values of each field of a setting; what has 0 alone is left as it is."""

    weight: Sequence[float] = WEIGHTS
    bonus: Sequence[float] = BONUSES
    source_weight: Sequence[float] = (0.0,)
    internal_weight: Sequence[float] = (0.0,)

    @property
    def taken_off(self) -> dict[TakenOff, Sequence[float]]:
        """The values of what may be taken off."""
        both: dict[TakenOff, Sequence[float]] = {
            "source_weight": self.source_weight,
            "internal_weight": self.internal_weight,
        }
        return {name: values for name, values in both.items() if any(values)}

    @property
    def axes(self) -> dict[Axis, Sequence[float]]:
        """The values of all that is looked for."""
        return {"weight": self.weight, "bonus": self.bonus, **self.taken_off}

    @property
    def combinations(self) -> int:
        """Of all values."""
        return prod(len(values) for values in self.axes.values())

    @property
    def usual_trials(self) -> int:
        """Settings that ``tune`` tries, about; those between the values count, too."""
        return _USUAL + _MORE * bool(self.taken_off)


Reader = Callable[[Setting], Sequence[str]]  # texts of the dev utterances, in the order of the references
Errors = Callable[[str, str], ErrorRate]  # of a reference and a hypothesis
Told = Callable[[Setting, ErrorRate], None]
Rank = tuple[int, float, float, float]


@dataclass(frozen=True)
class Tuned:
    """The best setting, its error rate, and all that was tried in the order of the trials."""

    setting: Setting
    rate: ErrorRate
    tried: dict[Setting, ErrorRate]

    @property
    def without(self) -> ErrorRate:
        """The error rate without a language model."""
        return self.tried[PLAIN]

    @property
    def untouched(self) -> Setting:
        """The best setting in which nothing is taken off."""
        return min((s for s in self.tried if not s.taken_off), key=lambda s: _rank(s, self.tried[s]))

    def along(self, name: TakenOff) -> dict[float, ErrorRate]:
        """The lowest error rate that was met with each weight of what is taken off, by rising weights."""
        found: dict[float, ErrorRate] = {}
        for setting, rate in sorted(self.tried.items(), key=lambda one: -one[1].errors):
            found[setting._asdict()[name]] = rate
        return dict(sorted(found.items()))


def tune(
    read: Reader,
    references: Sequence[str],
    *,
    split: str,
    grid: Grid | None = None,
    errors: Errors = word_errors,
    told: Told | None = None,
    any_split: bool = False,
) -> Tuned:
    """The setting with the fewest errors; of equals the one that takes off less, has less weight, bonus.

    Args:
        read: pure: the same setting gives the same texts, normalized for scoring as the references are.
        split: name of what the utterances belong to; only one called dev or the like is taken.
        grid: what is tried; None: weights and bonuses alone.
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

    def rank(setting: Setting) -> Rank:
        if setting not in tried:
            texts = read(setting)
            tried[setting] = ErrorRate.total(
                errors(reference, text) for reference, text in zip(references, texts, strict=True)
            )
            if told is not None:
                told(setting, tried[setting])
        return _rank(setting, tried[setting])

    whole = Grid() if grid is None else grid
    plain: dict[Axis, Sequence[float]] = {"weight": whole.weight, "bonus": whole.bonus}
    best = _search(rank, plain, min(PLAIN, Setting(0.3), key=rank))
    if starts := _starts(best, whole):
        other = _search(rank, whole.axes, min(starts, key=rank))
        best = min(best, other, key=rank)
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


def _rank(setting: Setting, rate: ErrorRate) -> Rank:
    """What is least of the best setting."""
    return rate.errors, setting.taken_off, setting.weight, abs(setting.bonus)


def _starts(best: Setting, grid: Grid) -> list[Setting]:
    """The best setting with each weight of what is taken off, alone and with as much more weight."""
    return [
        best._replace(**{name: value}, weight=round(best.weight + more, 6))
        for name, values in grid.taken_off.items()
        for value in sorted(values)
        if value
        for more in (0.0, value)
    ]


def _search(rank: Callable[[Setting], Rank], axes: Mapping[Axis, Sequence[float]], best: Setting) -> Setting:
    """Coordinate by coordinate over these values, and then between them."""
    best = _descend(rank, best, {name: sorted(values) for name, values in axes.items()})
    for halving in range(1, _FINE + 1):
        at = best._asdict()
        nearer: dict[Axis, list[float]] = {
            name: _between(values, at[name], halving) for name, values in axes.items()
        }
        best = _descend(
            rank, best, {n: [v for v in vs if v >= 0 or n == "bonus"] for n, vs in nearer.items()}
        )
    return best


def _descend(rank: Callable[[Setting], Rank], best: Setting, axes: Mapping[Axis, Sequence[float]]) -> Setting:
    """The best along one coordinate, then along the next, until none brings anything."""
    while True:
        before = best
        for name, values in axes.items():
            best = min((best, *(best._replace(**{name: value}) for value in values)), key=rank)
        if best == before:
            return best


def _between(values: Sequence[float], at: float, halving: int) -> list[float]:
    """A step to each side of a value, as long as those to its neighbours halved so often."""
    below = max((v for v in values if v < at - 1e-9), default=at)
    above = min((v for v in values if v > at + 1e-9), default=at)
    share = 0.5**halving
    return [round(at - share * (at - below), 6), round(at + share * (above - at), 6)]
