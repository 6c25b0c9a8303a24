"""Other knowledge in a search: language models and phrases, each a ``TokenScorer`` with a weight.

    log P(reading | audio)  +  sum over scorers of  weight * log P(reading)  +  bonus * tokens

shallow fusion        a language model with a weight above 0 (Gulcehre et al., 2015, arXiv:1503.03535)
density ratio         the same, and a model of the training transcripts with one below 0, so that what the
                      recogniser has learnt of its own texts is not counted twice (McDermott et al., 2020,
                      arXiv:2002.11268)
internal model        the same with the recogniser's own estimate in place of that model (Meng et al., 2020,
                      arXiv:2011.01991)

Every search takes any list of ``Weighted``. Searches that advance token by token ask each scorer themselves
(token_beam.py). In those that advance frame by frame some sentences grow while others wait: ``Companion``
keeps what the scorers know of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from firstwords.errors import SearchError
from firstwords.nn.scorer import TokenScorer
from firstwords.search.interface import LanguageModelConfig
from firstwords.search.spotting import PhraseSpotter
from firstwords.search.words import END, NEVER

LANGUAGE_MODEL = "language_model"  # name of that scorer
_FIRST: NDArray[np.int64] = np.zeros(1, dtype=np.int64)
_SPARE = 2  # rows kept for each living sentence before those of the dead are cleared away
_FEW = 256  # rows that are not worth clearing, where a scorer keeps a number of each
_FEW_HEAVY = 16  # the same where it keeps more


class Weighted(NamedTuple):
    """A scorer, its share of the score, and the name under which a reading shows it."""

    name: str
    weight: float
    scorer: TokenScorer[Any]
    hears: bool = True  # knows the audio: its scores are part of a token's confidence


class Scorers(NamedTuple):
    """What helps a recogniser beside the audio, each None where there is none; all know its tokens.

    Weights are those of the recipe's ``search.language_model``; phrases bring their own.
    """

    language_model: TokenScorer[Any] | None = None
    source: TokenScorer[Any] | None = None  # a language model of the training transcripts, taken off
    phrases: TokenScorer[Any] | None = None
    spotter: PhraseSpotter | None = None  # phrases that are looked for in the frames of a CTC head
    identity: str = ""  # changes whenever any of them does: what was begun with others is not gone on with


NO_SCORERS = Scorers()


def weigh(scorers: Scorers, config: LanguageModelConfig, vocabulary: int) -> tuple[Weighted, ...]:
    """Scorers and the settings of a search -> what is added to its scores; weights of 0 are left out.

    The bonus belongs to the language model: without one it does nothing.
    """
    found: list[Weighted] = []
    if scorers.language_model is not None:
        found.append(Weighted(LANGUAGE_MODEL, config.weight, scorers.language_model, hears=False))
        found.append(Weighted("bonus", config.bonus, TokenBonus(vocabulary), hears=False))
    if scorers.source is not None:
        found.append(Weighted("source", -config.source_weight, scorers.source, hears=False))
    elif config.source_weight > 0 and scorers.language_model is not None:
        raise SearchError(
            f"search.language_model.source_weight = {config.source_weight:g}, but there is no language model "
            "of the training transcripts.",
            mend="Give one, or set search.language_model.source_weight = 0.",
        )
    if scorers.phrases is not None:
        found.append(Weighted("phrases", 1.0, scorers.phrases, hears=False))
    return tuple(one for one in found if one.weight != 0)


def weighted(weight: float, scores: Tensor) -> Tensor:
    """Log-probabilities times their weight; what is impossible stays so, whatever the sign of the weight."""
    if weight > 0:
        return weight * scores
    return (weight * scores).masked_fill(scores == NEVER, NEVER)


def check_vocabulary(name: str, columns: int, expected: int) -> None:
    """SearchError where a scorer was made for other tokens than the recogniser's."""
    if columns != expected:
        raise SearchError(
            f"The scorer '{name}' knows {columns} tokens, the recogniser {expected}.",
            mend="Make it with this recogniser's tokenizer.",
        )


