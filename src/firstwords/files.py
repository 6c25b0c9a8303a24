"""Files on disk: written whole or not at all.

    write_atomically(path, data)   one file
    written_aside(path)            one file that another library writes
    staged(folder)                 files that belong together: all are replaced, or none
    replace_folder(new, path)      a folder made beside the one it replaces
    claimed(folder)                nobody else works there meanwhile

After any fault (disk full, disk broken, no rights) what was there before is there still, nothing half
written stands under a final name, nothing is left lying about, and the error is a WriteError. What a killed
process leaves behind has the suffix .writing and is taken over by the next write.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import platform
import shutil
import sys
from collections.abc import Generator, Sequence
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from firstwords.errors import WriteError

WRITING = ".writing"
_OLD = ".old" + WRITING
_LONGEST_NAME = 255  # bytes, of every common file system
_IN_USE = ".firstwords-in-use" + WRITING
_HELD = 1 << 30  # the byte that is locked: behind all text, which Windows could not read otherwise

# What the disk or the rights refuse is no fault of ours: error number -> the next step.
_RIGHTS = "Check the path and your rights to it, then run the same command again."
_SPACE = "Free some space there, then run the same command again."
SURROUNDINGS = {
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR), _RIGHTS),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP), _RIGHTS),
    **dict.fromkeys((errno.ENOSPC, errno.EFBIG, errno.EDQUOT), _SPACE),
    errno.EIO: "The disk could not be read or written: check it, or copy the files to another one.",
    errno.EMFILE: "Too many files are open: raise the limit (ulimit -n), or ask for fewer workers.",
}


def unwritable(path: Path, error: Exception, *, mend: str = "") -> WriteError:
    """The reason why a file or folder could not be written, with the next step."""
    if isinstance(error, WriteError):
        return WriteError(error.what, mend=mend or error.mend)
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    number = error.errno if isinstance(error, OSError) else None
    return WriteError(
        f"'{path}' cannot be written: {reason}.", mend=mend or SURROUNDINGS.get(number or 0, _RIGHTS)
    )


def write_atomically(path: Path, data: str | bytes | memoryview) -> None:
    """Write text (as UTF-8) or bytes beside ``path``, flush them to the disk, rename."""
    content = data.encode() if isinstance(data, str) else data
    with written_aside(path) as new, new.open("wb") as file:
        file.write(content)


@contextlib.contextmanager
def written_aside(path: Path) -> Generator[Path]:
    """Where to write the file that shall appear as ``path`` when the block ends without an error."""
    new = _aside(path)
    made = _missing(path.parent)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield new
        _flush(new)
        new.replace(path)
    except BaseException as error:
        _discard(new)
        _unmake(made)
        if isinstance(error, OSError):
            raise unwritable(path, error) from None
        raise


@contextlib.contextmanager
def staged(
    folder: Path, *, last: Sequence[str] = (), gone: Sequence[str] = (), name: str = "staged"
) -> Generator[Path]:
    """An empty folder; when the block ends, its files take the places of the same names in ``folder``.

    Args:
        last: names of the files that are put in their places after all others, in this order: those whose
            presence says that the rest is there.
        gone: names of files in ``folder`` that are to disappear with it.
        name: of what is written, where several processes may write different things into one folder.
    """
    new = _aside(folder / name)
    made = _missing(folder)
    try:
        _discard(new)
        new.mkdir(parents=True)
        yield new
        order = {name: place for place, name in enumerate(last, start=1)}
        files = (p for p in sorted(new.rglob("*")) if p.is_file())
        files = sorted(files, key=lambda p: order.get(p.relative_to(new).as_posix(), 0))
        _put_in_place(new, folder, files, [folder / name for name in gone])
        _discard(new)
    except BaseException as error:
        _discard(new)
        _unmake(made)
        if isinstance(error, OSError):
            raise unwritable(folder, error) from None
        raise


def _put_in_place(new: Path, folder: Path, files: Sequence[Path], gone: Sequence[Path]) -> None:
    """Rename file by file; when one fails, those before it are what they were."""
    made: list[Path] = []
    done: list[tuple[Path, Path | None]] = []  # place, where its old content is
    try:
        for file in files:
            place = folder / file.relative_to(new)
            made = [*_missing(place.parent), *made]
            place.parent.mkdir(parents=True, exist_ok=True)
            old = new / f"{len(done)}{_OLD}" if place.exists() else None
            done.append((place, old))
            if old is not None:
                _keep(place, old)
            file.replace(place)
        for place in gone:
            if place.exists():
                done.append((place, old := new / f"{len(done)}{_OLD}"))
                place.replace(old)
    except BaseException:
        for place, old in reversed(done):
            with contextlib.suppress(OSError):
                if old is None:
                    place.unlink(missing_ok=True)
                elif old.exists():
                    old.replace(place)
        _unmake(made)
        raise


def _keep(place: Path, old: Path) -> None:
    """Another name for what a file holds now; where the file system knows no links, the file itself."""
    try:
        os.link(place, old)
    except OSError:
        place.replace(old)


def replace_folder(new: Path, path: Path) -> None:
    """Rename the finished folder ``new`` to ``path``; what stood there before goes only when that is done."""
    old = path.with_name(path.name + _OLD)
    try:
        if path.exists():
            _discard(old)  # of a process that was killed after its work was done
            path.replace(old)
        new.replace(path)
        _flush_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            if old.exists():
                _discard(path)
                old.replace(path)
            elif not new.exists():
                _discard(path)
        _discard(new)
        if isinstance(error, OSError):
            raise unwritable(path, error) from None
        raise
    _discard(old)


@contextlib.contextmanager
def claimed(folder: Path) -> Generator[None]:
    """No other process claims ``folder`` while the block lasts; where one does, WriteError says which.

    The system lets go when a process ends, however it ends. Where nothing can be written, or the file system
    knows no locks, the block goes on: what writes there says what is wrong.
    """
    path, made = folder / _IN_USE, _missing(folder)
    with contextlib.ExitStack() as last:
        last.callback(_unmake, made)
        file: BinaryIO | None = None
        ours = True
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            file = path.open("ab+")
            last.callback(_close, file)
            ours = _held(file) and os.path.samestat(os.fstat(file.fileno()), path.stat())
        if file is not None and not ours:
            file.seek(0)
            who = file.read(200).decode(errors="replace") or "another process works there"
            raise WriteError(
                f"'{folder}' is in use: {who}.",
                mend="Wait until that is done, or stop it where it runs (Ctrl-C). Or give another folder.",
            )
        with contextlib.suppress(OSError):  # the disk may be full
            if file is not None:
                file.truncate(0)
                since = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
                file.write(f"process {os.getpid()} on {platform.node()} works there since {since}".encode())
                file.flush()
        try:
            yield
        finally:
            if file is not None and sys.platform == "win32":
                _close(file)  # an open file cannot be removed there; elsewhere it goes while it is held
            _discard(path)


def _close(file: BinaryIO) -> None:
    with contextlib.suppress(OSError):  # what was in it is of no use any longer
        file.close()


def _held(file: BinaryIO) -> bool:
    """Lock a file against other processes; False: another one has. OSError: no locks are known here."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(_HELD)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _HELD)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            return False
        raise
    return True


def flush_all(folder: Path) -> None:
    """Make the files of a folder, and their names, last: their bytes are on the disk when this returns."""
    for file in folder.iterdir():
        if file.is_file():
            _flush(file)
    _flush_folder(folder)


def _aside(path: Path) -> Path:
    name = path.name + WRITING
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32] + WRITING
    return path.with_name(name)


def _flush(path: Path) -> None:
    # Windows flushes only what is open for writing; elsewhere a file copied with its rights may be read-only
    with path.open("rb+" if os.name == "nt" else "rb") as file:
        os.fsync(file.fileno())


def _flush_folder(path: Path) -> None:
    """Windows has no such call and needs none."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _discard(path: Path) -> None:
    """Remove a file or folder, if it is there and can be removed."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _missing(folder: Path) -> list[Path]:
    """The folders that making ``folder`` will make, the innermost first."""
    return [p for p in (folder, *folder.parents) if not p.exists()]


def _unmake(folders: Sequence[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):  # another one put something into it
            folder.rmdir()


def readable_size(size: float) -> str:
    """Bytes -> "9.66 MB": three digits and the unit, powers of ten."""
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
