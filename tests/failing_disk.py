"""A disk that fails at its n-th write: for proving that no writer leaves half a file.

``FailingDisk`` counts everything that changes files below one folder (open for writing, write, flush at the
end, fsync, rename, link, mkdir, chmod, truncate, and the whole-file writers of safetensors) and lets the
chosen one fail, a write after half of its bytes are on the disk. Clean-up (unlink, rmdir) never fails: a disk
that cannot even forget leaves nothing to prove.
"""

from __future__ import annotations

import builtins
import errno as errors
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

WRITING = frozenset("wax")  # "r+" takes no room


class FailingDisk:
    """Lets operation number ``fails_at`` (from 1) below ``root`` fail; 0: none, only count.

    Args:
        for_good: all operations after it fail, too, but renaming, which needs no room (a full disk).
    """

    def __init__(
        self, patch: pytest.MonkeyPatch, root: Path, *, fails_at: int, errno: int, for_good: bool = False
    ) -> None:
        self.root = os.path.realpath(root)
        self.fails_at, self.errno, self.for_good = fails_at, errno, for_good
        self.operations: list[str] = []
        self.failed = ""
        self.handles: set[int] = set()  # opened below root
        self._patch(patch)

    def error(self, path: object) -> OSError:
        return OSError(self.errno, os.strerror(self.errno), str(path))

    def here(self, path: object) -> bool:
        if isinstance(path, int):
            return path in self.handles
        try:
            real = os.path.realpath(os.fsdecode(path))  # type: ignore[arg-type]
        except TypeError:
            return False
        if f"{os.sep}curves{os.sep}" in real:  # TensorBoard's own files, from a thread of its own
            return False
        return real == self.root or real.startswith(self.root + os.sep)

    def due(self, what: str, path: object) -> bool:
        """Count an operation; whether it is to fail."""
        self.operations.append(f"{what} {os.path.relpath(str(path), self.root)}")
        number = len(self.operations)
        due = number == self.fails_at or (self.for_good and 0 < self.fails_at < number)
        if due and not self.failed:
            self.failed = self.operations[-1]
        return due

    def step(self, what: str, path: object) -> None:
        if self.due(what, path):
            raise self.error(path)

    def _patch(self, patch: pytest.MonkeyPatch) -> None:
        real_open, real_os_open, real_fsync = io.open, os.open, os.fsync

        def opened(file: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
            if not WRITING & set(mode) or not self.here(file):
                return real_open(file, mode, *more, **named)
            self.step("open", file)
            stream = real_open(file, mode, *more, **named)
            self.handles.add(stream.fileno())
            return _Stream(stream, self, Path(file), appends="a" in mode)

        def os_opened(path: Any, flags: int, *more: Any, **named: Any) -> int:
            handle = real_os_open(path, flags, *more, **named)
            if self.here(path):
                self.handles.add(handle)
            return handle

        def synced(handle: Any) -> None:
            number = handle if isinstance(handle, int) else handle.fileno()
            place = os.path.realpath(f"/proc/self/fd/{number}")
            if self.here(place):
                self.step("fsync", place)
            real_fsync(handle)

        for owner in (builtins, io):
            patch.setattr(owner, "open", opened)
        patch.setattr(os, "open", os_opened)
        patch.setattr(os, "fsync", synced)
        for name in ("replace", "rename", "link"):
            patch.setattr(os, name, self._two(name, getattr(os, name)))
        for name in ("mkdir", "chmod", "utime", "truncate", "ftruncate"):
            patch.setattr(os, name, self._one(name, getattr(os, name)))
        for name in ("sendfile", "copy_file_range"):  # what shutil copies with
            if hasattr(os, name):
                patch.setattr(os, name, self._one(name, getattr(os, name)))
        patch.setattr(shutil, "_USE_CP_SENDFILE", False, raising=False)
        from firstwords.model import checkpoint

        patch.setattr(checkpoint, "save_file", self._tensors(checkpoint.save_file))

    def _one(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *more: Any, **named: Any) -> Any:
            if self.here(path):
                self.step(name, path)
            return real(path, *more, **named)

        return call

    def _two(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(source: Any, target: Any, *more: Any, **named: Any) -> Any:
            if self.here(target) and not self.for_good:
                self.step(name, target)
            return real(source, target, *more, **named)

        return call

    def _tensors(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def save(tensors: Any, path: Path, *more: Any, **named: Any) -> None:
            if not self.here(path):
                real(tensors, path, *more, **named)
            elif self.due("save_file", path):
                real(tensors, path, *more, **named)
                os.truncate(path, path.stat().st_size // 2)
                raise SafetensorError(f"I/O error: {os.strerror(self.errno)} (os error {self.errno})")
            else:
                real(tensors, path, *more, **named)

        return save


class _Stream:
    """A file whose writes and whose closing count; a failing write leaves half of its bytes."""

    def __init__(self, stream: Any, disk: FailingDisk, path: Path, *, appends: bool) -> None:
        self._stream, self._disk, self._path, self._appends = stream, disk, path, appends

    def write(self, data: Any) -> int:
        if self._disk.due("write", self._path):
            self._stream.write(data[: len(data) // 2])
            self._stream.flush()
            raise self._disk.error(self._path)
        return self._stream.write(data)

    def truncate(self, size: int | None = None) -> int:
        return self._stream.truncate(size)  # clean-up

    def close(self) -> None:
        if self._stream.closed:
            return
        due = self._disk.due("close", self._path)
        self._stream.close()
        if due:
            if not self._appends:  # the buffer of a small file goes to the disk only now
                with io.FileIO(self._path, "rb+") as file:
                    file.truncate(self._path.stat().st_size // 2)
            raise self._disk.error(self._path)

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *fault: object) -> None:
        if fault[0] is None:
            self.close()
        else:
            self._stream.close()

    def __iter__(self) -> Any:
        return iter(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def snapshot(*folders: Path) -> dict[str, bytes]:
    """Path -> content of everything below."""
    files = (path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): path.read_bytes() for path in files}


KINDS = {"full disk": errors.ENOSPC, "broken disk": errors.EIO}