@final
class TokenBonus(TokenScorer[Tensor]):
    """1 for every token and 0 for the end: what a weight makes of the number of tokens."""

    def __init__(self, vocabulary: int) -> None:
        self.row = torch.ones(1, vocabulary, dtype=torch.float64)
        self.row[:, END] = 0.0

    def start(self, rows: int) -> Tensor:
        return torch.zeros(rows, 0)

    def score(
        self, last: Int[Tensor, " rows"], state: Tensor
    ) -> tuple[Float[Tensor, "rows vocabulary"], Tensor]:
        return self.row.expand(len(last), -1), state

    def reorder(self, state: Tensor, kept: Int[Tensor, " kept"]) -> Tensor:
        return torch.zeros(len(kept), 0)  # nothing is known of a row


@final
class WeightedSum(TokenScorer[tuple[Any, ...]]):
    """Several scorers as one; its state is the tuple of theirs, its scores are float64 on the CPU.

    Args:
        scorers: at least one, of the same vocabulary; weights below 0 take off.
        vocabulary: columns that each of them must have.
    """

    def __init__(self, scorers: Sequence[Weighted], vocabulary: int) -> None:
        self.scorers = tuple(scorers)
        self.vocabulary = vocabulary

    def start(self, rows: int) -> tuple[Any, ...]:
        return tuple(one.scorer.start(rows) for one in self.scorers)

    def score(
        self, last: Int[Tensor, " rows"], state: tuple[Any, ...]
    ) -> tuple[Float[Tensor, "rows vocabulary"], tuple[Any, ...]]:
        each, state = self.each(last, state)
        return torch.stack(each).sum(dim=0) if len(each) > 1 else each[0], state

    def each(
        self, last: Int[Tensor, " rows"], state: tuple[Any, ...]
    ) -> tuple[list[Float[Tensor, "rows vocabulary"]], tuple[Any, ...]]:
        """The shares of the scorers, weighted, in their order; and the states after ``last``."""
        found: list[Tensor] = []
        after: list[Any] = []
        for one, own in zip(self.scorers, state, strict=True):
            scores, own = one.scorer.score(last, own)
            scores = scores.detach().to("cpu", torch.float64)
            check_vocabulary(one.name, scores.shape[1], self.vocabulary)
            found.append(weighted(one.weight, scores))
            after.append(own)
        return found, tuple(after)

    def reorder(self, state: tuple[Any, ...], kept: Int[Tensor, " kept"]) -> tuple[Any, ...]:
        return tuple(one.scorer.reorder(own, kept) for one, own in zip(self.scorers, state, strict=True))

    def join(self, states: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
        own = zip(self.scorers, zip(*states, strict=True), strict=True)
        return tuple(one.scorer.join(parts) for one, parts in own)


def _is_light(state: Any) -> bool:
    """Whether a scorer keeps at most a number of each sentence."""
    return isinstance(state, Tensor) and state.ndim == 1


@final
class Companion:
    """What scorers know of the living sentences of a search in which some grow while others wait.

    Sentences stand in slots. A sentence is asked for once, when it has grown, all that grew together; what
    was answered stays while the rows are few, or at most half of them are of the dead: a scorer may copy all
    that it keeps of them at each question. Numbers are float64.

        slots       a b     a b c     a b                  a b c grows out of slot 0 by c, a b waits
        rows        [a b] [a b c] ...                      answers, in the order in which they were asked for

    Args:
        slots: empty sentences at the start.
        most: slots at any time.
    """

    def __init__(self, scorers: Sequence[Weighted], slots: int, most: int, vocabulary: int) -> None:
        self.names = tuple(one.name for one in scorers)
        self._asked = [n for n, one in enumerate(scorers) if not isinstance(one.scorer, TokenBonus)]
        # Shares that need no asking: those of a bonus.
        self._constant: NDArray[np.float64] = np.zeros((len(scorers), vocabulary))
        for number in set(range(len(scorers))).difference(self._asked):
            self._constant[number, END + 1 :] = scorers[number].weight
        self._added: NDArray[np.float64] = self._constant.sum(axis=0)
        self._sum = WeightedSum([scorers[number] for number in self._asked], vocabulary)
        self._single = len(self._asked) == 1
        state = self._sum.start(slots)
        self._few = _FEW if all(map(_is_light, state)) else _FEW_HEAVY
        room = max(_SPARE * most, self._few)  # the living, and as many as can grow at once
        self._rows: NDArray[np.float64] = np.zeros((room, vocabulary))
        parts = 0 if self._single else len(self._asked)
        self._parts: NDArray[np.float64] = np.zeros((room, parts, vocabulary))
        self._used = 0  # rows
        self._state = self._ask(np.zeros(slots, dtype=np.int64), state)
        self._place: NDArray[np.int64] = np.arange(slots)  # slot -> row
        self.shares: NDArray[np.float64] = np.zeros((slots, len(scorers)))  # of each slot's tokens so far

    @property
    def scores(self) -> NDArray[np.float64]:
        """(slots, V) weighted scores of the next token; column 0 is the end."""
        return self._rows[self._place] + self._added

    def totals(self) -> NDArray[np.float64]:
        """(slots,) weighted scores of the sentences so far, without an end."""
        return self.shares.sum(axis=1)

    def ended(self) -> NDArray[np.float64]:
        """(slots, scorers) the shares with the end behind each sentence."""
        return self.shares + self._share(self._place, np.zeros(len(self._place), dtype=np.int64))

    def move(self, origins: NDArray[np.int64], tokens: NDArray[np.int64]) -> None:
        """Slot i goes on from what slot origins[i] was, grown by tokens[i] unless that is 0."""
        if len(origins) == len(tokens) == 1 and tokens[0]:
            self._move_one(int(origins[0]), tokens)
            return
        place = self._place[origins]
        (grown,) = tokens.nonzero()
        self.shares = self.shares[origins]
        if len(grown):
            self.shares[grown] += self._share(place[grown], tokens[grown])
            if self._used + len(grown) > max(_SPARE * len(place), self._few):
                place = self._clear(place)
            state = self._sum.reorder(self._state, torch.from_numpy(place[grown]))
            place[grown] = np.arange(self._used, self._used + len(grown))
            state = self._ask(tokens[grown], state)
            self._state = self._sum.join([self._state, state])
        self._place = place

    def _move_one(self, origin: int, tokens: NDArray[np.int64]) -> None:
        """``move`` where one sentence is left and grows: nothing else need be kept."""
        row = self._place[[origin]]
        self.shares = self.shares[[origin]] + self._share(row, tokens)
        state = self._state if self._used == 1 else self._sum.reorder(self._state, torch.from_numpy(row))
        self._used = 0
        self._state = self._ask(tokens, state)
        self._place = _FIRST

    def rebase(self, slot: int) -> None:
        """Count the shares of all slots from those of this one on."""
        self.shares = self.shares - self.shares[slot]

    def _share(self, rows: NDArray[np.int64], tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        shares = self._constant[:, tokens].T
        if self._single:
            shares[:, self._asked[0]] = self._rows[rows, tokens]
        else:
            shares[:, self._asked] = self._parts[rows, :, tokens]
        return shares

    def _ask(self, tokens: NDArray[np.int64], state: tuple[Any, ...]) -> tuple[Any, ...]:
        """Answers for sentences that end in these tokens fill the next rows."""
        each, state = self._sum.each(torch.from_numpy(tokens), state)
        new = slice(self._used, self._used + len(tokens))
        self._used += len(tokens)
        rows = self._rows[new]
        if self._single:
            np.copyto(rows, each[0].numpy())
        else:
            rows.fill(0.0)
            for number, one in enumerate(each):
                self._parts[new, number] = one.numpy()
                rows += one.numpy()
        if not (rows < np.inf).all():
            raise SearchError(
                f"A scorer's log-probabilities are not numbers ({', '.join(self.names)}).",
                mend="Check the language model and its weight.",
            )
        return state

    def _clear(self, place: NDArray[np.int64]) -> NDArray[np.int64]:
        """Forget all rows but these; they stand first afterwards."""
        kept, place = np.unique(place, return_inverse=True)
        self._state = self._sum.reorder(self._state, torch.from_numpy(kept))
        self._rows[: len(kept)] = self._rows[kept]
        if not self._single:
            self._parts[: len(kept)] = self._parts[kept]
        self._used = len(kept)
        return place
