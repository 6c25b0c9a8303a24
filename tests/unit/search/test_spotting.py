"""Phrases spotted in frames: scores against brute force, places, what is written into the frames."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from firstwords.heads.head import FrameHead
from firstwords.search.ctc_common import find_runs
from firstwords.search.fusion import Scorers
from firstwords.search.interface import CtcBeamConfig, GreedyConfig, SearchConfig
from firstwords.search.search import build_encoded_search
from firstwords.search.spotting import (
    Background,
    PhraseSpotter,
    PhraseTable,
    Spot,
    apart,
    background_of,
    standardized,
)
from firstwords.search.words import WordBoundaries
from firstwords.tensors import Padded

LETTERS = WordBoundaries.of(["<blank>", "▁", "a", "b"])
PIECES = WordBoundaries.of(["<blank>", "▁a", "▁b", "a"])


def table_of(seed: int, frames: int, size: int = 4) -> NDArray[np.float64]:
    return np.log(np.random.default_rng(seed).dirichlet(np.full(size, 0.5), size=frames) + 1e-4)


def brute(log_probs: NDArray[np.float64], wanted: list[set[int]], *, led: bool) -> float:
    """The best path in any stretch that says one of each set after the other, the last one a word's end.

    Args:
        led: the first one parts words, too: silence before the utterance says it, as that behind it the last.
    """
    own = log_probs - log_probs.max(axis=1, keepdims=True)
    frames = np.pad(own, ((1, 1), (0, 0)))
    best = -np.inf
    for first, last in itertools.combinations(range(0 if led else 1, len(frames)), 2):
        for path in itertools.product(range(own.shape[1]), repeat=last + 1 - first):
            said = [label for label, _ in itertools.groupby(path) if label]
            if not path[0] or not path[-1] or len(said) != len(wanted):
                continue
            if all(token in one for token, one in zip(said, wanted, strict=True)):
                best = max(best, sum(frames[first + n, label] for n, label in enumerate(path)))
    return best


@pytest.mark.parametrize("phrase", [(2,), (2, 3), (2, 2), (3, 2, 3)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_scores_of_letters_equal_brute_force(phrase: tuple[int, ...], seed: int) -> None:
    log_probs = table_of(seed, 4)
    wanted = [{1}, *({token} for token in phrase), {1}]
    scores = PhraseTable([phrase], LETTERS).scan(log_probs).scores
    assert scores[0] == pytest.approx(brute(log_probs, wanted, led=True), abs=1e-4)


@pytest.mark.parametrize("phrase", [(1, 3), (2, 3), (2, 3, 3)])
@pytest.mark.parametrize("seed", [0, 1])
def test_scores_of_pieces_equal_brute_force(phrase: tuple[int, ...], seed: int) -> None:
    """A piece that begins a word needs nothing before it; the next such one, or silence, ends the phrase."""
    log_probs = table_of(seed, 4)
    scores = PhraseTable([phrase], PIECES).scan(log_probs).scores
    found = brute(log_probs, [*({token} for token in phrase), {1, 2}], led=False)
    assert scores[0] == pytest.approx(found, abs=1e-4)


def spelled(text: str, per: int = 2, wrong: dict[int, str] | None = None) -> NDArray[np.float64]:
    """Frames that say a text, blanks between its letters; ``wrong``: frames that rather say another one."""
    log_probs = np.full((per * len(text), 4), np.log(0.01))
    for n, letter in enumerate(text):
        log_probs[per * n, " ab".index(letter) + 1] = np.log(0.97)
        log_probs[per * n + 1 : per * (n + 1), 0] = np.log(0.97)
        if wrong and n in wrong:
            log_probs[per * n] = np.log(0.01)
            log_probs[per * n, " ab".index(wrong[n]) + 1] = np.log(0.6)
            log_probs[per * n, " ab".index(letter) + 1] = np.log(0.38)
    return log_probs


def read(log_probs: NDArray[np.float64]) -> str:
    return "".join(" ab"[token - 1] for token in find_runs(log_probs.argmax(axis=1)).tokens)


def test_a_word_is_found_where_it_is_and_nowhere_inside_another() -> None:
    log_probs = spelled("bb abba ba")
    found = PhraseTable([(2, 3, 3, 2), (3, 3), (3, 2)], LETTERS).scan(log_probs)
    assert found.scores == pytest.approx([0.0, 0.0, 0.0], abs=1e-5)
    assert (found.first - 1).tolist() == [4, -1, 14]  # the spaces around; silence at the ends
    assert (found.last - 1).tolist() == [14, 4, 20]
    assert PhraseTable([(3, 3)], LETTERS).scan(spelled("abba")).scores[0] < -4


def test_what_is_written_says_the_phrase_and_leaves_the_rest() -> None:
    log_probs = spelled("ab aab bb", wrong={4: "b"})
    assert read(log_probs) == "ab abb bb"
    table = PhraseTable([(2, 2, 3), (3, 3)], LETTERS)
    stretches = table.scan(log_probs)
    assert stretches.scores[0] == pytest.approx(np.log(0.38 / 0.6), abs=1e-4)
    spots = apart(stretches, np.array([3.0, 2.0]), 2.5)
    assert [spot.phrase for spot in spots] == [0]
    written = table.write(log_probs, spots)
    assert read(written) == "ab aab bb"
    untouched = [*range(spots[0].first - 1), *range(spots[0].last, len(log_probs))]
    assert np.array_equal(written[untouched], log_probs[untouched])
    assert read(log_probs) == "ab abb bb"  # a copy was written into


def test_a_whole_utterance_is_a_phrase() -> None:
    log_probs = spelled("ab")
    table = PhraseTable([(3, 2)], LETTERS)
    stretches = table.scan(log_probs)
    (spot,) = apart(stretches, np.array([9.0]), 1.0)
    assert read(table.write(log_probs, [spot])).strip() == "ba"


@given(seed=st.integers(0, 9999), frames=st.integers(0, 12), phrases=st.lists(
    st.lists(st.sampled_from([2, 3]), min_size=1, max_size=4), min_size=1, max_size=4))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_as_likely_as_the_score_says(
    seed: int, frames: int, phrases: list[list[int]]
) -> None:
    """The path of a spot loses against the best of each frame exactly its score, and says the phrase."""
    log_probs = table_of(seed, frames)
    table = PhraseTable(phrases, LETTERS)
    stretches = table.scan(log_probs)
    assert len(stretches.scores) == len(phrases)
    for number, phrase in enumerate(phrases):
        if stretches.scores[number] < -1e8:
            continue  # no room
        spot = Spot(number, 0.0, int(stretches.first[number]), int(stretches.last[number]))
        path = table.write(log_probs, [spot]).argmax(axis=1)
        inside = slice(max(0, spot.first - 1), min(frames, spot.last))
        lost = (log_probs[inside].max(axis=1) - log_probs[np.arange(frames), path][inside]).sum()
        assert -lost == pytest.approx(stretches.scores[number], abs=1e-3)
        tokens = [t for t in find_runs(path[inside]).tokens if t != 1]
        assert tokens == phrase


def test_phrases_that_overlap_are_not_both_taken() -> None:
    stretches = PhraseTable([(2,), (3,), (2, 3)], LETTERS).scan(spelled("a b"))
    z = np.array([5.0, 4.0, 6.0])
    taken = [Spot(0, 6.0, 0, 5), Spot(1, 5.0, 5, 8)]
    assert [spot.phrase for spot in apart(stretches, z, 3.0)] in ([2], [2, 0], [2, 1])
    both = stretches._replace(first=np.array([0, 5, 3]), last=np.array([5, 8, 6]))
    assert apart(both, np.array([6.0, 5.0, 4.0]), 3.0) == taken
    assert apart(both, np.array([6.0, 5.0, 4.0]), 6.5) == []


def test_backgrounds_leave_out_where_a_phrase_is_said() -> None:
    scores = np.array([[-1.0, -8.0], [-9.0, -8.0], [-11.0, -8.0]])
    said = np.array([[True, False], [False, False], [False, False]])
    found = background_of(scores, said)
    assert found.means.tolist() == [-10.0, -8.0]
    assert found.deviations[0] == pytest.approx(1.0)
    assert found.deviations[1] == pytest.approx(0.05)  # a tenth of the median, not nothing
    assert standardized(np.array([-8.0, -8.0], np.float32), found) == pytest.approx([2.0, 0.0])
    nowhere = background_of(np.zeros((2, 1)), np.ones((2, 1), bool))
    assert np.isfinite([*nowhere.means, *nowhere.deviations]).all()
    assert isinstance(nowhere, Background)


def spotter_with(share: float, threshold: float) -> PhraseSpotter:
    """Looks for "aab" and "bb"; "ab" is a decoy."""
    table = PhraseTable([(2, 2, 3), (3, 3), (2, 3)], LETTERS)
    background = Background(np.array([-2.0, -10.0, -4.0]), np.array([1.0, 2.0, 2.0]))
    return PhraseSpotter(table, background, phrases=2, share=share, threshold=threshold)


def test_z_is_what_the_formula_says() -> None:
    log_probs = spelled("ab aab bb", wrong={4: "b"})
    scores = PhraseTable([(2, 2, 3), (3, 3), (2, 3)], LETTERS).scan(log_probs).scores
    alone = {spot.phrase: spot.z for spot in spotter_with(0.0, -99.0).spots(log_probs)}
    assert alone[0] == pytest.approx((scores[0] + 2.0) / 1.0)
    assert alone[1] == pytest.approx((scores[1] + 10.0) / 2.0)
    less = {spot.phrase: spot.z for spot in spotter_with(0.5, -99.0).spots(log_probs)}
    assert set(less) == {0, 1}  # a decoy is never found
    decoy = (scores[2] + 4.0) / 2.0
    assert less[0] == pytest.approx(alone[0] - 0.5 * decoy)


@pytest.mark.parametrize("config", [GreedyConfig(), CtcBeamConfig(beam=8)])
def test_every_search_reads_what_was_spotted(config: SearchConfig) -> None:
    log_probs = spelled("ab aab bb", wrong={4: "b"})
    head = SimpleNamespace(vocabulary=4, log_probs=lambda encoded: encoded)

    def text(scorers: Scorers, batch: list[torch.Tensor]) -> list[str]:
        lengths = torch.tensor([len(one) for one in batch])
        padded = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True)
        search = build_encoded_search(config, {"ctc": cast("FrameHead", head)}, 0.04, scorers)
        return ["".join(" ab"[t - 1] for t in found[0].tokens) for found in search(Padded(padded, lengths))]

    batch = [torch.from_numpy(log_probs), torch.from_numpy(spelled("b a")), torch.zeros(0, 4).double()]
    assert text(Scorers(), batch) == ["ab abb bb", "b a", ""]
    assert text(Scorers(spotter=spotter_with(0.0, 1.4)), batch) == ["ab aab bb", "b a", ""]
    assert text(Scorers(spotter=spotter_with(0.0, 6.0)), batch) == ["ab abb bb", "b a", ""]
