"""Recordings -> what each utterance sounds like, in one pass over each file, and the rules about it.

Every file is decoded once, at its own rate, in blocks of 30 s; the segments of a long recording are measured
side by side as the blocks go by.
"""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from firstwords.audio.waveform import AudioInfo, AudioReader, probe
from firstwords.data.manifest import Utterance
from firstwords.data.rules import Evidence, Hit, Rule, Sound
from firstwords.errors import FirstwordsError

FULL_SCALE = 0.999  # of the largest sample
CLIPPED_SHARE = 0.001  # of the samples; a tenth of a percent is clearly heard
SILENT_DB = -60.0  # 33 of 32768 steps: below any microphone's speech
FLAT_DB = 6.0  # speech moves by 20 dB and more within a second, hiss and hum by 2
BLOCK_SECONDS = 30.0
_JOIN_SECONDS = 10.0  # segments closer than this are decoded in one go
# A damaged header can lead a parser anywhere, and one file must never end the check of all the others.
_FAULTS = (
    FirstwordsError, OSError, RuntimeError, ValueError, MemoryError, ArithmeticError, LookupError, EOFError,
    struct.error,
)  # fmt: skip


class Meter:
    """Measures samples fed in blocks, from first to last; audio of one utterance -> Sound."""

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._frame = max(1, sample_rate // 100)
        self._hash = hashlib.blake2b(str(sample_rate).encode(), digest_size=16)
        self._levels: list[np.ndarray] = []
        self._rest = np.zeros(0, np.float32)
        self._count = self._clipped = 0
        self._sum = 0.0

    def feed(self, samples: np.ndarray) -> None:
        """Take the next samples (float32, one channel)."""
        if not len(samples):
            return
        samples = np.ascontiguousarray(samples, np.float32)
        self._hash.update(samples.data)
        self._count += len(samples)
        self._sum += float(samples.sum(dtype=np.float64))
        if max(float(samples.max()), -float(samples.min())) >= FULL_SCALE:
            self._clipped += int(np.count_nonzero(np.abs(samples) >= FULL_SCALE))
        joined = np.concatenate([self._rest, samples]) if len(self._rest) else samples
        whole = len(joined) // self._frame * self._frame
        if whole:
            frames = joined[:whole].reshape(-1, self._frame)
            power = np.einsum("ts,ts->t", frames, frames) / self._frame - frames.mean(axis=1) ** 2
            self._levels.append(10 * np.log10(np.maximum(power, 1e-12)))
        self._rest = joined[whole:].copy()

    def sound(self, info: AudioInfo, repairs: tuple[str, ...] = ()) -> Sound:
        """All that was fed -> Sound; ``repairs`` are those the decoder made."""
        seen = Sound(
            sample_rate=info.sample_rate,
            channels=info.channels,
            seconds=self._count / self._rate,
            repairs=tuple(dict.fromkeys((*info.repairs, *repairs))),
        )
        if not self._count:
            return replace(seen, problem="audio-empty", detail="the file holds no samples here")
        if not self._levels:  # shorter than one frame
            return replace(seen, digest=self._hash.digest())
        levels = np.concatenate(self._levels)
        quiet, loud = (float(x) for x in np.percentile(levels, [5, 99]))
        active = np.count_nonzero(levels > max(quiet + FLAT_DB, SILENT_DB))
        return replace(
            seen,
            clipped=self._clipped / self._count,
            offset=self._sum / self._count,
            loud_db=loud,
            quiet_db=quiet,
            active_seconds=float(active) * self._frame / self._rate,
            digest=self._hash.digest(),
        )


def measure(audio: Path, utterances: Sequence[Utterance], *, decode: bool) -> dict[str, Sound]:
    """One file and the utterances in it -> id -> Sound. Never raises for a bad file: it says so instead.

    Args:
        decode: False looks at the header alone.
    """
    try:
        if not audio.is_file():
            return _all_alike(utterances, "audio-missing", f"'{audio}' does not exist")
        if not audio.stat().st_size:
            return _all_alike(utterances, "audio-empty", f"'{audio}' has 0 bytes")
        info = probe(audio)
    except _FAULTS as fault:
        return _all_alike(utterances, *_name(fault))
    if not decode:
        return {u.id: _from_header(u, info) for u in utterances}
    sounds: dict[str, Sound] = {}
    for group in _neighbours(utterances):
        try:
            sounds |= _decode(audio, group, info)
        except _FAULTS as fault:
            sounds |= _all_alike(group, *_name(fault))
    return sounds


def _all_alike(utterances: Sequence[Utterance], problem: str, detail: str) -> dict[str, Sound]:
    return {u.id: Sound(problem=problem, detail=detail) for u in utterances}


def _name(fault: Exception) -> tuple[str, str]:
    """What the reader raised -> the rule it belongs to, and its words."""
    words = fault.what if isinstance(fault, FirstwordsError) else f"{type(fault).__name__}: {fault}"
    if "NaN" in words:
        return "audio-not-a-number", words
    if "no samples" in words or "no audio" in words:
        return "audio-empty", words
    mend = fault.mend if isinstance(fault, FirstwordsError) else ""
    return "audio-unreadable", " ".join(f"{words} {mend}".split())


def _from_header(utterance: Utterance, info: AudioInfo) -> Sound:
    return Sound(
        sample_rate=info.sample_rate,
        channels=info.channels,
        seconds=max(0.0, min(utterance.duration, info.duration - utterance.start)),
        repairs=info.repairs,
    )


def _neighbours(utterances: Sequence[Utterance]) -> Iterator[list[Utterance]]:
    """Utterances of one file, in order of time, cut where a long stretch belongs to none of them."""
    group: list[Utterance] = []
    end = 0.0
    for utterance in sorted(utterances, key=lambda u: u.start):
        if group and utterance.start > end + _JOIN_SECONDS:
            yield group
            group = []
        group.append(utterance)
        end = max(end, utterance.start + utterance.duration)
    if group:
        yield group


def _decode(audio: Path, group: Sequence[Utterance], info: AudioInfo) -> dict[str, Sound]:
    start = group[0].start
    if start >= info.duration:
        return {u.id: _from_header(u, info) for u in group}
    rate = info.sample_rate
    # Sample numbers within the stretch that is read: first, one after the last.
    spans = [(round((u.start - start) * rate), round((u.start - start + u.duration) * rate)) for u in group]
    meters = [Meter(rate) for _ in group]
    duration = min(max(end for _, end in spans) / rate, info.duration - start)
    if duration <= 0:
        return {u.id: _from_header(u, info) for u in group}
    reader = AudioReader(audio, sample_rate=None, channels="mix", start=start, duration=duration)
    at = 0
    for block in reader.blocks(round(BLOCK_SECONDS * rate)):
        for (first, last), meter in zip(spans, meters, strict=True):
            if first < at + len(block) and last > at:
                meter.feed(block[max(0, first - at) : last - at])
        at += len(block)
    return {u.id: meter.sound(info, reader.repairs) for u, meter in zip(group, meters, strict=True)}


def _problem(name: str, evidence: Evidence) -> Iterator[Hit]:
    for utterance in evidence.utterances:
        sound = evidence.sounds[utterance.id]
        if sound.problem == name:
            yield utterance.id, sound.detail


def audio_missing(evidence: Evidence) -> Iterator[Hit]:
    """The file is not where the manifest says."""
    return _problem("audio-missing", evidence)


def audio_unreadable(evidence: Evidence) -> Iterator[Hit]:
    """The file cannot be decoded."""
    return _problem("audio-unreadable", evidence)


def audio_empty(evidence: Evidence) -> Iterator[Hit]:
    """There are no samples."""
    yield from _problem("audio-empty", evidence)
    for utterance in evidence.utterances:
        if utterance.duration == 0 and evidence.sounds[utterance.id].problem is None:
            yield utterance.id, "its duration in the manifest is 0 s"


def audio_short(evidence: Evidence) -> Iterator[Hit]:
    """The recording ends before the utterance does: more than 0.25 s and 5 % of it are missing."""
    for utterance in evidence.utterances:
        sound = evidence.sounds[utterance.id]
        if sound.problem is None and utterance.duration:
            missing = utterance.duration - sound.seconds
            if missing > max(0.25, 0.05 * utterance.duration) or sound.seconds <= 0:
                end = utterance.start + utterance.duration
                yield utterance.id, f"should end at {end:.2f} s, the audio ends {missing:.2f} s before"


def audio_not_numbers(evidence: Evidence) -> Iterator[Hit]:
    """Samples that are NaN or infinite, as broken converters write them."""
    return _problem("audio-not-a-number", evidence)


def audio_repaired(evidence: Evidence) -> Iterator[Hit]:
    """The reader had to mend the file to read it."""
    for utterance in evidence.utterances:
        if repairs := evidence.sounds[utterance.id].repairs:
            yield utterance.id, "; ".join(repairs)


def audio_clipped(evidence: Evidence) -> Iterator[Hit]:
    """Too many samples at full scale: the recording was too loud."""
    for utterance in evidence.utterances:
        clipped = evidence.sounds[utterance.id].clipped
        if clipped is not None and clipped >= CLIPPED_SHARE:
            yield utterance.id, f"{clipped:.2%} of the samples are at full scale"


def audio_silent(evidence: Evidence) -> Iterator[Hit]:
    """A transcript, but next to no sound."""
    for utterance in evidence.spoken:
        loud = evidence.sounds[utterance.id].loud_db
        if loud is not None and loud < SILENT_DB:
            yield utterance.id, f"the loudest moment is at {loud:.0f} dB of full scale"


def audio_no_speech(evidence: Evidence) -> Iterator[Hit]:
    """A transcript, and sound that does not move as speech does: hiss, hum, or a word's worth of click."""
    for utterance in evidence.spoken:
        sound = evidence.sounds[utterance.id]
        if sound.loud_db is None or sound.quiet_db is None or sound.active_seconds is None:
            continue
        if sound.loud_db < SILENT_DB or sound.seconds < 0.5:  # a trimmed word has no background
            continue
        if sound.loud_db - sound.quiet_db < FLAT_DB:
            spread = sound.loud_db - sound.quiet_db
            yield utterance.id, f"the level moves by {spread:.1f} dB only"
        elif sound.active_seconds < 0.05:
            yield utterance.id, f"only {sound.active_seconds:.2f} s rise above the background"


def audio_offset(evidence: Evidence) -> Iterator[Hit]:
    """The waveform does not swing around zero."""
    for utterance in evidence.utterances:
        sound = evidence.sounds[utterance.id]
        if sound.offset is None or sound.loud_db is None or (sound.clipped or 0) >= CLIPPED_SHARE:
            continue  # peaks cut off on one side alone move the mean: the cause is named already
        offset = abs(sound.offset)
        # Either large, or small but half as large as the loudest speech of a quiet recording.
        if offset > 0.02 or (offset > 0.001 and offset > 0.5 * 10 ** (sound.loud_db / 20)):
            yield utterance.id, f"the mean sample is {sound.offset:+.3f} of full scale"


def sample_rate_mix(evidence: Evidence) -> Iterator[Hit]:
    """Another sample rate than most of the corpus."""
    hours: Counter[int] = Counter()
    for utterance in evidence.utterances:
        if rate := evidence.sounds[utterance.id].sample_rate:
            hours[rate] += max(1, round(utterance.duration * 1000))
    if len(hours) < 2:
        return
    usual = hours.most_common(1)[0][0]
    for utterance in evidence.utterances:
        rate = evidence.sounds[utterance.id].sample_rate
        if rate and rate != usual:
            yield utterance.id, f"{rate} Hz, most of the corpus has {usual} Hz"


def several_channels(evidence: Evidence) -> Iterator[Hit]:
    """More than one channel: they are averaged by default, which mixes two speakers of a telephone call."""
    for utterance in evidence.utterances:
        channels = evidence.sounds[utterance.id].channels
        if channels > 1:
            yield utterance.id, f"{channels} channels"


RULES = (
    Rule("audio-missing", "the audio file is missing", "quarantine",
         "Put the file where the manifest says, or import again.", audio_missing),
    Rule("audio-unreadable", "the audio cannot be decoded", "quarantine",
         "Convert the file to WAV or FLAC, or copy it again from its source.", audio_unreadable),
    Rule("audio-empty", "the audio holds no samples", "quarantine",
         "Record it again, or remove the utterance.", audio_empty),
    Rule("audio-short", "the audio ends before the utterance does", "quarantine",
         "Correct start and duration in the manifest, or copy the audio again: it may be cut off.",
         audio_short),
    Rule("audio-not-a-number", "samples that are NaN or infinite", "quarantine",
         "Convert the file again from its source.", audio_not_numbers),
    Rule("audio-silent", "a transcript, but next to no sound", "quarantine",
         "Listen to it: wrong file or microphone off. Label it non-speech if the silence is meant.",
         audio_silent),
    Rule("audio-no-speech", "the sound does not move as speech does", "warning",
         "Listen to it: it may be hiss, hum or the wrong file.", audio_no_speech),
    Rule("audio-clipped", "recorded too loud, the peaks are cut off", "warning",
         "Record with less gain next time; such audio can be used, with more errors.", audio_clipped),
    Rule("audio-offset", "the waveform does not swing around zero (DC offset)", "warning",
         "Nothing to do for training, features remove it; check the recorder.", audio_offset),
    Rule("audio-repaired", "the file was mended while reading", "warning",
         "Nothing to do if it sounds right; else copy or convert it again.", audio_repaired),
    Rule("sample-rate-mix", "another sample rate than most of the corpus", "warning",
         "Nothing to do, audio is resampled; a lower rate lacks the high sounds of the others.",
         sample_rate_mix),
    Rule("several-channels", "more than one channel", "warning",
         "They are averaged. If each channel is one speaker, import again and say whose voice is where: "
         "--channel Eva=0 --channel Ade=1.",
         several_channels),
)  # fmt: skip
