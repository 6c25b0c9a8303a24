"""What a teacher said about single utterances, on disk: read again in the next epoch, run or resumed run.

    FOLDER/<key>-<owner>.targets     records, one after the other; each process appends to a file of its own

A record is a header (mark, sizes, checksum), a name and a safetensors file in memory. A record that a kill
cut off is found by its checksum and cut away. ``key`` names everything the targets depend on; files with
other keys are left alone.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

SUFFIX = ".targets"
_MARK = b"FWT1"
_HEADER = struct.Struct("<4sIQI")  # mark, bytes of the name, bytes of the tensors, checksum of both


class _Place(NamedTuple):
    file: Path
    start: int
    size: int
    checksum: int


class TargetCache:
    """Name -> tensors, as long as there is room.

    Args:
        folder: made when the first target is kept.
        key: of all that the targets depend on.
        owner: unlike that of every other process that writes into the folder.
        limit_bytes: of this process's file; 0 keeps nothing.
    """

    def __init__(self, folder: Path, key: str, owner: str, limit_bytes: float) -> None:
        self.path = folder / f"{key}-{owner}{SUFFIX}"
        self.limit_bytes = limit_bytes
        self.problem = ""  # why nothing more is kept, in words
        self._places: dict[str, _Place] = {}
        self._end = 0
        if folder.is_dir():
            for path in sorted(folder.glob(f"{key}-*{SUFFIX}")):
                end = self._index(path)
                if path == self.path:
                    self._end = end

    def __len__(self) -> int:
        return len(self._places)

    def get(self, name: str) -> dict[str, Tensor] | None:
        """The tensors of that name, if they are kept and whole."""
        place = self._places.get(name)
        if place is None:
            return None
        try:
            with place.file.open("rb") as file:
                file.seek(place.start)
                data = file.read(place.size)
            if len(data) == place.size and zlib.crc32(data, zlib.crc32(name.encode())) == place.checksum:
                return load(data)
        except (OSError, SafetensorError):
            pass
        del self._places[name]  # spoiled: it is made anew
        return None

    def put(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep tensors, if there is room; a disk that fails ends the keeping, never the training."""
        if name in self._places or self.problem:
            return
        data, title = save({key: value.contiguous() for key, value in tensors.items()}), name.encode()
        size = _HEADER.size + len(title) + len(data)
        if self._end + size > self.limit_bytes:
            return
        checksum = zlib.crc32(data, zlib.crc32(title))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("r+b" if self.path.exists() else "wb") as file:
                file.truncate(self._end)
                file.seek(self._end)
                file.write(_HEADER.pack(_MARK, len(title), len(data), checksum) + title + data)
        except OSError as error:
            self.problem = f"What the teacher says is no longer kept: '{self.path}': {error.strerror}."
            return
        self._places[name] = _Place(self.path, self._end + size - len(data), len(data), checksum)
        self._end += size

    def _index(self, path: Path) -> int:
        """Note all whole records of a file -> where they end."""
        start = 0
        try:
            with path.open("rb") as file:
                whole = path.stat().st_size
                while start + _HEADER.size <= whole:
                    file.seek(start)
                    mark, title, size, checksum = _HEADER.unpack(file.read(_HEADER.size))
                    end = start + _HEADER.size + title + size
                    if mark != _MARK or end > whole:
                        break
                    name = file.read(title).decode(errors="replace")
                    self._places[name] = _Place(path, end - size, size, checksum)
                    start = end
        except OSError:
            pass  # what cannot be read is made anew
        return start
