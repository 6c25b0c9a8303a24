"""CTC prefix beam search: the most probable label sequences, not the most probable path.

Graves, 2012, "Supervised sequence labelling", section 7.5; Hannun et al., 2014, arXiv:1408.2873. A label
sequence (prefix) collects the probability of all paths that read as it; two sums per prefix are enough:

    blank   paths that end in a blank          token   paths that end in the prefix's last token

At each frame a prefix stays (blank, or its last token again) or grows by one token; growing by the last token
itself needs a blank before. A prefix may be reached both ways, and the two are then one. Among all of them
the ``beam`` most probable are kept. Nothing else is pruned unless asked for: all tokens are tried, and the
scores are exact within the beam, in float64.

Fast because the loop is over frames alone, and because only 2 * beam + 1 tokens per frame can matter: a
prefix has at most ``beam`` places to fill, at most ``beam`` of its continuations are already prefixes of
their own, and one token is its last.

With scorers (fusion.py) a prefix is worth the probability of its paths and the scorers' weighted shares,
which are added once, when it grows; at the end come their shares of the end of the sentence. All tokens are
then tried for every prefix.

With a margin the beam is as wide as the doubt: prefixes far below the best are dropped. What is settled is
settled: of prefixes that end in the same tokens a language model expects the same, so but for the best they
only take places. Greedy search with a language model is such a beam (``NARROW``); where both hold and few
tokens are tried, prefix_narrow.py does the work.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol, final

import numpy as np
from numpy.typing import NDArray

from firstwords.errors import SearchError
from firstwords.search.ctc_common import BLANK
from firstwords.search.interface import CtcBeamConfig
from firstwords.search.prefix_narrow import Heard, Narrow, Prefix, Steps, impossible, side_by_side, steps
from firstwords.search.prefix_tree import PrefixTree

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Beside(Protocol):
    """What goes along with the living prefixes, one slot each: ``Companion`` (fusion.py) and its like."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the shares."""
        ...

    @property
    def scores(self) -> Floats:
        """(slots, V) of the next token; column 0 is the end. The caller may write into it."""
        ...

    def totals(self) -> Floats:
        """(slots,) of the sentences so far, without an end."""
        ...

    def ended(self) -> Floats:
        """(slots, names) the shares with the end behind each sentence."""
        ...

    def move(self, origins: Ints, tokens: Ints) -> None:
        """Slot i goes on from what slot origins[i] was, grown by tokens[i] unless that is 0."""
        ...

    def rebase(self, slot: int) -> None:
        """Count the shares of all slots from those of this one on."""
        ...


class Shares(NamedTuple):
    """Of the scorers, with the end behind each sentence."""

    names: tuple[str, ...]
    values: Floats  # (slots, names)


class PrefixReading(NamedTuple):
    """A label sequence that has ended; ``score`` is the sum of ``parts``, natural log."""

    tokens: tuple[int, ...]
    score: float
    parts: dict[str, float]


def check_numbers(log_probs: Floats, name: str) -> None:
    """SearchError where a model gives no numbers; ``name`` says which frames these are."""
    if np.isnan(log_probs).any():
        raise SearchError(
            f"{name} has log-probabilities that are not numbers.",
            mend="The model has diverged: use an earlier checkpoint.",
        )


def _tried(log_probs: Floats, config: CtcBeamConfig) -> NDArray[np.bool_]:
    """Which symbols may be tried at each frame, the blank among them."""
    tried = log_probs >= (np.log(config.token_threshold) if config.token_threshold > 0 else -np.inf)
    tried[:, BLANK] = True
    if config.tokens_per_frame is not None and config.tokens_per_frame < log_probs.shape[1]:
        seen = np.where(tried, log_probs, -np.inf)
        least = -np.partition(-seen, config.tokens_per_frame - 1, axis=1)[:, config.tokens_per_frame - 1]
        tried &= seen >= least[:, None]
    return tried


