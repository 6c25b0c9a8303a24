"""Every rule about sound finds the defect that was planted, and only there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from clean_corpus import RATE, found, save, voice, with_changed
from firstwords.data import rules_audio
from firstwords.data.manifest import Corpus, Utterance
from firstwords.data.rules import NON_SPEECH, Sound
from firstwords.data.validate import RULE, check

Spoil = Callable[[Utterance, Path], Utterance]


def changed_audio(change: Callable[[np.ndarray], np.ndarray], subtype: str = "PCM_16") -> Spoil:
    def spoil(utterance: Utterance, folder: Path) -> Utterance:
        samples, rate = soundfile.read(str(utterance.audio), dtype="float32")
        path = folder / "spoilt.wav"
        save(path, change(samples), rate, subtype)
        return replace(utterance, audio=path)

    return spoil


def content(data: bytes) -> Spoil:
    def spoil(utterance: Utterance, folder: Path) -> Utterance:
        path = folder / "spoilt.wav"
        path.write_bytes(data)
        return replace(utterance, audio=path)

    return spoil


def _some_nan(samples: np.ndarray) -> np.ndarray:
    samples[100:400] = np.nan
    return samples


def _one_nan(samples: np.ndarray) -> np.ndarray:
    samples[100] = np.nan
    return samples


def _hiss(samples: np.ndarray) -> np.ndarray:
    return 0.1 * np.random.default_rng(1).standard_normal(len(samples)).astype(np.float32)


def _click(samples: np.ndarray) -> np.ndarray:
    hiss = 4e-3 * np.random.default_rng(1).standard_normal(len(samples))
    hiss[1000:1160] += 0.5 * np.sin(np.arange(160))
    return hiss.astype(np.float32)


AUDIO: dict[str, tuple[str, Spoil]] = {
    "missing": ("audio-missing", lambda u, folder: replace(u, audio=folder / "nowhere.wav")),
    "0 bytes": ("audio-empty", content(b"")),
    "0 samples": ("audio-empty", changed_audio(lambda x: x[:0])),
    "0 s in the manifest": ("audio-empty", lambda u, folder: replace(u, duration=0.0)),
    "not audio": ("audio-unreadable", content(b"this is a letter to my aunt" * 40)),
    "half of it": ("audio-short", changed_audio(lambda x: x[: len(x) // 2])),
    "starts behind the end": ("audio-short", lambda u, folder: replace(u, start=100.0)),
    "many NaN": ("audio-not-a-number", changed_audio(_some_nan, "FLOAT")),
    "one NaN": ("audio-repaired", changed_audio(_one_nan, "FLOAT")),
    "clipped": ("audio-clipped", changed_audio(lambda x: np.clip(20 * x, -1, 1))),
    "digital silence": ("audio-silent", changed_audio(np.zeros_like)),
    "microphone off": ("audio-silent", changed_audio(lambda x: _hiss(x) * 0.005)),
    "hiss": ("audio-no-speech", changed_audio(_hiss)),
    "a click": ("audio-no-speech", changed_audio(_click)),
    "offset": ("audio-offset", changed_audio(lambda x: x + 0.1)),
    "offset of a quiet recording": ("audio-offset", changed_audio(lambda x: 0.02 * x + 0.005)),
    "two channels": ("several-channels", changed_audio(lambda x: np.stack([x, 0.5 * x], axis=1))),
    "another rate": (
        "sample-rate-mix",
        lambda u, folder: (
            save(folder / "fast.flac", voice(u.duration, 5, 16000), 16000),
            replace(u, audio=folder / "fast.flac"),
        )[1],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", AUDIO)
def test_planted_audio_defects_are_found(name: str, clean: Corpus, tmp_path: Path) -> None:
    rule, spoil = AUDIO[name]
    victim = clean.utterances[12]
    result = check(with_changed(clean, spoil(victim, tmp_path)), workers=2)
    assert found(result, rule) == {victim.id}
    assert {f.utterance for f in result.findings} == {victim.id}  # and nobody else is blamed
    assert (victim.id in result.quarantine) == (RULE[rule].severity == "quarantine")


def test_one_defect_gives_one_reason(clean: Corpus, tmp_path: Path) -> None:
    """What cannot be read is not also called short, silent or without speech."""
    for name in ("missing", "0 bytes", "not audio", "many NaN", "digital silence", "clipped"):
        rule, spoil = AUDIO[name]
        result = check(with_changed(clean, spoil(clean.utterances[12], tmp_path)), workers=1)
        assert {f.rule for f in result.findings} == {rule}, name


def test_fast_looks_at_headers_only(clean: Corpus, tmp_path: Path) -> None:
    for name, (rule, spoil) in AUDIO.items():
        result = check(with_changed(clean, spoil(clean.utterances[12], tmp_path)), fast=True, workers=2)
        heard = rule in {
            "audio-silent", "audio-no-speech", "audio-clipped", "audio-offset", "audio-not-a-number",
            "audio-repaired",
        }  # fmt: skip
        assert bool(found(result, rule)) is not heard, name


def test_labels_excuse_silence_and_empty_text(clean: Corpus, tmp_path: Path) -> None:
    silent = AUDIO["digital silence"][1](clean.utterances[12], tmp_path)
    for word in NON_SPEECH:
        excused = replace(silent, text="", labels={"kind": word.upper()})
        assert check(with_changed(clean, excused), workers=1).findings == ()
    accused = replace(silent, text="", labels={"kind": "read speech"})
    assert set(check(with_changed(clean, accused), workers=1).quarantine) == {silent.id}


def test_segments_of_one_long_file_are_measured_apart(clean: Corpus, tmp_path: Path) -> None:
    """Silence, clipping and copies are attributed to the segment they are in, across 30-s blocks and gaps."""
    parts = [voice(4.0, 100 + k) for k in range(30)]
    parts[8] = np.zeros_like(parts[8])
    parts[15] = np.clip(30 * parts[15], -1, 1)
    parts[27] = parts[3].copy()
    path = tmp_path / "long.wav"
    save(path, np.concatenate(parts))
    skipped = {9, 10, 11, 12, 13}  # a gap of 20 s: decoded in two goes
    segments = [
        replace(clean.utterances[k], id=f"seg{k:02}", audio=path, start=4.0 * k, duration=4.0, split="train")
        for k in range(30)
        if k not in skipped
    ]  # fmt: skip
    result = check(Corpus(tmp_path, tuple(segments), {}), workers=1)
    assert found(result, "audio-silent") == {"seg08"}
    assert found(result, "audio-clipped") == {"seg15"}
    assert found(result, "duplicate-audio") == {
        "seg03",
        "seg27",
    }  # the texts differ: nobody knows which is right
    assert {f.utterance for f in result.findings} == {"seg03", "seg08", "seg15", "seg27"}


def test_meter_does_not_depend_on_the_blocks() -> None:
    samples = voice(1.234, 3)
    info = rules_audio.AudioInfo(RATE, 1, len(samples), 1.234, "wav", "pcm", ())
    sounds: list[Sound] = []
    for size in (len(samples), 977, 80, 1):
        meter = rules_audio.Meter(RATE)
        for at in range(0, len(samples), size):
            meter.feed(samples[at : at + size])
        sounds.append(meter.sound(info))
    for sound in sounds[1:]:
        assert sound.digest == sounds[0].digest
        assert sound.clipped == sounds[0].clipped
        assert sound.offset == pytest.approx(sounds[0].offset, abs=1e-7)
        assert sound.loud_db == pytest.approx(sounds[0].loud_db, abs=1e-4)
        assert sound.active_seconds == sounds[0].active_seconds


def test_meter_reads_known_levels() -> None:
    sine = np.sin(2 * np.pi * 100 * np.arange(RATE) / RATE).astype(np.float32)  # 1 period in 10 ms
    meter = rules_audio.Meter(RATE)
    meter.feed(0.5 * sine + np.float32(0.25))
    sound = meter.sound(rules_audio.AudioInfo(RATE, 1, RATE, 1.0, "wav", "pcm", ()))
    assert sound.offset == pytest.approx(0.25, abs=1e-6)
    assert sound.loud_db == pytest.approx(
        20 * np.log10(0.5 / np.sqrt(2)), abs=0.01
    )  # the offset is not energy
    assert sound.seconds == 1.0
    assert sound.clipped == 0


def test_the_result_does_not_depend_on_the_workers(clean: Corpus, tmp_path: Path) -> None:
    spoilt = [spoil(u, tmp_path) for u, (_, spoil) in zip(clean.utterances, AUDIO.values(), strict=False)][:6]
    corpus = with_changed(clean, *spoilt)
    assert check(corpus, workers=1).findings == check(corpus, workers=4).findings
