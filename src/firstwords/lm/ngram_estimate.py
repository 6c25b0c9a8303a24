"""Modified Kneser-Ney estimation: counts in, interpolated back-off weights out.

Chen and Goodman, 1998, "An empirical study of smoothing techniques for language modeling", section 4.1.6,
with the details of Heafield et al., 2013, "Scalable modified Kneser-Ney language model estimation":

- adjusted counts a: of the highest order and of n-grams that begin with <s>, how often they were seen; of all
  others, how many different words were seen before them.
- discounts of each order from its counts of counts t_k (n-grams with adjusted count k):
  Y = t_1 / (t_1 + 2 t_2), D_k = k - (k + 1) Y t_{k+1} / t_k for k = 1, 2 and 3 (and more).
- P(w | context) = (a(context w) - D) / sum a + backoff(context) P(w | shorter context), where a context's
  backoff is the mass that was taken away. Below the unigrams lies the uniform distribution over all words
  but <s>; <unk> has nothing else.

Where a discount cannot be estimated (a t_k is zero, or D_k lies outside 0..k), as in tiny corpora and in
alphabets, the order takes the fallback 0.5, 1, 1.5, as lmplz has it.

Pruning takes n-grams seen so often or less (not adjusted counts), their mass goes into the backoff of their
context; discounts are those of the unpruned counts. With thresholds that never fall from one order to the
next, prefix and suffix of what stays stay too.

Notable features. The n-grams of order n are sorted keys made of the number of their first n - 1 words among
the n-grams of order n - 1, and the last word: one sort of integers per order, no loop over n-grams. Peak
memory is about 60 bytes per word of text.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from firstwords.errors import TextError, UsageError
from firstwords.lm.ngram import BEGIN, END, SPECIAL, UNKNOWN, Level, NgramModel

if TYPE_CHECKING:  # models are queried without it, too
    from jaxtyping import Bool, Float64, Int32, Int64

FALLBACK = (0.5, 1.0, 1.5)
LONGEST = 20  # orders beyond help nobody and would need as many sorts


class Counts(NamedTuple):
    """The n-grams of one order, sorted by (parent, word)."""

    parent: Int64[np.ndarray, " grams"]  # first n - 1 words: place in the order below
    suffix: Int64[np.ndarray, " grams"]  # last n - 1 words: place in the order below
    word: Int64[np.ndarray, " grams"]
    seen: Int64[np.ndarray, " grams"]
    begins: Bool[np.ndarray, " grams"]  # with <s>


@dataclass(frozen=True)
class Discounts:
    """D_1, D_2, D_3+ of one order, and whether they are the fallback."""

    values: tuple[float, float, float]
    fallback: bool

    def of(self, counts: Int64[np.ndarray, " grams"]) -> Float64[np.ndarray, " grams"]:
        """What is taken from each count."""
        return np.array([0.0, *self.values])[np.minimum(counts, 3)]


@dataclass(frozen=True)
class Estimate:
    """A model, and what its orders were made of."""

    model: NgramModel
    discounts: tuple[Discounts, ...]
    seen: tuple[int, ...]  # different n-grams of each order, before pruning


def estimate_ngram(
    tokens: Int32[np.ndarray, " tokens"], words: Sequence[str], order: int, prune: Sequence[int] = (0,)
) -> Estimate:
    """Sentences as word ids, each from <s> to </s> -> model.

    Args:
        tokens: all sentences in a row.
        words: id -> word, the first three <unk>, <s>, </s>.
        order: longest n-gram.
        prune: n-grams of each order seen so often or less are left out; the last number holds for all longer.
    """
    thresholds = check_thresholds(order, prune)
    if not (tokens == END).any():
        raise TextError("there is no text to estimate a language model from.", mend="Give text files.")
    counts = count_ngrams(tokens, len(words), order)
    adjusted = adjust(counts)
    discounts = tuple(estimate_discounts(counts) for counts in adjusted)
    kept = [c.seen > t if t else np.ones(len(c.seen), bool) for c, t in zip(counts, thresholds, strict=True)]
    model = NgramModel(words, _weigh(counts, adjusted, discounts, kept))
    return Estimate(model, discounts, tuple(len(c.word) for c in counts))


def check_thresholds(order: int, prune: Sequence[int]) -> list[int]:
    """Pruning thresholds -> one per order, or the reason why they cannot be."""
    if not 1 <= order <= LONGEST:
        raise UsageError(f"an order of {order} is none.", mend=f"Give a number from 1 to {LONGEST}.")
    shown = " ".join(map(str, prune))
    if not prune or len(prune) > order or any(t < 0 for t in prune):
        raise UsageError(
            f"pruning '{shown}': one count of 0 or more for each of {order} orders is expected.",
            mend="For example --prune '0 0 1': trigrams and longer seen once are left out.",
        )
    if prune[0] != 0 or any(b < a for a, b in itertools.pairwise(prune)):
        raise UsageError(
            f"pruning '{shown}': the first number must be 0 (all words stay), and none may be below the one "
            "before it.",
            mend="For example --prune '0 0 1'.",
        )
    return [*prune, *[prune[-1]] * (order - len(prune))]


def count_ngrams(tokens: Int32[np.ndarray, " tokens"], vocabulary: int, order: int) -> list[Counts]:
    """Sentences in a row -> the n-grams of orders 1 to ``order`` that lie within one."""
    every = np.arange(vocabulary, dtype=np.int64)
    none = np.zeros(vocabulary, dtype=np.int64)
    counts = [Counts(none, none, every, np.bincount(tokens, minlength=vocabulary), every == BEGIN)]
    at = tokens.astype(np.int64)  # place of the n-gram that begins at each token, among those of its order
    begins = np.arange(len(tokens))
    for length in range(2, order + 1):
        begins = begins[tokens[begins + (length - 2)] != END]
        keys = at[begins] * vocabulary + tokens[begins + (length - 1)]
        by_key = np.argsort(keys)
        keys, begins = keys[by_key], begins[by_key]
        first = np.flatnonzero(np.diff(keys, prepend=-1))
        seen = np.diff(first, append=len(keys))
        example = begins[first]
        unique = keys[first]
        counts.append(
            Counts(unique // vocabulary, at[example + 1], unique % vocabulary, seen, tokens[example] == BEGIN)
        )
        at[begins] = np.repeat(np.arange(len(first)), seen)
        if length < order:
            begins.sort()  # the next keys are then read in the order of the text: faster than at random
    return counts


def adjust(counts: Sequence[Counts]) -> list[Int64[np.ndarray, " grams"]]:
    """Adjusted counts of each order; <unk> and <s>, which no unigram predicts, have 0."""
    adjusted: list[Int64[np.ndarray, " grams"]] = []
    for level, above in zip(counts, [*counts[1:], None], strict=True):
        if above is None:
            a = level.seen.copy()
        else:
            different = np.bincount(above.suffix, minlength=len(level.word))
            a = np.where(level.begins, level.seen, different)
        adjusted.append(a)
    adjusted[0][[UNKNOWN, BEGIN]] = 0
    return adjusted


def estimate_discounts(adjusted: Int64[np.ndarray, " grams"]) -> Discounts:
    """Adjusted counts of one order -> its discounts (Chen and Goodman, equation 26)."""
    t = np.bincount(adjusted[adjusted < 5], minlength=5).tolist()
    if 0 in t[1:4]:
        return Discounts(FALLBACK, fallback=True)
    y = t[1] / (t[1] + 2 * t[2])
    one, two, three = (k - (k + 1) * y * t[k + 1] / t[k] for k in (1, 2, 3))
    if not (0 < one <= 1 and 0 < two <= 2 and 0 < three <= 3):  # at 0 a context would have no backoff
        return Discounts(FALLBACK, fallback=True)
    return Discounts((one, two, three), fallback=False)


def _weigh(
    counts: Sequence[Counts],
    adjusted: Sequence[Int64[np.ndarray, " grams"]],
    discounts: Sequence[Discounts],
    kept: Sequence[Bool[np.ndarray, " grams"]],
) -> list[Level]:
    """Counts -> interpolated probabilities and back-off weights of what is kept, in natural logarithms."""
    vocabulary = len(counts[0].word)
    a = adjusted[0].astype(np.float64)
    taken = discounts[0].of(adjusted[0])
    probs = (a - taken) / a.sum() + taken.sum() / a.sum() / (vocabulary - 1)
    probs[BEGIN] = 1.0  # no event; log 0 as KenLM writes it
    levels: list[Level] = []
    places = np.arange(vocabulary)  # of the n-grams of the order below among those kept
    for level, (count, keep) in enumerate(zip(counts, kept, strict=True)):
        backoffs = np.zeros(len(count.word))
        above: Float64[np.ndarray, " grams"] | None = None
        if level + 1 < len(counts):
            longer, a = counts[level + 1], adjusted[level + 1].astype(np.float64)
            taken = np.where(kept[level + 1], discounts[level + 1].of(adjusted[level + 1]), a)
            size = len(count.word)
            total = np.bincount(longer.parent, weights=a, minlength=size)
            contexts = total > 0
            mass = np.ones(size)
            mass[contexts] = np.bincount(longer.parent, weights=taken, minlength=size)[contexts]
            mass[contexts] /= total[contexts]
            backoffs = np.log(mass, out=np.full(size, -np.inf), where=mass > 0)
            above = (a - taken) / total[longer.parent] + mass[longer.parent] * probs[longer.suffix]
        levels.append(
            Level(
                places[count.parent[keep]] if level else np.zeros(vocabulary, np.int64),
                count.word[keep].astype(np.int32),
                np.log(probs[keep]),
                backoffs[keep],
            )
        )
        if level:
            places = np.cumsum(keep) - 1
        if above is not None:
            probs = above
    return levels


def number_words(first_seen: Sequence[str]) -> tuple[list[str], Int32[np.ndarray, " words"]]:
    """Words in the order met -> the word list of a model (sorted), and the new id of each."""
    words = [*SPECIAL, *sorted(first_seen)]
    place = {word: i for i, word in enumerate(words)}
    return words, np.array([place[word] for word in first_seen], dtype=np.int32)
