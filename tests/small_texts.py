"""Text files and a miniature corpus for trainings of language models."""

from __future__ import annotations

import json
from pathlib import Path


def write(path: Path, sentences: list[str]) -> Path:
    path.write_text("\n".join(sentences) + "\n", encoding="utf-8")
    return path


def corpus(folder: Path, dev: str) -> Path:
    folder.mkdir()
    rows = [("t", "good day", "train"), ("d", dev, "dev"), ("e", "never", "test")]
    records = [{"id": i, "audio": "a.wav", "duration": 1, "text": t, "split": s} for i, t, s in rows]
    write(folder / "manifest.jsonl", [json.dumps(r) for r in records])
    return folder
