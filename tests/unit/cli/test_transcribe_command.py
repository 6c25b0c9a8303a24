"""``firstwords transcribe`` and ``firstwords info``, as a user meets them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from firstwords.audio.waveform import write
from firstwords.cli.main import app
from firstwords.cli.transcribe_files import SUFFIXES, plan, read_formats
from firstwords.errors import AudioError, CheckpointError, FirstwordsError, UsageError
from firstwords.inference.made import RECORD
from firstwords.inference.transcript import Transcript
from nonsense_model import make_nonsense_model
from tone_corpus import RATE, sing


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_nonsense_model(tmp_path_factory.mktemp("models") / "nonsense")


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Two recordings, one in a folder of its own, a text that is none, and a hidden one."""
    folder = tmp_path / "talks"
    generator = np.random.default_rng(0)
    for name in ("one.wav", "deep/two.flac", ".hidden/three.wav"):
        write(folder / name, sing("aei ou aei", generator), RATE)
    (folder / "notes.txt").write_text("not audio")
    return folder


def firstwords(*arguments: object) -> Result:
    """Run the command; an error of ours comes back as the result's exception."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit | FirstwordsError):
        raise result.exception
    return result


def test_text_is_printed_without_out(model: Path, recordings: Path) -> None:
    alone = firstwords("transcribe", model, recordings / "one.wav")
    assert alone.exit_code == 0
    text = alone.stdout.removesuffix("\n")
    assert text
    assert "\n" not in text
    both = firstwords("transcribe", model, recordings).stdout.splitlines()
    assert both == [
        f"{recordings / 'deep' / 'two.flac'}\t{both[0].split(chr(9))[1]}",
        f"{recordings / 'one.wav'}\t{text}",
    ]
    lines = firstwords("transcribe", model, recordings, "--format", "json").stdout.splitlines()
    assert [Transcript.from_record(json.loads(line)).text for line in lines][1] == text


def test_every_format_in_its_file_and_done_files_are_skipped(
    model: Path, recordings: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = (
        "transcribe",
        model,
        recordings,
        "--format",
        "txt,json,srt,vtt,ctm,textgrid,eaf",
        "--out",
        out,
    )
    first = firstwords(*arguments)
    assert first.exit_code == 0, first.stderr
    assert "2 transcribed" in first.stderr
    suffixes = [".txt", ".json", ".srt", ".vtt", ".ctm", ".TextGrid", ".eaf"]
    written = sorted(
        p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file() and p.name != RECORD
    )
    assert written == sorted([f"one{s}" for s in suffixes] + [f"deep/two{s}" for s in suffixes])
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in out.rglob("*") if p.is_file()}
    (out / "one.txt").unlink()
    second = firstwords(*arguments)
    assert second.exit_code == 0
    assert "1 already transcribed" in second.stderr
    assert "1 transcribed" in second.stderr
    assert (out / "one.txt").read_bytes() == before[out / "one.txt"][0]
    assert (out / "deep" / "two.txt").stat().st_mtime_ns == before[out / "deep" / "two.txt"][1]
    third = firstwords(*arguments)
    assert "2 already transcribed" in third.stderr
    assert firstwords(*arguments, "--again").stderr.count("2 transcribed") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="names there are no free bytes")
def test_names_that_are_no_utf8_are_names_as_others(model: Path, recordings: Path, tmp_path: Path) -> None:
    """As from an old ZIP archive; one such name kept a whole folder from being transcribed."""
    odd = recordings / os.fsdecode(b"caf\xe9.flac")
    shutil.copy(recordings / "deep" / "two.flac", odd)
    out = tmp_path / "out"
    formats = "txt,json,srt,vtt,ctm,textgrid,eaf"
    done = firstwords("transcribe", model, recordings, "--format", formats, "--out", out)
    assert done.exit_code == 0, done.stderr
    assert "3 transcribed" in done.stderr
    told = Transcript.from_record(json.loads((out / odd.name).with_suffix(".json").read_text()))
    assert told.audio == str(odd)
    assert told.text == Transcript.from_record(json.loads((out / "deep" / "two.json").read_text())).text
    assert './caf%E9.flac"' in (out / odd.name).with_suffix(".eaf").read_text(encoding="utf-8")
    picture = tmp_path / "odd.svg"
    run = [sys.executable, "-m", "firstwords", "inspect", str(model), os.fsencode(odd), "--to", str(picture)]
    shown = subprocess.run(
        run, capture_output=True, check=False, env={**os.environ, "PYTHONIOENCODING": "utf-8"}
    )
    assert shown.returncode == 0, shown.stderr
    assert b"caf\\udce9.flac" in shown.stdout


def test_a_bad_recording_is_named_and_the_others_are_done(
    model: Path, recordings: Path, tmp_path: Path
) -> None:
    (recordings / "broken.wav").write_bytes(b"RIFF")
    (recordings / "cut.mp3").write_bytes(b"ID3\x04\0\0\0\0\0\x0a" + bytes(10))
    result = firstwords("transcribe", model, recordings, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "broken.wav" in result.stderr
    assert "\n  " in result.stderr  # below each reason the next step
    assert "cut.mp3" in result.stderr
    assert "2 transcribed" in result.stderr
    assert "2 not" in result.stderr
    assert (tmp_path / "out" / "one.txt").is_file()


def test_one_channel_is_heard_as_if_it_were_alone(model: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    voices = np.stack([sing("aei ou", generator)[:9_000], sing("uu oa", generator)[:9_000]], axis=1)
    write(tmp_path / "both.wav", voices, RATE)
    texts: list[str] = []
    for channel in (0, 1):
        write(tmp_path / "alone.wav", voices[:, channel], RATE)
        texts.append(firstwords("transcribe", model, tmp_path / "alone.wav").stdout)
        both = firstwords("transcribe", model, tmp_path / "both.wav", "--channel", channel)
        assert both.stdout == texts[-1]
    assert texts[0] != texts[1]
    mixed = firstwords("transcribe", model, tmp_path / "both.wav", "--channel", "mix").stdout
    assert mixed == firstwords("transcribe", model, tmp_path / "both.wav").stdout


def test_a_repair_is_said(model: Path, recordings: Path) -> None:
    path = recordings / "one.wav"
    path.write_bytes(path.read_bytes()[:9_000])
    result = firstwords("transcribe", model, path)
    assert result.exit_code == 0
    assert "cut short" in result.stderr


def test_a_tier_is_added_to_the_eaf_beside(model: Path, recordings: Path, tmp_path: Path) -> None:
    beside = recordings / "one.eaf"
    original = (
        '<ANNOTATION_DOCUMENT><HEADER/><TIME_ORDER></TIME_ORDER><TIER LINGUISTIC_TYPE_REF="t" '
        'TIER_ID="mine"/><LINGUISTIC_TYPE LINGUISTIC_TYPE_ID="t" TIME_ALIGNABLE="true"/>'
        "</ANNOTATION_DOCUMENT>"
    )
    beside.write_text(original)
    result = firstwords(
        "transcribe", model, recordings / "one.wav", "--format", "eaf", "--out", tmp_path / "out"
    )
    assert result.exit_code == 0, result.stderr
    assert beside.read_text() == original
    made = (tmp_path / "out" / "one.eaf").read_text()
    assert 'TIER_ID="mine"' in made
    assert 'TIER_ID="firstwords:nonsense"' in made
    beside.write_text("<broken")
    broken = firstwords(
        "transcribe", model, recordings / "one.wav", "--format", "eaf", "--out", tmp_path / "b"
    )
    assert broken.exit_code == 1
    assert "well-formed" in broken.stderr


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (("--format", "doc"), UsageError, "'doc' is no format"),
        (("--format", "eaf"), UsageError, "needs files"),
        (("--format", "txt,srt"), UsageError, "needs files"),
        (("--format", "srt"), UsageError, "cannot be told apart"),
        (("--channel", "left"), UsageError, "'left' is neither a number nor 'mix'"),
        (("--channel", "-1"), UsageError, "'-1' is neither a number nor 'mix'"),
    ],
)
def test_wrong_usage(
    model: Path, recordings: Path, arguments: tuple[str, ...], error: type, says: str
) -> None:
    result = firstwords("transcribe", model, recordings, *arguments)
    assert isinstance(result.exception, error)
    assert says in str(result.exception)


def test_wrong_folders(recordings: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(AudioError, match="no recordings"):
        plan([tmp_path / "empty"], ["txt"], None)
    result = firstwords("transcribe", tmp_path / "empty", recordings / "one.wav")
    assert isinstance(result.exception, CheckpointError)


def test_files_of_others_beside_the_recordings_stay(model: Path, recordings: Path) -> None:
    own = recordings / "one.txt"
    own.write_text("what Ana heard")
    for more in ((), ("--again",), ("--format", "txt,srt")):
        refused = firstwords("transcribe", model, recordings / "one.wav", "--out", recordings, *more)
        assert isinstance(refused.exception, UsageError)
        assert "one.txt" in str(refused.exception)
        assert own.read_text() == "what Ana heard"
    assert not (recordings / "one.srt").exists()
    (recordings / "one.eaf").write_text("<ANNOTATION_DOCUMENT/>")
    arguments = ("transcribe", model, recordings / "one.wav", "--format", "eaf", "--out", recordings)
    assert isinstance(firstwords(*arguments).exception, UsageError)
    (recordings / "one.eaf").unlink()
    assert "1 transcribed" in firstwords(*arguments).stderr  # a new one is ours
    assert "1 already transcribed" in firstwords(*arguments).stderr


def test_names_of_results(recordings: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copy(recordings / "one.wav", recordings / "one.flac")
    shutil.copy(recordings / "one.wav", recordings / "v1.2.wav")
    jobs, failures, done = plan([recordings, recordings / "one.wav"], ["txt"], out)
    assert [job.target for job in jobs] == [
        out / "deep" / "two",
        out / "one.flac",
        out / "one.wav",
        out / "v1.2",
    ]
    assert (failures, done) == ({}, [])
    shutil.copytree(recordings, tmp_path / "other")
    with pytest.raises(UsageError, match="both be written"):
        plan([recordings, tmp_path / "other"], ["txt"], out)
    assert read_formats(" TXT, json,txt", out) == ["txt", "json"]
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in SUFFIXES)


def test_info(model: Path, tmp_path: Path) -> None:
    result = firstwords("info", model, "--check")
    assert result.exit_code == 0
    for words in ("zipformer", "graphemes", "a e i o u", "0.50 h", "100.0 %", "16000 Hz", "stored answer"):
        assert words in result.stdout
    counts = re.findall(r"(MACs|FLOPs) +([\d.]+) M per second of audio", result.stdout)
    assert [name for name, _ in counts] == ["MACs", "FLOPs"]
    assert float(counts[1][1]) == pytest.approx(2 * float(counts[0][1]), rel=1e-3)
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    (broken / "model.safetensors").unlink()
    result = firstwords("info", broken)
    assert isinstance(result.exception, CheckpointError)
    assert "MISSING" in result.stdout
    assert isinstance(firstwords("info", tmp_path / "none").exception, CheckpointError)
    huge = tmp_path / "huge"
    shutil.copytree(model, huge)
    recipe = (huge / "recipe.toml").read_text(encoding="utf-8")
    (huge / "recipe.toml").write_text(
        re.sub(r"(?m)^query_head_dim = \[[^]]*\]", "query_head_dim = [40000000]", recipe), encoding="utf-8"
    )
    assert "FLOPs" not in firstwords("info", huge).stdout  # not what is stored: not built, not counted
    shutil.copytree(model, tmp_path / "edited")
    (tmp_path / "edited" / "recipe.toml").write_text("x = [", encoding="utf-8")
    result = firstwords("info", tmp_path / "edited")
    assert isinstance(result.exception, CheckpointError)
    assert "is not TOML" in result.exception.what


def test_what_somebody_corrected_is_not_made_again(model: Path, recordings: Path, tmp_path: Path) -> None:
    command = ("transcribe", model, recordings / "one.wav", "--out", tmp_path / "out")
    assert firstwords(*command).exit_code == 0
    text = tmp_path / "out" / "one.txt"
    text.write_text("what Ana heard")
    kept = firstwords(*command)
    assert "1 already transcribed" in kept.stderr
    for more in (("--again",), ("--format", "txt,srt")):  # one of these is not there yet
        refused = firstwords(*command, *more)
        assert isinstance(refused.exception, UsageError)
        assert "may be somebody's work" in str(refused.exception)
        assert text.read_text() == "what Ana heard"


def test_another_recording_of_that_name_is_told(model: Path, recordings: Path, tmp_path: Path) -> None:
    command = ("transcribe", model, recordings, "--out", tmp_path / "out")
    assert firstwords(*command).exit_code == 0
    assert "kept as it is" not in firstwords(*command).stderr
    os.utime(recordings / "one.wav", (1e9, 1e9))
    told = firstwords(*command).stderr
    assert "one.wav: kept as it is, but made with another state of the recording." in told
