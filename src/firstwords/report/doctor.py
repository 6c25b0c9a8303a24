"""This computer -> what firstwords can do on it, and the fix for everything it cannot.

Nothing here may fail where something is broken: that is when it is asked. So torch and every optional part
are imported inside a check, and an import that can take the whole process down is tried in a child.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from firstwords import __version__
from firstwords.cores import available_cores, wished_threads

State = Literal["ok", "note", "missing", "broken"]

_GIGA = 1e9
_LEAST_MEMORY = 3.0  # GB; training the small models stays below
_LEAST_DISK = 5.0  # GB
_CORE = ("numpy", "soundfile", "soxr", "pydantic", "onnxruntime", "typer", "rich")
_TRAIN = ("jinja2", "regex", "kaldialign", "safetensors", "sentencepiece", "jaxtyping", "defusedxml")
# An import of a broken package raises these; anything else is worth a traceback.
_FAULTS = (ImportError, OSError, RuntimeError, AttributeError, ValueError)


@dataclass(frozen=True)
class Part:
    """One thing that was looked at: 'missing' is optional, 'broken' stops something that should work."""

    name: str
    state: State
    says: str
    mend: str = ""


def examine(folder: Path) -> list[Part]:
    """Look at everything; ``folder`` is where data and models would lie."""
    return [
        *_program(),
        *_processor(),
        *_memory(),
        *_disk(folder),
        *_core(),
        *_torch(),
        *_training_parts(),
        *_audio(),
        *_optional(),
        *_strangers(),
        *_terminal(),
    ]


def _program() -> Iterator[Part]:
    yield Part("firstwords", "ok", f"{__version__} on {platform.system()} {platform.release()}")
    here = ".".join(str(x) for x in sys.version_info[:3])
    if sys.maxsize < 2**32:
        yield Part("Python", "broken", f"{here}, 32 bit", "Install the 64-bit Python: torch has no other.")
    else:
        yield Part("Python", "ok", f"{here}, {platform.machine()}")


def _processor() -> Iterator[Part]:
    usable, wished = available_cores(), wished_threads()
    says = f"{_processor_name()}, {usable} of {os.cpu_count() or usable} cores usable"
    asked = os.environ.get("OMP_NUM_THREADS", "")
    quota = cpu_quota(Path("/sys/fs/cgroup/cpu.max"))
    if quota is not None and quota < usable - 0.5 and not asked:
        count = max(1, round(quota))
        yield Part(
            "processor",
            "note",
            f"{says}; this container may use the time of {quota:.1f}",
            f"Set OMP_NUM_THREADS={count}: more threads than that wait for each other.",
        )
    elif wished is not None and wished > usable:
        yield Part(
            "processor",
            "note",
            f"{says}; OMP_NUM_THREADS={asked} asks for more",
            f"Set OMP_NUM_THREADS={usable} or remove it.",
        )
    else:
        yield Part("processor", "ok", says + (f"; OMP_NUM_THREADS={asked}" if asked else ""))


def _processor_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cpu_quota(path: Path) -> float | None:
    """cgroup v2 file 'cpu.max' -> cores' worth of time; None where there is no limit."""
    try:
        quota, period = path.read_text(encoding="ascii").split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _memory() -> Iterator[Part]:
    total = total_memory()
    if total is None:
        yield Part("memory", "note", "its size cannot be read on this system")
        return
    says = f"{total / _GIGA:.1f} GB"
    if total < _LEAST_MEMORY * _GIGA:
        yield Part("memory", "note", says, "Little for training: use --size nano, or another computer.")
    else:
        yield Part("memory", "ok", says)


def total_memory() -> int | None:
    """Bytes of memory this process may use; a container's limit counts."""
    sizes: list[int] = []
    try:
        sizes.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        if (windows := _windows_memory()) is not None:
            sizes.append(windows)
    with contextlib.suppress(OSError, ValueError):  # no cgroup, or the word 'max'
        sizes.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return min(sizes) if sizes else None


def _windows_memory() -> int | None:
    if sys.platform != "win32":
        return None
    import ctypes

    kilobytes = ctypes.c_ulonglong()
    found = ctypes.windll.kernel32.GetPhysicallyInstalledSystemMemory(ctypes.byref(kilobytes))
    return kilobytes.value * 1024 if found else None


