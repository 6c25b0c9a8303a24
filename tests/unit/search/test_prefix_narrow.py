"""Beams as wide as the doubt: margin and settled endings, against a dictionary of all prefixes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

import numpy as np
import pytest
import torch
from torch import Tensor

from firstwords.errors import SearchError
from firstwords.lm.neural.folder import build_network
from firstwords.lm.neural.scorer import NeuralScorer
from firstwords.nn.scorer import TokenScorer
from firstwords.search import ctc_beam
from firstwords.search.ctc_beam import CtcBeamSearch, prefix_readings, prefix_readings_of
from firstwords.search.fusion import Companion, TokenBonus, Weighted, WeightedSum
from firstwords.search.interface import NARROW, CtcBeamConfig
from firstwords.search.prefix_beam import PrefixBeam, is_narrow
from firstwords.search.prefix_tree import PrefixTree
from firstwords.tensors import Padded
from small_networks import KINDS, small_config
from toy_scorers import TrigramScorer

NEVER = -math.inf


def posterior(frames: int, vocabulary: int, seed: int, spread: float = 2.0) -> np.ndarray:
    values = torch.randn(frames, vocabulary, generator=torch.Generator().manual_seed(seed)) * spread
    values[:, 0] += 1.0
    return values.double().log_softmax(-1).numpy()


def helpers(vocabulary: int) -> list[Weighted]:
    lm, bonus = TrigramScorer(vocabulary, 1), TokenBonus(vocabulary)
    return [Weighted("lm", 0.7, lm), Weighted("bonus", 0.4, bonus)]


def slow(
    log_probs: np.ndarray, config: CtcBeamConfig, scorers: list[Weighted]
) -> dict[tuple[int, ...], float]:
    """Prefixes as tuples, every scorer asked anew for each, all rules written out."""
    text = WeightedSum(scorers, log_probs.shape[1]) if scorers else None

    def share(tokens: tuple[int, ...], *, end: bool = False) -> float:
        if text is None:
            return 0.0
        state, total, last = text.start(1), 0.0, 0
        for token in (*tokens, *([0] if end else [])):
            scores, state = text.score(torch.tensor([last]), state)
            total, last = total + float(scores[0, token]), token
        return total

    beam: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, NEVER)}
    for frame in log_probs:
        tried = [s for s in range(1, len(frame)) if frame[s] >= math.log(max(config.token_threshold, 1e-300))]
        grown: dict[tuple[int, ...], list[float]] = {}
        for prefix, (blank, token) in beam.items():
            total = float(np.logaddexp(blank, token))
            moves = [(prefix, 0, total + frame[0])]
            for symbol in tried:
                again = bool(prefix) and symbol == prefix[-1]
                if again:
                    moves.append((prefix, 1, token + frame[symbol]))
                moves.append(((*prefix, symbol), 1, (blank if again else total) + frame[symbol]))
            for tokens, slot, value in moves:
                entry = grown.setdefault(tokens, [NEVER, NEVER])
                entry[slot] = float(np.logaddexp(entry[slot], value))
        worth = {p: float(np.logaddexp(*both)) + share(p) for p, both in grown.items()}
        ranked = sorted((p for p in worth if worth[p] > NEVER), key=lambda p: -worth[p])
        if config.margin is not None:
            ranked = [p for p in ranked if worth[p] >= worth[ranked[0]] - config.margin]
        if config.settled_after is not None:
            first: dict[tuple[int, ...], tuple[int, ...]] = {}
            for prefix in ranked:
                first.setdefault(prefix[-config.settled_after :], prefix)
            ranked = list(first.values())
        beam = {p: (grown[p][0], grown[p][1]) for p in ranked[: config.beam]}
    return {p: float(np.logaddexp(*both)) + share(p, end=True) for p, both in beam.items()}


CONFIGS = {
    "margin": CtcBeamConfig(beam=6, margin=2.5, token_threshold=0.01),
    "margin, one": CtcBeamConfig(beam=1, margin=2.5, token_threshold=0.01),
    "settled": CtcBeamConfig(beam=4, margin=1e9, settled_after=2, token_threshold=0.03),
    "settled at once": CtcBeamConfig(beam=4, margin=6.0, settled_after=1, token_threshold=0.02),
    "few tokens": CtcBeamConfig(beam=4, margin=4.0, settled_after=3, tokens_per_frame=4),
    "narrow": NARROW,
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("seed", range(4))
def test_it_reads_as_the_rules_say(name: str, seed: int) -> None:
    config, scorers = CONFIGS[name], helpers(5)
    log_probs = posterior(14, 5, seed, spread=(0.7, 2.0, 3.5, 5.0)[seed])
    assert is_narrow(config)
    seen = log_probs.copy()
    if config.tokens_per_frame is not None:
        seen[seen < np.sort(seen, axis=1)[:, [-config.tokens_per_frame]]] = NEVER
    found = prefix_readings(log_probs, config, scorers)
    assert {r.tokens: r.score for r in found} == pytest.approx(slow(seen, config, scorers))
    for reading in found:
        assert reading.score == pytest.approx(sum(reading.parts.values()))
        assert reading.parts["bonus"] == pytest.approx(0.4 * len(reading.tokens))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("settled", [None, 1, 3])
def test_arrays_and_single_numbers_find_the_same(seed: int, settled: int | None) -> None:
    """The general search, which is used where many tokens are tried, keeps the same rules."""
    log_probs, scorers = posterior(20, 6, seed), helpers(6)
    config = CtcBeamConfig(beam=5, margin=3.0, settled_after=settled)
    assert not is_narrow(config)
    everything = config.with_(tokens_per_frame=6)
    for helped in (scorers, []):
        arrays = prefix_readings(log_probs, config, helped)
        assert {r.tokens: r.score for r in arrays} == pytest.approx(slow(log_probs, config, helped))
    numbers = prefix_readings(log_probs, everything, scorers)
    arrays = prefix_readings(log_probs, config, scorers)
    assert [r.tokens for r in numbers] == [r.tokens for r in arrays]
    for one, other in zip(numbers, arrays, strict=True):
        assert one.parts == pytest.approx(other.parts)


@pytest.mark.parametrize("silence", ["at the start", "inside", "at the end", "everywhere"])
def test_silences_are_counted_frame_by_frame(silence: str) -> None:
    """Frames without a token to try are one step of the search, and still as probable as they are."""
    log_probs, scorers = posterior(18, 5, 3, spread=3.5), helpers(5)
    silent = np.log(np.array([0.99, 0.004, 0.003, 0.002, 0.001])) - 0.1  # not sure: it must be seen in sums
    stretches = {"at the start": [(0, 4)], "inside": [(3, 6), (8, 9), (10, 14)], "at the end": [(15, 18)]}
    for begin, end in stretches.get(silence, [(0, 18)]):
        log_probs[begin:end] = silent
    for config in (NARROW, CtcBeamConfig(beam=6, margin=2.5, token_threshold=0.01)):
        found = prefix_readings(log_probs, config, scorers)
        assert {r.tokens: r.score for r in found} == pytest.approx(slow(log_probs, config, scorers))
        if silence == "everywhere":
            assert [r.parts["ctc"] for r in found] == [pytest.approx(18 * silent[0])]


def test_batches_are_searched_together_and_come_back_as_they_were() -> None:
    rows = [[posterior(n, 6, n, spread=3.0) for n in lengths] for lengths in ((25, 7), (), (40,), (12, 1, 0))]
    batches = [
        Padded(
            torch.from_numpy(np.stack([np.pad(row, ((0, 40 - len(row)), (0, 0))) for row in batch]))
            if batch
            else torch.zeros(0, 40, 6, dtype=torch.float64),
            torch.tensor([len(row) for row in batch], dtype=torch.int64),
        )
        for batch in rows
    ]
    for search in (CtcBeamSearch(NARROW, 0.04, helpers(6)), CtcBeamSearch(CtcBeamConfig(), 0.04)):
        together = search.many(batches)
        assert together == [search(batch) for batch in batches]
        assert [len(found) for found in together] == [2, 0, 1, 3]
    with pytest.raises(SearchError, match="Row 2"):
        search.many([batches[0], Padded(batches[2].values * math.nan, batches[2].lengths)])


def test_utterances_side_by_side_are_read_as_alone() -> None:
    batch = [posterior(n, 6, n, spread=3.0) for n in (25, 0, 7, 40, 1)]
    for config in (NARROW, NARROW.with_(n_best=4, margin=8.0), CtcBeamConfig(beam=3)):
        together = prefix_readings_of(batch, config, helpers(6))
        assert together == [prefix_readings(one, config, helpers(6)) for one in batch]
    assert prefix_readings_of([], NARROW, helpers(6)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_side_by_side_with_a_network_all_but_rounding_is_as_alone(kind: str) -> None:
    """Which differs with the number of rows: single precision, as models are used."""
    torch.manual_seed(4)
    network = build_network(small_config(kind), 6)
    with torch.no_grad():
        for weights in network.parameters():
            weights.add_(0.4 * torch.randn_like(weights))
    scorers = [Weighted("lm", 0.8, NeuralScorer(network)), Weighted("bonus", 0.4, TokenBonus(6))]
    batch = [posterior(n, 6, n, spread=3.0) for n in (25, 0, 7, 40, 1, 33, 18)]
    for config in (NARROW, NARROW.with_(n_best=4, margin=8.0)):
        together = prefix_readings_of(batch, config, scorers)
        alone = [prefix_readings(one, config, scorers) for one in batch]
        without = [prefix_readings(one, config) for one in batch]
        for some, others in zip(together, alone, strict=True):
            assert [r.tokens for r in some] == [r.tokens for r in others]
            for one, other in zip(some, others, strict=True):
                assert one.parts == pytest.approx(other.parts, abs=1e-4)
        assert [r[0].tokens for r in alone] != [r[0].tokens for r in without]  # the network has its say


def test_memory_of_scorers_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many utterances there are, and however wide the beams."""
    made: list[int] = []

    def noted(scorers: list[Weighted], slots: int, most: int, vocabulary: int) -> Companion:
        made.append(most)
        return Companion(scorers, slots, most, vocabulary)

    monkeypatch.setattr(ctc_beam, "Companion", noted)
    batch = [posterior(6, 6, n) for n in range(70)]
    for beam, groups in ((4, [128, 128, 24]), (50, [100] * 35), (300, [300] * 70)):
        config = NARROW.with_(beam=beam, margin=6.0)
        found = prefix_readings_of(batch, config, helpers(6))
        assert made == groups
        made.clear()
        assert found[::9] == [prefix_readings(one, config, helpers(6)) for one in batch[::9]]
        made.clear()


