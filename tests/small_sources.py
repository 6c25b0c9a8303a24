"""Sources to import, and what to compare of folders before and after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def people(speakers: int, each: int) -> dict[str, Any]:
    files: dict[str, Any] = {}
    for s in range(speakers):
        for n in range(each):
            files |= {f"s{s}/{n}.wav": 0.5, f"s{s}/{n}.txt": f"neno {s} {n}"}
    return files


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def record_of(corpus: Path) -> dict[str, Any]:
    return json.loads((corpus / "import.json").read_text(encoding="utf-8"))