def _disk(folder: Path) -> Iterator[Part]:
    for name, place in (("disk", folder), ("temporary files", Path(tempfile.gettempdir()))):
        try:
            free = shutil.disk_usage(place).free / _GIGA
        except OSError as error:
            yield Part(name, "broken", f"'{place}' cannot be used: {error}", "Give another folder.")
            continue
        says = f"{free:.1f} GB free at '{place}'"
        if not os.access(place, os.W_OK):
            yield Part(name, "note", f"'{place}' cannot be written", "Work in a folder of your own.")
        elif free < (_LEAST_DISK if name == "disk" else 0.5):
            yield Part(name, "note", says, "Free some space: checkpoints are written beside the old ones.")
        else:
            yield Part(name, "ok", says)


def _core() -> Iterator[Part]:
    faults = [(name, fault) for name in _CORE if (fault := _fault_of(name)) is not None]
    for name, fault in faults:
        yield Part(name, "broken", fault, f"pip install --force-reinstall {name}")
    if not faults:
        yield Part("core parts", "ok", ", ".join(f"{n} {_version(n)}" for n in _CORE))


def _fault_of(name: str) -> str | None:
    """Why a package cannot be imported, in one line; None when it can."""
    try:
        importlib.import_module(name)
    except _FAULTS as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _torch() -> Iterator[Part]:
    if _version("torch") is None:
        yield Part(
            "torch",
            "missing",
            "not installed: exported bundles can be used, training cannot",
            'pip install "firstwords[train]"',
        )
        return
    fault = _fault_of("torch")
    if fault is not None:
        mend = "pip install --force-reinstall torch"
        if sys.platform == "win32":
            mend += "; and install the Microsoft Visual C++ Redistributable (x64)"
        yield Part("torch", "broken", fault, mend)
        return
    import torch

    from firstwords.device import choose_compute

    says = f"{torch.__version__}, {torch.get_num_threads()} threads"
    if tuple(int(x) for x in torch.__version__.split("+")[0].split(".")[:2]) < (2, 11):
        yield Part("torch", "note", f"{says}: older than what is tested", 'pip install -U "torch>=2.11,<3"')
    elif (failed := _torch_fails(torch)) is not None:
        yield Part("torch", "broken", f"{says}: {failed}", "pip install --force-reinstall torch")
    else:
        yield Part("torch", "ok", says)
    yield Part("device and precision", "ok", choose_compute().reason)
    yield _gpu(torch)


def _torch_fails(torch: Any) -> str | None:
    """A convolution, its gradient and a CTC loss: what every model here does."""
    try:
        sound = torch.ones(1, 4, 16, requires_grad=True)
        frames = torch.nn.functional.conv1d(sound, torch.ones(5, 4, 3) / 12).permute(2, 0, 1).log_softmax(-1)
        one = torch.tensor([1])
        loss = torch.nn.functional.ctc_loss(frames, one.view(1, 1), torch.tensor([14]), one)
        loss.backward()
    except _FAULTS as error:
        return f"{type(error).__name__}: {error}"
    return None if bool(torch.isfinite(sound.grad).all()) else "a gradient is not finite"


def _gpu(torch: Any) -> Part:
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / _GIGA
        return Part("GPU", "ok", f"{torch.cuda.get_device_name(0)}, {memory:.0f} GB")
    if getattr(torch.backends, "mps", None) is not None and torch.backends.mps.is_available():
        return Part("GPU", "note", "Apple GPU: torch has no CTC loss there, so the processor is used")
    present = shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()
    if not present:
        return Part("GPU", "missing", "none found: the processor is used, which is enough for small models")
    if torch.version.cuda is None and getattr(torch.version, "hip", None) is None:
        return Part(
            "GPU",
            "note",
            "there is one, but this torch is built for the processor alone",
            "Install the CUDA build of torch (README: TORCH and TORCH_INDEX say how and what it weighs).",
        )
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in {"", "-1"}:
        return Part("GPU", "note", "hidden by CUDA_VISIBLE_DEVICES", "Unset CUDA_VISIBLE_DEVICES.")
    return Part(
        "GPU",
        "broken",
        f"there is one, but torch (CUDA {torch.version.cuda}) cannot use it",
        "Update the NVIDIA driver, or install a torch built for an older CUDA.",
    )


def _training_parts() -> Iterator[Part]:
    if _version("torch") is None:
        return
    faults = {name: fault for name in _TRAIN if (fault := _fault_of(name)) is not None}
    if faults:
        says = "; ".join(f"{name}: {fault}" for name, fault in faults.items())
        yield Part("training parts", "broken", says, 'pip install --force-reinstall "firstwords[train]"')
    else:
        yield Part("training parts", "ok", ", ".join(f"{n} {_version(n)}" for n in _TRAIN))


