"""Containers read through ffmpeg, with a stand-in for the program, and itself where installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from firstwords.audio import ffmpeg
from firstwords.audio.waveform import probe, read, write
from firstwords.errors import AudioError

MP4 = b"\0\0\0\x20ftypM4A \0\0\0\0" + bytes(64)
# Writes what ffmpeg writes with '-f wav pipe:1': sizes unknown, a LIST chunk, float samples.
STAND_IN = """#!{python}
import os, struct, sys, time
args = sys.argv[1:]
if "-show_streams" in args:
    print('{{"streams": [{{"codec_name": "aac", "duration": "{declared}"}}]}}')
    sys.exit()
assert "-nostdin" in args and args[args.index("-f") + 1] == "mov"
assert args[args.index("-protocol_whitelist") + 1] == "file,pipe"
assert args[args.index("-i") + 1].startswith("file:/")
mode = {mode!r}
if mode == "no audio":
    sys.stderr.write("Stream map '0:a:0' matches no streams.\\n")
    sys.exit(1)
out = sys.stdout.buffer
fmt = struct.pack("<HHIIHH", 3, 2, 8000, 64000, 8, 32)
out.write(b"RIFF\\xff\\xff\\xff\\xffWAVEfmt " + struct.pack("<I", 16) + fmt)
out.write(b"LIST\\x04\\0\\0\\0INFOdata\\xff\\xff\\xff\\xff")
if mode == "stall":
    out.flush()
    time.sleep(60)
for frame in range(8000):
    out.write(struct.pack("<2f", frame / 8000, 0.0))
if mode == "linger":
    out.flush()
    os.close(1)
    time.sleep(60)
if mode == "damage":
    sys.stderr.write("[dec:aac @ 0x56] Invalid data found when processing input\\n")
    sys.exit(1)
"""

unix = pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a script with a #! line")


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, mode: str = "good", declared: float = 1.0) -> Path:
    for name in ("ffmpeg", "ffprobe"):
        program = folder / name
        program.write_text(STAND_IN.format(python=sys.executable, mode=mode, declared=declared))
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    path = folder / "-a b.m4a"  # a name that would be an option, and one with a blank
    path.write_bytes(MP4)
    return path


def test_absent_ffmpeg_is_said_with_the_way_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    path = tmp_path / "a.wav"  # by content, not by name
    for data, name in [(MP4, "mp4"), (b"\x1aE\xdf\xa3" + bytes(64), "webm"), (b"#!AMR\n" + bytes(9), "amr")]:
        path.write_bytes(data)
        with pytest.raises(AudioError, match=f"{name} audio, and no ffmpeg") as caught:
            read(path)
        assert "apt install ffmpeg" in caught.value.mend


@unix
def test_samples_come_through_the_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = install(tmp_path, monkeypatch)
    info = probe(path)
    assert (info.sample_rate, info.channels, info.frames) == (8000, 2, 8000)
    assert (info.container, info.codec, info.repairs) == ("mp4", "aac", ())
    ramp = np.arange(8000, dtype=np.float32) / 8000
    np.testing.assert_allclose(read(path, sample_rate=None).samples, ramp / 2, atol=1e-7)
    got = read(path, sample_rate=None, channels=0, start=0.25, duration=0.5)
    np.testing.assert_allclose(got.samples, ramp[2000:6000], atol=1e-7)


@unix
def test_damage_and_early_ends_are_stated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = install(tmp_path, monkeypatch, mode="damage", declared=2.5)
    got = read(path, sample_rate=None)
    assert len(got.samples) == 8000
    assert any("went on: Invalid data" in repair for repair in got.repairs)
    assert any("2.50 s promised, 1.00 s decoded" in repair for repair in got.repairs)


@unix
def test_a_film_without_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AudioError, match=r"no audio in it .*matches no streams"):
        read(install(tmp_path, monkeypatch, mode="no audio"))


@unix
def test_a_child_that_stands_still_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = install(tmp_path, monkeypatch, mode="stall")
    monkeypatch.setattr(ffmpeg, "_STALL_SECONDS", 0.5)
    with pytest.raises(AudioError, match="was stopped"):
        read(path)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize("name", ["a.m4a", "a.webm", "a.mp4", "a.aac"])
def test_the_real_program(tmp_path: Path, name: str) -> None:
    tone = (0.4 * np.sin(2 * np.pi * 300 * np.arange(48_000) / 16000)).astype(np.float32)
    write(tmp_path / "a.wav", tone, 16000)
    codec = ["-c:a", "libopus"] if name == "a.webm" else ["-c:a", "aac"]
    subprocess.run(
        ["ffmpeg", "-loglevel", "error", "-i", str(tmp_path / "a.wav"), *codec, str(tmp_path / name)],
        check=True,
    )
    got = read(tmp_path / name).samples
    assert abs(len(got) - len(tone)) < 3000
    assert np.abs(np.fft.rfft(got[:32_000])).argmax() / 2 == pytest.approx(300, abs=1)


@unix
def test_a_child_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = install(tmp_path, monkeypatch, mode="linger")
    monkeypatch.setattr(ffmpeg, "_END_SECONDS", 0.5)
    got = read(path, sample_rate=None)
    assert len(got.samples) == 8000
    assert any("ended with an error" in repair for repair in got.repairs)
