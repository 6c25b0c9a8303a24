"""Writers of corpora and sounds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from firstwords.audio.waveform import read, write
from firstwords.data.cache import AudioCache
from firstwords.data.corpora.importing import Plan, import_corpus
from firstwords.data.manifest import (
    Utterance,
    load_corpus,
    read_manifest,
    read_quarantine,
    write_manifest,
    write_quarantine,
)
from firstwords.report.check_files import check_and_write
from robustness.writer import Writer, nothing, old
from tone_corpus import make_tone_corpus


def a_source(folder: Path) -> Path:
    for number in range(4):
        path = folder / "source" / f"s{number}" / f"u{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * np.sin(np.arange(8000) / (5 + number)), 8000)
        path.with_suffix(".txt").write_text(f"text {number}", encoding="utf-8")
    return folder / "source"


def imported_before(home: Path, source: Path) -> None:
    import_corpus(source, home, Plan(seed=3))
    write_quarantine(home, {"u1": "noise"})


def imports(home: Path, source: Path) -> None:
    import_corpus(source, home, Plan(seed=1, dev=0.3))


def is_imported(home: Path, source: Path) -> None:
    corpus = load_corpus(home)
    assert len(corpus.utterances) == 4
    assert not corpus.quarantine
    assert json.loads((home / "import.json").read_text(encoding="utf-8"))["finished"] is True
    assert all(u.audio.is_file() for u in corpus.utterances)


def copies(home: Path, source: Path) -> None:
    import_corpus(source, home, Plan(copy=True))


def a_stereo_source(folder: Path) -> Path:
    source = a_source(folder)
    for path in source.rglob("*.wav"):
        sound, rate = soundfile.read(path)
        soundfile.write(path, np.stack([sound, sound / 2], axis=1), rate)
    return source


def divides(home: Path, source: Path) -> None:
    import_corpus(source, home, Plan(channels={"*": 1}))


def is_a_whole_channel(path: Path, source: Path) -> bool:
    """Of an interrupted import by channels: whole ones, and the note whose import it is."""
    if path.name == "import.json":
        return json.loads(path.read_text(encoding="utf-8"))["finished"] is False
    both = soundfile.read(next(source.rglob(path.name.removesuffix(".channel1.wav"))))[0]
    return np.array_equal(soundfile.read(path)[0], both[:, 1])


def is_a_whole_copy(path: Path, source: Path) -> bool:
    """Of an interrupted import with copies: whole recordings, and the note whose import it is."""
    if path.name == "import.json":
        return json.loads(path.read_text(encoding="utf-8"))["finished"] is False
    return path.read_bytes() == next(source.rglob(path.name)).read_bytes()


def a_corpus(folder: Path) -> Path:
    return make_tone_corpus(folder / "corpus", train=3, dev=1, test=1)


def with_manifest(home: Path, corpus: Path) -> None:
    write_manifest(home / "manifest.jsonl", list(read_manifest(corpus / "manifest.jsonl"))[:2])
    write_quarantine(home, {"train-000": "by hand"})


def checked_before(home: Path, corpus: Path) -> None:
    """A check has been here, and a person has deleted one of its lines."""
    with_manifest(home, corpus)
    check_and_write(load_corpus(home), name="corpus", workers=1)
    (home / "check" / "quarantine.json").write_text('{"train-001": "audio-clipped: much"}', encoding="utf-8")


def checks(home: Path, corpus: Path) -> None:
    if not (home / "manifest.jsonl").is_file():
        with_manifest(home, corpus)
    check_and_write(load_corpus(home), name="corpus", workers=1)


def is_checked(home: Path, _: Path) -> None:
    assert read_quarantine(home)["train-000"] == "by hand"
    assert "train-001" in (home / "allow.txt").read_text(encoding="utf-8")
    assert (home / "check" / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>")
    json.loads((home / "check" / "quarantine.json").read_text(encoding="utf-8"))
    assert (home / "check" / "findings.jsonl").is_file()


SOUND = (0.2 * np.sin(np.arange(30_000) / 9)).astype(np.float32)


def is_sound(suffix: str) -> Callable[[Path, None], None]:
    def check(home: Path, _: None) -> None:
        got = read(home / f"a{suffix}")
        assert got.repairs == ()
        assert abs(len(got.samples) - len(SOUND)) <= 1500  # lossy codecs pad

    return check


def caches(home: Path, _: None) -> None:
    AudioCache([0.3, 0.4], sample_rate=8000, limit_bytes=1e6, path=home / "audio-0.cache")


def is_cache(home: Path, _: None) -> None:
    assert (home / "audio-0.cache").stat().st_size == 2 * 16 + 2 * (3200 + 4000)


def _utterance(name: str) -> Utterance:
    return Utterance(id=name, audio=Path("/recordings") / f"{name}.wav", duration=1.0, text="ẹ̀")


CORPORA = [
    Writer("import into a new folder", a_source, imports, is_imported),
    Writer("import again", a_source, imports, is_imported, imported_before),
    Writer("import with copies", a_source, copies, is_imported, may_stay=is_a_whole_copy),
    Writer("import by channels", a_stereo_source, divides, is_imported, may_stay=is_a_whole_channel),
    Writer(
        "manifest",
        nothing,
        lambda home, _: write_manifest(home / "manifest.jsonl", [_utterance("a"), _utterance("b")]),
        lambda home, _: [u.id for u in read_manifest(home / "manifest.jsonl")] == ["a", "b"],
        old("manifest.jsonl"),
    ),
    Writer(
        "quarantine",
        nothing,
        lambda home, _: write_quarantine(home, {"a": "hum", "b": "ẹ̀"}),
        lambda home, _: read_quarantine(home) == {"a": "hum", "b": "ẹ̀"},
        old("quarantine.jsonl", '{"id": "a", "reason": "old"}\n'),
    ),
    Writer("check with decisions", a_corpus, checks, is_checked, checked_before),
    Writer(
        "audio cache",
        nothing,
        caches,
        is_cache,
        old("audio-0.cache"),
    ),
    *(
        Writer(
            f"audio {suffix}",
            nothing,
            lambda home, _, suffix=suffix: write(home / f"a{suffix}", SOUND, 16000),
            is_sound(suffix),
            old(f"a{suffix}"),
        )
        for suffix in (".wav", ".flac", ".ogg", ".opus", ".mp3")
    ),
]
