"""The doctor finds what was broken on purpose, names the fix, and never falls over a broken part."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from firstwords.cli.doctor import run as command
from firstwords.report import doctor
from firstwords.report.bundle import bundle, redact

APP = typer.Typer()
APP.command()(command)


def by_name(parts: list[doctor.Part]) -> dict[str, doctor.Part]:
    return {part.name: part for part in parts}


@pytest.fixture
def without_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not start child processes for packages that happen to lie here."""
    monkeypatch.setattr(doctor, "_strangers", lambda: iter(()))


def break_import(monkeypatch: pytest.MonkeyPatch, broken: str, error: Exception) -> None:
    real = importlib.import_module

    def load(name: str, package: str | None = None) -> ModuleType:
        if name == broken:
            raise error
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", load)


def uninstall(monkeypatch: pytest.MonkeyPatch, *gone: str) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name in gone:
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)


@pytest.mark.usefixtures("without_strangers")
def test_a_working_computer(tmp_path: Path) -> None:
    parts = doctor.examine(tmp_path)
    named = by_name(parts)
    assert [p.name for p in parts if p.state == "broken"] == []
    assert torch.__version__ in named["torch"].says
    assert named["device and precision"].says
    assert named["audio files"].state == "ok"
    assert named["core parts"].state == named["training parts"].state == "ok"
    for part in parts:
        if part.state in {"broken", "note"}:
            assert part.mend or part.name in {"GPU", "memory"}, part


@pytest.mark.usefixtures("without_strangers")
def test_without_torch_it_still_speaks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    uninstall(monkeypatch, "torch")
    named = by_name(doctor.examine(tmp_path))
    assert named["torch"].state == "missing"
    assert "firstwords[train]" in named["torch"].mend
    assert "training parts" not in named


@pytest.mark.usefixtures("without_strangers")
@pytest.mark.parametrize(
    ("package", "row"),
    [("torch", "torch"), ("soundfile", "soundfile"), ("kaldialign", "training parts"), ("numpy", "numpy")],
)
def test_a_broken_part_is_named_with_its_fix(
    package: str, row: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    break_import(monkeypatch, package, OSError("libfoo.so.8: cannot open\nshared object"))
    part = by_name(doctor.examine(tmp_path))[row]
    assert part.state == "broken"
    assert "libfoo.so.8: cannot open shared object" in part.says
    assert "pip install --force-reinstall" in part.mend


def test_a_wrong_torch_is_found_out() -> None:
    assert doctor._torch_fails(torch) is None

    def explode(*_: object, **__: object) -> None:
        raise RuntimeError("no kernel")

    functional = SimpleNamespace(conv1d=torch.nn.functional.conv1d, ctc_loss=explode)
    fake: Any = SimpleNamespace(
        ones=torch.ones,
        tensor=torch.tensor,
        isfinite=torch.isfinite,
        nn=SimpleNamespace(functional=functional),
    )
    assert doctor._torch_fails(fake) == "RuntimeError: no kernel"


def fake_torch(*, cuda: str | None) -> Any:
    return SimpleNamespace(
        cuda=SimpleNamespace(is_available=lambda: False),
        backends=SimpleNamespace(),
        version=SimpleNamespace(cuda=cuda, hip=None),
    )


@pytest.mark.parametrize(
    ("cuda", "hidden", "state", "word"),
    [
        (None, None, "note", "TORCH_INDEX"),
        ("12.6", "", "note", "CUDA_VISIBLE_DEVICES"),
        ("12.6", None, "broken", "driver"),
    ],
)
def test_a_gpu_that_is_not_used(
    cuda: str | None, hidden: str | None, state: str, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/" + name)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    part = doctor._gpu(fake_torch(cuda=cuda))
    assert part.state == state
    assert word in part.mend


def test_ffmpeg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert by_name(list(doctor._audio()))["ffmpeg"].state == "missing"
    monkeypatch.setattr("shutil.which", lambda name: str(tmp_path / name))  # there, but not a program
    assert by_name(list(doctor._audio()))["ffmpeg"].state == "broken"
    monkeypatch.setattr(doctor, "_first_line", lambda command, **_: "ffmpeg version 7.1 Copyright")
    assert by_name(list(doctor._audio()))["ffmpeg"].says == "ffmpeg version 7.1"
    monkeypatch.setattr("shutil.which", lambda name: "x" if name == "ffmpeg" else None)
    assert "ffprobe" in by_name(list(doctor._audio()))["ffmpeg"].says


def test_first_line_of_a_program() -> None:
    assert doctor._first_line([sys.executable, "-c", "print('a'); print('b')"]) == "a"
    assert doctor._first_line([sys.executable, "-c", "import sys; sys.exit(3)"]) is None
    assert doctor._first_line([sys.executable, "-c", "import time; time.sleep(60)"], seconds=0.5) is None


def test_a_torchaudio_that_does_not_fit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A package that cannot be imported, as after an upgrade of torch alone."""
    (tmp_path / "torchaudio.py").write_text("raise OSError('undefined symbol')", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    versions = {"torchaudio": "2.5.0", "torchcodec": None, "torch": "2.13.0"}
    monkeypatch.setattr(doctor, "_version", versions.get)
    (part,) = list(doctor._strangers())
    assert part.state == "note"
    assert "pip uninstall torchaudio" in part.mend
    (tmp_path / "torchaudio.py").write_text("", encoding="utf-8")
    assert next(doctor._strangers()).state == "ok"


def test_limits_of_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cpu.max"
    for text, quota in (("150000 100000\n", 1.5), ("max 100000\n", None), ("?", None)):
        path.write_text(text, encoding="ascii")
        assert doctor.cpu_quota(path) == quota
    assert doctor.cpu_quota(tmp_path / "none") is None
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(doctor, "cpu_quota", lambda _: 2.0)
    assert "OMP_NUM_THREADS=2" in next(doctor._processor()).mend


def test_memory_is_plausible() -> None:
    total = doctor.total_memory()
    assert total is None or 10**8 < total < 10**14


def test_bundle_holds_no_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("USER", "grandmother")
    monkeypatch.setenv("FIRSTWORDS_SHARED", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("SECRET_TOKEN", "swordfish")
    monkeypatch.setattr(platform, "node", lambda: "pc")
    said = (
        f"'{tmp_path}' of grandmother on pc, {Path.home() / 'tapes'}, /home/uncle/x, C:\\Users\\aunt\\y, pcm"
    )
    text = bundle([doctor.Part("disk", "note", said, "mend it")])
    for secret in (
        str(tmp_path),
        "grandmother",
        str(Path.home() / "tapes"),
        "uncle",
        "aunt",
        "swordfish",
        "on pc,",
    ):
        assert secret not in text
    for kept in ("pcm", "OMP_NUM_THREADS=7", "FIRSTWORDS_SHARED=(a path)", "mend it", "torch==", "tapes"):
        assert kept in text
    assert redact("nothing here") == "nothing here"


@pytest.mark.usefixtures("without_strangers")
def test_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    result = CliRunner().invoke(APP, [str(tmp_path), "--bundle", str(tmp_path / "new" / "bundle.txt")])
    assert result.exit_code == 0, result.output
    assert "Nothing is broken" in result.output
    assert "packages:" in (tmp_path / "new" / "bundle.txt").read_text(encoding="utf-8")
    break_import(monkeypatch, "soxr", ImportError("gone"))
    result = CliRunner().invoke(APP, [str(tmp_path)])
    assert result.exit_code == 1
    assert "Broken: soxr" in result.output
    result = CliRunner().invoke(APP, [str(tmp_path / "none")])
    assert getattr(result.exception, "exit_code", None) == 2
