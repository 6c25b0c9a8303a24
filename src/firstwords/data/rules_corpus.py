"""Utterances against each other: outliers, duplicates, overlaps and leaks between splits.

Outliers are measured robustly (Hampel, 1974): distance from the median of the logarithm in units of the
median absolute deviation times 1.4826, which is the standard deviation where the logarithm is normal.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

from firstwords.data.manifest import Utterance
from firstwords.data.rules import Evidence, Hit, Rule, is_evaluation, is_training
from firstwords.data.rules_text import by_language
from firstwords.text.tokenizer import fewest_frames

SHORTEST = 0.1  # seconds; data.min_duration of recipes
LONGEST = 30.0  # seconds; data.max_duration of recipes
FASTEST = 40.0  # grapheme clusters a second; the fastest speakers reach about 25 letters
SLOWEST = 0.3
_Z = 5.0
_LEAST_SPREAD = 0.2  # of the log ratio: without it a corpus of equal lengths would call everything odd
_ENOUGH = 20  # utterances, to know what is usual
KeyT = TypeVar("KeyT", bound=Hashable)


def outliers(values: Mapping[str, float], *, factor: float) -> dict[str, float]:
    """id -> positive number; those far from the median -> ratio to it.

    Far is both more than 5 robust standard deviations and more than ``factor`` times (or below 1/factor).
    """
    if len(values) < _ENOUGH:
        return {}
    logs = {name: math.log(value) for name, value in values.items()}
    middle = statistics.median(logs.values())
    spread = max(_LEAST_SPREAD, 1.4826 * statistics.median(abs(x - middle) for x in logs.values()))
    least = max(_Z * spread, math.log(factor))
    return {name: math.exp(x - middle) for name, x in logs.items() if abs(x - middle) > least}


def duration_short(evidence: Evidence) -> Iterator[Hit]:
    """Too short for any word."""
    for utterance in evidence.utterances:
        if 0 < utterance.duration < SHORTEST:
            yield utterance.id, f"{utterance.duration:.3f} s"


def duration_long(evidence: Evidence) -> Iterator[Hit]:
    """Longer than recipes take by default."""
    for utterance in evidence.utterances:
        if utterance.duration > LONGEST:
            yield utterance.id, f"{utterance.duration:.1f} s"


def duration_outlier(evidence: Evidence) -> Iterator[Hit]:
    """Much longer or shorter than the other utterances."""
    durations = {u.id: u.duration for u in evidence.utterances if SHORTEST <= u.duration <= LONGEST}
    for name, ratio in outliers(durations, factor=4).items():
        yield name, f"{durations[name]:.2f} s, {_times(ratio)} the median"


def _rates(evidence: Evidence, group: Sequence[Utterance]) -> dict[str, float]:
    return {
        u.id: len(evidence.letters[u.id]) / u.duration
        for u in group
        if u.duration >= SHORTEST and evidence.letters[u.id]
    }


def _times(ratio: float) -> str:
    return f"{ratio:.1f} times" if ratio >= 1 else f"1/{1 / ratio:.1f} of"


def text_too_long(evidence: Evidence) -> Iterator[Hit]:
    """More text than anybody can say in that time: the wrong transcript, or a cut recording."""
    for group in by_language(evidence.spoken):
        rates = _rates(evidence, group)
        odd = outliers(rates, factor=2.5)
        for name, rate in rates.items():
            if rate > FASTEST:
                yield name, f"{rate:.1f} letters a second"
            elif odd.get(name, 0) > 1:
                yield name, f"{rate:.1f} letters a second, {_times(odd[name])} the median"


def text_too_short(evidence: Evidence) -> Iterator[Hit]:
    """Much less text than others have in that time: long silence, or words that were not written down."""
    for group in by_language(evidence.spoken):
        rates = _rates(evidence, group)
        odd = outliers(rates, factor=4)
        for name, rate in rates.items():
            if odd.get(name, 2) < 1:
                yield name, f"{rate:.2f} letters a second, {_times(odd[name])} the median"
            elif rate < SLOWEST:
                yield name, f"{rate:.2f} letters a second"


def encoded_frames(seconds: float) -> int:
    """Seconds of audio -> frames a Zipformer leaves for the loss (25 a second, less the edges)."""
    fbank = round(seconds * 100)
    return max(0, ((fbank - 7) // 2 + 1) // 2)


def frames_fewer_than_tokens(evidence: Evidence) -> Iterator[Hit]:
    """No alignment exists: the loss would be infinite."""
    for utterance in evidence.spoken:
        frames, needed = encoded_frames(utterance.duration), fewest_frames(evidence.letters[utterance.id])
        if frames < max(1, needed):
            yield utterance.id, f"{frames} frames for {needed} letters and repeats"


def _groups(pairs: Iterator[tuple[KeyT, Utterance]]) -> Iterator[list[Utterance]]:
    """Key and utterance -> groups of two or more, those of test first, then dev: the copy to keep leads."""
    found: defaultdict[KeyT, list[Utterance]] = defaultdict(list)
    for key, utterance in pairs:
        found[key].append(utterance)
    for group in found.values():
        if len(group) > 1:
            yield sorted(group, key=_keep_first)


def _keep_first(utterance: Utterance) -> int:
    split = (utterance.split or "").lower()
    return 0 if split.startswith("test") else 1 if is_evaluation(split) else 2


def duplicate_segment(evidence: Evidence) -> Iterator[Hit]:
    """The same stretch of the same file under two ids."""
    pairs = (((u.audio, round(u.start, 2), round(u.duration, 2)), u) for u in evidence.utterances)
    return _copies(evidence, pairs, "the same stretch of the same file as")


def duplicate_audio(evidence: Evidence) -> Iterator[Hit]:
    """The same samples in two files, or at two places of one."""
    pairs = (
        (digest, u)
        for u in evidence.utterances
        if (digest := evidence.sounds[u.id].digest) is not None and _has_sound(evidence, u)
    )
    files = {u.id: (u.audio, round(u.start, 2), round(u.duration, 2)) for u in evidence.utterances}
    for name, detail, kept in _copies_of(evidence, pairs, "the same audio as"):
        if files[name] != files[kept]:  # those are duplicate-segment
            yield name, detail


def _has_sound(evidence: Evidence, utterance: Utterance) -> bool:
    """False for digital silence: two clips of nothing are no duplicates worth a word."""
    loud = evidence.sounds[utterance.id].loud_db
    return loud is not None and loud > -90


def _copies(evidence: Evidence, pairs: Iterator[tuple[KeyT, Utterance]], words: str) -> Iterator[Hit]:
    return ((name, detail) for name, detail, _ in _copies_of(evidence, pairs, words))


def _copies_of(
    evidence: Evidence, pairs: Iterator[tuple[KeyT, Utterance]], words: str
) -> Iterator[tuple[str, str, str]]:
    """All but the first of each group; where the texts differ all of them: nobody knows which is right."""
    for group in _groups(pairs):
        kept = group[0]
        if len({evidence.scored.get(u.id, "") for u in group}) > 1:
            for utterance in group:
                other = group[1] if utterance is kept else kept
                yield utterance.id, f"{words} '{other.id}', with another text", other.id
        else:
            for utterance in group[1:]:
                yield utterance.id, f"{words} '{kept.id}'{_split_note(utterance, kept)}", kept.id


def _split_note(one: Utterance, other: Utterance) -> str:
    return f" ({other.split})" if one.split != other.split and other.split else ""


def duplicate_text_duration(evidence: Evidence) -> Iterator[Hit]:
    """The same long text, equally long (0.01 s) and, where decoded, equally loud: one recording twice."""
    pairs = (
        ((text, round(u.duration, 2), u.speaker), u)
        for u in evidence.spoken
        if len(text := evidence.scored[u.id]) >= 20
    )
    for group in _groups(pairs):
        kept = group[0]
        for utterance in group[1:]:
            a, b = evidence.sounds[kept.id], evidence.sounds[utterance.id]
            same_file = (kept.audio, kept.start) == (utterance.audio, utterance.start)
            same_samples = a.digest is not None and a.digest == b.digest
            louder = abs(a.loud_db - b.loud_db) if a.loud_db is not None and b.loud_db is not None else 0.0
            if not same_file and not same_samples and louder < 1.0:
                yield utterance.id, f"text and duration of '{kept.id}'{_split_note(utterance, kept)}"


def overlap(evidence: Evidence) -> Iterator[Hit]:
    """Segments of one recording that share more than 0.2 s: each hears words of the other."""
    files: defaultdict[object, list[Utterance]] = defaultdict(list)
    for utterance in evidence.spoken:
        files[utterance.audio].append(utterance)
    for group in files.values():
        ordered = sorted(group, key=lambda u: (u.start, u.start + u.duration))
        last: Utterance | None = None
        for utterance in ordered:
            end = last.start + last.duration if last else 0.0
            shared = min(end, utterance.start + utterance.duration) - utterance.start
            if last is not None and shared > 0.2 and not _same_stretch(last, utterance):
                yield utterance.id, f"shares {shared:.2f} s with '{last.id}'"
            if last is None or utterance.start + utterance.duration > end:
                last = utterance


def _same_stretch(a: Utterance, b: Utterance) -> bool:
    return abs(a.start - b.start) < 0.01 and abs(a.duration - b.duration) < 0.01


def leak_speaker(evidence: Evidence) -> Iterator[Hit]:
    """A voice of training is measured too: the result says nothing about new voices."""
    trained = {u.speaker for u in evidence.utterances if is_training(u.split)} - {None}
    for utterance in evidence.utterances:
        if is_evaluation(utterance.split) and utterance.speaker in trained:
            yield utterance.id, f"speaker '{utterance.speaker}' of {utterance.split} is in training too"


def leak_recording(evidence: Evidence) -> Iterator[Hit]:
    """Segments of one recording in training and in what is measured."""
    trained = {u.audio for u in evidence.utterances if is_training(u.split)}
    for utterance in evidence.utterances:
        if is_evaluation(utterance.split) and utterance.audio in trained:
            yield utterance.id, f"'{utterance.audio.name}' is in {utterance.split} and in training"


def leak_text(evidence: Evidence) -> Iterator[Hit]:
    """A sentence of training is measured too; no finding where few sentences are said again and again."""
    if evidence.closed_vocabulary:
        return
    trained = {evidence.scored[u.id]: u.id for u in evidence.spoken if is_training(u.split)}
    for utterance in evidence.spoken:
        text = evidence.scored[utterance.id]
        if is_evaluation(utterance.split) and text in trained:
            yield utterance.id, f"'{trained[text]}' of training has the same text"


RULES = (
    Rule("duration-short", "shorter than 0.1 s", "quarantine",
         "Correct start and duration in the manifest, or remove the utterance.", duration_short),
    Rule("duration-long", "longer than 30 s", "warning",
         "Training leaves it out: give each sentence times of its own (ELAN, Praat, subtitles).",
         duration_long),
    Rule("duration-outlier", "much longer or shorter than the others", "warning",
         "Listen to it: the times may be wrong.", duration_outlier),
    Rule("text-too-long", "more text than can be said in that time", "quarantine",
         "Compare text and audio: a wrong transcript, or a recording cut off.", text_too_long),
    Rule("text-too-short", "much less text than others have in that time", "warning",
         "Compare text and audio: words left out, or long silence to cut away.", text_too_short),
    Rule("frames-fewer-than-tokens", "fewer frames than letters: no alignment exists", "quarantine",
         "Compare text and audio; the transcript cannot be learnt at 25 frames a second.",
         frames_fewer_than_tokens, spares_evaluation=True),
    Rule("duplicate-segment", "the same stretch of audio twice", "quarantine",
         "Remove one; where the texts differ, the wrong one.", duplicate_segment),
    Rule("duplicate-audio", "the same audio twice", "quarantine",
         "Remove one; where the texts differ, the wrong one.", duplicate_audio),
    Rule("duplicate-text-duration", "the same text and duration twice", "warning",
         "Listen to both: likely one recording in two files.", duplicate_text_duration),
    Rule("overlap", "segments of one recording overlap", "warning",
         "Correct the times, or leave out passages where two people speak.", overlap),
    Rule("leak-speaker", "a speaker in training and in dev or test", "warning",
         "Results hold for these voices only; 'firstwords import' makes a split by speaker if there is none.",
         leak_speaker),
    Rule("leak-recording", "a recording in training and in dev or test", "warning",
         "Give all segments of a recording the same split.", leak_recording),
    Rule("leak-text", "a sentence in training and in dev or test", "warning",
         "Results look better than they are; move these sentences to one side.", leak_text),
)  # fmt: skip
