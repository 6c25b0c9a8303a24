"""``compression.json``: the steps that made a small model of a large one, in order.

    {"format": 1, "steps": [{"step": "quantize", "settings": {...}, "date": "2026-11-21", "from_hash": ...}]}

``from_hash`` is the SHA-256 of the model.safetensors that the step began with, so that the chain can be
checked against the folders that are still there.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, ValidationError

from firstwords.config import Config
from firstwords.errors import CheckpointError
from firstwords.files import write_atomically
from firstwords.model.checkpoint import WEIGHTS

FILE = "compression.json"


class Step(Config):
    """One step: its name, what was asked for, the day, and the weights it began with."""

    model_config = ConfigDict(strict=True)

    step: str
    settings: dict[str, Any]
    date: str
    from_hash: str


class History(Config):
    """All steps since the model was trained."""

    model_config = ConfigDict(strict=True)

    format: Literal[1] = 1
    steps: tuple[Step, ...] = ()


def read_history(folder: Path) -> History:
    """Of a model folder; empty where it was never compressed."""
    path = folder / FILE
    if not path.is_file():
        return History()
    try:
        return History.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"'{path}' is no history of compression: {reason}.",
            mend="Delete it: nothing but the record of earlier steps is lost.",
        ) from None


def note_step(new: Path, source: Path, step: str, settings: dict[str, Any]) -> None:
    """Write the history of ``source`` and this step into ``new``."""
    with (source / WEIGHTS).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    today = datetime.now(UTC).date().isoformat()
    done = Step(step=step, settings=settings, date=today, from_hash=digest)
    history = read_history(source)
    history = history.model_copy(update={"steps": (*history.steps, done)})
    write_atomically(new / FILE, json.dumps(history.model_dump(mode="json"), indent=1, ensure_ascii=False))
