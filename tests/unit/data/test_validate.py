"""The check of a whole corpus: duplicates, leaks, durations, figures; clean data give no finding."""

from __future__ import annotations

import io
import json
import random
import time
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from clean_corpus import COUNT, RATE, found, save, voice, with_changed
from firstwords.data import rules_corpus
from firstwords.data.manifest import Corpus, Utterance, load_corpus
from firstwords.data.rules import Evidence
from firstwords.data.validate import RULES, alphabet, check, too_long, usable_seconds


def test_clean_data_give_no_finding(clean: Corpus) -> None:
    for fast in (False, True):
        result = check(clean, fast=fast, workers=2)
        assert result.findings == ()
        assert result.quarantine == {}
        assert result.statistics.decoded is not fast


def test_every_rule_is_named_once_and_says_what_to_do() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule.id == rule.id.lower()
        assert rule.severity in {"quarantine", "warning"}
        assert len(rule.meaning) > 8
        assert rule.mend.endswith(".")


def test_duplicate_audio_spares_the_copy_in_test(clean: Corpus, tmp_path: Path) -> None:
    original = next(u for u in clean.utterances if u.split == "test")
    samples, rate = soundfile.read(str(original.audio), dtype="int16")
    save(tmp_path / "again.flac", samples, rate)  # other container, same samples
    copy = replace(original, id="copy", audio=tmp_path / "again.flac", split="train", speaker="s8")
    result = check(with_changed(clean, copy), workers=2)
    assert found(result, "duplicate-audio") == {"copy"}
    assert found(result, "leak-text") == {original.id}
    assert set(result.quarantine) == {"copy"}
    contradicted = replace(copy, text=clean.utterances[13].text)
    assert found(check(with_changed(clean, contradicted)), "duplicate-audio") == {"copy", original.id}


def test_duplicate_segment_needs_no_decoding(clean: Corpus) -> None:
    original = clean.utterances[12]
    copy = replace(original, id="copy")
    for fast in (True, False):
        result = check(with_changed(clean, copy), fast=fast)
        assert found(result, "duplicate-segment") == {"copy"}
        assert not found(result, "duplicate-audio")
        assert not found(result, "overlap")


def test_recoded_copies_are_suspected(clean: Corpus, tmp_path: Path) -> None:
    original = max(clean.utterances, key=lambda u: len(u.text or ""))
    samples, rate = soundfile.read(str(original.audio), dtype="float32")
    save(tmp_path / "again.wav", samples * 0.97, rate)
    copy = replace(original, id="copy", audio=tmp_path / "again.wav")
    result = check(with_changed(clean, copy))
    assert found(result, "duplicate-text-duration") == {"copy"}
    assert not result.quarantine
    save(tmp_path / "again.wav", voice(original.duration, 99) * 0.3, rate)  # said again, more softly
    assert not found(check(with_changed(clean, copy)), "duplicate-text-duration")


def test_overlapping_segments(clean: Corpus, tmp_path: Path) -> None:
    save(tmp_path / "long.wav", voice(20, 50))
    base = replace(clean.utterances[12], audio=tmp_path / "long.wav", duration=4.0)
    apart = [replace(base, id=f"o{k}", start=5.0 * k, text=clean.utterances[k].text) for k in range(3)]
    assert not found(check(Corpus(tmp_path, tuple(apart), {})), "overlap")
    touching = replace(apart[1], start=3.9)
    assert not found(check(Corpus(tmp_path, (apart[0], touching, apart[2]), {})), "overlap")
    shared = replace(apart[1], start=3.0)
    assert found(check(Corpus(tmp_path, (apart[0], shared, apart[2]), {})), "overlap") == {"o1"}
    inside = replace(apart[1], start=1.0, duration=2.0)
    later = replace(apart[2], start=3.5)  # still within the first, though not within the one before
    assert found(check(Corpus(tmp_path, (apart[0], inside, later), {})), "overlap") == {"o1", "o2"}


def test_leaks(clean: Corpus) -> None:
    tested = next(u for u in clean.utterances if u.split == "test")
    trained = next(u for u in clean.utterances if u.split == "train")
    result = check(with_changed(clean, replace(tested, speaker=trained.speaker)), fast=True)
    assert found(result, "leak-speaker") == {tested.id}
    shouted = (trained.text or "").upper() + "!"
    result = check(with_changed(clean, replace(tested, text=shouted)), fast=True)
    assert found(result, "leak-text") == {tested.id}
    result = check(
        with_changed(clean, replace(tested, audio=trained.audio, duration=trained.duration / 2)), fast=True
    )
    assert found(result, "leak-recording") == {tested.id}


