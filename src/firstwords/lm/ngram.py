"""A back-off n-gram model as flat arrays: states in, states out, any number at once.

Every n-gram is a node of one trie whose path spells its words from left to right; the root is the empty
n-gram. Nodes are numbered order by order, within an order by (parent, word), so five arrays hold everything:

    node       0      1       2     3      4   5        6
    n-gram     -      <unk>   <s>   </s>   a   <s> a    a </s>        words <unk> 0, <s> 1, </s> 2, a 3
    parent     -1     0       0     0      0   2        4
    word       -1     0       1     2      3   3        2

The children of a node (all words seen after it) stand together, and one binary search over parent * V + word
finds any child of any node. A state is the node of the longest context that can still matter; from a state
the ``fail`` link leads to its longest proper suffix in the trie, where backing off goes on:

    P(w | state) = child's probability                     where the state has a child w
                   backoff(state) P(w | fail(state))       otherwise

Katz, 1987; the states are those of Heafield, 2011, "KenLM: Faster and smaller language model queries".
Probabilities are natural logarithms.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, final

import numpy as np

if TYPE_CHECKING:  # models are queried without it, too
    from jaxtyping import Float32, Float64, Int32, Int64

UNKNOWN, BEGIN, END = 0, 1, 2  # ids of the first three words of every model
SPECIAL = ("<unk>", "<s>", "</s>")
ROOT = 0


class Level(NamedTuple):
    """The n-grams of one order, sorted by (parent, word)."""

    parent: Int64[np.ndarray, " grams"]  # place in the order below
    word: Int32[np.ndarray, " grams"]
    log_prob: Float64[np.ndarray, " grams"]  # NaN: what backing off gives
    backoff: Float64[np.ndarray, " grams"]  # log


@final
class NgramModel:
    """Back-off weights of n-grams over a list of words.

    Args:
        words: id -> word; the first three are <unk>, <s>, </s>.
        levels: one per order; the first holds every word at its own place.
    """

    def __init__(self, words: Sequence[str], levels: Sequence[Level]) -> None:
        assert tuple(words[:3]) == SPECIAL
        assert len(levels[0].word) == len(words)
        self.words = tuple(words)
        self.order = len(levels)
        sizes = [len(level.word) for level in levels]
        self.first = np.cumsum([0, 1, *sizes])  # order n: nodes first[n] to first[n + 1]
        above = zip(self.first[1:-2], levels[1:], strict=True)
        below = [np.full(sizes[0], ROOT), *(first + level.parent for first, level in above)]
        self.parent: Int64[np.ndarray, " nodes"] = np.concatenate([[-1], *below]).astype(np.int64)
        self.word: Int32[np.ndarray, " nodes"] = np.concatenate(
            [[-1], *(level.word for level in levels)]
        ).astype(np.int32)
        # float32 as in KenLM: 1e-6 at the smallest probabilities that occur
        self.log_prob: Float32[np.ndarray, " nodes"] = np.concatenate(
            [[0.0], *(level.log_prob for level in levels)]
        ).astype(np.float32)
        self.backoff: Float32[np.ndarray, " nodes"] = np.concatenate(
            [[0.0], *(level.backoff for level in levels)]
        ).astype(np.float32)
        self._keys = self.parent[1:] * len(words) + self.word[1:]
        self._children = np.searchsorted(self.parent, np.arange(len(self.parent) + 1))
        self.fail = self._link()
        self._fill()
        self.next_state = self._shorten()

    @cached_property
    def id_of(self) -> dict[str, int]:
        """Word -> id."""
        return {word: i for i, word in enumerate(self.words)}

    @property
    def begin(self) -> int:
        """The state before the first word of a sentence."""
        return int(self.next_state[1 + BEGIN])

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of n-grams of each order."""
        return tuple(int(n) for n in np.diff(self.first[1:]))

    def word_ids(self, words: Sequence[str]) -> Int64[np.ndarray, " words"]:
        """Words -> ids; those the model does not know are <unk>."""
        known = self.id_of
        return np.array([known.get(word, UNKNOWN) for word in words], dtype=np.int64)

    def find(
        self, nodes: Int64[np.ndarray, " rows"], words: Int64[np.ndarray, " rows"]
    ) -> Int64[np.ndarray, " rows"]:
        """The child ``word`` of each node, or -1."""
        wanted = nodes * len(self.words) + words
        at = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        return np.where(self._keys[at] == wanted, at + 1, -1)

    def advance(
        self, states: Int64[np.ndarray, " rows"], words: Int64[np.ndarray, " rows"]
    ) -> tuple[Float64[np.ndarray, " rows"], Int64[np.ndarray, " rows"]]:
        """log P(word | state) of each row, and the states after these words."""
        total, found = self._descend(states, words)
        return total + self.log_prob[found], self.next_state[found]

    def rows(
        self, states: Int64[np.ndarray, " rows"]
    ) -> tuple[Float32[np.ndarray, "rows words"], Int32[np.ndarray, "rows words"]]:
        """log P of every word after each state, and the states after them.

        Without <s>, which is no event, a row sums to one as far as the model's weights do. A row is written
        from short contexts to long ones: what the longer has seen stands in the end.
        """
        rows: list[int] = []  # of every context: its row, its node, and what is paid for leaving longer ones
        nodes: list[int] = []
        paid: list[float] = []
        left: list[float] = []  # of each row: what is paid where nothing is known but the word
        for row, node in enumerate(states.tolist()):
            total, first = 0.0, len(nodes)
            while node != ROOT:
                rows.append(row)
                nodes.append(node)
                paid.append(total)
                total += self.backoff.item(node)
                node = self.fail.item(node)
            nodes[first:], paid[first:] = nodes[first:][::-1], paid[first:][::-1]
            left.append(total)
        scores, nexts = (np.repeat(row[None], len(states), axis=0) for row in self._root_rows)
        scores += np.array(left, dtype=np.float32)[:, None]
        every = np.array(nodes, dtype=np.int64)
        start = self._children[every]
        counts = self._children[every + 1] - start
        ends = counts.cumsum()
        children = np.arange(counts.sum()) + (start - ends + counts).repeat(counts)
        into, words = np.array(rows, dtype=np.int64).repeat(counts), self.word[children]
        scores[into, words] = self.log_prob[children] + np.array(paid).repeat(counts)
        nexts[into, words] = self.next_state[children]
        scores[:, BEGIN] = -np.inf
        return scores, nexts

    @cached_property
    def _root_rows(self) -> tuple[Float32[np.ndarray, " words"], Int32[np.ndarray, " words"]]:
        """``rows`` of the state that knows nothing."""
        everywhere = slice(1, 1 + len(self.words))
        return self.log_prob[everywhere].copy(), self.next_state[everywhere].astype(np.int32)

    def sentence(self, words: Int64[np.ndarray, " words"]) -> Float64[np.ndarray, " words_and_end"]:
        """log P of each word of a sentence, and of its end."""
        state = np.array([self.begin])
        scores: list[float] = []
        for word in [*words.tolist(), END]:
            score, state = self.advance(state, np.array([word]))
            scores.append(float(score[0]))
        return np.array(scores)

    def level(self, order: int) -> Level:
        """The n-grams of one order, as they were given."""
        nodes = slice(int(self.first[order]), int(self.first[order + 1]))
        return Level(
            self.parent[nodes] - self.first[order - 1],
            self.word[nodes],
            self.log_prob[nodes].astype(np.float64),
            self.backoff[nodes].astype(np.float64),
        )

    def _descend(
        self, states: Int64[np.ndarray, " rows"], words: Int64[np.ndarray, " rows"]
    ) -> tuple[Float64[np.ndarray, " rows"], Int64[np.ndarray, " rows"]]:
        """The back-off weights paid on the way, and the node of the longest n-gram that fits."""
        nodes, words = states.astype(np.int64), words.astype(np.int64)
        total = np.zeros(len(nodes))
        found = np.full(len(nodes), -1, dtype=np.int64)
        left = np.arange(len(nodes))
        while len(left):  # the root has every word
            child = self.find(nodes[left], words[left])
            found[left] = child
            left = left[child < 0]
            total[left] += self.backoff[nodes[left]]
            nodes[left] = self.fail[nodes[left]]
        return total, found

    def _link(self) -> Int64[np.ndarray, " nodes"]:
        """Node -> its longest proper suffix that is a node; short n-grams first."""
        fail = np.zeros(len(self.parent), dtype=np.int64)
        for order in range(2, self.order + 1):
            left = np.arange(self.first[order], self.first[order + 1])
            suffix = fail[self.parent[left]]
            while len(left):
                child = self.find(suffix, self.word[left].astype(np.int64))
                fail[left] = child
                missing = child < 0
                left, suffix = left[missing], fail[suffix[missing]]
        return fail

    def _fill(self) -> None:
        """Give contexts that stand in the trie only for what follows them the weight of backing off."""
        for order in range(2, self.order + 1):
            nodes = np.arange(self.first[order], self.first[order + 1])
            nodes = nodes[np.isnan(self.log_prob[nodes])]
            above = self.parent[nodes]
            total, found = self._descend(self.fail[above], self.word[nodes])
            self.log_prob[nodes] = self.backoff[above] + total + self.log_prob[found]
            self.backoff[nodes] = 0.0

    def _shorten(self) -> Int64[np.ndarray, " nodes"]:
        """Node -> the state after it: its longest suffix after which anything is known."""
        open_ended = (np.diff(self._children) > 0) | (self.backoff != 0)
        open_ended[self.first[self.order] :] = False
        state = np.where(open_ended, np.arange(len(self.parent)), -1)
        state[ROOT] = ROOT
        for order in range(1, self.order + 1):
            nodes = np.arange(self.first[order], self.first[order + 1])
            nodes = nodes[state[nodes] < 0]
            state[nodes] = state[self.fail[nodes]]
        return state


