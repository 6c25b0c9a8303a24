"""Phrase boosting: names and terms that are likely here, as bonuses of next tokens; in numpy.

Every token of a sentence that lies in a complete occurrence of a phrase earns the phrase's weight (the
highest, where occurrences overlap), once. A search must not wait for the end of a phrase to hear of it, so
the weight is lent token by token, and taken back where the phrase breaks off ("back-off refund", as in the
context graphs of Zhao et al., 2019, Interspeech, "Shallow-fusion end-to-end contextual biasing"):

    phrase "anna", weight 1      a   n   n   a   ▁        a   n   d
    bonus                        1   1   1   1   0        1   1  -2
    total                                        4                0

What is lent never counts at the end: over a whole sentence the sum is that of the complete occurrences,
whatever the search did in between. An occurrence consists of whole words unless told otherwise: "anna" is not
in "hannah". Among several phrases under way the one with most to lend lends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from firstwords.errors import SearchError, TextError
from firstwords.search.words import END, WordBoundaries
from firstwords.text.pieces import BYTES
from firstwords.text.tokenizer import Tokenizer

_NO_LETTERS = 2  # pieces beside bytes that are no letters: blank, space
_SHOWN = 5
SPOTTED = 'kind = "spotted phrases"'  # a line of spotted.py's files


class Phrase(NamedTuple):
    """Tokens of a phrase, without what parts it from its neighbours, and its weight in nats per token."""

    tokens: tuple[int, ...]
    weight: float


@dataclass
class _Node:
    """The beginnings of phrases as a tree."""

    number: int
    depth: int
    weight: float = 0.0  # of the phrase that ends here
    most: float = 0.0  # of the phrases that go through
    children: dict[int, _Node] = field(default_factory=dict[int, "_Node"])


class _Place(NamedTuple):
    """What the tokens so far mean for those to come; places that mean the same are one."""

    matches: tuple[int, ...]  # nodes of the phrases under way, longest first
    earned: tuple[float, ...]  # weight for good of the last tokens, as many as the longest match has
    fresh: bool  # the next token begins a word whatever it is


@final
class PhraseRows:
    """Bonuses in nats for the next token; a state is the number of a place, 0 the start.

    Places and their rows are made when they are first met and kept: memory grows with the beginnings of
    phrases that were met, times the vocabulary.

    Args:
        boundaries: of the tokenizer that the phrases were spelled with.
        whole_words: phrases begin and end where words do.
    """

    def __init__(
        self, phrases: Sequence[Phrase], boundaries: WordBoundaries, *, whole_words: bool = True
    ) -> None:
        self.boundaries = boundaries
        self.whole_words = whole_words
        self._nodes: list[_Node] = [_Node(0, 0)]
        for phrase in phrases:
            self._add(phrase)
        self._places: list[_Place] = [_Place((), (), True)]
        self._lent: list[float] = [0.0]
        self._known: dict[_Place, int] = {self._places[0]: 0}
        self._next: dict[tuple[int, int], int] = {}
        self._rows: dict[int, NDArray[np.float64]] = {}

    def start(self) -> int:
        """Nothing said yet."""
        return 0

    def after(self, place: int, token: int) -> int:
        """The place after one token more; 0 as a token is the start of the sentence."""
        if token == END:
            return place
        found = self._next.get((place, token))
        if found is None:
            reached, _ = self._step(self._places[place], token)
            found = self._known.setdefault(reached, len(self._places))
            if found == len(self._places):
                self._places.append(reached)
                self._lent.append(self._lends(reached))
            self._next[place, token] = found
        return found

    def row(self, number: int) -> NDArray[np.float64]:
        """(V,) bonuses of every next token, refunds among them; that of the end first."""
        row = self._rows.get(number)
        if row is None:
            place, lent = self._places[number], self._lent[number]
            row = np.zeros(self.boundaries.vocabulary)
            nodes = [self._nodes[n] for n in (*place.matches, 0)]
            special = {END} | {token for node in nodes for token in node.children}
            # All other tokens break off every match; they differ in what they say of words.
            parts, begins = self.boundaries.parts, self.boundaries.begins
            for kind in (parts, begins, ~(parts | begins)):
                ids = kind.nonzero()[0].tolist()
                ordinary = next((token for token in ids if token not in special), None)
                if ordinary is not None:
                    row[kind] = self._bonus(place, ordinary, lent)
            for token in special:
                row[token] = self._bonus(place, token, lent)
            self._rows[number] = row
        return row

    # -- one step below

    def _add(self, phrase: Phrase) -> None:
        vocabulary = self.boundaries.vocabulary
        if not phrase.tokens or not all(0 < token < vocabulary for token in phrase.tokens):
            raise SearchError(
                f"A phrase is {list(phrase.tokens)}, which is not one or more of the tokens 1 to "
                f"{vocabulary - 1}.",
                mend="Spell phrases with the recogniser's own tokenizer.",
            )
        if not 0 < phrase.weight < float("inf"):
            raise SearchError(
                f"A phrase has the weight {phrase.weight:g}, which is not above 0.",
                mend="Give weights in nats per token, such as 1.5.",
            )
        node = self._nodes[0]
        for token in phrase.tokens:
            if token not in node.children:
                node.children[token] = _Node(len(self._nodes), node.depth + 1)
                self._nodes.append(node.children[token])
            node = node.children[token]
            node.most = max(node.most, phrase.weight)
        node.weight = max(node.weight, phrase.weight)

    def _bonus(self, place: _Place, token: int, lent: float) -> float:
        reached, earned = self._step(place, token)
        return earned + self._lends(reached) - lent

    def _step(self, place: _Place, token: int) -> tuple[_Place, float]:
        """The place after a token (or the end), and what was earned for good."""
        parts = token != END and bool(self.boundaries.parts[token])
        begins = token != END and bool(self.boundaries.begins[token])
        earned, total = list(place.earned), 0.0
        if self.whole_words and (token == END or parts or begins):
            total = self._earn(place.matches, earned)
        if token == END:
            return _Place((), (), True), total
        may_begin = not self.whole_words or place.fresh or begins
        matches = (*place.matches, 0) if may_begin else place.matches
        reached = tuple(
            node.number for node in (self._nodes[n].children.get(token) for n in matches) if node is not None
        )
        earned.append(0.0)
        if not self.whole_words:
            total += self._earn(reached, earned)
        longest = self._nodes[reached[0]].depth if reached else 0
        return _Place(reached, tuple(earned[len(earned) - longest :]), parts), total

    def _earn(self, matches: tuple[int, ...], earned: list[float]) -> float:
        """Phrases that are complete: their tokens earn; -> by how much more than before."""
        before = sum(earned)
        for node in (self._nodes[n] for n in matches):
            if node.weight > 0:
                for back in range(1, node.depth + 1):
                    earned[-back] = max(earned[-back], node.weight)
        return sum(earned) - before

    def _lends(self, place: _Place) -> float:
        """What the phrases under way would earn if they were complete; the most of any of them."""
        found = 0.0
        for node in (self._nodes[n] for n in place.matches):
            own = place.earned[len(place.earned) - node.depth :]
            found = max(found, sum(max(0.0, node.most - weight) for weight in own))
        return found


def boost_by_length(tokens: int, scale: float = 1.0) -> float:
    """Nats per token for a phrase of so many tokens: ``scale`` for each but two of them, shared by all.

    What a recogniser has against a rare word grows with its length; what speaks against hearing any one of a
    list of words does not. With as much for each token short phrases are heard where nobody said them
    (LOG.md, 2026-11-22).
    """
    return scale * max(tokens - 2, tokens / 8) / tokens


def read_phrases(path: Path, normalize: Callable[[str], str]) -> dict[str, float | None]:
    """A file with one phrase a line, its boost behind a tab if it has one -> phrases and boosts or None.

    Args:
        normalize: that of the recogniser's transcripts; empty lines are skipped, of equal phrases the
            highest boost counts.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise SearchError(f"'{path}' is no UTF-8 text.", mend="Save the phrases as UTF-8.") from None
    except OSError as error:
        raise SearchError(
            f"The phrases '{path}' cannot be read: {error.strerror or error}.", mend="Check the path."
        ) from None
    if SPOTTED in lines[:3]:
        raise SearchError(
            f"'{path}' was made by 'firstwords phrases': it is no list of phrases.",
            mend="Give the list itself; the other is for 'transcribe' and 'evaluate' with the model folder.",
        )
    found: dict[str, float | None] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        written, _, behind = line.partition("\t")
        text = normalize(written)
        if not text.strip():
            raise SearchError(
                f"'{path}', line {number}: nothing is left of {written!r} after normalizing.",
                mend="Take the line out.",
            )
        boosts = (found.get(text), _boost(behind.strip(), f"'{path}', line {number}"))
        found[text] = max((boost for boost in boosts if boost is not None), default=None)
    if not found:
        raise SearchError(f"'{path}' holds no phrases.", mend="Write one phrase a line.")
    return found


