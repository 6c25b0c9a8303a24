"""How much memory there is, and how much a batch takes; without optional packages, on every system.

Where a number cannot be had, None is returned and nothing is capped: running out is survived anyway (the
batch is halved, gradients.py).
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
from pathlib import Path

import torch

from firstwords.device import release_freed_memory

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def free_bytes(device: torch.device) -> int | None:
    """Memory that can still be had, in bytes: of the accelerator, or of the machine and its container."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    limits = [x for x in (_available_in_machine(), _available_in_container()) if x is not None]
    return min(limits) if limits else None


def start_measuring(device: torch.device) -> int | None:
    """Forget earlier peaks -> bytes in use now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return int(torch.cuda.memory_allocated(device))
    release_freed_memory()
    try:
        _CLEAR.write_text("5", encoding="ascii")  # Linux: the peak of the resident memory starts anew
    except OSError:
        return None
    return _from_status("VmRSS")


def peak_bytes(device: torch.device) -> int | None:
    """Highest use since ``start_measuring``, in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return _from_status("VmHWM")


def _from_status(key: str) -> int | None:
    if not _STATUS.exists():
        return None
    for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return None


def _available_in_machine() -> int | None:
    info = Path("/proc/meminfo")
    if info.exists():
        for line in info.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return _available_in_windows()
    try:  # macOS tells how much is built in; half of it is taken as free
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (ValueError, OSError, AttributeError):
        return None


def _available_in_container() -> int | None:
    """What the control group (version 2) of a container still allows."""
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    try:
        most = limit.read_text(encoding="ascii").strip()
        return None if most == "max" else int(most) - int(used.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _available_in_windows() -> int | None:
    class Status(ctypes.Structure):
        _fields_ = (
            ("size", ctypes.c_uint32),
            ("load", ctypes.c_uint32),
            *((name, ctypes.c_uint64) for name in ("total", "free", "a", "b", "c", "d", "e")),
        )

    status = Status()
    status.size = ctypes.sizeof(Status)
    kernel = importlib.import_module("ctypes").windll.kernel32
    return int(status.free) if kernel.GlobalMemoryStatusEx(ctypes.byref(status)) else None