def _prepare(log_probs: Floats, config: CtcBeamConfig) -> Floats:
    """The posteriors as the search sees them: what must not be tried is minus infinity."""
    scores = np.where(_tried(log_probs, config), log_probs, -np.inf)
    scores[:, BLANK] -= config.blank_penalty
    return scores


def _choices(scores: Floats, count: int) -> Ints:
    """The ``count`` best tokens of every frame (blank not among them), in the order of their ids."""
    frames, vocabulary = scores.shape
    if vocabulary - 1 <= count:
        return np.broadcast_to(np.arange(1, vocabulary), (frames, vocabulary - 1))
    best = np.argpartition(-scores[:, 1:], count - 1, axis=1)[:, :count] + 1
    return np.sort(best, axis=1)


def is_narrow(config: CtcBeamConfig) -> bool:
    """Whether few prefixes live and few tokens are tried, so that prefix_narrow.py is quicker."""
    few = config.token_threshold > 0 or config.tokens_per_frame is not None
    return config.margin is not None and few


@final
class PrefixBeam:
    """The prefixes alive after some frames, as nodes of a tree.

    The arrays hold one entry per living prefix, best first.
    """

    def __init__(self, config: CtcBeamConfig, companion: Beside | None = None) -> None:
        self.config = config
        self.companion = companion  # its slots are the living prefixes
        self._tree = PrefixTree()
        self.nodes: Ints = np.zeros(1, dtype=np.int64)
        self.blank: Floats = np.zeros(1)
        self.token: Floats = np.full(1, -np.inf)
        self._last: Ints = np.zeros(1, dtype=np.int64)
        self._above: Ints = np.full(1, -1, dtype=np.int64)

    def read(self, log_probs: Floats) -> None:
        """The next frames (T, V), natural-log probabilities."""
        if self.companion is not None and is_narrow(self.config):
            (living,) = side_by_side(
                [self.steps(log_probs, self.companion.totals())], [len(self.nodes)], self.companion
            )
            self.go_on_with(living)
            return
        scores = _prepare(log_probs, self.config)
        if self.companion is not None:
            for frame in scores:
                self.advance_together(frame, self.companion)
            return
        count = 2 * self.config.beam + 1
        if self.config.settled_after is not None:  # any number of prefixes may have to make way
            count = scores.shape[1]
        for frame, tokens in zip(scores, _choices(scores, count), strict=True):
            self.advance(frame, tokens)

    def steps(self, log_probs: Floats, totals: Floats) -> Steps:
        """The same as questions to a companion of several beams (``side_by_side``), then ``go_on_with``.

        Args:
            totals: (slots,) of the living prefixes.
        """
        arrays = (self.nodes, self._last, self.blank, self.token, totals)
        parts = zip(*(array.tolist() for array in arrays), range(len(self.nodes)), strict=True)
        tried = _tried(log_probs, self.config)
        blanks = np.where(tried[:, BLANK], log_probs[:, BLANK] - self.config.blank_penalty, -np.inf)
        tried[:, BLANK] = False
        how = Narrow(self.config.beam, self.config.margin or 0.0, self.config.settled_after)
        heard = Heard.of(log_probs, blanks, tried)
        return steps(self._tree, [Prefix(*part) for part in parts], heard, how)

    def go_on_with(self, living: list[Prefix]) -> None:
        """What ``steps`` has ended with."""
        blank, token = (np.array(part) for part in zip(*((p.blank, p.token) for p in living), strict=True))
        self._place([prefix.node for prefix in living], blank, token)

    def advance(self, scores: Floats, choices: Ints) -> None:
        """One frame: log-probabilities of all symbols, and the tokens by which prefixes may grow."""
        living = len(self.nodes)
        total = np.logaddexp(self.blank, self.token)
        staying_blank = total + scores[BLANK]
        staying_token = self.token + scores[self._last]

        # growing[k, c]: prefix k followed by token choices[c]; after a blank alone if it repeats the last.
        repeats = choices == self._last[:, None]
        growing = np.where(repeats, self.blank[:, None], total[:, None]) + scores[choices]

        # Where prefix j is prefix k plus one token, growing k and staying at j are one and the same.
        longer, shorter = np.nonzero(self._above[:, None] == self.nodes)
        if len(longer):
            added = self._last[longer]
            before = np.where(added == self._last[shorter], self.blank[shorter], total[shorter])
            staying_token[longer] = np.logaddexp(staying_token[longer], before + scores[added])
            pair, column = np.nonzero(choices == added[:, None])
            growing[shorter[pair], column] = -np.inf

        candidates = np.concatenate((np.logaddexp(staying_blank, staying_token), growing.ravel()))
        origin = np.concatenate((np.arange(living), np.repeat(np.arange(living), len(choices))))
        new_token = np.concatenate((np.full(living, -1, dtype=np.int64), np.tile(choices, living)))
        kept = self._choose(candidates, origin, new_token)
        grown, origin, new_token = kept >= living, origin[kept], new_token[kept]
        self._keep(
            origin,
            new_token,
            np.where(grown, -np.inf, staying_blank[origin]),
            np.where(grown, candidates[kept], staying_token[origin]),
        )

    def advance_together(self, scores: Floats, companion: Beside) -> None:
        """One frame with scorers: each prefix has an order of tokens of its own, so all are tried."""
        living, vocabulary = len(self.nodes), len(scores)
        every = np.arange(living)
        total = np.logaddexp(self.blank, self.token)
        staying_blank = total + scores[BLANK]
        staying_token = self.token + scores[self._last]
        so_far = companion.totals()

        # growing[k, c]: as in ``advance``, the scorers' shares included.
        growing = companion.scores
        again = growing[every, self._last] + (self.blank + so_far) + scores[self._last]
        growing += scores
        growing += (total + so_far)[:, None]
        growing[every, self._last] = again
        growing[:, BLANK] = -np.inf
        longer, shorter = np.nonzero(self._above[:, None] == self.nodes)
        if len(longer):
            added = self._last[longer]
            before = np.where(added == self._last[shorter], self.blank[shorter], total[shorter])
            staying_token[longer] = np.logaddexp(staying_token[longer], before + scores[added])
            growing[shorter, added] = -np.inf

        # The best of staying and of each row are candidates: what is below their width-th is not among the
        # best, and hardly anything is left to sort.
        staying = np.logaddexp(staying_blank, staying_token) + so_far
        tops = -np.sort(-np.concatenate((staying, growing.max(axis=1))))
        least = tops[0] - (math.inf if self.config.margin is None else self.config.margin)
        if 2 * living >= self.config.beam and self.config.settled_after is None:
            least = max(least, tops[self.config.beam - 1])
        (flat,) = np.nonzero(growing.ravel() >= max(least, np.finfo(np.float64).min))
        candidates = np.concatenate((staying, growing.ravel()[flat]))
        rows, columns = np.divmod(flat, vocabulary)
        origin = np.concatenate((every, rows))
        new_token = np.concatenate((np.full(living, -1, dtype=np.int64), columns))
        kept = self._choose(candidates, origin, new_token)
        grown, origin, new_token = kept >= living, origin[kept], new_token[kept]
        before = np.where(new_token == self._last[origin], self.blank[origin], total[origin])
        self._keep(
            origin,
            new_token,
            np.where(grown, -np.inf, staying_blank[origin]),
            np.where(grown, before + scores[new_token], staying_token[origin]),
        )
        companion.move(origin, np.maximum(new_token, BLANK))

    def _choose(self, candidates: Floats, origin: Ints, new_token: Ints) -> Ints:
        """Which candidates live on, best first: what is at ``origin``, grown by a token unless that is -1."""
        count, margin = self.config.settled_after, self.config.margin
        kept = np.argsort(-candidates, kind="stable")
        if count is None:
            kept = kept[: self.config.beam]
        kept = kept[candidates[kept] > -np.inf]
        if margin is not None and len(kept):
            kept = kept[candidates[kept] >= candidates[kept[0]] - margin]
        if count is None:
            return kept
        chosen: dict[tuple[int, ...], int] = {}
        for place in kept.tolist():
            chosen.setdefault(
                self._tree.ending(int(self.nodes[origin[place]]), int(new_token[place]), count), place
            )
            if len(chosen) == self.config.beam:
                break
        return np.array([*chosen.values()], dtype=np.int64)

    def _keep(self, origin: Ints, grown_by: Ints, blank: Floats, token: Floats) -> None:
        """Living prefixes become those at ``origin``, each grown by a token unless that is -1."""
        if len(origin) == 0:
            raise impossible()
        nodes = self.nodes[origin].tolist()
        for place, added in enumerate(grown_by.tolist()):
            if added >= 0:
                nodes[place] = self._tree.child(nodes[place], added)
        self._place(nodes, blank, token)

    def _place(self, nodes: list[int], blank: Floats, token: Floats) -> None:
        """These nodes are the living prefixes."""
        self.nodes = np.array(nodes, dtype=np.int64)
        self.blank, self.token = blank, token
        self._last = np.array([self._tree.tokens[node] for node in nodes], dtype=np.int64)
        self._above = np.array([self._tree.parents[node] for node in nodes], dtype=np.int64)

    def forget(self, count: int, fits: Callable[[tuple[int, ...]], bool]) -> None:
        """The best reading's first ``count`` tokens become the root; readings are then what follows them.

        Only those live on that begin with these tokens, and whose other tokens are such that ``fits``.
        """
        spelled = [self._tree.spell(int(node)) for node in self.nodes]
        total = np.logaddexp(self.blank, self.token)
        best = int(self._order()[0])
        root = spelled[best][:count]
        kept = [k for k, tokens in enumerate(spelled) if tokens[:count] == root and fits(tokens[count:])]
        if self.companion is not None:
            self.companion.rebase(best)
            self.companion.move(np.array(kept, dtype=np.int64), np.zeros(len(kept), dtype=np.int64))
        self._tree = PrefixTree((*self._tree.before, *root)[-(self.config.settled_after or 1) :])
        nodes = [0] * len(kept)
        for place, k in enumerate(kept):
            for token in spelled[k][count:]:
                nodes[place] = self._tree.child(nodes[place], token)
        self._place(nodes, self.blank[kept] - total[best], self.token[kept] - total[best])

    def readings(self) -> list[tuple[tuple[int, ...], float]]:
        """Label sequences of the living prefixes and their log-probabilities by CTC, best first."""
        total = np.logaddexp(self.blank, self.token)
        return [(self._tree.spell(int(self.nodes[k])), float(total[k])) for k in self._order().tolist()]

    def ended(self, shares: Shares | None = None) -> list[PrefixReading]:
        """The living prefixes as whole sentences, best first.

        Args:
            shares: of the living prefixes; None: those of the companion.
        """
        total = np.logaddexp(self.blank, self.token)
        if shares is None and self.companion is not None:
            shares = Shares(self.companion.names, self.companion.ended())
        names, values = shares or Shares((), np.zeros((len(total), 0)))
        scores = total + values.sum(axis=1)
        return [
            PrefixReading(
                self._tree.spell(int(self.nodes[k])),
                float(scores[k]),
                {"ctc": float(total[k])} | dict(zip(names, values[k].tolist(), strict=True)),
            )
            for k in np.argsort(-scores, kind="stable").tolist()
        ]

    def _order(self) -> Ints:
        """The living prefixes, best first, as if the sentence went on."""
        total = np.logaddexp(self.blank, self.token)
        if self.companion is not None:
            total = total + self.companion.totals()
        return np.argsort(-total, kind="stable")
