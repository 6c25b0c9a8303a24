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
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import numpy as np
from numpy.typing import NDArray

from firstwords.errors import SearchError
from firstwords.search.align import align_many
from firstwords.search.ctc_common import BLANK, rows_of
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.interface import CtcBeamConfig, Search
from firstwords.tensors import Padded

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@final
class CtcBeamSearch(Search):
    """N-best readings; times and confidences come from the best alignment of each reading."""

    def __init__(self, config: CtcBeamConfig, frame_seconds: float) -> None:
        self.config = config
        self.frame_seconds = frame_seconds

    def __call__(self, log_probs: Padded) -> list[list[Hypothesis]]:
        return [self._search(values, row) for row, values in enumerate(rows_of(log_probs))]

    def _search(self, log_probs: Floats, row: int) -> list[Hypothesis]:
        check_numbers(log_probs, f"Row {row} of the batch")
        found = prefix_beam(log_probs, self.config)[: self.config.n_best]
        alignments = align_many(log_probs, [tokens for tokens, _ in found])
        return [
            Hypothesis(
                tokens=tokens,
                score=score,
                parts={"ctc": score},
                times=tuple(frame * self.frame_seconds for frame in alignment.first),
                ends=tuple((frame + 1) * self.frame_seconds for frame in alignment.last),
                confidences=alignment.confidences,
            )
            for (tokens, score), alignment in zip(found, alignments, strict=True)
        ]


def prefix_beam(log_probs: Floats, config: CtcBeamConfig) -> list[tuple[tuple[int, ...], float]]:
    """(T, V) natural-log probabilities -> label sequences and their log-probability, best first.

    With a ``blank_penalty`` the score is that of the penalised posteriors.
    """
    beam = PrefixBeam(config.beam)
    beam.read(log_probs, config)
    return beam.readings()


def check_numbers(log_probs: Floats, name: str) -> None:
    """SearchError where a model gives no numbers; ``name`` says which frames these are."""
    if np.isnan(log_probs).any():
        raise SearchError(
            f"{name} has log-probabilities that are not numbers.",
            mend="The model has diverged: use an earlier checkpoint.",
        )


def _prepare(log_probs: Floats, config: CtcBeamConfig) -> Floats:
    """The posteriors as the search sees them: what must not be tried is minus infinity."""
    scores = log_probs.copy()
    if config.token_threshold > 0:
        scores[:, BLANK + 1 :][log_probs[:, BLANK + 1 :] < np.log(config.token_threshold)] = -np.inf
    if config.tokens_per_frame is not None and config.tokens_per_frame < scores.shape[1]:
        least = -np.partition(-scores, config.tokens_per_frame - 1, axis=1)[:, config.tokens_per_frame - 1]
        scores[scores < least[:, None]] = -np.inf
    scores[:, BLANK] -= config.blank_penalty
    return scores


def _choices(scores: Floats, count: int) -> Ints:
    """The ``count`` best tokens of every frame (blank not among them), in the order of their ids."""
    frames, vocabulary = scores.shape
    if vocabulary - 1 <= count:
        return np.broadcast_to(np.arange(1, vocabulary), (frames, vocabulary - 1))
    best = np.argpartition(-scores[:, 1:], count - 1, axis=1)[:, :count] + 1
    return np.sort(best, axis=1)


@final
class PrefixBeam:
    """The prefixes alive after some frames. Prefixes are nodes of a tree, so that none is ever copied.

    Node 0 is the empty prefix; the arrays hold one entry per living prefix, best first.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self._tokens: list[int] = [BLANK]  # node -> its last token
        self._parents: list[int] = [-1]  # node -> the node without that token
        self._children: dict[tuple[int, int], int] = {}
        self.nodes: Ints = np.zeros(1, dtype=np.int64)
        self.blank: Floats = np.zeros(1)
        self.token: Floats = np.full(1, -np.inf)
        self._last: Ints = np.zeros(1, dtype=np.int64)
        self._above: Ints = np.full(1, -1, dtype=np.int64)

    def read(self, log_probs: Floats, config: CtcBeamConfig) -> None:
        """The next frames (T, V), natural-log probabilities."""
        scores = _prepare(log_probs, config)
        choices = _choices(scores, 2 * config.beam + 1)
        for frame, tokens in zip(scores, choices, strict=True):
            self.advance(frame, tokens)

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
        kept = np.argsort(-candidates, kind="stable")[: self.width]
        kept = kept[candidates[kept] > -np.inf]
        grown = kept >= living
        origin = np.where(grown, (kept - living) // max(len(choices), 1), kept)
        new_token = np.full(len(kept), -1, dtype=np.int64)
        new_token[grown] = choices[(kept[grown] - living) % max(len(choices), 1)]
        self._keep(
            origin,
            new_token,
            np.where(grown, -np.inf, staying_blank[origin]),
            np.where(grown, candidates[kept], staying_token[origin]),
        )

    def _keep(self, origin: Ints, grown_by: Ints, blank: Floats, token: Floats) -> None:
        """Living prefixes become those at ``origin``, each grown by a token unless that is -1."""
        if len(origin) == 0:
            raise SearchError(
                "No symbol is possible at some frame: all log-probabilities there are minus infinity.",
                mend="Lower token_threshold, or raise tokens_per_frame.",
            )
        nodes = self.nodes[origin].tolist()
        for place, added in enumerate(grown_by.tolist()):
            if added >= 0:
                nodes[place] = self._child(nodes[place], added)
        self._place(nodes, blank, token)

    def _place(self, nodes: list[int], blank: Floats, token: Floats) -> None:
        """These nodes are the living prefixes."""
        self.nodes = np.array(nodes, dtype=np.int64)
        self.blank, self.token = blank, token
        self._last = np.array([self._tokens[node] for node in nodes], dtype=np.int64)
        self._above = np.array([self._parents[node] for node in nodes], dtype=np.int64)

    def _child(self, node: int, token: int) -> int:
        """The node of a grown prefix; a prefix that was dropped and comes back is the same node again."""
        found = self._children.get((node, token))
        if found is None:
            found = len(self._tokens)
            self._children[node, token] = found
            self._tokens.append(token)
            self._parents.append(node)
        return found

    def forget(self, count: int, fits: Callable[[tuple[int, ...]], bool]) -> None:
        """The best reading's first ``count`` tokens become the root; readings are then what follows them.

        Only those live on that begin with these tokens, and whose other tokens are such that ``fits``.
        """
        spelled = [self._spell(int(node)) for node in self.nodes]
        total = np.logaddexp(self.blank, self.token)
        best = int(np.argsort(-total, kind="stable")[0])
        root = spelled[best][:count]
        kept = [k for k, tokens in enumerate(spelled) if tokens[:count] == root and fits(tokens[count:])]
        self._tokens = [root[-1] if root else self._tokens[0]]
        self._parents, self._children = [-1], {}
        nodes = [0] * len(kept)
        for place, k in enumerate(kept):
            for token in spelled[k][count:]:
                nodes[place] = self._child(nodes[place], token)
        self._place(nodes, self.blank[kept] - total[best], self.token[kept] - total[best])

    def readings(self) -> list[tuple[tuple[int, ...], float]]:
        """Label sequences and log-probabilities of the living prefixes, best first."""
        total = np.logaddexp(self.blank, self.token)
        order = np.argsort(-total, kind="stable").tolist()
        return [(self._spell(int(self.nodes[k])), float(total[k])) for k in order]

    def _spell(self, node: int) -> tuple[int, ...]:
        tokens: list[int] = []
        while node > 0:
            tokens.append(self._tokens[node])
            node = self._parents[node]
        return tuple(reversed(tokens))
