"""Metrics of a run: one JSON object a line, and TensorBoard curves where it is installed.

The JSONL file is the truth. It is appended to and flushed at every line; when a run goes on from a
checkpoint, lines of steps after it are cut off, so an interrupted run leaves the same log as any other
(wall-clock fields apart).
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from firstwords.data.manifest import write_atomically


class MetricsLog:
    """Appends to ``path``, from ``after`` on."""

    def __init__(self, path: Path, *, after: int = 0, curves: Path | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in _lines(path) if _step_of(line) <= after]
        write_atomically(path, "".join(line + "\n" for line in kept))
        self.path = path
        self._file = path.open("a", encoding="utf-8", newline="\n")
        self._curves = _tensorboard(curves, after) if curves is not None else None

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """One line: {"kind": ..., "step": ..., values}."""
        record = {"kind": kind, "step": step} | {k: _plain(v) for k, v in values.items()}
        self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
        self._file.flush()
        if self._curves is not None:
            for name, value in values.items():
                if isinstance(value, int | float) and not isinstance(value, bool):
                    self._curves.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
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
    except (ValueError, KeyError, TypeError):
        return math.inf


def _plain(value: Any) -> Any:
    """JSON knows no NaN: such numbers are written as text."""
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


def _tensorboard(folder: Path, after: int) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter
    return writer(str(folder), purge_step=after + 1)
