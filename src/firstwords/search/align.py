"""Forced alignment: where in the audio each known token lies, by the most probable CTC path (Viterbi).

The states of a label sequence a b are  - a - b -  (blanks between and around). From frame to frame a path
stays, moves on by one, or skips a blank between two different tokens:

    state 4  -                 .  .  x
          3  b              .  x  x
          2  -           .  x  .
          1  a        x  x  .
          0  -     x  .
                 t 0  1  2  3  4  5 ...

Several label sequences, of one utterance (an n-best list) or of many, are aligned together; frames are the
only loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from firstwords.errors import SearchError
from firstwords.search.ctc_common import BLANK, Runs, confidences
from firstwords.text.tokenizer import fewest_frames

if TYPE_CHECKING:  # the runtime of bundles aligns without torch
    from torch import Tensor

_BLOCK = 64  # frames whose scores of all states are looked up at once


@dataclass(frozen=True)
class Alignment:
    """Where each token lies.

    ``first`` and ``last`` are frame numbers, both inside the token; ``path`` holds one symbol per frame, 0
    for blank; ``score`` is the path's log-probability; ``confidences`` are mean posteriors of each token
    over its frames, in 0..1.
    """

    tokens: tuple[int, ...]
    first: tuple[int, ...]
    last: tuple[int, ...]
    path: tuple[int, ...]
    score: float
    confidences: tuple[float, ...]


def align(
    log_probs: NDArray[np.floating] | Tensor, tokens: Sequence[int], *, name: str = "this utterance"
) -> Alignment:
    """(T, V) natural-log probabilities and token ids -> their most probable alignment.

    Args:
        name: the utterance's id, for the error that says why no alignment exists.
    """
    values = log_probs if isinstance(log_probs, np.ndarray) else log_probs.detach().cpu().double().numpy()
    return align_many(np.asarray(values, dtype=np.float64), [tokens], name=name)[0]


def align_many(
    log_probs: NDArray[np.float64], sequences: Sequence[Sequence[int]], *, name: str = "this utterance"
) -> list[Alignment]:
    """(T, V) natural-log probabilities and several token sequences -> the best alignment of each."""
    return align_pairs([(log_probs, tokens) for tokens in sequences], name=name)


def align_pairs(
    pairs: Sequence[tuple[NDArray[np.float64], Sequence[int]]], *, name: str = "this utterance"
) -> list[Alignment]:
    """(T, V) natural-log probabilities and a token sequence each -> the best alignments, all at once."""
    for log_probs, tokens in pairs:
        _check(tokens, len(log_probs), log_probs.shape[1], name)
    heard = [number for number, (log_probs, _) in enumerate(pairs) if len(log_probs)]
    found = [Alignment((), (), (), (), 0.0, ()) for _ in pairs]
    if heard:
        for number, path in zip(heard, _viterbi([pairs[number] for number in heard], name), strict=True):
            found[number] = _read_off(*pairs[number], path)
    return found


def _check(tokens: Sequence[int], frames: int, vocabulary: int, name: str) -> None:
    wrong = [t for t in tokens if not 0 < t < vocabulary]
    if wrong:
        raise SearchError(
            f"{name}: token {wrong[0]} cannot be aligned, ids run from 1 to {vocabulary - 1}.",
            mend="Encode the text with the tokenizer of this model.",
        )
    needed = fewest_frames(tokens)
    if needed > frames:
        raise SearchError(
            f"{name}: {len(tokens)} tokens need at least {needed} frames, the audio has {frames}.",
            mend="Check that text and audio belong together, or leave this utterance out.",
        )


def _viterbi(
    pairs: Sequence[tuple[NDArray[np.float64], Sequence[int]]], name: str
) -> list[NDArray[np.int64]]:
    """The state of every frame on the best path of each pair, (T,)."""
    rows = len(pairs)
    lengths = [len(log_probs) for log_probs, _ in pairs]
    width = 2 * max(len(tokens) for _, tokens in pairs) + 1
    labels = np.full((rows, width), BLANK, dtype=np.int64)
    for row, (_, tokens) in enumerate(pairs):
        labels[row, 1 : 2 * len(tokens) : 2] = tokens
    # Only a token may be reached by skipping, and only from a different token.
    closed = np.full((rows, width), -np.inf)
    closed[:, 2:][(labels[:, 2:] != BLANK) & (labels[:, 2:] != labels[:, :-2])] = 0.0

    # Two columns on the left, so that moves are slices.
    score, after = np.full((2, rows, width + 2), -np.inf)
    for row, (log_probs, _) in enumerate(pairs):
        score[row, 2:4] = log_probs[0, labels[row, :2]]
    last = score.copy()  # of each row, after its last frame
    frames = max(lengths)
    moves = np.zeros((frames, rows, width), dtype=np.int8)
    moved = moves.view(np.bool_)
    best, skipping = np.empty((rows, width)), np.empty((rows, width))
    heard = np.zeros((_BLOCK, rows, width))
    for block in range(1, frames, _BLOCK):
        for row, (log_probs, _) in enumerate(pairs):
            part = log_probs[block : block + _BLOCK]
            heard[: len(part), row] = part[:, labels[row]]
        for frame, said in enumerate(heard[: frames - block], start=block):
            staying, moving = score[:, 2:], score[:, 1:-1]
            np.greater(moving, staying, out=moved[frame])  # on a tie the path stays
            np.maximum(moving, staying, out=best)
            np.add(score[:, :-2], closed, out=skipping)
            np.putmask(moves[frame], skipping > best, 2)
            np.maximum(skipping, best, out=best)
            np.add(best, said, out=after[:, 2:])
            score, after = after, score
            if frame + 1 in lengths:
                ended = np.equal(lengths, frame + 1)
                last[ended] = score[ended]

    ends = np.array([2 * len(tokens) for _, tokens in pairs])
    every = np.arange(rows)
    on_blank = last[every, ends + 2]
    on_token = np.where(ends > 0, last[every, ends + 1], -np.inf)
    if np.any(np.isneginf(np.maximum(on_blank, on_token))):
        raise SearchError(
            f"{name}: the model gives every alignment of this text probability 0.",
            mend="Check that the log-probabilities are finite and belong to this tokenizer.",
        )
    paths: list[NDArray[np.int64]] = []
    for row, at in enumerate(np.where(on_token > on_blank, ends - 1, ends).tolist()):
        path = np.zeros(lengths[row], dtype=np.int64)
        for frame in range(lengths[row] - 1, -1, -1):
            path[frame] = at
            at -= moves.item(frame, row, at)
        paths.append(path)
    return paths


def _read_off(log_probs: NDArray[np.float64], tokens: Sequence[int], states: NDArray[np.int64]) -> Alignment:
    """States per frame -> tokens with their frames. Equal neighbours are told apart by their states."""
    ids = np.asarray([BLANK, *tokens], dtype=np.int64)
    which = np.where(states % 2 == 1, (states + 1) // 2, 0)  # 0 = blank, else number of the token from 1
    symbols = ids[which]
    first = np.searchsorted(states, np.arange(1, 2 * len(tokens), 2), side="left")
    last = np.searchsorted(states, np.arange(1, 2 * len(tokens), 2), side="right") - 1
    scores = log_probs[np.arange(len(states)), symbols]
    sure = confidences(scores, Runs(ids[1:], first, last))
    return Alignment(
        tokens=tuple(int(t) for t in tokens),
        first=tuple(first.tolist()),
        last=tuple(last.tolist()),
        path=tuple(symbols.tolist()),
        score=float(scores.sum()),
        confidences=tuple(sure.tolist()),
    )
