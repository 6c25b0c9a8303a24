"""Every rule finds the defect that was planted, and only there; clean data give no finding."""

from __future__ import annotations

import io
import json
import random
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from firstwords.data import rules_audio, rules_corpus, rules_text
from firstwords.data.manifest import Corpus, Utterance, load_corpus, write_manifest
from firstwords.data.rules import NON_SPEECH, Evidence, Sound
from firstwords.data.validate import RULE, RULES, CheckResult, alphabet, check, too_long, usable_seconds

RATE = 8000
COUNT = 45
VOCABULARY = (
    "maji nyumba kitabu safari chakula rafiki ng'ombe barabara jioni asubuhi mwalimu mtoto samaki wimbo "
    "daktari shamba ndege mvua moto jua mwezi nyota mti ua zawadi habari vizuri pole haraka fedha gari "
    "farasi tembo simba paka mbwa kuku yai chumvi sukari kahawa pilipili xela qaro"
)
WORDS = VOCABULARY.split()


def voice(seconds: float, seed: int, rate: int = RATE) -> np.ndarray:
    """Sound that moves like speech: syllables of a buzz with pauses, and a little hiss."""
    draw = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    pitch = draw.uniform(90, 220)
    buzz = sum(np.sin(2 * np.pi * pitch * k * t + draw.uniform(0, 6)) / k for k in range(1, 12))
    syllables = np.clip(np.sin(2 * np.pi * draw.uniform(1.5, 2.5) * t + draw.uniform(0, 6)), 0, None) ** 2
    return (0.1 * buzz * syllables + 1e-3 * draw.standard_normal(len(t))).astype(np.float32)


def save(path: Path, samples: np.ndarray, rate: int = RATE, subtype: str = "PCM_16") -> None:
    soundfile.write(str(path), samples, rate, subtype=subtype, format=path.suffix[1:].upper())


@pytest.fixture(scope="module")
def clean_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """45 sentences by 9 speakers, speaker-disjoint, nothing wrong."""
    folder = tmp_path_factory.mktemp("clean")
    choose = random.Random(7)
    utterances: list[Utterance] = []
    used: set[str] = set()
    for number in range(COUNT):
        while (text := " ".join(choose.sample(WORDS, 4))) in used:
            pass
        if number < 3:  # every letter often enough
            text += " xela qaro ng'ombe"
        used.add(text)
        seconds = round(len(text) / choose.uniform(9, 13), 2)
        path = folder / f"u{number:02}.wav"
        save(path, voice(seconds, number))
        speaker = number % 9
        utterances.append(
            Utterance(
                id=f"u{number:02}",
                audio=path,
                duration=seconds,
                text=text,
                language="sw",
                speaker=f"s{speaker}",
                split="test" if speaker == 0 else "dev" if speaker == 1 else "train",
            )
        )
    write_manifest(folder / "manifest.jsonl", utterances)
    return folder


@pytest.fixture(scope="module")
def clean(clean_folder: Path) -> Corpus:
    return load_corpus(clean_folder)


def with_changed(corpus: Corpus, *changed: Utterance) -> Corpus:
    by_id = {u.id: u for u in changed}
    kept = [by_id.pop(u.id, u) for u in corpus.utterances]
    return Corpus(corpus.folder, (*kept, *by_id.values()), {})


def found(result: CheckResult, rule: str) -> set[str]:
    return {f.utterance for f in result.findings if f.rule == rule}


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


# ---- audio ----------------------------------------------------------------------------------------------

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


# ---- text -----------------------------------------------------------------------------------------------

