"""'firstwords check' as a user meets it: files, table, exit codes, and a page that cannot be tricked."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
import typer
from typer.testing import CliRunner

from firstwords.cli.check import run as command
from firstwords.data.manifest import Utterance, load_corpus, read_quarantine, write_manifest
from firstwords.errors import CorpusError, ManifestError
from firstwords.report.check import expectation, hours
from firstwords.report.check_files import check_and_write

APP = typer.Typer()
APP.command()(command)
HOSTILE = '<script>alert(1)</script> & "x" \''


def make_corpus(folder: Path, texts: list[str | None], *, seconds: float = 2.5) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    utterances: list[Utterance] = []
    for number, text in enumerate(texts):
        draw = np.random.default_rng(number)
        t = np.arange(round(seconds * 8000)) / 8000
        sound = np.sin(2 * np.pi * 150 * t) * np.clip(np.sin(2 * np.pi * 2 * t), 0, None)
        sound = 0.2 * sound + 1e-3 * draw.standard_normal(len(t))
        path = folder / f"u{number}.wav"
        soundfile.write(str(path), sound, 8000)
        utterances.append(
            Utterance(
                id=f"u{number}",
                audio=path,
                duration=seconds,
                text=text,
                speaker=f"s{number % 4}",
                language="sw",
            )
        )
    write_manifest(folder / "manifest.jsonl", utterances)
    return folder


GOOD = [
    "habari ya asubuhi",
    "mtoto anasoma kitabu",
    "samaki na wali",
    "tembo mkubwa sana",
    "nyumba ya rafiki",
]


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return make_corpus(tmp_path / "my corpus", list(GOOD))


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    folder = make_corpus(tmp_path / "bad", [*GOOD, "", f"{HOSTILE} 13"])
    (folder / "u2.wav").unlink()
    return folder


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.attributes: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


def invoke(*arguments: str | Path) -> tuple[int, str, BaseException | None]:
    result = CliRunner(env={"COLUMNS": "140"}).invoke(APP, [str(a) for a in arguments])
    return result.exit_code, result.output, result.exception


def test_clean_corpus(good: Path) -> None:
    code, output, _ = invoke(good, "--strict")
    assert code == 0
    assert "No rule found anything" in output
    assert f'firstwords train "{good}" --to MODEL' in output
    assert (good / "check" / "report.html").is_file()
    assert (good / "check" / "findings.jsonl").read_text(encoding="utf-8") == ""
    assert read_quarantine(good) == {}


def test_findings_are_told_written_and_obeyed(bad: Path) -> None:
    before = {p.name: p.read_bytes() for p in bad.iterdir()}
    code, output, _ = invoke(bad)
    assert code == 0
    for word in (
        "audio-missing",
        "text-empty",
        "text-digits",
        "put aside",
        "warning",
        "u2",
        "Put the file where",
    ):
        assert word in output
    assert set(read_quarantine(bad)) == {"u2", "u5"}
    assert {u.id for u in load_corpus(bad).usable} == {"u0", "u1", "u3", "u4", "u6"}
    lines = [
        json.loads(x) for x in (bad / "check" / "findings.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert {(x["utterance"], x["rule"], x["severity"]) for x in lines} >= {
        ("u2", "audio-missing", "quarantine"), ("u5", "text-empty", "quarantine"),
        ("u6", "text-digits", "warning"),
    }  # fmt: skip
    for name, content in before.items():
        assert (bad / name).read_bytes() == content  # originals are never edited


def test_strict_turns_findings_into_exit_code_1(bad: Path) -> None:
    assert invoke(bad, "--strict")[0] == 1


def test_a_line_deleted_by_hand_stays_deleted(bad: Path) -> None:
    invoke(bad)
    path = bad / "quarantine.jsonl"
    kept = [x for x in path.read_text(encoding="utf-8").splitlines() if '"u5"' not in x]
    path.write_text("\n".join(kept) + "\n", encoding="utf-8")
    output = invoke(bad)[1]
    assert "allow.txt" in output
    assert set(read_quarantine(bad)) == {"u2"}
    invoke(bad)
    assert set(read_quarantine(bad)) == {"u2"}
    assert "Let back in by hand (1)" in (bad / "check" / "report.html").read_text(encoding="utf-8")


def test_out_leaves_the_corpus_alone(bad: Path, tmp_path: Path) -> None:
    before = sorted(p.name for p in bad.iterdir())
    code, output, _ = invoke(bad, "--out", tmp_path / "there", "--fast")
    assert code == 0
    assert "there" in output
    assert sorted(p.name for p in bad.iterdir()) == before
    assert (tmp_path / "there" / "report.html").is_file()
    assert set(read_quarantine(tmp_path / "there")) == {"u2", "u5"}


def test_nothing_usable_is_an_error_with_a_report(tmp_path: Path) -> None:
    folder = make_corpus(tmp_path / "noise", [None, None])
    code, output, error = invoke(folder)
    assert code == 1
    assert isinstance(error, CorpusError)
    assert "noise_folders" in error.mend
    assert "text-missing" in output
    assert "nothing to train on" in (folder / "check" / "report.html").read_text(encoding="utf-8")


def test_no_corpus_is_an_error(tmp_path: Path) -> None:
    error = invoke(tmp_path)[2]
    assert isinstance(error, ManifestError)
    assert "firstwords import" in error.mend


def test_unwritable_folder_names_the_way_out(good: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(CorpusError, match="cannot be written") as caught:
        check_and_write(load_corpus(good), name="good", out=tmp_path / "file")
    assert "--out" in caught.value.mend


def test_hostile_corpus_gives_a_harmless_page(tmp_path: Path) -> None:
    folder = make_corpus(tmp_path / "x", list(GOOD))
    utterances = [
        Utterance(
            id=HOSTILE + str(k), audio=folder / f"u{k}.wav", duration=2.5, text=HOSTILE + f" {k}",
            speaker=HOSTILE, language='"><b>', split=HOSTILE,
        )
        for k in range(5)
    ]  # fmt: skip
    write_manifest(folder / "manifest.jsonl", utterances)
    (folder / "u1.wav").unlink()
    written = check_and_write(load_corpus(folder), name=HOSTILE)
    page = Tags(written.report.read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert not any(name.startswith("on") for a in page.attributes for name in a)
    assert page.text.count(HOSTILE) > 10


def test_rich_markup_in_transcripts_is_shown_as_it_is(tmp_path: Path) -> None:
    folder = make_corpus(tmp_path / "x", [*GOOD, "[bold]13[/bold] [/nothing]"])
    utterances = [*load_corpus(folder).utterances]
    write_manifest(folder / "manifest.jsonl", [*utterances[:-1], Utterance(
        id="[/red] id", audio=utterances[-1].audio, duration=2.5, text=utterances[-1].text)])  # fmt: skip
    code, output, _ = invoke(folder)
    assert code == 0
    assert "[/red] id" in output


def test_report_shows_what_the_corpus_is_made_of(good: Path) -> None:
    written = check_and_write(load_corpus(good), name="good", fast=True)
    text = written.report.read_text(encoding="utf-8")
    page = Tags(text)
    for heading in ("Summary", "Findings", "Put aside", "Lengths", "Splits and speakers", "Alphabet"):
        assert heading in page.text
    assert 'title="U+0061 LATIN SMALL LETTER A"' in text
    assert "U+0061" in page.text
    assert "Minutes of each speaker" in page.text
    assert "--fast" in page.text
    assert page.tags.count("svg") == 3
    assert page.tags.count("caption") >= 6


def test_players_point_to_the_audio(bad: Path) -> None:
    written = check_and_write(load_corpus(bad), name="bad")
    page = Tags(written.report.read_text(encoding="utf-8"))
    players = [a for t, a in zip(page.tags, page.attributes, strict=True) if t == "audio"]
    assert players
    for player in players:
        place, _, span = (player["src"] or "").partition("#")
        assert (written.report.parent / place).is_file()
        assert span == "t=0.00,2.50"
        assert "autoplay" not in player


def test_the_promise_is_modest() -> None:
    steps = [expectation(h * 3600, closed_vocabulary=False, speakers=9) for h in (0.1, 0.5, 3, 10, 50, 500)]
    assert len(set(steps)) == 6
    assert "too little" in steps[0]
    assert "one voice" in expectation(3600, closed_vocabulary=False, speakers=1)
    assert "any other word" in expectation(3600, closed_vocabulary=True, speakers=9)
    assert "30 languages" in (
        spread := expectation(2 * 3600, closed_vocabulary=False, speakers=9, languages=30)
    )
    assert "too little" in spread


def test_hours_read_well() -> None:
    assert [hours(x) for x in (12.4, 119, 150, 3599, 3600, 8316)] == [
        "12 s", "119 s", "2 min", "60 min", "1.00 h", "2.31 h",
    ]  # fmt: skip


def test_a_broken_list_of_the_user_is_said_before_listening(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = load_corpus(good)
    (good / "allow.txt").write_bytes(b"\xff\xfea\0")
    monkeypatch.setattr("firstwords.report.check_files.check", lambda *_, **__: pytest.fail("listened"))
    with pytest.raises(ManifestError, match="not UTF-8"):
        check_and_write(corpus, name="good")


def test_one_text_for_a_long_recording_is_said_to_be_of_no_use(tmp_path: Path) -> None:
    folder = make_corpus(tmp_path / "talks", list(GOOD))
    utterances = [
        Utterance(id=u.id, audio=u.audio, duration=u.duration, text=u.text)
        for u in load_corpus(folder).usable
    ]
    soundfile.write(str(tmp_path / "long.wav"), np.zeros(65 * 8000), 8000)
    long = Utterance(id="long", audio=tmp_path / "long.wav", duration=65.0, text="habari " * 40)
    write_manifest(folder / "manifest.jsonl", [*utterances, long])
    _, output, _ = invoke(folder, "--fast")
    words = " ".join(output.split())
    assert "usable 12 s, of them for training 12 s" in words
    assert "Not usable as it is: 65 s in 1 utterance longer than 30 s." in words
    assert "in ELAN or Praat" in words
    page = (folder / "check" / "report.html").read_text(encoding="utf-8")
    assert "Not usable as it is: 65 s" in page
    write_manifest(folder / "manifest.jsonl", [long])
    _, _, error = invoke(folder, "--fast")
    assert isinstance(error, CorpusError)
    assert "every usable utterance with words is too long" in error.what


def test_a_finding_in_test_that_only_warns_is_called_a_warning(tmp_path: Path) -> None:
    folder = make_corpus(tmp_path / "talks", [*GOOD, "neno " * 14])
    utterances = [replace(u, split="test") for u in load_corpus(folder).usable]
    write_manifest(folder / "manifest.jsonl", utterances)
    _, output, _ = invoke(folder, "--fast")
    (row,) = [n for n, line in enumerate(output.splitlines()) if "frames-fewer-than-tokens" in line]
    assert "warning" in output.splitlines()[row + 1]
    assert "put aside" not in output.splitlines()[row + 1]
