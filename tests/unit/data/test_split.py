"""Splits: voices apart where possible, sizes by duration, the same for the same seed, and honest notes."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstwords.data.manifest import Utterance
from firstwords.data.split import (
    canonical_split,
    split_corpus,
    split_in_name,
    split_speakers,
    text_overlap,
)
from firstwords.errors import UsageError


def utterance(
    name: str,
    speaker: str | None = None,
    *,
    seconds: float = 2.0,
    text: str | None = None,
    split: str | None = None,
    audio: str | None = None,
    start: float = 0.0,
) -> Utterance:
    return Utterance(
        id=name,
        audio=Path(audio or f"{name}.wav"),
        duration=seconds,
        start=start,
        text=text if text is not None else f"text {name}",
        speaker=speaker,
        split=split,
    )


def crowd(speakers: int, each: int, seconds: float = 2.0) -> list[Utterance]:
    return [utterance(f"s{s}-{n}", f"s{s}", seconds=seconds) for s in range(speakers) for n in range(each)]


def seconds_of(utterances: list[Utterance], splits: dict[str, str]) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for u in utterances:
        total[splits[u.id]] += u.duration
    return total


def voices_of(utterances: list[Utterance], splits: dict[str, str]) -> dict[str, set[str | None]]:
    found: dict[str, set[str | None]] = defaultdict(set)
    for u in utterances:
        found[splits[u.id]].add(u.speaker)
    return found


def test_speakers_are_held_out_whole_and_sizes_come_near() -> None:
    utterances = crowd(20, 5)
    result = split_speakers(utterances, dev=0.1, test=0.1, seed=1)
    assert result.rule == "speaker"
    voices = voices_of(utterances, dict(result.splits))
    assert {k: len(v) for k, v in voices.items()} == {"train": 16, "dev": 2, "test": 2}
    assert not voices["train"] & voices["test"]
    assert not voices["train"] & voices["dev"]
    assert not voices["dev"] & voices["test"]
    assert "16 in train, 2 in dev, 2 in test" in result.notes[0]


def test_size_is_counted_in_seconds_and_not_in_utterances() -> None:
    utterances = crowd(10, 1, seconds=10) + [utterance(f"x-{n}", "x", seconds=0.1) for n in range(100)]
    result = split_speakers(utterances, dev=0.1, test=0.1, seed=3)
    seconds = seconds_of(utterances, dict(result.splits))
    assert seconds["test"] == pytest.approx(11, abs=11 * 0.5)
    assert seconds["train"] >= 0.6 * sum(seconds.values())


def test_the_same_seed_gives_the_same_split_in_any_order_and_another_seed_another() -> None:
    utterances = crowd(30, 4)
    first = split_speakers(utterances, dev=0.1, test=0.2, seed=5)
    shuffled = utterances.copy()
    random.Random(0).shuffle(shuffled)
    assert split_speakers(shuffled, dev=0.1, test=0.2, seed=5).splits == dict(first.splits)
    assert split_speakers(utterances, dev=0.1, test=0.2, seed=6).splits != dict(first.splits)


def test_the_split_does_not_depend_on_where_the_recordings_lie() -> None:
    def of(folder: str, each: int) -> dict[str, str]:
        there = [
            utterance(f"u{n}", "a", audio=f"{folder}/é{n // each}.wav", start=n % each * 2.0)
            for n in range(80)
        ]
        return dict(split_speakers(there, dev=0.1, test=0.1, seed=0).splits)

    for each in (4, 80):  # by recording, by stretches of time
        assert of("/home/eva/field", each) == of("D:/x/y/Field 2026", each)


def test_three_equal_speakers_give_test_a_voice_of_its_own_and_dev_other_recordings() -> None:
    utterances = crowd(3, 20)
    result = split_speakers(utterances, dev=0.1, test=0.1, seed=0)
    voices = voices_of(utterances, dict(result.splits))
    assert result.rule == "speaker and recording"
    assert len(voices["test"]) == 1
    assert voices["dev"] <= voices["train"]
    assert not voices["test"] & voices["train"]
    assert seconds_of(utterances, dict(result.splits))["dev"] == pytest.approx(12, abs=2)


@pytest.mark.parametrize(("speaker", "said"), [("sewade", "only one speaker"), (None, "names no speakers")])
def test_one_or_no_speaker_is_split_by_recording_and_that_is_said(speaker: str | None, said: str) -> None:
    utterances = [utterance(f"u{n}", speaker, audio=f"r{n // 4}.wav", start=n % 4 * 2.0) for n in range(80)]
    result = split_speakers(utterances, dev=0.1, test=0.1, seed=0)
    assert result.rule == "recording"
    assert said in result.notes[0]
    assert "by recording (20 files)" in result.notes[0]
    files: dict[Path, set[str]] = defaultdict(set)
    for u in utterances:
        files[u.audio].add(result.splits[u.id])
    assert all(len(splits) == 1 for splits in files.values())
    assert set(result.splits.values()) == {"train", "dev", "test"}


def test_one_file_is_split_by_stretches_of_time_and_that_is_said() -> None:
    utterances = [utterance(f"u{n}", "a", audio="talk.wav", start=2.0 * n) for n in range(100)]
    result = split_speakers(utterances, dev=0.1, test=0.1, seed=0)
    assert result.rule == "time"
    assert "stretches of time" in result.notes[0]
    ordered = [result.splits[f"u{n}"] for n in range(100)]
    changes = sum(a != b for a, b in pairwise(ordered))
    assert changes <= 8  # stretches, not single sentences
    assert ordered.count("dev") == ordered.count("test") == 10


def test_one_speaker_with_nearly_everything_is_not_held_apart_by_a_tiny_test() -> None:
    utterances = [utterance(f"a{n}", "a") for n in range(98)] + [utterance("b", "b"), utterance("c", "c")]
    result = split_speakers(utterances, dev=0.1, test=0.1, seed=0)
    assert result.rule == "recording"
    assert "too few speakers" in result.notes[0]


def test_utterances_of_unknown_voice_stay_in_train() -> None:
    utterances = [*crowd(20, 5), utterance("nobody")]
    result = split_speakers(utterances, dev=0.1, test=0.1, seed=0)
    assert result.splits["nobody"] == "train"
    assert any("without a speaker" in note for note in result.notes)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_utterances_all_go_to_train(count: int) -> None:
    result = split_speakers(crowd(count, 1), dev=0.1, test=0.1, seed=0)
    assert set(result.splits.values()) <= {"train"}
    assert result.rule == "none"


def test_without_shares_everything_is_train() -> None:
    assert set(split_speakers(crowd(5, 2), dev=0, test=0, seed=0).splits.values()) == {"train"}
    only_test = split_speakers(crowd(20, 2), dev=0, test=0.2, seed=0)
    assert set(only_test.splits.values()) == {"train", "test"}


@pytest.mark.parametrize(("dev", "test"), [(-0.1, 0.1), (0.5, 0.5), (1.0, 0.0), (float("nan"), 0.1)])
def test_shares_that_leave_no_train_are_refused(dev: float, test: float) -> None:
    with pytest.raises(UsageError, match="--dev"):
        split_corpus(crowd(5, 2), dev=dev, test=test)


@settings(max_examples=60, deadline=None)
@given(
    people=st.lists(
        st.tuples(st.sampled_from([None, "a", "b", "c", "d", "e", "f"]), st.floats(0.1, 30)),
        min_size=3,
        max_size=40,
    ),
    seed=st.integers(0, 5),
)
def test_any_corpus_gives_every_utterance_a_split_and_train_is_never_empty(
    people: list[tuple[str | None, float]], seed: int
) -> None:
    utterances = [utterance(f"u{n}", who, seconds=long) for n, (who, long) in enumerate(people)]
    result = split_speakers(utterances, dev=0.1, test=0.1, seed=seed)
    assert set(result.splits) == {u.id for u in utterances}
    assert set(result.splits.values()) == {"train", "dev", "test"}
    assert result.notes
    if result.rule == "speaker":
        voices = voices_of([u for u in utterances if u.speaker], dict(result.splits))
        assert not voices["train"] & (voices["dev"] | voices["test"])
        assert not voices["dev"] & voices["test"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train", "train"),
        ("Training", "train"),
        (" validation ", "dev"),
        ("valid", "dev"),
        ("val", "dev"),
        ("development", "dev"),
        ("TEST", "test"),
        ("extra", "extra"),
        ("fold3", "fold3"),
    ],
)
def test_names_of_splits(name: str, expected: str) -> None:
    assert canonical_split(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train-clean-100", "train"),
        ("dev-other", "dev"),
        ("my_valid_manifest", "dev"),
        ("train_and_test", None),
        ("latest", None),
        ("device", None),
        ("clips", None),
    ],
)
def test_splits_in_names_of_files(name: str, expected: str | None) -> None:
    assert split_in_name(name) == expected


def test_splits_of_the_source_are_kept_under_our_names() -> None:
    utterances = [
        replace(u, split=s) for u, s in zip(crowd(3, 1), ["training", "validation", "testing"], strict=True)
    ]
    result = split_corpus(utterances)
    assert list(result.splits.values()) == ["train", "dev", "test"]
    assert result.rule == "source"
    assert any("'validation' as dev" in note for note in result.notes)


@pytest.mark.parametrize(("beside", "meant"), [("dev", "test"), ("test", "dev")])
def test_eval_means_what_is_missing(beside: str, meant: str) -> None:
    names = ["train", beside, "eval"]
    utterances = [replace(u, split=s) for u, s in zip(crowd(3, 1), names, strict=True)]
    result = split_corpus(utterances)
    assert list(result.splits.values()) == ["train", beside, meant]
    assert any(f"'eval' was taken as {meant}" in note for note in result.notes)


def test_a_missing_dev_is_taken_from_train_by_speaker() -> None:
    utterances = [replace(u, split="test" if u.speaker in ("s0", "s1") else "train") for u in crowd(20, 5)]
    result = split_corpus(utterances, dev=0.1)
    assert {i for i, s in result.splits.items() if s == "test"} == {
        u.id for u in utterances if u.split == "test"
    }
    voices = voices_of(utterances, dict(result.splits))
    assert voices["dev"]
    assert not voices["dev"] & voices["train"]
    assert any("no dev split" in note for note in result.notes)


def test_a_missing_dev_is_taken_by_recording_where_test_shares_the_voices_of_train() -> None:
    utterances = [replace(u, split="test" if u.id.endswith("-0") else "train") for u in crowd(6, 20)]
    result = split_corpus(utterances, dev=0.1)
    voices = voices_of(utterances, dict(result.splits))
    assert voices["dev"] <= voices["train"]
    assert list(result.splits.values()).count("dev") == pytest.approx(11, abs=1)
    assert any("by recording" in note for note in result.notes)
    assert any("says little about new voices" in note for note in result.notes)


def test_source_splits_without_train_are_kept_and_resplit_makes_new_ones() -> None:
    utterances = [replace(u, split=f"fold{n % 5}") for n, u in enumerate(crowd(20, 5))]
    kept = split_corpus(utterances)
    assert set(kept.splits.values()) == {f"fold{n}" for n in range(5)}
    assert any("--resplit" in note for note in kept.notes)
    anew = split_corpus(utterances, resplit=True)
    assert set(anew.splits.values()) == {"train", "dev", "test"}
    assert anew.rule == "speaker"


def test_utterances_without_a_split_beside_others_go_to_train() -> None:
    utterances = [
        replace(u, split=s) for u, s in zip(crowd(4, 1), ["train", "dev", "test", None], strict=True)
    ]
    result = split_corpus(utterances)
    assert result.splits["s3-0"] == "train"
    assert any("1 utterances without a split" in note for note in result.notes)


def shared_texts() -> list[Utterance]:
    """Ten texts of test, three of which stand in train too (in other case and with a full stop)."""
    train = [utterance(f"t{n}", f"t{n}", text=f"Neno {n}.", split="train") for n in range(30)]
    dev = [utterance("d", "d", text="peke yake", split="dev")]
    test = [utterance(f"x{n}", f"x{n % 2}", text=f"neno {n + 27}", split="test") for n in range(10)]
    return [*train, *dev, *test]


def test_texts_in_two_splits_are_counted_with_an_example() -> None:
    utterances = shared_texts()
    result = split_corpus(utterances)
    assert any(
        "3 of 10 texts of test (30 %) also stand in train" in n and "neno 27" in n for n in result.notes
    )
    overlap = text_overlap(utterances, result.splits)
    assert {u.id for u in overlap["test", "train"]} == {"x0", "x1", "x2"}
    assert ("dev", "train") not in overlap


def test_shared_texts_can_be_moved_to_train_and_the_price_is_said() -> None:
    utterances = shared_texts()
    result = split_corpus(utterances, move_texts=True)
    assert {i for i in ("x0", "x1", "x2", "x3") if result.splits[i] == "train"} == {"x0", "x1", "x2"}
    assert any("3 utterances of dev and test were moved to train" in n for n in result.notes)
    assert any("2 of 2 speakers of test speak in train too" in n for n in result.notes)
    assert not text_overlap(utterances, result.splits)


def test_a_list_of_commands_is_not_called_a_leak() -> None:
    utterances = [replace(u, text=u.id[-1]) for u in crowd(20, 10)]
    result = split_speakers(utterances, dev=0.1, test=0.1, seed=0)
    assert any("lists of words or commands" in note for note in result.notes)


def test_empty_texts_overlap_with_nothing() -> None:
    utterances = [replace(u, text="") for u in crowd(20, 2)]
    result = split_speakers(utterances, dev=0.1, test=0.1, seed=0)
    assert text_overlap(utterances, result.splits) == {}


def test_ten_thousand_utterances_are_split_quickly() -> None:
    utterances = [utterance(f"u{n}", audio=f"f{n}.wav") for n in range(10_000)]
    begun = time.perf_counter()
    split_speakers(utterances, dev=0.1, test=0.1, seed=0)
    assert time.perf_counter() - begun < 5
