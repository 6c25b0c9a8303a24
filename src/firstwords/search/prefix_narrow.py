"""Prefix beam search where few prefixes live and few tokens are tried: numbers one by one, not arrays.

The search is that of prefix_beam.py. With a margin hardly more than one or two prefixes are alive, and with a
threshold most frames try no token or one; arrays would cost more than what they compute.

    frame            1    2    3    4    5    6        most likely symbols of each
                     -    o    -    ṣ    -    -
                          ọ                            unsure: two prefixes
    alive            1    2    2    2    1    1        the language model has made up its mind
    asked            no   yes  no   yes  no   no       nothing is tried where all but the blank is improbable

Scorers are asked when a prefix may grow, not when it has grown: most die before. Searches of several
utterances wait for each other's questions (``side_by_side``), so that a scorer answers many at once. What one
reads depends on the others no more than the scorer's answers do: not at all with n-grams; networks round
otherwise for another number of rows, so that readings as good as equal may change places.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from itertools import pairwise
from operator import itemgetter
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from firstwords.errors import SearchError
from firstwords.search.prefix_tree import PrefixTree

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
NEVER = -math.inf


class Prefix(NamedTuple):
    """One that is alive: log-probabilities of its paths, and where the scorers know it."""

    node: int
    last: int  # its last token
    blank: float  # of the paths that end in a blank
    token: float  # of those that end in its last token
    share: float  # of the scorers
    slot: int  # of the companion, for the prefix itself or, where it has grown since, for that before it
    grown: int = 0  # the token by which it has grown; 0: not yet


class Narrow(NamedTuple):
    """How few prefixes live (``CtcBeamConfig``)."""

    beam: int
    margin: float
    settled_after: int | None


class Heard(NamedTuple):
    """The frames as lists: the tokens that are tried at frame t lie from bounds[t] to bounds[t + 1].

    Frames that follow each other and try no token are one: its blank is as probable as all theirs.
    """

    blanks: list[float]  # log-probability of the blank at each frame
    bounds: list[int]
    tokens: list[int]
    scores: list[float]  # log-probabilities of these tokens

    @classmethod
    def of(cls, log_probs: Floats, blanks: Floats, tried: NDArray[np.bool_]) -> Heard:
        """(T, V) log-probabilities, those of the blank (T,), and what shall be tried beside it."""
        frames, tokens = np.nonzero(tried)
        speaks = np.append(True, tried.any(axis=1))  # a silence may begin with the first frame, too
        (starts,) = np.nonzero(speaks[:-1] | speaks[1:])  # frames that are not silence after silence
        sums = np.add.reduceat(blanks, starts) if len(starts) else blanks
        bounds = np.searchsorted(frames, np.append(starts, len(log_probs)))
        scores = log_probs[frames, tokens]
        return cls(sums.tolist(), bounds.tolist(), tokens.tolist(), scores.tolist())


class Moves(NamedTuple):
    """A question: place i goes on from what place origins[i] was, grown by tokens[i] unless that is 0."""

    origins: list[int]
    tokens: list[int]


Steps: TypeAlias = Generator[Moves, Floats, list[Prefix]]  # the answers are (places, V) scores


class Answers(Protocol):
    """``Beside`` (prefix_beam.py), as far as it is needed here."""

    @property
    def scores(self) -> Floats:
        """(slots, V) of the next token; column 0 is the end."""
        ...

    def move(self, origins: Ints, tokens: Ints) -> None:
        """Slot i goes on from what slot origins[i] was, grown by tokens[i] unless that is 0."""
        ...


def side_by_side(searches: Sequence[Steps], places: Sequence[int], companion: Answers) -> list[list[Prefix]]:
    """Run searches to their ends -> their prefixes, whose slots are then theirs in the companion, in order.

    Args:
        places: number of slots that each search has of the companion's, one search after the other.
    """
    counts = list(places)
    found: list[list[Prefix]] = [[] for _ in searches]
    asked: dict[int, Moves] = {}

    def go_on(number: int, answer: Floats | None) -> None:
        try:
            asked[number] = searches[number].send(answer) if answer is not None else next(searches[number])
        except StopIteration as end:
            found[number] = end.value
            asked.pop(number, None)

    for number in range(len(searches)):
        go_on(number, None)
    while asked:
        origins: list[int] = []
        tokens: list[int] = []
        first = 0
        for number, count in enumerate(counts):
            moves = asked.get(number)
            if moves is None:
                origins.extend(range(first, first + count))
                tokens.extend([0] * count)
            else:
                origins.extend(first + origin for origin in moves.origins)
                tokens.extend(moves.tokens)
                counts[number] = len(moves.tokens)
            first += count
        companion.move(np.array(origins, dtype=np.int64), np.array(tokens, dtype=np.int64))
        scores = companion.scores
        first = 0
        for number, count in enumerate(counts):
            if number in asked:
                go_on(number, scores[first : first + count])
            first += count
    return found


def steps(tree: PrefixTree, living: list[Prefix], heard: Heard, narrow: Narrow) -> Steps:
    """The next frames -> the prefixes after them, best first.

    ``living`` stand in the slots 0, 1, ... of the companion; so do those that are returned.
    """
    tokens, said = heard.tokens, heard.scores
    answer: Floats | None = None
    places = len(living)
    for silent, (begin, end) in zip(heard.blanks, pairwise(heard.bounds), strict=True):
        if begin == end:
            living = [
                Prefix(node, last, _add(blank, token) + silent, NEVER, share, slot, grown)
                for node, last, blank, token, share, slot, grown in living
            ]
            if living[0].blank == NEVER:
                raise impossible()
            continue
        if end - begin == len(living) == 1:
            node, last, blank, token, share, slot, grown = living[0]
            if blank == NEVER and tokens[begin] == last:  # the token goes on, and nothing else can be
                living = [Prefix(node, last, token + silent, token + said[begin], share, slot, grown)]
                continue
        number_of = {prefix.node: number for number, prefix in enumerate(living)}
        staying = [NEVER] * len(living)  # paths that end in the last token
        growing: list[_Option] = []
        for number in range(len(living)):
            node, last, blank, token, share, slot, grown = living[number]
            total = _add(blank, token)
            for place in range(begin, end):
                symbol, paths = tokens[place], total + said[place]
                if symbol == last:
                    staying[number] = _add(staying[number], token + said[place])
                    paths = blank + said[place]  # the same again needs a blank between
                    if paths == NEVER:
                        continue
                same = number_of.get(tree.known_child(node, symbol))
                if same is not None:  # alive already: the two are one
                    staying[same] = _add(staying[same], paths)
                    continue
                if answer is None or grown:
                    answer = yield Moves([p.slot for p in living], [p.grown for p in living])
                    living = [p._replace(slot=slot, grown=0) for slot, p in enumerate(living)]
                    places, slot, grown = len(living), number, 0
                own = share + answer.item(slot, symbol)
                growing.append((paths + own, symbol, NEVER, paths, own, node, symbol, number))
        options: list[_Option] = []
        for number, (node, last, blank, token, share, _, _) in enumerate(living):
            silence, ends = _add(blank, token) + silent, staying[number]
            options.append((_add(silence, ends) + share, last, silence, ends, share, node, 0, number))
        living = _kept(tree, living, options + growing, narrow)
    if len(living) < places or any(p.grown or p.slot != slot for slot, p in enumerate(living)):
        yield Moves([p.slot for p in living], [p.grown for p in living])
    return living


_Option: TypeAlias = tuple[float, int, float, float, float, int, int, int]
# All in all; last token; paths that end in a blank, in a token; share; node; token by which it grows now or
# 0; number of the prefix.


def _kept(tree: PrefixTree, living: list[Prefix], options: list[_Option], narrow: Narrow) -> list[Prefix]:
    """The best of what the prefixes can be after one frame, best first."""
    best = max(options)[0]
    if best == NEVER:
        raise impossible()
    least = max(best - narrow.margin, -1.7e308)
    options = [option for option in options if option[0] >= least]
    if len(options) > 1:
        options.sort(key=_worth, reverse=True)  # keeps the order of equals
        options = _unlike(tree, options, narrow)
    kept: list[Prefix] = []
    for _, last, blank, ends, share, node, token, number in options:
        _, _, _, _, _, slot, grown = living[number]
        if token:
            node, grown = tree.child(node, token), token
        kept.append(Prefix(node, last, blank, ends, share, slot, grown))
    return kept


def _unlike(tree: PrefixTree, options: list[_Option], narrow: Narrow) -> list[_Option]:
    """The first of them, of those that end alike only one."""
    count = narrow.settled_after
    if count is None:
        return options[: narrow.beam]
    kept: list[_Option] = []
    endings: set[tuple[int, ...]] = set()
    for option in options:
        ending = tree.ending(option[5], option[6], count)
        if ending not in endings:
            endings.add(ending)
            kept.append(option)
            if len(kept) == narrow.beam:
                break
    return kept


_worth = itemgetter(0)


def impossible() -> SearchError:
    """What a search says that cannot go on."""
    return SearchError(
        "No symbol is possible at some frame: all log-probabilities there are minus infinity.",
        mend="Lower token_threshold, or raise tokens_per_frame.",
    )


def _add(a: float, b: float) -> float:
    """log(exp(a) + exp(b))"""
    if b == NEVER:
        return a
    if a == NEVER:
        return b
    high, low = (a, b) if a >= b else (b, a)
    return high + math.log1p(math.exp(low - high))
