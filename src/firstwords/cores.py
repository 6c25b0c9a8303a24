"""Cores of the processor: how many this process may use, and how many the user wishes to be used."""

from __future__ import annotations

import os

_MOST = 1024  # threads that anybody can mean


def available_cores() -> int:
    """Cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else (os.cpu_count() or 1)


def wished_threads() -> int | None:
    """The threads that OMP_NUM_THREADS asks for; None where it is not set or is no number.

    OpenMP allows a list, a number for each level of nesting (specification 5.2, section 21.1.2): the first is
    that of the outermost.
    """
    wish = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(wish) if wish.isascii() and wish.isdigit() and 0 < int(wish) < _MOST else None