def _boost(text: str, where: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise SearchError(
            f"{where}: the boost {text!r} is no number above 0.",
            mend="Write the phrase, a tab and nats per token, such as 1.5; without them its length decides.",
        )
    return value


def phrases_unspelled(phrases: Iterable[str], tokenizer: Tokenizer) -> list[str]:
    """What a user must be told of phrases with letters that have no pieces: they are spelled in bytes.

    Nothing where the tokenizer spells all text in bytes, for then these are learned.
    """
    spare = {n for n, piece in enumerate(tokenizer.pieces) if piece in BYTES}
    if len(tokenizer.pieces) - len(spare) <= _NO_LETTERS:
        return []
    phrases = list(phrases)
    lost = [text for text in phrases if not spare.isdisjoint(_spelled(text, tokenizer))]
    if not lost:
        return []
    more = f" and {len(lost) - _SHOWN:,} more" if len(lost) > _SHOWN else ""
    return [
        f"{len(lost):,} of {len(phrases):,} phrases hold letters that this recogniser has no pieces for, and "
        f"will hardly be heard: {', '.join(lost[:_SHOWN])}{more}."
    ]


def _spelled(text: str, tokenizer: Tokenizer) -> list[int]:
    try:
        return tokenizer.encode(text)
    except TextError as error:  # of a tokenizer without bytes
        raise SearchError(
            f"The phrase {text!r} cannot be heard: {error.what}", mend="Take it out of the list of phrases."
        ) from None


def spelled_phrases(
    phrases: Mapping[str, float | None], tokenizer: Tokenizer, *, scale: float = 1.0
) -> list[Phrase]:
    """Phrases as text (normalized as the recogniser's transcripts) with their weights -> their tokens.

    Those without a weight have one by their length (``boost_by_length``). Each is spelled as the tokenizer
    spells it alone; where pieces can spell a word in several ways, the others are not heard as the phrase.
    """
    boundaries = WordBoundaries.of(tokenizer.pieces)
    spelled: list[Phrase] = []
    for text, weight in phrases.items():
        tokens = _spelled(text, tokenizer)
        while tokens and boundaries.parts[tokens[0]]:
            tokens = tokens[1:]
        while tokens and boundaries.parts[tokens[-1]]:
            tokens = tokens[:-1]
        if not tokens:
            raise SearchError(
                f"The phrase {text!r} has no letters.", mend="Take it out of the list of phrases."
            )
        if weight is None:
            weight = boost_by_length(len(tokens), scale)
        spelled.append(Phrase(tuple(tokens), weight))
    return spelled
