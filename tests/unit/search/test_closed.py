"""A closed vocabulary: near misses become known words, what is plainly something else stays."""

from __future__ import annotations

import itertools
import math
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from firstwords.search.closed import ClosedStream, ClosedVocabulary, known_words
from firstwords.search.greedy import greedy_search
from firstwords.search.interface import GreedyConfig
from firstwords.search.streaming import build_streaming_search
from firstwords.tensors import Padded
from firstwords.text.characters import GraphemeTokenizer

WORDS = ("on", "off", "up")
FRAME = 0.04
TOKENIZER = GraphemeTokenizer.train(["on off up", "on off up", "on off up", "fop", "fop", "fop"])


class Scores:
    """A head whose encoded frames are log-probabilities already."""

    def log_probs(self, encoded: Padded) -> Padded:
        return encoded


def closed(penalty: float = 6.0, beam: int = 8) -> ClosedVocabulary:
    return ClosedVocabulary(cast(Any, Scores()), WORDS, TOKENIZER, FRAME, penalty=penalty, beam=beam)


def heard(text: str, instead: dict[int, tuple[str, float]] | None = None) -> Tensor:
    """(T, V) log-probabilities: letter, blank, letter, blank ...; ``instead`` gives a letter a rival."""
    ids = TOKENIZER.encode(text)
    rows: list[Tensor] = []
    for place, token in enumerate(ids):
        row = torch.full((len(TOKENIZER.pieces),), 1e-4)
        row[token] = 1.0
        if instead and place in instead:
            other, share = instead[place]
            rival = 0 if not other else TOKENIZER.encode(other)[0]
            row[token], row[rival] = 1 - share, share
        blank = torch.full_like(row, 1e-4)
        blank[0] = 1.0
        rows += [row, blank]
    return (torch.stack(rows) / torch.stack(rows).sum(dim=1, keepdim=True)).log()


def batch(*utterances: Tensor) -> Padded:
    lengths = [len(u) for u in utterances]
    values = torch.zeros(len(utterances), max(lengths), utterances[0].shape[1])
    for row, utterance in zip(values, utterances, strict=True):
        row[: len(utterance)] = utterance
    return Padded(values, torch.tensor(lengths))


def mended(*utterances: Tensor, penalty: float = 6.0) -> list[list[str]]:
    frames = batch(*utterances)
    found = [[reading] for reading in greedy_search(frames, frame_seconds=FRAME)]
    readings = closed(penalty).mend(frames, found)
    return [[TOKENIZER.decode(reading.tokens) for reading in own] for own in readings]


def test_near_miss_becomes_a_word() -> None:
    # "of" where the second f was almost heard
    assert mended(heard("off on", {2: ("", 0.7)})) == [["off on", "of on"]]


def test_words_that_stand_without_a_space_are_parted() -> None:
    frames = heard("on up", {2: ("", 0.6)})
    assert mended(frames) == [["on up", "onup"]]


def test_what_is_plainly_something_else_stays() -> None:
    assert mended(heard("fop")) == [["fop"]]
    assert mended(heard("fop"), penalty=50.0)[0][0] != "fop"


def test_known_words_and_silence_are_left_alone() -> None:
    frames = batch(heard("on"), heard("off up"))
    found = [[], [greedy_search(frames, frame_seconds=FRAME)[1]]]
    readings = closed().mend(frames, found)
    assert readings[0] == []
    assert readings[1][0] is found[1][0]


def test_rows_are_not_mixed_up() -> None:
    wrong, right = heard("off", {2: ("", 0.7)}), heard("up on off")
    assert mended(right, wrong, right) == [["up on off"], ["off", "of"], ["up on off"]]


def test_times_and_confidences_are_there() -> None:
    frames = batch(heard("off on", {2: ("", 0.7)}))
    found = [[reading] for reading in greedy_search(frames, frame_seconds=FRAME)]
    reading = closed().mend(frames, found)[0][0]
    assert reading.times is not None
    assert reading.ends is not None
    assert reading.confidences is not None
    assert len(reading.times) == len(reading.tokens) == len(reading.confidences)
    assert reading.times[0] == 0.0
    assert reading.confidences[2] == pytest.approx(0.3, abs=0.01)


