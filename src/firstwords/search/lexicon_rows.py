"""A word model asked letter by letter, so that a search need not wait for the end of a word; in numpy.

A word model says how probable each word is; a search wants to know after every token. From a tree of all
spellings the words that may still come of the letters so far are known, and the best of them (or their sum)
is lent at once ("language model look-ahead": Ortmanns, Ney and Eiden, 1996, "Language-model look-ahead for
large vocabulary speech recognition"). With L(n) the logarithm of that for the node n of the tree, L = 0 where
a word begins:

    token that goes on, from n to m      L(m) - L(n)
    end of the word w at n               log P(w | words before) - L(n)

so over a word the terms add up to log P(w | words before), and over a sentence to what the word model says of
it. A spelling that is in no tree is an unknown word: it gets the model's log-probability of one, and
``letter`` nats for each of its tokens.

    tree   c-a-r            c        a        r        ▁
           c-a-t            P(car)   -        -        -         if car is the likelier and is what is said
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar, final

import numpy as np
from numpy.typing import NDArray

from firstwords.errors import SearchError
from firstwords.search.words import END, NEVER, WordBoundaries
from firstwords.text.tokenizer import Tokenizer

History = TypeVar("History")  # what a word model knows of the words before; hashable
UNKNOWN = -1
_OUTSIDE = -1  # node of a spelling that is in no tree
_KEPT = 4096  # histories and rows whose numbers are kept, at most
_KEPT_BYTES = 256 << 20  # of the numbers of histories: two for each word
_FEWEST = 32  # histories kept however many words there are


class WordModel(Protocol[History]):
    """A language model over words, numbered from 1; 0 is the end of the sentence, as in token scorers."""

    def start(self) -> History:
        """Nothing said yet."""
        ...

    def scores(self, history: History) -> NDArray[np.floating]:
        """(words + 1,) natural-log probabilities of what comes next, the end first."""
        ...

    def oov(self, history: History) -> float:
        """Natural-log probability that a word which is none of its own comes next."""
        ...

    def advance(self, history: History, word: int) -> History:
        """One word more; ``UNKNOWN`` (-1) is one that it does not know."""
        ...


class Place(NamedTuple, Generic[History]):
    """Where a sentence stands."""

    history: History  # the words that have ended
    node: int  # of the tree; 0: no word is under way
    length: int  # tokens of the word under way


@dataclass
class _Tree:
    """Spellings, sorted, so that the words below a node are neighbours."""

    words: NDArray[np.int64]  # the word of each spelling
    children: list[dict[int, int]] = field(default_factory=list[dict[int, int]])  # token -> node
    first: list[int] = field(default_factory=list[int])  # the spellings below each node
    last: list[int] = field(default_factory=list[int])  # exclusive
    ending: list[int] = field(default_factory=list[int])  # the word that ends at each node, 0 if none


@final
class LexiconRows:
    """Scores of next tokens, natural log, from a word model and the spellings of its words.

    Args:
        spellings: tokens of every word and its number, without what parts words; a word may have several.
        boundaries: of the tokenizer that spelled them.
        letter: nats for every token of an unknown word.
        look_ahead: what is lent: the best of the words that may still come, or all of them.
    """

    def __init__(
        self,
        model: WordModel[Any],
        spellings: Sequence[tuple[Sequence[int], int]],
        boundaries: WordBoundaries,
        *,
        letter: float = -1.0,
        look_ahead: Literal["best", "sum"] = "best",
    ) -> None:
        self.model = model
        self.boundaries = boundaries
        self.letter = letter
        self.look_ahead = look_ahead
        self._tree = _plant(spellings, boundaries)
        self._numbers: dict[Any, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
        self._most = min(_KEPT, max(_FEWEST, _KEPT_BYTES // (16 * max(1, len(spellings)))))
        self._rows: dict[Place[Any], NDArray[np.float64]] = {}

    def start(self) -> Place[Any]:
        """Nothing said yet."""
        return Place(self.model.start(), 0, 0)

    def after(self, place: Place[Any], token: int) -> Place[Any]:
        """One token more; the end changes nothing."""
        if token == END:
            return place
        if self.boundaries.parts[token]:
            return self._ended(place)
        if self.boundaries.begins[token]:
            place = self._ended(place)
        node = _OUTSIDE
        if place.node != _OUTSIDE:
            node = self._tree.children[place.node].get(token, _OUTSIDE)
        # Outside the tree nothing depends on the number of tokens: each has been paid for.
        return Place(place.history, node, place.length + 1 if node != _OUTSIDE else 1)

    def row(self, place: Place[Any]) -> NDArray[np.float64]:
        """(V,) scores of every next token, that of the end first."""
        row = self._rows.get(place)
        if row is None:
            numbers = np.full(self.boundaries.vocabulary, NEVER)
            ended = self._ended(place)
            closing = self._closing(place)
            inside = ~(self.boundaries.parts | self.boundaries.begins)
            numbers[inside] = self._going(place)[inside]
            numbers[self.boundaries.parts] = closing
            numbers[self.boundaries.begins] = closing + self._going(ended)[self.boundaries.begins]
            numbers[END] = closing + float(self._of(ended.history)[1][0])
            row = numbers
            if len(self._rows) >= _KEPT:
                self._rows.clear()
            self._rows[place] = row
        return row

    # -- one step below

    def _ended(self, place: Place[Any]) -> Place[Any]:
        """Behind the word under way, if there is one."""
        if place.length == 0:
            return place
        word = self._tree.ending[place.node] if place.node != _OUTSIDE else 0
        return Place(self.model.advance(place.history, word or UNKNOWN), 0, 0)

    def _going(self, place: Place[Any]) -> NDArray[np.float64]:
        """(V,) scores of the tokens as the next of the word under way."""
        if place.node == _OUTSIDE:
            return np.full(self.boundaries.vocabulary, self.letter)
        lent = self._lent(place)
        leaving = self.model.oov(place.history) + self.letter * (place.length + 1) - lent
        found = np.full(self.boundaries.vocabulary, leaving)
        for token, node in self._tree.children[place.node].items():
            found[token] = self._ahead(place.history, node) - lent
        return found

    def _closing(self, place: Place[Any]) -> float:
        """What is missing when the word under way ends."""
        if place.length == 0 or place.node == _OUTSIDE:
            return 0.0
        word = self._tree.ending[place.node]
        if word:
            return float(self._of(place.history)[1][word]) - self._lent(place)
        return self.model.oov(place.history) + self.letter * place.length - self._lent(place)

    def _lent(self, place: Place[Any]) -> float:
        return self._ahead(place.history, place.node) if place.length else 0.0

    def _ahead(self, history: Any, node: int) -> float:
        """L of a node: of the words below it; that of an unknown word where none of them is possible."""
        spelled, _ = self._of(history)
        below = spelled[self._tree.first[node] : self._tree.last[node]]
        best = float(below.max())
        if best == NEVER:
            return self.model.oov(history)
        return best if self.look_ahead == "best" else best + float(np.log(np.exp(below - best).sum()))

    def _of(self, history: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Log-probabilities after these words: in the order of the tree, and by number."""
        found = self._numbers.get(history)
        if found is None:
            scores = np.asarray(self.model.scores(history), dtype=np.float64)
            if len(scores) <= int(self._tree.words.max(initial=0)):
                raise SearchError(
                    f"The word model gives {len(scores)} numbers, fewer than the lexicon has words.",
                    mend="Make the lexicon from the model's own words.",
                )
            if len(self._numbers) >= self._most:
                self._numbers.clear()
            found = self._numbers[history] = scores[self._tree.words], scores
        return found