TEXTS: dict[str, tuple[str, Callable[[str], str | None]]] = {
    "no text": ("text-missing", lambda t: None),
    "empty": ("text-empty", lambda t: "  "),
    "only marks": ("text-empty", lambda t: "-- ..."),
    "lost character": ("text-garbled", lambda t: t.replace("a", "\ufffd", 1)),
    "mojibake": ("text-garbled", lambda t: t + " habarÃ\u00ad â€™"),
    "mojibake of Yoruba": ("text-garbled", lambda t: t + " " + "ọmọ".encode().decode("latin-1")),
    "bidi override": ("text-controls", lambda t: "\u202e" + t),
    "zero width space": ("text-controls", lambda t: t.replace(" ", "\u200b ", 1)),
    "rare letter": ("text-rare-characters", lambda t: t + " maðji"),
    "Cyrillic a": ("text-mixed-scripts", lambda t: t.replace("a", "а", 1)),
    "Greek nu": ("text-mixed-scripts", lambda t: t + " νyumba"),
    "Cyrillic word": ("text-look-alikes", lambda t: t + " сор"),
    "curly apostrophe": ("text-look-alikes", lambda t: t + " ng’ombe"),
    "modifier apostrophe": ("text-look-alikes", lambda t: t + " ngʼombe"),
    "laughter": ("text-markup", lambda t: f"[laughs] {t}"),
    "cough": ("text-markup", lambda t: f"{t} ((cough))"),
    "unknown word": ("text-markup", lambda t: f"{t} <unk>"),
    "noise": ("text-markup", lambda t: f"{{noise}} {t}"),
    "not understood": ("text-markup", lambda t: f"{t} xxx."),
    "asterisk": ("text-markup", lambda t: f"* {t}"),
    "figures": ("text-digits", lambda t: t + " 13"),
    "too much text": ("text-too-long", lambda t: " ".join([t] * 4)),
    "far too much text": ("frames-fewer-than-tokens", lambda t: " ".join([t] * 4)),
    "too little text": ("text-too-short", lambda t: "ua"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_planted_text_defects_are_found(name: str, clean: Corpus) -> None:
    rule, spoil = TEXTS[name]
    victim = clean.utterances[12]
    planted = replace(victim, text=spoil(victim.text or ""))
    result = check(with_changed(clean, planted), fast=True)
    assert found(result, rule) == {victim.id}
    assert {f.utterance for f in result.findings} == {victim.id}
    if RULE[rule].severity == "quarantine":
        assert rule in result.quarantine[victim.id]


def test_mixed_normal_forms_blame_the_rarer(clean: Corpus) -> None:
    texts = ["ọ̀rọ̀ àti ẹ̀kọ́"] * 30
    group = [replace(u, text=t, language="yo") for u, t in zip(clean.utterances, texts, strict=False)]
    group[4] = replace(group[4], text=unicodedata.normalize("NFD", texts[4]))
    group[5] = replace(group[5], text=texts[4] + unicodedata.normalize("NFD", texts[4]))
    evidence = Evidence(tuple(group), {}, decoded=False)
    hits = dict(rules_text.text_mixed_forms(evidence))
    assert set(hits) == {group[4].id, group[5].id}
    assert "NFD" in hits[group[4].id]
    assert "partly" in hits[group[5].id]


def spoken(texts: Sequence[str], language: str | None = None) -> Evidence:
    utterances = [
        Utterance(id=str(k), audio=Path(f"{k}.wav"), duration=2.0, text=t, language=language)
        for k, t in enumerate(texts)
    ]
    return Evidence(tuple(utterances), {}, decoded=False)


@pytest.mark.parametrize(
    "texts",
    [
        ["café’s FIANCÉ’S ÄÖ “ok”", "à la Ünïted £5 ± ×2"],  # Latin-1 letters are no mojibake
        ["می‌خواهم کتاب را", "ക്‍ഷ ന്‍"],  # joiners are spelling
        ["XX век и XXI век", "глава IV"],  # Roman numerals are no look-alikes
        ["e-книга и IT-отдел"],  # scripts may meet at a hyphen
        ["oʻzbek soʻm", "maʼno taʼlim"] * 5,  # both are letters of Uzbek: neither is a slip
        ["Tシャツを着る", "日本語とカタカナ"],
        [
            "'quoted words' and 'more of them'",
            "she said ‘no’",
            "“never”",
        ],  # quotation marks are no apostrophes
    ],
)
def test_legitimate_spelling_is_left_alone(texts: list[str]) -> None:
    evidence = spoken(texts)
    for rule in rules_text.RULES:
        if rule.id not in {"text-digits", "text-rare-characters"}:
            assert list(rule.find(evidence)) == [], rule.id


def test_look_alikes_are_judged_within_a_language() -> None:
    russian = [
        Utterance(id=f"r{k}", audio=Path(f"r{k}"), duration=2.0, text="мама мыла", language="ru")
        for k in range(9)
    ]
    swahili = [
        Utterance(id=f"s{k}", audio=Path(f"s{k}"), duration=2.0, text="mama alisema", language="sw")
        for k in range(9)
    ]
    evidence = Evidence((*russian, *swahili), {}, decoded=False)
    assert not list(rules_text.text_look_alikes(evidence))
    assert not list(rules_text.text_mixed_scripts(evidence))


def test_yoruba_underdot_and_line_below_are_look_alikes() -> None:
    evidence = spoken(["ọmọ ẹyẹ"] * 20 + ["o\u0329mo\u0329"])
    hits = dict(rules_text.text_look_alikes(evidence))
    assert set(hits) == {"20"}
    assert "U+0329" in hits["20"]


@given(st.lists(st.text(max_size=30), max_size=8))
def test_no_text_breaks_a_rule(texts: list[str]) -> None:
    evidence = spoken(texts)
    for rule in (*rules_text.RULES, *rules_corpus.RULES[:6]):
        for name, detail in rule.find(evidence):
            assert name in {u.id for u in evidence.utterances}
            assert detail
    assert sum(x.count for x in alphabet(t for t in texts)) >= 0


# ---- the corpus as a whole ------------------------------------------------------------------------------


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


# ---- running ----------------------------------------------------------------------------------------------


def test_the_result_does_not_depend_on_the_workers(clean: Corpus, tmp_path: Path) -> None:
    spoilt = [spoil(u, tmp_path) for u, (_, spoil) in zip(clean.utterances, AUDIO.values(), strict=False)][:6]
    corpus = with_changed(clean, *spoilt)
    assert check(corpus, workers=1).findings == check(corpus, workers=4).findings


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


# ---- real corpora ---------------------------------------------------------------------------------------


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
