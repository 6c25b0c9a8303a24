"""Modified Kneser-Ney: worked by hand, and against an interpolated estimator made of plain dictionaries."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest

from firstwords.errors import TextError, UsageError
from firstwords.lm.ngram_estimate import estimate_discounts
from small_ngrams import draw_text, estimate, prob

Gram = tuple[str, ...]


def test_bigrams_worked_by_hand() -> None:
    """ "a b" and "a": bigrams <s> a twice, a b, b </s>, a </s> once; fallback 0.5, 1, 1.5 everywhere.

    Unigrams count what stands before them: a 1 (<s>), b 1 (a), </s> 2 (a, b), together 4; taken is
    (0.5 + 0.5 + 1) / 4 = 0.5, spread over <unk>, </s>, a, b: 0.125 each.
    """
    found = estimate(["a b", "a"], 2)
    model = found.model
    assert [d.fallback for d in found.discounts] == [True, True]
    unigrams = {"<unk>": 0.125, "a": 0.5 / 4 + 0.125, "b": 0.5 / 4 + 0.125, "</s>": 1 / 4 + 0.125}
    for word, value in unigrams.items():
        assert prob(model, [], word) == pytest.approx(value)
    assert prob(model, ["<s>"], "a") == pytest.approx((2 - 1) / 2 + 0.5 * 0.25)
    assert prob(model, ["<s>"], "b") == pytest.approx(0.5 * 0.25)
    assert prob(model, ["a"], "b") == pytest.approx(0.5 / 2 + 0.5 * 0.25)
    assert prob(model, ["a"], "</s>") == pytest.approx(0.5 / 2 + 0.5 * 0.375)
    assert prob(model, ["b"], "</s>") == pytest.approx(0.5 + 0.5 * 0.375)
    assert prob(model, ["b"], "never") == pytest.approx(0.5 * 0.125)


def test_discounts_worked_by_hand() -> None:
    """t = 4, 2, 1, 1: Y = 4 / 8; D = 1 - 2 Y 2/4, 2 - 3 Y 1/2, 3 - 4 Y 1/1."""
    found = estimate_discounts(np.array([1, 1, 1, 1, 2, 2, 3, 4, 9, 0]))
    assert found.values == pytest.approx((0.5, 1.25, 1.0))
    assert not found.fallback


@pytest.mark.parametrize(
    "counts",
    [[1, 2, 2], [2, 3, 4], [1, 3], [1, 2, 3, 3, 3], [1, 1, 2, 3, 4, 4, 4, 4]],
    ids=["no 3", "no 1", "no 2", "D2 < 0", "D3 < 0"],
)
def test_discounts_that_cannot_be_estimated_fall_back(counts: list[int]) -> None:
    found = estimate_discounts(np.array(counts))
    assert found.fallback
    assert found.values == (0.5, 1.0, 1.5)


class Interpolated:
    """The definition itself: P(w | c) = (a(cw) - D) / a(c·) + taken(c) P(w | c without its first word)."""

    def __init__(self, sentences: Sequence[str], order: int, prune: Sequence[int]) -> None:
        texts = [("<s>", *s.split(), "</s>") for s in sentences]
        seen: list[Counter[Gram]] = [
            Counter(t[i : i + n] for t in texts for i in range(len(t) - n + 1)) for n in range(1, order + 1)
        ]
        self.kept = [{g for g, c in seen[n].items() if c > prune[n] or n == 0} for n in range(order)]
        self.adjusted: list[dict[Gram, int]] = []
        for n in range(1, order + 1):
            before: defaultdict[Gram, set[str]] = defaultdict(set)
            for g in seen[n] if n < order else ():
                before[g[1:]].add(g[0])
            raw = seen[n - 1]
            self.adjusted.append({g: raw[g] if n == order or g[0] == "<s>" else len(before[g]) for g in raw})
        del self.adjusted[0][("<s>",)]
        self.discount = [self.discounts(list(a.values())) for a in self.adjusted]
        self.words = {w for t in texts for w in t} - {"<s>"} | {"<unk>"}
        self.after: defaultdict[Gram, list[Gram]] = defaultdict(list)
        for a in self.adjusted:
            for g in a:
                self.after[g[:-1]].append(g)
        self.total = {c: sum(self.adjusted[len(c)][g] for g in gs) for c, gs in self.after.items()}
        self.taken = {c: sum((self.take(g) for g in gs), Fraction(0)) for c, gs in self.after.items()}

    @staticmethod
    def discounts(counts: list[int]) -> list[Fraction]:
        t = Counter(counts)
        if all(t[k] for k in (1, 2, 3)):
            y = Fraction(t[1], t[1] + 2 * t[2])
            d = [Fraction(0), *(k - (k + 1) * y * Fraction(t[k + 1], t[k]) for k in (1, 2, 3))]
            if all(0 < d[k] <= k for k in (1, 2, 3)):
                return d
        return [Fraction(0), Fraction(1, 2), Fraction(1), Fraction(3, 2)]

    def take(self, gram: Gram) -> Fraction:
        n = len(gram) - 1
        a = self.adjusted[n][gram]
        return self.discount[n][min(a, 3)] if gram in self.kept[n] else Fraction(a)

    def prob(self, context: Gram, word: str) -> float:
        shorter = self.prob(context[1:], word) if context else 1 / len(self.words)
        total = self.total.get(context, 0)
        if not total:
            return shorter
        gram = (*context, word)
        own = self.adjusted[len(context)].get(gram, 0)
        kept = own - self.take(gram) if own else 0
        return float(kept / total) + float(self.taken[context] / total) * shorter


@pytest.mark.parametrize(
    ("order", "prune", "sentences"),
    [
        (1, [0], 40),
        (2, [0, 0], 60),
        (3, [0, 0, 0], 200),
        (3, [0, 0, 1], 60),
        (4, [0, 1, 1, 2], 200),
        (5, [0, 0, 1, 1, 3], 60),
        (5, [0] * 5, 3),
        (5, [0, 9, 9, 9, 9], 5),
    ],
)
def test_equals_the_definition(order: int, prune: list[int], sentences: int) -> None:
    text = draw_text(order + sentences, "abcdefghij", sentences)
    want = Interpolated(text, order, prune)
    found = estimate(text, order, prune)
    assert found.model.counts == tuple(
        len(kept) + (1 if n == 0 else 0) for n, kept in enumerate(want.kept)
    )  # and <unk>
    contexts = {
        c for s in text[:12] for t in [("<s>", *s.split())] for i in range(1, len(t) + 1) for c in [t[:i]]
    }
    contexts |= {tuple(c) for c in itertools.product("aj", repeat=order)}
    for context in sorted(contexts):
        history = context[max(0, len(context) - order + 1) :]
        state = np.array([0])
        for w in context:
            state = found.model.advance(state, found.model.word_ids([w]))[1]
        row = np.exp(found.model.rows(state)[0][0])
        assert row.sum() == pytest.approx(1, abs=1e-5)
        for word in want.words:
            assert row[found.model.id_of[word]] == pytest.approx(want.prob(history, word), rel=2e-6), (
                context,
                word,
            )
    assert found.seen[0] == len(want.words) + 1


def test_states_of_one_history_are_one_state() -> None:
    """What cannot matter is not in a state: searches may merge, caches hit."""
    model = estimate(["a b c d", "b c a"], 3).model
    far, near = np.array([0]), np.array([0])
    for w in "dacdb":
        far = model.advance(far, model.word_ids([w]))[1]
    near = model.advance(near, model.word_ids(["b"]))[1]
    assert far == near


@pytest.mark.parametrize(
    ("order", "prune", "says"),
    [
        (0, [0], "order of 0"),
        (99, [0], "order of 99"),
        (3, [1], "first number must be 0"),
        (3, [0, 2, 1], "below the one"),
        (2, [0, 0, 1], "2 orders"),
    ],
)
def test_orders_and_thresholds_that_cannot_be(order: int, prune: list[int], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        estimate(["a"], order, prune)


def test_no_text_is_refused() -> None:
    with pytest.raises(TextError, match="no text"):
        estimate([], 2)
