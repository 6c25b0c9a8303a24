"""How much memory the worst sources take, beyond what the same command takes for a good recording.

Measured in processes of their own (VmHWM; ``ru_maxrss`` would begin with what the parent takes). The limit is
512 MB above the same command on one second of sound, which itself is mostly the libraries.
"""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from malformed_audio import wav
from nonsense_model import make_nonsense_model
from robustness.malformed_corpora import cuts
from robustness.test_malformed_recordings import a_large_hole, large_tag, many_chunks

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]
LIMIT = 512.0  # megabytes
_SCRIPT = """
import sys
from firstwords.cli.main import main
try:
    main()
except SystemExit as leaving:
    code = leaving.code or 0
status = open("/proc/self/status").read()
print("PEAK", int(status.partition("VmHWM:")[2].split()[0]) / 1024, code, file=sys.stderr)
"""


def peak(*arguments: object) -> tuple[float, int, str]:
    """A command in a process of its own -> (megabytes, exit code, what it said)."""
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    *rest, last = done.stderr.strip().split("\n")
    word, megabytes, code = last.split()
    assert word == "PEAK", done.stderr[-500:]
    assert "Traceback" not in done.stderr
    return float(megabytes), int(code), done.stdout + "\n".join(rest)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_nonsense_model(tmp_path_factory.mktemp("model") / "nonsense")


def hours_of_flac_silence(path: Path) -> None:
    """Ten hours of silence in half a megabyte."""
    with soundfile.SoundFile(path, "w", 16000, 1, "PCM_16", format="FLAC") as file:
        for _ in range(600):
            file.write(np.zeros(16000 * 60, np.int16))


def one_frame_of_many_channels(path: Path) -> None:
    path.write_bytes(wav(bytes(2 * 60_000), channels=60_000, block=60_000 * 2 % 65536))


def hours_of_wav_in_a_hole(path: Path) -> None:
    """Five hours of zeros that take no room on the disk."""
    size = 16000 * 2 * 3600 * 5
    path.write_bytes(wav(b"", size=size))
    with path.open("rb+") as file:
        file.truncate(44 + size)


SOUNDS: list[Callable[[Path], None]] = [
    hours_of_flac_silence, hours_of_wav_in_a_hole, a_large_hole, large_tag, many_chunks,
    one_frame_of_many_channels,
]  # fmt: skip


@pytest.mark.parametrize("make", SOUNDS, ids=lambda make: make.__name__)
def test_recordings(make: Callable[[Path], None], tmp_path: Path, model: Path) -> None:
    """Import, check and transcribe; training never holds more than its utterances."""
    figures: dict[str, list[float]] = {}
    for name in ("plain", "worst"):
        source = tmp_path / name / "source"
        source.mkdir(parents=True)
        if name == "worst":
            make(source / "odd.wav")
            (source / "odd.txt").write_text("aei ou", encoding="utf-8")
        soundfile.write(source / "good.wav", 0.1 * np.sin(np.arange(16000) / 7), 16000)
        (source / "good.txt").write_text("aei", encoding="utf-8")
        corpus, out = tmp_path / name / "corpus", tmp_path / name / "out"
        commands = (
            ("import", source, "--to", corpus),
            ("check", corpus, "--workers", 1),
            ("transcribe", model, source, "--out", out, "--device", "cpu"),
        )
        for command in commands:
            megabytes, code, said = peak(*command)
            assert code in (0, 1), said
            figures.setdefault(str(command[0]), []).append(megabytes)
    for command, (plain, worst) in figures.items():
        print(f"{make.__name__} {command}: {worst:.0f} MB, plain {plain:.0f} MB")
    assert all(worst - plain <= LIMIT for plain, worst in figures.values()), figures


def packed(filling: bytes, megabytes: int) -> bytes:
    """A good line, then so much of the same."""
    box = io.BytesIO()
    with gzip.GzipFile(fileobj=box, mode="wb", compresslevel=1) as file:
        file.write(str(cuts()["cuts.jsonl"]).encode())
        for _ in range(megabytes):
            file.write(filling * 2**20)
    return box.getvalue()


def gzip_bomb() -> dict[str, bytes]:
    return {"cuts.jsonl.gz": packed(b"\n", 2000)}


def gzip_line_without_end() -> dict[str, bytes]:
    return {"cuts.jsonl.gz": packed(b" ", 2000)}


def textgrid_of_counts() -> dict[str, bytes]:
    head = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n1\n<exists>\n'
    return {"good.TextGrid": (head + "900000000\n" + '"IntervalTier" "w" 0 1 999999999 ' * 1000).encode()}


def manifest_of_a_deep_line() -> dict[str, bytes]:
    return {
        "manifest.jsonl": b'{"id": "a", "audio": "good.wav", "duration": 1}\n' + b"[" * 30_000_000 + b"\n"
    }


def table_of_one_line() -> dict[str, bytes]:
    return {"list.tsv": b"file\ttext\n" + b"good.wav\tx" * 3_000_000}


@pytest.mark.parametrize(
    "make",
    [gzip_bomb, gzip_line_without_end, textgrid_of_counts, manifest_of_a_deep_line, table_of_one_line],
    ids=lambda make: make.__name__,
)
def test_transcripts(make: Callable[[], dict[str, bytes]], tmp_path: Path) -> None:
    """Sources that unpack or promise more than there is."""
    source = tmp_path / "source"
    source.mkdir()
    soundfile.write(source / "good.wav", 0.1 * np.sin(np.arange(16000) / 7), 16000)
    (source / "good.txt").write_text("aei", encoding="utf-8")
    plain, _, _ = peak("import", source, "--to", tmp_path / "plain")
    (source / "good.txt").unlink()
    for name, content in make().items():
        (source / name).write_bytes(content)
    worst, code, said = peak("import", source, "--to", tmp_path / "worst")
    print(f"{make.__name__} import: {worst:.0f} MB, plain {plain:.0f} MB")
    assert code in (0, 1), said
    assert worst - plain <= LIMIT
