"""Checkpoints of a run: written whole or not at all, and proved when read.

    RUN/resume/
      step-00001200/    state.safetensors (weights, optimizer, average), state.json (all else, checksums)
      step-00001100/    the last three are kept
      best-00000900/    the weights that were best on dev, in the same form
      identity.json     fingerprints of recipe and corpus: another one is refused
      log.jsonl         metrics; the truth about the run

A folder is written under another name, flushed to the disk and renamed, so no crash leaves half a
checkpoint under a right name. What the disk spoils later, the checksums show: then the one before is used.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from firstwords.errors import CheckpointError, TrainingError, WriteError
from firstwords.files import flush_all, replace_folder, unwritable, write_atomically
from firstwords.model.checkpoint import save_tensors

TENSORS, STATE, IDENTITY = "state.safetensors", "state.json", "identity.json"
_EARLIER = "Run the same 'firstwords train' again: it goes on from the newest checkpoint that is whole."
KEPT = 3


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds: nested dicts and lists of tensors and plain values."""

    step: int
    state: Mapping[str, Any]


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spoiled: list[str] = []  # what could not be read, for the user

    def save(self, step: int, state: Mapping[str, Any]) -> Path:
        """Write a checkpoint and remove all but the newest three."""
        path = self._write(f"step-{step:08d}", step, state)
        for old in self._found()[KEPT:]:
            shutil.rmtree(old, ignore_errors=True)
        return path

    def save_best(self, step: int, state: Mapping[str, Any]) -> Path:
        """Write the checkpoint that later ones must beat."""
        path = self._write(f"best-{step:08d}", step, state)
        for old in self._found("best-*"):
            if old != path:
                shutil.rmtree(old, ignore_errors=True)
        return path

    def newest(self, *, skip: int = 0) -> Checkpoint | None:
        """The newest checkpoint that is whole (after ``skip`` newer ones, if there are so many).

        Spoiled ones on the way are noted in ``spoiled``.
        """
        found = self._found()
        for path in found[min(skip, max(0, len(found) - 1)) :]:
            try:
                return read_checkpoint(path)
            except CheckpointError as error:
                self.spoiled.append(error.what)
        if self.spoiled:
            raise TrainingError(
                f"No checkpoint in '{self.folder}' can be read: {'; '.join(self.spoiled)}",
                mend="Give another --to folder to start afresh.",
            )
        return None

    def best(self) -> Checkpoint | None:
        """The best checkpoint, or None where there is none or it is spoiled."""
        for path in self._found("best-*"):
            try:
                return read_checkpoint(path)
            except CheckpointError as error:
                self.spoiled.append(error.what)
        return None

    def clear(self) -> None:
        """Remove what an interrupted write left behind."""
        for path in self.folder.glob("*.writing") if self.folder.is_dir() else ():
            shutil.rmtree(path, ignore_errors=True)

    def _found(self, pattern: str = "step-*") -> list[Path]:
        found = self.folder.glob(pattern) if self.folder.is_dir() else ()
        return sorted((p for p in found if p.suffix != ".writing"), reverse=True)

    def _write(self, name: str, step: int, state: Mapping[str, Any]) -> Path:
        aside, path = self.folder / f"{name}.writing", self.folder / name
        shutil.rmtree(aside, ignore_errors=True)
        tensors: dict[str, Tensor] = {}
        record = _pack(state, "", tensors)
        try:
            aside.mkdir(parents=True)
            save_tensors(aside / TENSORS, tensors)
            body = json.dumps({"step": step, "tensors": _digest(aside / TENSORS), "state": record})
            envelope = json.dumps({"sha256": hashlib.sha256(body.encode()).hexdigest(), "body": body})
            write_atomically(aside / STATE, envelope)
            flush_all(aside)
            replace_folder(aside, path)
        except (OSError, WriteError) as error:
            shutil.rmtree(aside, ignore_errors=True)
            raise unwritable(path, error) from None
        return path


def read_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint folder, proved against its checksums."""
    try:
        content = _proved(path / STATE)
        if _digest(path / TENSORS) != content["tensors"]:
            raise CheckpointError(f"'{path / TENSORS}' was changed or is torn.", mend=_EARLIER)
        tensors = load_file(path / TENSORS)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"'{path}' cannot be read: {error}.", mend=_EARLIER) from None
    return Checkpoint(int(content["step"]), cast("Mapping[str, Any]", _unpack(content["state"], tensors)))


def _proved(path: Path) -> dict[str, Any]:
    """What ``state.json`` holds, if its checksum says that this is what was written."""
    try:
        envelope = json.loads(path.read_text(encoding="utf-8"))
        body = str(envelope["body"])
        whole = hashlib.sha256(body.encode()).hexdigest() == envelope["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError):
        body, whole = "", False
    if not whole:
        raise CheckpointError(f"'{path}' was changed or is torn.", mend=_EARLIER)
    return cast("dict[str, Any]", json.loads(body))


def check_identity(
    folder: Path, identity: Mapping[str, str | tuple[str, ...]], *, whole: bool = False
) -> None:
    """Write down what a run belongs to, or refuse to go on with another recipe or corpus.

    Args:
        identity: name of a thing (recipe, corpus, ...) -> its fingerprint, or all that it may have: earlier
            versions knew fewer settings. The first is written down.
        whole: things that were written down and are not in ``identity`` count as others, too.
    """
    path = folder / IDENTITY
    known_as = {name: (value,) if isinstance(value, str) else value for name, value in identity.items()}
    if not path.is_file():
        first = {name: values[0] for name, values in known_as.items()}
        write_atomically(path, json.dumps(first, indent=1) + "\n")
        return
    try:
        known: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        known = None
    if not isinstance(known, dict):
        raise TrainingError(
            f"'{path}' cannot be read.", mend="Give another --to folder to start afresh."
        ) from None
    old = cast("dict[str, Any]", known)
    changed = [name for name, values in known_as.items() if old.get(name) not in values]
    changed += [name for name in old if whole and name not in known_as]
    if changed:
        raise TrainingError(
            f"'{folder.parent}' was begun with another {' and another '.join(changed)}.",
            mend="Going on would mix two experiments. Give another --to folder, "
            f"or bring the old {' and '.join(changed)} back.",
        )


def fingerprint(text: str) -> str:
    """SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def _pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Nested value -> JSON; tensors go to ``tensors`` under the path where they stood."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": name}
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return {"dict": [[key, _pack(item, f"{name}/{key}", tensors)] for key, item in items]}
    if isinstance(value, list | tuple):
        items = cast("list[Any]", value)
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_pack(item, f"{name}/{n}", tensors) for n, item in enumerate(items)]}
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": value}
    raise TypeError(f"a checkpoint cannot hold {name}: {type(value).__name__}")


def _unpack(record: Any, tensors: Mapping[str, Tensor]) -> Any:
    ((kind, content),) = cast("dict[str, Any]", record).items()
    match kind:
        case "tensor":
            return tensors[content]
        case "dict":
            return {key: _unpack(item, tensors) for key, item in content}
        case "list":
            return [_unpack(item, tensors) for item in content]
        case "tuple":
            return tuple(_unpack(item, tensors) for item in content)
        case _:
            return content


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