def _audio() -> Iterator[Part]:
    if _fault_of("soundfile") is None and _fault_of("numpy") is None:
        yield _sound_library()
    program = shutil.which("ffmpeg")
    if program is None:
        yield Part(
            "ffmpeg",
            "missing",
            "not found: m4a, mp4 and webm cannot be read; wav, flac, ogg, opus and mp3 can",
            "Install ffmpeg with your system's package manager (apt, brew, winget), and open a new terminal.",
        )
        return
    first = _first_line([program, "-hide_banner", "-version"])
    if first is None:
        yield Part("ffmpeg", "broken", f"'{program}' does not run", "Install ffmpeg again.")
    elif shutil.which("ffprobe") is None:
        yield Part(
            "ffmpeg", "broken", "ffprobe, which comes with it, is not found", "Install the whole ffmpeg."
        )
    else:
        yield Part("ffmpeg", "ok", " ".join(first.split()[:3]))


def _sound_library() -> Part:
    """Which formats libsndfile knows, and a clip written and read back."""
    import numpy as np
    import soundfile

    version = f"libsndfile {getattr(soundfile, '__libsndfile_version__', '?')}"
    known = set(soundfile.available_formats())
    missing = [name for name in ("WAV", "FLAC", "OGG", "MP3") if name not in known]
    if "OGG" in known and "OPUS" not in soundfile.available_subtypes("OGG"):
        missing.append("OPUS")
    if missing:
        return Part(
            "audio files",
            "broken",
            f"{version} is too old for {', '.join(missing)}",
            "pip install --force-reinstall soundfile (its wheel brings libsndfile 1.2).",
        )
    clip = np.linspace(-0.5, 0.5, 800, dtype=np.float32)
    box = io.BytesIO()
    try:
        soundfile.write(box, clip, 16000, format="FLAC")
        box.seek(0)
        back, rate = soundfile.read(box, dtype="float32")
    except _FAULTS as error:
        return Part("audio files", "broken", f"{version}: {error}", "pip install --force-reinstall soundfile")
    if rate != 16000 or len(back) != 800 or float(np.abs(back - clip).max()) > 1e-4:
        return Part("audio files", "broken", f"{version} changes what it writes", "pip install -U soundfile")
    return Part("audio files", "ok", f"{version}: wav, flac, ogg, opus, mp3")


def _first_line(command: list[str], *, seconds: float = 20) -> str | None:
    """First line a program prints; None when it does not run or fails."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    if done.returncode != 0:
        return None
    return done.stdout.decode("utf-8", errors="replace").partition("\n")[0].strip()


def _optional() -> Iterator[Part]:
    for name, use, extra in (
        ("tensorboard", "curves in TensorBoard beside log.jsonl", "tensorboard"),
        ("lhotse", "exchange of corpora with lhotse", "lhotse"),
        ("sounddevice", "a microphone for 'firstwords transcribe --stream'", "microphone"),
        ("onnx", "'firstwords export'; transcribing a bundle needs it not", "export"),
        ("transformers", "language models that choose among readings (--rescore)", "llm"),
        ("espeakng-loader", "the synthetic voices of 'firstwords quickstart' (GPL-3.0)", "quickstart"),
    ):
        version = _version(name)
        if version is None:
            yield Part(name, "missing", f"optional: {use}", f'pip install "firstwords[{extra}]"')
        else:
            yield Part(name, "ok", f"{version}: {use}")


def _strangers() -> Iterator[Part]:
    """Packages that firstwords never imports, but that break others beside it when they do not fit torch."""
    for name in ("torchaudio", "torchcodec"):
        version = _version(name)
        if version is None:
            continue
        if _first_line([sys.executable, "-c", f"import {name}; print({name}.__name__)"], seconds=120) == name:
            yield Part(name, "ok", f"{version}: not used by firstwords")
        else:
            yield Part(
                name,
                "note",
                f"{version} does not load beside torch {_version('torch')}; firstwords never uses it, but "
                "lhotse and others stumble over it",
                f"pip uninstall {name}, or install the version made for your torch.",
            )


def _terminal() -> Iterator[Part]:
    encoding = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "")
    if encoding == "utf8":
        yield Part("terminal", "ok", "UTF-8")
    else:
        mend = "Set PYTHONUTF8=1 and use a terminal with UTF-8 (on Windows: Windows Terminal)."
        yield Part(
            "terminal", "note", f"encoding {encoding or 'unknown'}: many letters cannot be shown", mend
        )
