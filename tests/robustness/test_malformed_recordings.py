"""Malformed recordings through import, check, train and transcribe.

Each is read with a stated repair or left out and named, by every command; the good ones beside it are done.
What lies on the disk as no file at all (pipes, devices, links that lead nowhere) never makes a command wait.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from firstwords.audio.waveform import probe, read
from firstwords.data.manifest import Utterance, read_manifest, write_manifest
from firstwords.errors import AudioError
from malformed_audio import CASES, RATE, SOUND, Case, encoded, s16, wav
from nonsense_model import make_nonsense_model
from robustness.commands import Said, firstwords, import_record
from tone_corpus import make_tone_corpus

GOOD = 2  # recordings beside the bad ones


def file_of(case: Case) -> str:
    return case.name.replace(" ", "_") + ".wav"


def lay_down(folder: Path) -> Path:
    """Every bad recording with a transcript, and two good ones."""
    folder.mkdir(parents=True)
    for case in CASES:
        path = folder / file_of(case)
        path.write_bytes(case.data())
        path.with_suffix(".txt").write_text("aei ou", encoding="utf-8")
    for number in range(GOOD):
        soundfile.write(folder / f"good{number}.wav", SOUND, RATE)
        (folder / f"good{number}.txt").write_text("aei", encoding="utf-8")
    return folder


def is_refused(path: Path) -> str:
    """Why a recording cannot be read; empty if it can."""
    try:
        read(path)
    except AudioError as error:
        return error.what
    return ""


@dataclass(frozen=True)
class Commands:
    """What the four commands made of all cases at once."""

    source: Path
    refused: dict[str, str]  # file name -> why
    repaired: dict[str, tuple[str, ...]]
    repaired_in_3_seconds: dict[str, tuple[str, ...]]  # that is all the manifest asks for
    imported: Said
    record: dict[str, Any]
    utterances: dict[str, Utterance]  # of the import, by file name
    findings: dict[str, list[dict[str, str]]]  # of the check, by utterance id
    quarantine: str
    checked: Said
    transcribed: Said
    results: Path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_nonsense_model(tmp_path_factory.mktemp("model") / "nonsense")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Commands:
    """Import; then check of a corpus that names every file (broken after the import); then transcribe."""
    home = tmp_path_factory.mktemp("bad")
    source = lay_down(home / "source")
    refused = {file_of(c): why for c in CASES if (why := is_refused(source / file_of(c)))}
    readable = [file_of(c) for c in CASES if file_of(c) not in refused]
    repaired, partly = (
        {name: found for name in readable if (found := read(source / name, duration=duration).repairs)}
        for duration in (None, 3.0)
    )
    imported = firstwords("import", source, "--to", home / "corpus")
    utterances = {u.audio.name: u for u in read_manifest(home / "corpus" / "manifest.jsonl")}
    broken = broken_corpus(home / "broken", source)
    checked = firstwords("check", broken, "--workers", "2")
    findings: dict[str, list[dict[str, str]]] = {}
    for line in (broken / "check" / "findings.jsonl").read_text(encoding="utf-8").splitlines():
        found = json.loads(line)
        findings.setdefault(found["utterance"], []).append(found)
    transcribed = firstwords("transcribe", model, source, "--out", home / "out", "--device", "cpu")
    return Commands(
        source,
        refused,
        repaired,
        partly,
        imported,
        import_record(home / "corpus"),
        utterances,
        findings,
        (broken / "quarantine.jsonl").read_text(encoding="utf-8"),
        checked,
        transcribed,
        home / "out",
    )


def broken_corpus(folder: Path, source: Path, split: Callable[[int], str] = lambda _: "train") -> Path:
    """Good tones, and every bad recording as if it had been good when it was imported."""
    make_tone_corpus(folder, train=24, dev=6, test=2)
    utterances = list(read_manifest(folder / "manifest.jsonl"))
    for number, case in enumerate(CASES):
        path = source / file_of(case)
        utterances.append(
            Utterance(
                id=path.stem, audio=path, duration=3.0, text="aei ou", speaker="bad", split=split(number)
            )
        )
    write_manifest(folder / "manifest.jsonl", utterances)
    return folder


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_import_takes_or_names_it(case: Case, done: Commands) -> None:
    name = file_of(case)
    skipped = {s["where"]: s["reason"] for s in done.record["skipped"]}
    assert (name in done.utterances) != (name in skipped)
    if name in skipped:
        assert name in done.refused, "what can be read is not left out"
        assert skipped[name]
    elif name in done.repaired and (said := probe(done.source / name).repairs):
        told = [r["reason"] for r in done.record["repaired"] if r["where"] == name]
        assert told == list(said)  # what only decoding shows, the check says


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_check_puts_it_aside_or_tells_the_repair(case: Case, done: Commands) -> None:
    name = Path(file_of(case)).stem
    rules = {f["rule"]: f for f in done.findings.get(name, [])}
    if file_of(case) in done.refused:
        put_aside = [f for f in rules.values() if f["severity"] == "quarantine"]
        assert put_aside, rules
        assert json.dumps(name)[1:-1] in done.quarantine
    elif file_of(case) in done.repaired_in_3_seconds:
        assert {"audio-repaired", "audio-short"} & set(rules), rules


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_transcribe_does_or_names_it(case: Case, done: Commands) -> None:
    name = file_of(case)
    path = done.source / name
    result = done.results / Path(name).with_suffix(".txt")
    if name in done.refused:
        assert not result.exists()
        assert f"Not transcribed: {path}: " in done.transcribed.err
    else:
        assert result.is_file()
        for repair in done.repaired.get(name, ()):
            assert f"{path}: {repair}" in done.transcribed.err


def test_counts_and_codes(done: Commands) -> None:
    assert done.imported.code == 0
    assert f"Left out: {len(done.record['skipped'])}" in done.imported.out
    assert done.checked.code == 0
    assert done.transcribed.code == 1
    total = len(CASES) + GOOD
    assert len(done.utterances) + len(done.record["skipped"]) == total
    assert f"{total - len(done.refused)} transcribed" in done.transcribed.err
    assert f"{len(done.refused)} not" in done.transcribed.err
    assert max(s.seconds for s in (done.imported, done.checked, done.transcribed)) < 60


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("workers", [0, 2])
def test_train_names_every_one_it_leaves_out(done: Commands, tmp_path: Path, workers: int) -> None:
    """Files broken after the import, in train and in dev: the run finishes and says what it did not use."""
    corpus = broken_corpus(
        tmp_path / "corpus", done.source, lambda number: "dev" if number % 4 == 0 else "train"
    )
    said = firstwords(
        "train",
        corpus,
        "--to",
        tmp_path / "run",
        "--recipe",
        small_recipe(tmp_path),
        "--device",
        "cpu",
        "--workers",
        workers,
    )
    assert said.code == 0, said.all[-2000:]
    text = " ".join(said.all.split())
    for name in done.refused:
        assert f"'{Path(name).stem}' is left out: " in text, name
    log = (tmp_path / "run" / "resume" / "log.jsonl").read_text(encoding="utf-8")
    kinds = [json.loads(line) for line in log.splitlines()]
    left_out = {r["utterance"] for r in kinds if r["kind"] == "left_out"}
    made_up = {name for name in left_out if name.startswith(("joined-", "negative-"))}  # of several
    assert left_out - made_up == {Path(n).stem for n in done.refused}
    mended = {r["utterance"] for r in kinds if r["kind"] == "repaired"}
    in_train = {Path(file_of(c)).stem for n, c in enumerate(CASES) if n % 4}
    assert mended >= {Path(n).stem for n in done.repaired_in_3_seconds} & in_train - left_out


def small_recipe(folder: Path, **training: object) -> Path:
    from firstwords.model.recipe import write_recipe
    from tone_corpus import tone_recipe

    settings: dict[str, object] = {"steps": 30, "validate_every": 15, "batch_seconds": 25} | training
    write_recipe(folder / "recipe.toml", tone_recipe(**settings))
    return folder / "recipe.toml"


@pytest.mark.slow
@pytest.mark.parametrize("split", ["dev", "train"])
def test_train_where_nothing_of_a_split_can_be_read(split: str, tmp_path: Path) -> None:
    """An error that says so, not a division by zero, nor a model that never heard speech."""
    folder = make_tone_corpus(tmp_path / split, train=8, dev=3, test=1)
    for path in (folder / "audio").glob(f"{split}-*.wav"):
        path.write_bytes(b"RIFF")
    recipe = small_recipe(tmp_path, steps=2, validate_every=1)
    said = firstwords(
        "train", folder, "--to", tmp_path / "run", "--recipe", recipe, "--device", "cpu", "--workers", 0
    )
    assert said.code == 1, said.all[-800:]
    assert f"{split}-0" in said.all
    assert "check" in said.err


# --- what is no file -------------------------------------------------------------------------------------


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_dead_link(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere.wav"))


def a_circle(path: Path) -> None:
    path.symlink_to(path)


def a_folder(path: Path) -> None:
    path.mkdir()


def a_locked_file(path: Path) -> None:
    path.write_bytes(wav(s16()))
    path.chmod(0)


def a_large_hole(path: Path) -> None:
    """Three gigabytes of nothing."""
    with path.open("wb") as file:
        file.truncate(3_000_000_000)


def a_large_promise(path: Path) -> None:
    """A header that promises four gigabytes before a thousand samples."""
    path.write_bytes(wav(s16()[:2000], size=0xFFFFFFF0))


def many_chunks(path: Path) -> None:
    """Two hundred thousand empty chunks in front of the data."""
    path.write_bytes(wav(s16()[:64_000], before=b"junk\0\0\0\0" * 200_000))


def endless_chunk(path: Path) -> None:
    """A chunk whose size points back to its own beginning when sizes wrap."""
    path.write_bytes(wav(s16()[:64_000], before=b"junk\xf8\xff\xff\xff"))


def large_tag(path: Path) -> None:
    """An ID3 tag that says it is 256 MB long."""
    path.write_bytes(b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + encoded("MP3", "MPEG_LAYER_III"))


def film_of_nothing(path: Path) -> None:
    path.write_bytes(b"\0\0\0\x18ftypM4A \0\0\0\0M4A mp42isom" + bytes(5000))


def matroska_of_noise(path: Path) -> None:
    path.write_bytes(b"\x1aE\xdf\xa3" + np.random.default_rng(1).bytes(20_000))


ODD: list[Callable[[Path], None]] = [
    a_pipe, a_device, a_dead_link, a_circle, a_folder, a_locked_file, a_large_hole, a_large_promise,
    many_chunks, endless_chunk, large_tag, film_of_nothing, matroska_of_noise,
]  # fmt: skip
SAYS = {
    "a_pipe": "pipe",
    "a_device": "device",
    "a_large_hole": "zero bytes",
    "film_of_nothing": "odd.wav",
    "matroska_of_noise": "odd.wav",
    "large_tag": "no MP3 frames",
}
READ = ("a_large_promise", "many_chunks", "endless_chunk")  # these may be read, with a repair that is told


@pytest.mark.timeout(60)
@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes of Unix")
@pytest.mark.parametrize("make", ODD, ids=lambda make: make.__name__)
def test_what_is_no_recording_never_makes_anybody_wait(
    make: Callable[[Path], None], tmp_path: Path, model: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    soundfile.write(source / "good.wav", SOUND, RATE)
    (source / "good.txt").write_text("aei", encoding="utf-8")
    make(source / "odd.wav")
    (source / "odd.txt").write_text("ou", encoding="utf-8")
    name = make.__name__
    readable = name == "a_locked_file" and os.geteuid() == 0
    try:
        imported = firstwords("import", source, "--to", tmp_path / "corpus")
        assert imported.code == 0
        record = import_record(tmp_path / "corpus")
        taken = len(record["skipped"]) == 0
        assert taken == readable or name in READ
        if not taken:
            assert "odd" in json.dumps(record["skipped"])
            assert SAYS.get(name, "") in json.dumps(record["skipped"])
        elif name in READ:
            assert record["repaired"] or name == "many_chunks"  # odd, but a WAV may hold that
        manifest = tmp_path / "corpus" / "manifest.jsonl"
        good = next(u for u in read_manifest(manifest) if u.audio.name == "good.wav")
        bad = Utterance(id="odd", audio=source / "odd.wav", duration=3.0, text="ou", split="train")
        write_manifest(manifest, [good, bad])
        checked = firstwords("check", tmp_path / "corpus", "--workers", "1")
        assert checked.code == 0
        if not readable:
            assert '"odd"' in (tmp_path / "corpus" / "check" / "findings.jsonl").read_text(encoding="utf-8")
        said = firstwords(
            "transcribe", model, source / "odd.wav", source / "good.wav", "--out", tmp_path / "o"
        )
        if name != "a_folder":  # without recordings: said at once, before any work
            assert (tmp_path / "o" / "good.txt").is_file()
        if not taken:
            assert said.code in (1, 2)
            assert "odd.wav" in said.err
        for one in (imported, checked, said):
            assert one.seconds < 10
    finally:
        if (source / "odd.wav").is_dir():
            shutil.rmtree(source / "odd.wav")


def test_there_are_many_cases() -> None:
    from robustness.malformed_corpora import CASES as CORPORA

    assert len(CASES) + len(ODD) + len(CORPORA) >= 80