@final
class Copied(TokenScorer[Tensor]):
    """How many rows does it keep, at most?"""

    def __init__(self, vocabulary: int) -> None:
        self.most, self.vocabulary = 0, vocabulary

    def start(self, rows: int) -> Tensor:
        return torch.zeros(rows, 1)

    def score(self, last: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full((len(last), self.vocabulary), -1.0), state + last[:, None]

    def reorder(self, state: Tensor, kept: Tensor) -> Tensor:
        return state[kept]

    def join(self, states: Sequence[Tensor]) -> Tensor:
        joined = torch.cat(list(states))
        self.most = max(self.most, len(joined))
        return joined


def test_rows_of_dead_sentences_are_cleared() -> None:
    """Sixty sentences become twenty, which all grow again and again."""
    scorer = Copied(6)
    companion = Companion([Weighted("lm", 1.0, scorer)], 60, 60, 6)
    for length in range(1, 30):
        companion.move(np.arange(20), np.full(20, 1 + length % 5))
        assert companion.totals().tolist() == [-float(length)] * 20
    assert 20 < scorer.most <= 2 * 20


def test_however_frames_are_cut_the_reading_is_the_same() -> None:
    log_probs = posterior(60, 6, 3, spread=2.5)
    (whole, *_) = prefix_readings(log_probs, NARROW, helpers(6))
    for cuts in ([20, 40], [1, 2, 3, 59], list(range(1, 60))):
        beam = PrefixBeam(NARROW, Companion(helpers(6), 1, NARROW.beam, 6))
        for part in np.split(log_probs, cuts):
            beam.read(part)
            assert beam.companion is not None
            assert len(beam.companion.totals()) == len(beam.nodes)
        assert beam.ended()[0].tokens == whole.tokens
        assert beam.ended()[0].parts == pytest.approx(whole.parts)


@final
class Counting(TokenScorer[Tensor]):
    """How often was it asked, and for how many sentences?"""

    def __init__(self, vocabulary: int) -> None:
        self.calls, self.rows = 0, 0
        self.vocabulary = vocabulary

    def start(self, rows: int) -> Tensor:
        return torch.zeros(rows, 1)

    def score(self, last: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        self.rows += len(last)
        return torch.full((len(last), self.vocabulary), -1.0), state

    def reorder(self, state: Tensor, kept: Tensor) -> Tensor:
        return state[kept]


def test_sure_frames_ask_little_and_utterances_ask_together() -> None:
    sure = np.full((40, 6), math.log(1e-5))
    for frame in range(40):
        sure[frame, 0 if frame % 4 else 1 + frame % 5] = math.log(0.99)
    scorer = Counting(6)
    (found, *_) = prefix_readings(sure, NARROW, [Weighted("lm", 0.5, scorer)])
    assert len(found.tokens) == 10
    assert scorer.rows == 1 + 10  # the start; each prefix before the next token, the last at the end
    calls, scorer.calls = scorer.calls, 0
    prefix_readings_of([sure] * 8, NARROW, [Weighted("lm", 0.5, scorer)])
    assert scorer.calls == calls


def test_nothing_possible_is_an_error() -> None:
    for place in (0, 2, 4):
        frames = posterior(5, 4, 0)
        frames[place] = NEVER
        with pytest.raises(SearchError, match="No symbol is possible"):
            prefix_readings(frames, NARROW, helpers(4))
    impossible = TrigramScorer(4, 1)
    impossible.table[:] = NEVER
    only = np.log(np.array([[1e-300, 1.0, 1e-300, 1e-300]])) + np.array([[NEVER, 0, 0, 0]])
    with pytest.raises(SearchError, match="No symbol is possible"):
        prefix_readings(only, NARROW, [Weighted("lm", 0.5, impossible)])


def test_endings_go_back_into_what_was_handed_out() -> None:
    tree = PrefixTree((7, 8, 9))
    node = tree.child(tree.child(0, 1), 2)
    assert tree.tokens[0] == 9
    assert tree.spell(node) == (1, 2)
    assert tree.ending(node, 3, 2) == (3, 2)
    assert tree.ending(node, 0, 2) == (2, 1)
    assert tree.ending(node, 3, 4) == (3, 2, 1, 9)
    assert tree.ending(node, 0, 4) == (2, 1, 9, 8)
    assert tree.ending(node, 0, 9) == (2, 1, 9, 8, 7)
    assert tree.ending(0, 5, 1) == (5,)
    assert tree.child(0, 1) == tree.known_child(0, 1) == 1
    assert tree.known_child(0, 4) == -1
    assert PrefixTree().tokens == [0]


def test_settled_frees_places_for_other_readings() -> None:
    """Two prefixes that differ long ago hold both places until they count as one."""

    def frame(**chances: float) -> list[float]:
        row = [chances.get(letter, 1e-6) for letter in "_abcd"]
        return [math.log(x / sum(row)) for x in row]

    log_probs = np.array(
        [
            frame(a=0.5, b=0.49),
            frame(_=0.99),
            frame(c=0.99),
            frame(_=0.99),
            frame(c=0.55, d=0.45),  # a c c, b c c, a c d, b c d in this order
            frame(_=0.99),
        ]
    )
    lm: list[Any] = [Weighted("bonus", 1e-9, TokenBonus(5))]
    wide = CtcBeamConfig(beam=2, margin=9.0, token_threshold=0.01)
    assert [r.tokens for r in prefix_readings(log_probs, wide, lm)] == [(1, 3, 3), (2, 3, 3)]
    settled = prefix_readings(log_probs, wide.with_(settled_after=2), lm)
    assert [r.tokens for r in settled] == [(1, 3, 3), (1, 3, 4)]