def test_score_is_the_best_of_all_sentences() -> None:
    """Brute force: every sequence of letters that frames so few can hold."""
    generator = torch.Generator().manual_seed(5)
    letters = {TOKENIZER.encode(letter)[0]: letter for letter in "onfup"}
    space = next(i for i, piece in enumerate(TOKENIZER.pieces) if piece == "▁")
    letters[space] = " "
    for _ in range(5):
        logits = torch.full((5, len(TOKENIZER.pieces)), -50.0)
        kept = [0, *letters]
        logits[:, kept] = 2 * torch.randn(5, len(kept), generator=generator)
        log_probs = logits.log_softmax(-1)
        best = -math.inf
        for count in range(6):
            for tokens in itertools.product(letters, repeat=count):
                text = "".join(letters[token] for token in tokens)
                unknown = sum(word not in WORDS for word in text.split())
                loss = torch.nn.functional.ctc_loss(
                    log_probs[:, None],
                    torch.tensor([tokens], dtype=torch.int64),
                    torch.tensor([5]),
                    torch.tensor([count]),
                )
                best = max(best, -float(loss) * max(1, count) - 2.5 * unknown)
        search = closed(penalty=2.5, beam=3000).search
        (found,) = search(batch(log_probs))[0][:1]
        assert found.score == pytest.approx(best, abs=1e-4)


def test_scores_of_the_words() -> None:
    """Letters of known words cost nothing, leaving them costs once."""
    scorer = known_words(WORDS, TOKENIZER, 4.0).scorer
    for text, cost in (("off on", 0.0), ("of on", -4.0), ("fop fop", -8.0), ("", 0.0), ("offon", -4.0)):
        state, last, total = scorer.start(1), torch.zeros(1, dtype=torch.int64), 0.0
        for token in (*TOKENIZER.encode(text), 0):
            scores, state = scorer.score(last, state)
            total += float(scores[0, token])
            last = torch.tensor([token])
        assert total == pytest.approx(cost), text


def test_words_spelled_alike_count_once() -> None:
    assert known_words(("on", "on", "up"), TOKENIZER).weight == 1.0
    assert np.isfinite(float(known_words((), TOKENIZER).weight))


def in_a_stream(*chunks: Tensor, speech: tuple[bool, ...] = ()) -> list[tuple[str, tuple[float, ...]]]:
    """Chunks, each final when it is read, as a listener asks for them."""
    stream = ClosedStream(closed(), FRAME)
    search = build_streaming_search(GreedyConfig(), stream.score, FRAME)
    shown: list[tuple[str, tuple[float, ...]]] = []
    for place, chunk in enumerate(chunks):
        search.advance(chunk)
        reading = search.commit(len(search.best().tokens))
        is_speech = speech[place] if speech else True
        found = stream.mend(reading, search.seconds, is_speech=is_speech)
        assert found.times is not None
        shown.append((TOKENIZER.decode(found.tokens).strip(), found.times))
    return shown


def test_a_stream_reads_near_misses_as_words_when_they_are_final() -> None:
    almost, other = heard("off on", {2: ("", 0.7)}), heard("fop")
    shown = in_a_stream(almost, other, almost)
    assert [text for text, _ in shown] == ["off on", "fop", "off on"]
    second = (len(almost) + len(other)) * FRAME
    assert [time - second for time in shown[2][1]] == pytest.approx(list(shown[0][1]))
    assert [text for text, _ in in_a_stream(almost, almost, speech=(False, True))] == ["of on", "off on"]


def test_what_goes_on_is_not_searched_with_what_is_final() -> None:
    stream = ClosedStream(closed(), FRAME)
    search = build_streaming_search(GreedyConfig(), stream.score, FRAME)
    search.advance(heard("off on", {2: ("", 0.7)}))
    first = search.commit(2)  # "of", its second f hardly heard
    going_on = search.best().times
    assert going_on is not None
    assert TOKENIZER.decode(stream.mend(first, going_on[0], is_speech=True).tokens) == "off"
    rest = search.commit(len(search.best().tokens))
    assert TOKENIZER.decode(stream.mend(rest, search.seconds, is_speech=True).tokens).strip() == "on"


def test_only_what_is_not_final_is_held() -> None:
    stream = ClosedStream(closed(), FRAME)
    search = build_streaming_search(GreedyConfig(), stream.score, FRAME)
    for _ in range(5):
        search.advance(heard("off on up"))
        reading = search.commit(len(search.best().tokens))
        stream.mend(reading, search.seconds - 2 * FRAME, is_speech=True)
        (frames,) = stream._held._held
        assert frames.shape == (2, len(TOKENIZER.pieces))
        assert frames.base is None  # no view of all that was heard


def test_a_letter_that_goes_on_is_not_heard_twice() -> None:
    frames = heard("of")[:-1]  # ends with the letter, without a blank
    stream = ClosedStream(closed(), FRAME)
    search = build_streaming_search(GreedyConfig(), stream.score, FRAME)
    search.advance(frames)
    first = search.commit(2)
    stream.mend(first, search.seconds, is_speech=False)
    search.advance(torch.cat([frames[-1:], heard(" up", {1: ("", 0.6)})]))
    rest = search.commit(len(search.best().tokens))
    assert TOKENIZER.decode(rest.tokens).strip() == "p"
    assert TOKENIZER.decode(stream.mend(rest, search.seconds, is_speech=True).tokens).strip() == "up"
