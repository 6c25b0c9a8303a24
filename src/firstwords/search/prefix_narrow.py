"""Prefix beam search where few prefixes live and few tokens are tried: numbers one by one, not arrays.

The search is that of prefix_beam.py. With a margin hardly more than one or two prefixes are alive, and with a
threshold most frames try no token or one; arrays would cost more than what they compute.

    frame            1    2    3    4    5    6        most likely symbols of each
                     -    o    -    ṣ    -    -
                          ọ                            unsure: two prefixes
    alive            1    2    2    2    1    1        the language model has made up its mind
    asked            no   yes  no   yes  no   no       nothing is tried where all but the blank is improbable

Scorers are asked when a prefix may grow, not when it has grown: most die before. Searches of several
utterances wait for each other's questions (``side_by_side``), so that a scorer answers many at once; what one
reads does not depend on the others.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from firstwords.errors import SearchError
from firstwords.search.ctc_common import BLANK
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


def steps(tree: PrefixTree, living: list[Prefix], scores: Floats, narrow: Narrow) -> Steps:
    """(T, V) scores, minus infinity where nothing is to be tried -> the prefixes after them, best first.

    ``living`` stand in the slots 0, 1, ... of the companion; so do those that are returned.
    """
    frames, tried = np.nonzero(scores[:, BLANK + 1 :] > NEVER)
    tried += BLANK + 1
    bounds = np.searchsorted(frames, np.arange(len(scores) + 1)).tolist()
    heard: list[float] = scores[frames, tried].tolist()
    tokens: list[int] = tried.tolist()
    blanks: list[float] = scores[:, BLANK].tolist()
    answer: Floats | None = None
    places = len(living)
    for silent, (begin, end) in zip(blanks, pairwise(bounds), strict=True):
        if begin == end:
            living = [p._replace(blank=_add(p.blank, p.token) + silent, token=NEVER) for p in living]
            if living[0].blank == NEVER:
                raise impossible()
            continue
        if answer is None or any(prefix.grown for prefix in living):
            answer = yield Moves([p.slot for p in living], [p.grown for p in living])
            living = [p._replace(slot=slot, grown=0) for slot, p in enumerate(living)]
            places = len(living)
        options = _options(tree, living, silent, tokens[begin:end], heard[begin:end], answer)
        living = _kept(tree, options, narrow)
    if len(living) < places or any(p.grown or p.slot != slot for slot, p in enumerate(living)):
        yield Moves([p.slot for p in living], [p.grown for p in living])
    return living


_Option: TypeAlias = tuple[float, int, float, float, float, Prefix]
# all in all, the token by which it grows or 0, paths that end in a blank and in a token, share, where from


def _options(
    tree: PrefixTree,
    living: list[Prefix],
    silent: float,
    tokens: list[int],
    heard: list[float],
    answer: Floats,
) -> list[_Option]:
    """What the prefixes can be after one frame: those that stay in their order, then those that grow."""
    number_of = {prefix.node: number for number, prefix in enumerate(living)}
    blanks: list[float] = []
    staying: list[float] = []
    growing: list[_Option] = []
    for prefix in living:
        blanks.append(_add(prefix.blank, prefix.token) + silent)
        staying.append(NEVER)
    for number, prefix in enumerate(living):
        node, last, blank, token, share, slot, _ = prefix
        total = _add(blank, token)
        for symbol, said in zip(tokens, heard, strict=True):
            paths = total + said
            if symbol == last:
                staying[number] = _add(staying[number], token + said)
                paths = blank + said  # the same again needs a blank between
                if paths == NEVER:
                    continue
            same = number_of.get(tree.known_child(node, symbol))
            if same is not None:  # alive already: the two are one
                staying[same] = _add(staying[same], paths)
                continue
            own = share + answer.item(slot, symbol)
            growing.append((paths + own, symbol, NEVER, paths, own, prefix))
    stays: list[_Option] = [
        (_add(blank, token) + prefix.share, 0, blank, token, prefix.share, prefix)
        for blank, token, prefix in zip(blanks, staying, living, strict=True)
    ]
    return stays + growing


def _kept(tree: PrefixTree, options: list[_Option], narrow: Narrow) -> list[Prefix]:
    """The best of the options as prefixes, best first."""
    best = max(option[0] for option in options)
    if best == NEVER:
        raise impossible()
    least = max(best - narrow.margin, -1.7e308)
    options = [option for option in options if option[0] >= least]
    if len(options) > 1:
        options.sort(key=lambda option: -option[0])
        options = _unlike(tree, options, narrow)
    kept: list[Prefix] = []
    for _, token, blank, ends, share, prefix in options:
        if token:
            node = tree.child(prefix.node, token)
            kept.append(Prefix(node, token, blank, ends, share, prefix.slot, token))
        else:
            kept.append(Prefix(prefix.node, prefix.last, blank, ends, share, prefix.slot))
    return kept


def _unlike(tree: PrefixTree, options: list[_Option], narrow: Narrow) -> list[_Option]:
    """The first of them, of those that end alike only one."""
    count = narrow.settled_after
    if count is None:
        return options[: narrow.beam]
    kept: list[_Option] = []
    endings: set[tuple[int, ...]] = set()
    for option in options:
        ending = tree.ending(option[5].node, option[1], count)
        if ending not in endings:
            endings.add(ending)
            kept.append(option)
            if len(kept) == narrow.beam:
                break
    return kept


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