def spell_words(words: Sequence[str], tokenizer: Tokenizer) -> list[tuple[tuple[int, ...], int]]:
    """Words, the first of them number 1 -> their spellings as ``LexiconScorer`` wants them."""
    boundaries = WordBoundaries.of(tokenizer.pieces)
    return [
        (tuple(token for token in tokenizer.encode(word) if not boundaries.parts[token]), number)
        for number, word in enumerate(words, start=1)
    ]


def _plant(spellings: Sequence[tuple[Sequence[int], int]], boundaries: WordBoundaries) -> _Tree:
    ordered = sorted((tuple(tokens), word) for tokens, word in spellings)
    tree = _Tree(np.array([word for _, word in ordered], dtype=np.int64))

    def grow() -> int:
        tree.children.append({})
        tree.first.append(len(ordered))
        tree.last.append(0)
        tree.ending.append(0)
        return len(tree.children) - 1

    grow()
    for place, (tokens, word) in enumerate(ordered):
        _check_spelling(tokens, word, boundaries)
        node = 0
        for token in tokens:
            if token not in tree.children[node]:
                tree.children[node][token] = grow()
            node = tree.children[node][token]
            tree.first[node] = min(tree.first[node], place)
            tree.last[node] = place + 1
        if tree.ending[node]:
            raise SearchError(
                f"Words {tree.ending[node]} and {word} of the lexicon are spelled alike.",
                mend="Leave one of them out: nothing can tell them apart.",
            )
        tree.ending[node] = word
    return tree


def _check_spelling(tokens: tuple[int, ...], word: int, boundaries: WordBoundaries) -> None:
    known = all(0 < token < boundaries.vocabulary for token in tokens)
    if word < 1 or not tokens or not known or any(boundaries.parts[token] for token in tokens):
        raise SearchError(
            f"The lexicon spells word {word} with the tokens {list(tokens)}.",
            mend="Number words from 1, and spell each with one or more of the tokenizer's pieces, no space.",
        )
    if any(boundaries.begins[token] for token in tokens[1:]):
        raise SearchError(
            f"Word {word} of the lexicon holds a piece that begins a word: tokens {list(tokens)}.",
            mend="Split it into the words that it consists of.",
        )
