"""Feed mutated and arbitrary bytes to every reader for a while; anything but a result or our own error fails.

    python benchmarks/fuzz_readers.py --minutes 20 [--only NAME] [--seed 1] [--out runs/fuzz]
    python benchmarks/fuzz_readers.py --replay runs/fuzz/NAME-0001.bin

The processor time is shared evenly; each reader runs in a process of its own, so that even a crash in
compiled code is seen and its input kept. Prints a table and exits with 1 if anything failed; each failure
lies below --out, as the bytes that were read and the traceback.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import fuzzed_corpora  # pyright: ignore[reportMissingImports]
import fuzzed_models  # pyright: ignore[reportMissingImports]
from fuzzing import Reader, apply, random_edits, try_one  # pyright: ignore[reportMissingImports]

READERS = (*fuzzed_corpora.READERS, *fuzzed_models.READERS)
BY_NAME = {reader.name: reader for reader in READERS}

ROOM = 2 << 30  # bytes of address space that a reader may take beyond what its process has
CURRENT = "current.bin"  # what is being read
QUIET = 600.0  # seconds on the wall
KEPT = 20  # failures of one reader that are written down


def fuzz(name: str, seconds: float, seed: int, out: str, scratch: str) -> None:
    """One reader for ``seconds`` of processor time; leaves NAME.json in ``out``."""
    reader, place = BY_NAME[name], Path(out)
    generator = random.Random(f"{seed}/{name}")
    folder, current = Path(tempfile.mkdtemp(dir=scratch)), Path(scratch) / CURRENT
    facts: dict[str, Any] = {"runs": 0, "refused": 0, "failures": 0, "slowest": 0.0, "megabytes": 0.0}
    seen: set[str] = set()
    try:
        reader.prepare(folder)
        seeds = reader.seeds()
        for data in seeds:
            try_one(reader, data, folder)  # libraries are loaded now, and count for nobody
        _limit_memory()
        began = time.process_time()
        while (spent := time.process_time() - began) < seconds:
            arbitrary = generator.random() < 0.05
            data = (
                generator.randbytes(generator.randrange(3000))
                if arbitrary
                else apply(generator.choice(seeds), random_edits(generator), seeds)
            )
            current.write_bytes(data)
            tried = try_one(reader, data, folder)
            facts["runs"] += 1
            facts["refused"] += tried.refused
            facts["slowest"] = max(facts["slowest"], tried.seconds)
            facts["megabytes"] = max(facts["megabytes"], tried.megabytes)
            if tried.fault:
                facts["failures"] += 1
                kind = "\n".join(tried.fault.strip().split("\n")[-3:])[:300]
                if kind not in seen and len(seen) < KEPT:
                    seen.add(kind)
                    _keep(place, name, len(seen), data, tried.fault)
        facts["seconds"] = spent
        (place / f"{_file_name(name)}.json").write_text(json.dumps(facts), encoding="utf-8")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _limit_memory() -> None:
    """A reader that asks for more gets a MemoryError, which is a failure, and the machine stays usable."""
    if sys.platform != "linux":
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)


def _keep(place: Path, name: str, number: int, data: bytes, fault: str) -> None:
    path = place / f"{_file_name(name)}-{number:04d}.bin"
    path.write_bytes(data)
    path.with_suffix(".txt").write_text(f"{name}\n{fault}", encoding="utf-8", errors="backslashreplace")


def run_all(readers: list[Reader], minutes: float, seed: int, out: Path) -> int:
    """All readers one after the other -> number of failures; prints the table."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    share = minutes * 60 / len(readers)
    print(f"{len(readers)} readers, {share:.1f} s of processor time each, seed {seed}\n")
    print(f"{'reader':<22}{'runs':>9}{'refused':>9}{'failures':>10}{'slowest s':>11}{'MB':>6}{'CPU s':>8}")
    failures = runs = 0
    context = multiprocessing.get_context("spawn")
    memory = Path("/dev/shm")  # thousands of small files would keep a disk busy
    scratch = Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory if memory.is_dir() else None))
    current = scratch / CURRENT
    for reader in readers:
        current.unlink(missing_ok=True)
        process = context.Process(target=fuzz, args=(reader.name, share, seed, str(out), str(scratch)))
        process.start()
        name = _file_name(reader.name)
        hung = _hangs(process, current)
        if hung:
            process.kill()
            process.join()
        if process.exitcode != 0:
            data = current.read_bytes() if current.exists() else b""
            what = "hangs" if hung else f"the process ended with {process.exitcode}"
            _keep(out, reader.name, 9999, data, what)
            print(f"{reader.name:<22}  {what}: {name}-9999.bin", flush=True)
            failures += 1
            continue
        facts = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
        failures, runs = failures + facts["failures"], runs + facts["runs"]
        print(
            f"{reader.name:<22}{facts['runs']:>9,}{facts['refused']:>9,}{facts['failures']:>10,}"
            f"{facts['slowest']:>11.2f}{facts['megabytes']:>6.0f}{facts['seconds']:>8.1f}",
            flush=True,
        )
    print(
        f"\n{runs:,} runs, {failures:,} failures" + (f"; inputs and tracebacks in {out}" if failures else "")
    )
    shutil.rmtree(scratch, ignore_errors=True)
    return failures


def _hangs(process: BaseProcess, current: Path) -> bool:
    """Wait for a process; True where it has begun no new input for QUIET seconds.

    Not its whole time: beside other programs a process may get a twentieth of the processor.
    """
    seen, since = 0, time.monotonic()
    while process.is_alive():
        process.join(2)
        changed = current.stat().st_mtime_ns if current.exists() else 0
        if changed != seen:
            seen, since = changed, time.monotonic()
        elif time.monotonic() - since > QUIET:
            return True
    return False


def replay(path: Path) -> int:
    """One kept input once more -> 1 if it still fails."""
    name = path.with_suffix(".txt").read_text(encoding="utf-8").split("\n", 1)[0]
    with tempfile.TemporaryDirectory() as place:
        BY_NAME[name].prepare(Path(place))
        tried = try_one(BY_NAME[name], path.read_bytes(), Path(place))
    print(tried.fault or ("refused" if tried.refused else "read"))
    return int(bool(tried.fault))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20.0, help="processor time of all readers together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", help="names of readers; may be repeated")
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"))
    parser.add_argument("--replay", type=Path)
    given = parser.parse_args()
    if given.replay is not None:
        return replay(given.replay)
    unknown = set(given.only or ()) - set(BY_NAME)
    if unknown:
        parser.error(f"no reader is called {', '.join(sorted(unknown))}; known: {', '.join(BY_NAME)}")
    readers = [r for r in READERS if not given.only or r.name in given.only]
    return int(run_all(readers, given.minutes, given.seed, given.out) > 0)


if __name__ == "__main__":
    sys.exit(main())
