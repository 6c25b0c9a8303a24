"""Metrics of a run: one JSON object a line, and TensorBoard curves where it is installed.

The JSONL file is the truth. It is appended to and flushed at every line; when a run goes on from a
checkpoint, lines of steps after it are cut off, so an interrupted run leaves the same log as any other
(wall-clock fields apart).
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import importlib.util
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from firstwords.files import unwritable, write_atomically


class MetricsLog:
    """Appends to ``path``, from ``after`` on."""

    def __init__(self, path: Path, *, after: int = 0, curves: Path | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in _lines(path) if _step_of(line) <= after]
        write_atomically(path, "".join(line + "\n" for line in kept))
        self.path = path
        try:
            self._curves = _tensorboard(curves, after) if curves is not None else None
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise unwritable(path, error) from None

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """One line: {"kind": ..., "step": ..., values}."""
        record = {"kind": kind, "step": step} | {k: _plain(v) for k, v in values.items()}
        line = (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
        whole = self._file.tell()
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(whole)  # half a line would spoil the next one
            raise unwritable(self.path, error) from None
        if self._curves is not None:
            for name, value in values.items():
                if isinstance(value, int | float) and not isinstance(value, bool):
                    try:
                        self._curves.add_scalar(f"{kind}/{name}", value, step)
                    except OSError as error:
                        raise unwritable(self.path.with_name("curves"), error) from None

    def sync(self) -> None:
        """Bring all lines to the disk: a checkpoint outlives a power cut, and its log must with it."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise unwritable(self.path, error) from None

    def close(self) -> None:
        """Close the file."""
        try:
            self._file.close()
        except OSError as error:  # network drives refuse bytes only now
            raise unwritable(self.path, error) from None
        if self._curves is not None:
            self._curves.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a metrics log."""
    return [json.loads(line) for line in _lines(path) if math.isfinite(_step_of(line))]


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1] if path.is_file() else []


def _step_of(line: str) -> float:
    """The step of a line; infinite for half a line, which is never kept."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return math.inf


def _plain(value: Any) -> Any:
    """JSON knows no NaN: such numbers are written as text."""
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


def _tensorboard(folder: Path, after: int) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter
    return writer(str(folder), purge_step=after + 1)
