"""What helps the runtime's CTC searches beside the audio: language models, phrases, known words, in numpy.

The weights are those of the searches over tensors (search/fusion.py): log P(reading | audio) + the sum over
all parts of weight times log P(reading) + bonus times tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, final

import numpy as np

from firstwords.search.ctc_common import BLANK
from firstwords.search.interface import LanguageModelConfig
from firstwords.search.prefix_beam import Beside, Floats, Ints
from firstwords.search.words import END

DEFAULT = LanguageModelConfig()


class Rows(Protocol):
    """A model of text asked for whole rows: what comes next after a state."""

    def start(self) -> Hashable:
        """Nothing said yet."""
        ...

    def after(self, state: Any, token: int, /) -> Hashable:
        """One token more."""
        ...

    def row(self, state: Any, /) -> Floats:
        """(V,) natural-log probabilities of the next token; column 0 is the end."""
        ...


class Part(NamedTuple):
    """Rows, their share of the score, not 0, and the name under which a reading shows it."""

    name: str
    weight: float
    rows: Rows


@final
class BonusRows(Rows):
    """1 for every token and 0 for the end: what a weight makes of the number of tokens."""

    def __init__(self, vocabulary: int) -> None:
        self._row = np.ones(vocabulary)
        self._row[END] = 0.0

    def start(self) -> int:
        return 0

    def after(self, state: int, token: int) -> int:
        return state

    def row(self, state: int) -> Floats:
        return self._row


@final
class RowCompanion:
    """What rows know of the living prefixes of a beam (``prefix_beam.Beside``)."""

    def __init__(self, parts: Sequence[Part], slots: int = 1) -> None:
        self._parts = tuple(parts)
        self.names = tuple(part.name for part in parts)
        self._states: list[tuple[Any, ...]] = [tuple(part.rows.start() for part in parts)] * slots
        self.shares: Floats = np.zeros((slots, len(self.names)))

    @property
    def scores(self) -> Floats:
        """(slots, V) weighted scores of the next token; column 0 is the end."""
        return sum(
            (
                part.weight * np.stack([part.rows.row(states[place]) for states in self._states])
                for place, part in enumerate(self._parts)
            ),
            start=np.zeros((len(self._states), 1)),
        )

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
                states[slot] = tuple(
                    part.rows.after(state, token)
                    for part, state in zip(self._parts, states[slot], strict=True)
                )
        self._states, self.shares = states, shares

    def rebase(self, slot: int) -> None:
        """Count the shares of all slots from those of this one on."""
        self.shares = self.shares - self.shares[slot]

    def _share(self, states: tuple[Any, ...], token: int) -> Floats:
        pairs = zip(self._parts, states, strict=True)
        return np.array([part.weight * float(part.rows.row(state)[token]) for part, state in pairs])


@dataclass(frozen=True)
class Help:
    """What helps; ``identity`` changes with any of it."""

    parts: tuple[Part, ...] = ()
    identity: str = ""

    @property
    def beside(self) -> Callable[[int], Beside] | None:
        """Beam -> a companion of one empty prefix; None where nothing helps."""
        return (lambda _: RowCompanion(self.parts)) if self.parts else None

    def joined(self, other: Help) -> Help:
        """Both together."""
        identity = " ".join(one for one in (self.identity, other.identity) if one)
        return Help(self.parts + other.parts, identity)


NO_HELP = Help()
