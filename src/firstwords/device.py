"""Where and how to compute: device, precision, threads, seeds."""

from __future__ import annotations

import ctypes
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch

from firstwords.cores import available_cores, wished_threads
from firstwords.errors import UsageError

Precision = Literal["auto", "fp32", "bf16"]

_ZEN_5 = 26  # family of the first AMD processors that compute 512 bits at once


@dataclass(frozen=True)
class Compute:
    """The resolved choice and the sentence that explains it to the user."""

    device: torch.device
    dtype: torch.dtype
    reason: str

    @property
    def autocast(self) -> bool:
        return self.dtype is not torch.float32


def choose_device(name: str = "auto") -> torch.device:
    """'auto' -> CUDA where present, else CPU; any other word is torch's own device name."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"'{name}' is no device.", mend="Use auto, cpu, cuda or cuda:1.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "No CUDA device can be used.", mend="Run 'firstwords doctor' to see why, or use --device cpu."
        )
    return device


def cpu_flags() -> frozenset[str]:
    """Instruction sets of this processor, as far as the system tells (Linux and torch)."""
    flags: set[str] = set()
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("flags", "Features")):
                flags.update(line.partition(":")[2].split())
                break
    return frozenset(flags)


def has_native_bf16(device: torch.device) -> bool:
    """True where bfloat16 matrix products run in hardware (on other CPUs they are slower than float32)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return bool(cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16"})


def has_narrow_mkl() -> bool:
    """True where MKL computes float32 products with half of the processor's width: AMD's from Zen 5 on.

    Zen 4 has AVX-512, too, and computes it in halves: MKL loses little or nothing there (LOG.md, 2026-11-23).
    """
    info = Path("/proc/cpuinfo")
    named = info.read_text(encoding="utf-8", errors="replace") if info.exists() else platform.processor()
    family = re.search(r"family\s*:?\s*(\d+)", named, re.IGNORECASE)
    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    whole = "AuthenticAMD" in named and family is not None and int(family[1]) >= _ZEN_5
    return wide and whole and torch.backends.mkl.is_available()


def read_precision(name: str) -> Precision:
    """A user's word -> the precision it names."""
    for known in get_args(Precision):
        if name == known:
            return known
    raise UsageError(f"--precision {name}: no such format.", mend="Use auto, fp32 or bf16.")


def choose_compute(device: str = "auto", precision: Precision = "auto") -> Compute:
    """Device and number format, with the reason in words."""
    place = choose_device(device)
    if precision == "fp32":
        return Compute(place, torch.float32, f"{place.type}, float32 (asked for)")
    native = has_native_bf16(place)
    if precision == "bf16":
        note = (
            "asked for"
            if native
            else "asked for; this processor has no native bfloat16, expect it to be slow"
        )
        return Compute(place, torch.bfloat16, f"{place.type}, bfloat16 ({note})")
    if native:
        return Compute(place, torch.bfloat16, f"{place.type}, bfloat16 (native on this processor)")
    return Compute(place, torch.float32, f"{place.type}, float32 (no native bfloat16 here)")


def set_threads(threads: int | None = None) -> int:
    """Use ``threads`` cores (default: OMP_NUM_THREADS, else all this process may use), keep freed memory.

    How threads wait for work cannot be chosen here any more: OpenMP reads OMP_WAIT_POLICY when torch is
    loaded. The command line sets it before.
    """
    torch.set_num_threads(max(1, threads or wished_threads() or available_cores()))
    keep_freed_memory()
    return torch.get_num_threads()


def keep_machine_code() -> None:
    """Keep the code that oneDNN makes for each shape of a bfloat16 product: a training has some thousand.

    By default a thousand are kept. Read at the first such product; what the user has set stays.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "4096")


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory for the next tensor (glibc; elsewhere nothing is done).

    By default every large tensor is mapped afresh and its pages are zeroed by the kernel one fault at a
    time, which a small model feels (LOG.md, 2026-11-20). ``mallopt`` is called with M_TRIM_THRESHOLD
    and M_MMAP_THRESHOLD; it says whether both were taken.
    """
    trim_threshold, mmap_threshold, keep = -1, -3, 2**30
    libc = _glibc()
    return libc is not None and all(bool(libc.mallopt(k, keep)) for k in (trim_threshold, mmap_threshold))


def release_freed_memory() -> None:
    """Give kept memory back to the system, so that a measurement of what is in use means something."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    known = platform.system() == "Linux" and platform.libc_ver()[0] == "glibc"
    return ctypes.CDLL(None) if known else None


def machine_name() -> str:
    """One line for reports: processor, threads, system."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            x
            for x in info.read_text(encoding="utf-8", errors="replace").splitlines()
            if x.startswith("model name")
        ]
        model = names[0].partition(":")[2].strip() if names else model
    return f"{model}, {torch.get_num_threads()} threads, {platform.system()}, torch {torch.__version__}"
