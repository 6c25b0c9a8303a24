"""What helps the runtime's CTC searches beside the audio: a language model, in numpy.

The weights are those of the searches over tensors (search/fusion.py): log P(reading | audio) + weight times
log P(reading) + bonus times tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Protocol, final

import numpy as np

from firstwords.search.ctc_common import BLANK
from firstwords.search.interface import LanguageModelConfig
from firstwords.search.prefix_beam import Beside, Floats, Ints

END = 0  # column of the end of a sentence
DEFAULT = LanguageModelConfig()


class Rows(Protocol):
    """A model of text asked for whole rows: what comes next after a state."""

    def start(self) -> Hashable:
        """Nothing said yet."""
        ...

    def after(self, state: Any, token: int) -> Hashable:
        """One token more."""
        ...

    def row(self, state: Any) -> Floats:
        """(V,) natural-log probabilities of the next token; column 0 is the end."""
        ...


@final
class RowCompanion:
    """What a language model knows of the living prefixes of a beam (``prefix_beam.Beside``)."""

    def __init__(self, rows: Rows, weight: float, bonus: float, slots: int = 1) -> None:
        self._rows, self._weight, self._bonus = rows, weight, bonus
        self.names = (*(("language_model",) if weight else ()), *(("bonus",) if bonus else ()))
        self._states: list[Any] = [rows.start()] * slots
        self.shares: Floats = np.zeros((slots, len(self.names)))

    @property
    def scores(self) -> Floats:
        """(slots, V) weighted scores of the next token; column 0 is the end."""
        found = np.stack([self._weighted(state) for state in self._states])
        if self._bonus:
            found[:, END + 1 :] += self._bonus
        return found

    def totals(self) -> Floats:
        """(slots,) weighted scores of the sentences so far, without an end."""
        return self.shares.sum(axis=1)

    def ended(self) -> Floats:
        """(slots, names) the shares with the end behind each sentence."""
        return self.shares + np.stack([self._share(state, END) for state in self._states])

    def move(self, origins: Ints, tokens: Ints) -> None:
        """Slot i goes on from what slot origins[i] was, grown by tokens[i] unless that is 0."""
        states = [self._states[origin] for origin in origins.tolist()]
        shares = self.shares[origins]
        for slot, token in enumerate(tokens.tolist()):
            if token != BLANK:
                shares[slot] += self._share(states[slot], token)
                states[slot] = self._rows.after(states[slot], token)
        self._states, self.shares = states, shares

    def rebase(self, slot: int) -> None:
        """Count the shares of all slots from those of this one on."""
        self.shares = self.shares - self.shares[slot]

    def _weighted(self, state: Any) -> Floats:
        row = self._rows.row(state)
        return self._weight * row if self._weight else np.zeros(len(row))

    def _share(self, state: Any, token: int) -> Floats:
        parts = [self._weight * float(self._rows.row(state)[token])] if self._weight else []
        if self._bonus:
            parts.append(self._bonus if token != END else 0.0)
        return np.array(parts)


@dataclass(frozen=True)
class Help:
    """A language model and its weights; ``identity`` changes with any of them."""

    rows: Rows | None = None
    weights: LanguageModelConfig = DEFAULT
    identity: str = ""

    @property
    def beside(self) -> Callable[[int], Beside] | None:
        """Beam -> a companion of one empty prefix; None where nothing helps."""
        weight, bonus = self.weights.weight, self.weights.bonus
        rows = self.rows
        if rows is None or not (weight or bonus):
            return None
        return lambda _: RowCompanion(rows, weight, bonus)


NO_HELP = Help()