def test_a_closed_vocabulary_does_not_leak() -> None:
    words = ["zero", "one", "two", "three"] * 10
    utterances = tuple(
        Utterance(id=str(k), audio=Path(f"{k}"), duration=1.0, text=w, split="test" if k > 35 else "train")
        for k, w in enumerate(words)
    )
    evidence = Evidence(utterances, {}, decoded=False)
    assert evidence.closed_vocabulary
    assert not list(rules_corpus.leak_text(evidence))


def test_duration_rules(clean: Corpus) -> None:
    base = clean.utterances[12]
    evidence = Evidence(
        (
            *clean.utterances,
            replace(base, id="short", duration=0.05),
            replace(base, id="long", duration=31.0),
            replace(base, id="odd", duration=29.0),
        ),
        {},
        decoded=False,
    )
    assert dict(rules_corpus.duration_short(evidence)).keys() == {"short"}
    assert dict(rules_corpus.duration_long(evidence)).keys() == {"long"}
    assert dict(rules_corpus.duration_outlier(evidence)).keys() == {"odd"}


@pytest.mark.parametrize(
    ("seconds", "frames"), [(0.0, 0), (0.05, 0), (0.07, 0), (0.09, 1), (0.13, 2), (1.0, 23), (10.0, 248)]
)
def test_frames_of_a_zipformer(seconds: float, frames: int) -> None:
    n = round(seconds * 100)
    assert rules_corpus.encoded_frames(seconds) == frames
    assert frames == max(0, ((n - 7) // 2 + 1) // 2)


def test_unalignable_utterances_are_only_warned_of_where_results_are_measured(clean: Corpus) -> None:
    for split, put_aside in (("train", True), ("test", False)):
        victim = next(u for u in clean.utterances if u.split == split)
        text = victim.text or ""
        packed = replace(
            victim, duration=round(len(text) / 24.5, 2)
        )  # 24.5 letters a second: 25 frames, less edges
        result = check(with_changed(clean, packed), fast=True)
        assert found(result, "frames-fewer-than-tokens") == {victim.id}
        assert (victim.id in result.quarantine) is put_aside


@given(st.lists(st.floats(0.5, 20), min_size=20, max_size=60), st.floats(0.01, 100))
def test_outliers_do_not_depend_on_the_unit(values: list[float], scale: float) -> None:
    """Multiplying all by one number changes nothing, and at most half of all are outliers."""
    plain = rules_corpus.outliers({str(k): v for k, v in enumerate(values)}, factor=3)
    scaled = rules_corpus.outliers({str(k): v * scale for k, v in enumerate(values)}, factor=3.0001)
    assert scaled.keys() <= plain.keys()
    assert len(plain) <= len(values) / 2


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "RF64"])
def test_damaged_files_never_stop_the_check(kind: str, tmp_path: Path) -> None:
    whole = io.BytesIO()
    soundfile.write(whole, voice(0.5, 1), RATE, format=kind)
    draw = random.Random(3)
    utterances: list[Utterance] = []
    for number in range(60):
        data = bytearray(whole.getvalue())
        for _ in range(draw.randint(1, 5)):
            data[draw.randrange(min(len(data), 120))] = draw.choice((0, 127, 255, draw.randrange(256)))
        path = tmp_path / f"{number}.bin"
        path.write_bytes(bytes(data[: draw.choice((len(data), len(data) // 2))]))
        utterances.append(Utterance(id=str(number), audio=path, duration=0.5, text="ab"))
    result = check(Corpus(tmp_path, tuple(utterances), {}), workers=2)
    assert result.statistics.utterances == 60
    assert found(result, "audio-unreadable") | found(result, "audio-empty") | found(result, "audio-short")


def test_progress_counts_files(clean: Corpus) -> None:
    seen: list[tuple[int, int]] = []
    check(clean, fast=True, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (COUNT, COUNT)
    assert [a for a, _ in seen] == sorted(a for a, _ in seen)


def test_statistics(clean: Corpus) -> None:
    numbers = check(clean, fast=True).statistics
    assert numbers.utterances == numbers.recordings == numbers.spoken == COUNT
    assert numbers.seconds == pytest.approx(sum(u.duration for u in clean.utterances))
    assert numbers.by_split["test"][0] == 5
    assert numbers.by_split["test"][2] == 1
    assert numbers.by_language == {"sw": (COUNT, numbers.seconds)}
    assert numbers.sample_rates == {RATE: COUNT}
    assert sum(numbers.by_speaker.values()) == pytest.approx(numbers.seconds)
    letters = {x.text: x for x in numbers.alphabet}
    written = "".join(u.text or "" for u in clean.utterances)
    assert letters["a"].count == written.count("a")
    assert " " not in letters
    assert [x.count for x in numbers.alphabet] == sorted((x.count for x in numbers.alphabet), reverse=True)


def test_alphabet_flags() -> None:
    letters = {x.text: x.flags for x in alphabet(["ng'a"] * 9 + ["ng’a e\u0301 \u200b ð"])}
    assert letters["a"] == ()
    assert letters["ð"] == ("rare",)
    assert any("U+0027" in flag for flag in letters["’"])
    assert "not composed (NFC)" in letters["e\u0301"]
    assert "invisible" in letters["\u200b"]


def test_usable_hours(clean: Corpus) -> None:
    result = check(clean, fast=True)
    training, everything = usable_seconds(result, {})
    assert everything == pytest.approx(result.statistics.seconds)
    assert training == pytest.approx(sum(u.duration for u in clean.utterances if u.split == "train"))
    victim = next(u for u in clean.utterances if u.split == "train")
    assert usable_seconds(result, {victim.id: "x"})[0] == pytest.approx(training - victim.duration)
    unsplit = check(with_changed(clean, *(replace(u, split=None) for u in clean.utterances)), fast=True)
    assert usable_seconds(unsplit, {}) == pytest.approx((everything, everything))


def test_what_training_leaves_out_for_its_length_is_not_usable(clean: Corpus) -> None:
    victim = next(u for u in clean.utterances if u.split == "train")
    result = check(with_changed(clean, replace(victim, duration=90.0)), fast=True)
    usable = check(clean, fast=True)
    lost = victim.duration
    assert usable_seconds(result, {}) == pytest.approx([s - lost for s in usable_seconds(usable, {})])
    assert too_long(result, {}) == (1, 90.0)
    assert too_long(result, {victim.id: "put aside"}) == (0, 0.0)
    silent = check(with_changed(clean, replace(victim, duration=90.0, text=None)), fast=True)
    assert too_long(silent, {}) == (0, 0.0)


def test_a_rule_is_said_to_put_aside_only_what_it_puts_aside(clean: Corpus) -> None:
    packed = {
        split: replace(u, duration=round(len(u.text or "") / 24.5, 2))
        for split in ("train", "test")
        if (u := next(u for u in clean.utterances if u.split == split))
    }

    def outcome(*changed: Utterance, quarantine: dict[str, str] | None = None) -> str:
        result = check(with_changed(clean, *changed), fast=True)
        (row,) = [r for r in result.by_rule(quarantine) if r.rule.id == "frames-fewer-than-tokens"]
        return row.outcome

    assert outcome(packed["train"]) == "put aside"
    assert outcome(packed["test"]) == "warning"
    assert outcome(*packed.values()) == "1 put aside"
    assert outcome(packed["train"], quarantine={}) == "warning"  # somebody let it back in


def test_yoruba_gives_few_alarms(corpora: Path) -> None:
    result = check(load_corpus(corpora / "yoruba"), fast=True)
    rules = {row.rule.id: row.utterances for row in result.by_rule()}
    assert rules.pop("leak-speaker") == 420  # one speaker: dev and test are the same voice
    assert not result.quarantine
    assert rules["text-mixed-scripts"] >= 1  # the corpus really holds Greek letters
    assert sum(rules.values()) < 50
    assert set(rules) <= {"text-too-short", "text-mixed-scripts", "text-rare-characters", "duration-outlier"}


def test_digits_give_few_alarms(corpora: Path) -> None:
    began = time.perf_counter()
    result = check(load_corpus(corpora / "digits_en"))
    assert time.perf_counter() - began < 60
    rules = {row.rule.id: row.utterances for row in result.by_rule()}
    assert rules.pop("leak-speaker") == 300
    assert set(rules) <= {"frames-fewer-than-tokens", "duration-outlier"}
    assert len(result.quarantine) < 100
    assert json.dumps(result.quarantine)