def grow(words: Sequence[str], grams: Sequence[Int64[np.ndarray, "grams order"]],
         log_probs: Sequence[Float64[np.ndarray, " grams"]],
         backoffs: Sequence[Float64[np.ndarray, " grams"]]) -> NgramModel:  # fmt: skip
    """n-grams of each order as word ids, in any order, none twice -> model.

    The first order holds every word once. A context that is no n-gram itself (some tools prune it away) is
    put in with the weight that backing off gives, so that no probability changes.
    """
    size = len(words)
    place = np.argsort(grams[0][:, 0])
    levels = [
        Level(np.zeros(size, np.int64), np.arange(size, dtype=np.int32), log_probs[0][place],
              backoffs[0][place])
    ]  # fmt: skip
    nodes = [table[:, 0].astype(np.int64) for table in grams]  # of the first word of each n-gram
    for order in range(2, len(grams) + 1):
        keys = [nodes[n] * size + grams[n][:, order - 1] for n in range(order - 1, len(grams))]
        every = np.unique(np.concatenate(keys))
        for n, key in enumerate(keys, start=order - 1):
            nodes[n] = np.searchsorted(every, key)
        log_prob, backoff = np.full(len(every), np.nan), np.zeros(len(every))
        log_prob[nodes[order - 1]] = log_probs[order - 1]
        backoff[nodes[order - 1]] = backoffs[order - 1]
        levels.append(Level(every // size, (every % size).astype(np.int32), log_prob, backoff))
    return NgramModel(words, levels)
