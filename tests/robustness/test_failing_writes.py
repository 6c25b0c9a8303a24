"""The n-th write fails, for every n, for every writer of the product.

After each failure: what was there is there byte for byte, no half file stands under a final name, nothing is
left lying about, and the error is one of ours, with words and exit code 1. When the fault is gone, the same
call succeeds.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from failing_disk import KINDS, FailingDisk, snapshot
from firstwords.errors import FirstwordsError
from robustness.writer import Writer
from robustness.writers import BY_NAME, WRITERS
from robustness.writers_training import LOG, logged_before
from tone_corpus import make_tone_corpus, tone_recipe

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks up open files in /proc")

resource = pytest.importorskip("resource", reason="limits of a process: Unix")


def fresh(home: Path, writer: Writer, made: Any) -> dict[str, bytes]:
    """The old state in ``home`` -> its files."""
    shutil.rmtree(home, ignore_errors=True)
    if writer.before is not None:
        home.mkdir(parents=True)
        writer.before(home, made)
    return snapshot(home)


def attempt(disk_kind: str, fails_at: int, home: Path, writer: Writer, made: Any, for_good: bool) -> Any:
    """Do the operation once -> (what went wrong, the disk)."""
    with pytest.MonkeyPatch.context() as patch:
        disk = FailingDisk(patch, home, fails_at=fails_at, errno=KINDS[disk_kind], for_good=for_good)
        try:
            writer.write(home, made)
        except FirstwordsError as error:
            return error, disk
    return None, disk


def check_failure(error: FirstwordsError, at: str) -> None:
    assert error.exit_code == 1, at
    assert error.what, at
    assert error.mend, at


# fmt: off
MODELS = (  # seconds each
    "model into a new folder", "model over an older one", "convert", "merge", "quantize", "prune", "fold",
)
# fmt: on


def cases() -> Iterator[Any]:
    """Every writer on a disk that stays full and on one that fails once; fast: each once."""
    for writer in WRITERS:
        for kind, for_good in (("full disk", True), ("broken disk", False)):
            fast = for_good == (writer.name in MODELS) and writer.name not in (MODELS[0], *MODELS[2:])
            marks = () if fast else pytest.mark.slow
            yield pytest.param(writer, kind, for_good, marks=marks, id=f"{writer.name}, {kind}")


@pytest.mark.parametrize(("writer", "kind", "for_good"), list(cases()))
def test_the_old_state_outlives_every_failure(
    writer: Writer, kind: str, for_good: bool, tmp_path: Path
) -> None:
    (tmp_path / "made").mkdir(parents=True)
    made = writer.prepare(tmp_path / "made")
    home = tmp_path / "home"
    before = fresh(home, writer, made)
    originals = snapshot(tmp_path / "made")
    failures = 0
    for number in range(1, 400):
        error, disk = attempt(kind, number, home, writer, made, for_good)
        at = f"{writer.name}, {kind}, operation {number}: {disk.failed}"
        if error is None:
            assert writer.prove(home, made) is not False, at
            assert snapshot(tmp_path / "made") == originals, at
            assert not list(home.rglob("*.writing")), at
            if not disk.failed:
                break
            before = fresh(home, writer, made)  # this fault had a way around it
            continue
        failures += 1
        check_failure(error, at)
        now = snapshot(home)
        new = {p for p in now if p not in before}
        if writer.may_stay is not None:
            new = {p for p in new if not writer.may_stay(Path(p), made)}
        assert not new, at
        assert {p: now[p] for p in before if p in now} == before, at
        assert not list(home.rglob("*.writing")), at
    else:
        pytest.fail(f"{writer.name}: does not end")
    assert failures >= 3, f"{writer.name}: only {failures} operations were seen to fail"


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_line_of_the_metrics_log_is_whole_or_absent(kind: str, tmp_path: Path) -> None:
    """The log is appended to: whole lines stay, and the next run goes on behind them."""
    for number in range(1, 60):
        logged_before(tmp_path, None)
        before = (tmp_path / "log.jsonl").read_bytes()
        error, disk = attempt(kind, number, tmp_path, LOG, None, for_good=kind == "full disk")
        content = (tmp_path / "log.jsonl").read_bytes()
        if error is None:
            assert LOG.prove(tmp_path, None) is not False
            if not disk.failed:
                break
            continue
        check_failure(error, disk.failed)
        first = before.split(b"\n")[0]
        assert content == before or content.startswith(first)
        whole, _, rest = content.rpartition(b"\n")
        assert rest == b"" or content == before
        assert all(json.loads(line) for line in whole.split(b"\n"))
        LOG.write(tmp_path, None)
        assert LOG.prove(tmp_path, None) is not False
    else:
        pytest.fail("does not end")
    assert number > 6


@pytest.fixture
def size_limit() -> Iterator[Any]:
    """A function that limits how long files may become: as a full disk, for writers in C and Rust, too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda limit: resource.setrlimit(resource.RLIMIT_FSIZE, (soft if limit is None else limit, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# fmt: off
LARGE = [
    "model over an older one", "model into a new folder", "fourth checkpoint", "first checkpoint",
    "audio .wav", "audio .flac", "audio .ogg", "audio .mp3", "audio cache", "convert",
    "evaluation over another", "page of the quickstart", "import again", "tokenizer of subwords",
]
# fmt: on


FAST = (*LARGE[3:5], *LARGE[-2:])


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in LARGE])
def test_a_file_that_cannot_grow_is_no_file(name: str, tmp_path: Path, size_limit: Any) -> None:
    """The kernel refuses bytes beyond a limit; nothing is patched."""
    writer = BY_NAME[name]
    (tmp_path / "made").mkdir()
    made = writer.prepare(tmp_path / "made")
    home = tmp_path / "home"
    writer.write(home, made)
    sizes = sorted({p.stat().st_size for p in home.rglob("*") if p.is_file()})
    limits = sorted({max(1, size - 1) for size in sizes} | {sizes[-1] // 2})
    for limit in limits:
        before = fresh(home, writer, made)
        size_limit(limit)
        try:
            with pytest.raises(FirstwordsError) as caught:
                writer.write(home, made)
        finally:
            size_limit(None)
        check_failure(caught.value, f"{name}, {limit} bytes")
        assert snapshot(home) == before, limit
        assert not list(home.rglob("*.writing"))
    writer.write(home, made)
    assert writer.prove(home, made) is not False


def test_every_call_that_writes_is_known() -> None:
    """Whoever writes a file without files.py is found here; the exceptions have their reason."""
    allowed = {
        "files.py",  # the one room
        "audio/ffmpeg.py",  # pipes of a child
        "training/log.py",  # appended to line by line
        "training/memory.py",  # /proc
        "quickstart/synthesizer.py",  # a temporary folder; the parent reads every clip back
        "report/evaluation_page.py",  # into memory
        "report/doctor.py",  # into memory
        "report/compression_probe.py",  # into a temporary folder
        "export/sherpa.py",  # into a temporary folder
        "export/write.py",  # inside staged
        "model/checkpoint.py",  # safetensors, inside written_aside
        "data/cache.py",  # inside written_aside
        "data/corpora/copies.py",  # inside written_aside
        "lm/ngram_arpa.py",  # inside written_aside
        "audio/waveform.py",  # into memory
        "audio/codec.py",  # into memory
        "model/convert/icefall_file.py",  # only says the word
        "inference/journal.py",  # appended to, each line with its own checksum
        "inference/made.py",  # appended to; torn lines are skipped
    }
    import re

    import firstwords

    root = Path(firstwords.__file__).parent
    writes = re.compile(
        r"open\([^)]*[\"'][wax]b?\+?[\"']|\.write_text\(|\.write_bytes\(|save_file\(|soundfile\.write\("
        r"|SoundFile\(|\.rename\(|torch\.save\(|np\.save|to_csv\("
    )
    found = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if writes.search(path.read_text(encoding="utf-8"))
    }
    assert found <= allowed, sorted(found - allowed)


@pytest.mark.slow
@pytest.mark.parametrize("first", [1, 4, 7, 10])
def test_a_training_whose_disk_fails_goes_on_when_it_is_mended(tmp_path: Path, first: int) -> None:
    """Every third operation of a whole run fails once; the next call with the same folder goes on.

    In four parts, each of which takes minutes: two trainings for each operation that fails.
    """
    from firstwords.model.checkpoint import load_model
    from firstwords.training.progress import Progress
    from firstwords.training.run import train_corpus

    corpus = make_tone_corpus(tmp_path / "corpus", train=6, dev=2, test=1)
    recipe = tone_recipe(steps=2, validate_every=1, workers=0, batch_seconds=5)
    run = tmp_path / "run"
    failures = 0
    for number in range(first, 1000, 12):
        with pytest.MonkeyPatch.context() as patch:
            disk = FailingDisk(patch, run, fails_at=number, errno=KINDS["full disk"])
            try:
                train_corpus(
                    corpus, run, recipe=recipe, device="cpu", workers=0, progress=Progress(quiet=True)
                )
            except FirstwordsError as error:
                check_failure(error, disk.failed)
                failures += 1
            else:
                if not disk.failed:
                    break
        train_corpus(corpus, run, recipe=recipe, device="cpu", workers=0, progress=Progress(quiet=True))
        load_model(run, device="cpu", check=True)
        assert not list(run.rglob("*.writing"))
        shutil.rmtree(run)
    else:
        pytest.fail("does not end")
    assert failures >= 5
    load_model(run, device="cpu", check=True)


@pytest.mark.slow
def test_the_corpus_of_the_quickstart_is_finished_or_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clean clips come from a stand-in for espeak-ng, so that a build takes a moment."""
    import numpy as np
    import soundfile

    from firstwords.quickstart import corpus as module
    from firstwords.quickstart.makeup import MakeUp, read_makeup

    def speak(_espeak: Any, planned: Any, work: Path, _progress: Any) -> None:
        for p in planned:
            soundfile.write(work / f"{p.id}.flac", 0.1 * np.sin(np.arange(8000) / 7), 16000)

    monkeypatch.setattr(module, "find_espeak", lambda: module.Espeak(Path("lib"), tmp_path / "data"))
    monkeypatch.setattr(module, "prove_voices_differ", lambda *_: None)
    monkeypatch.setattr(module, "_speak_all", speak)
    values = read_makeup().model_dump()
    values |= {"utterances": {"train": 3, "dev": 1, "test": 1}, "drawn_voices": 2}
    (tmp_path / "data" / "voices" / "!v").mkdir(parents=True)
    makeup, other = MakeUp.model_validate(values), MakeUp.model_validate(values | {"seed": 77})

    def build(home: Path, which: MakeUp) -> None:
        module.build_corpus(which, home, lambda *_: None)

    for kind in KINDS:
        writer = Writer(
            f"quickstart corpus {kind}",
            lambda _: None,
            lambda home, _: build(home / "corpus", makeup),
            lambda home, _: (home / "corpus" / "makeup.json").is_file(),
            lambda home, _: build(home / "corpus", other),
        )
        test_the_old_state_outlives_every_failure(writer, kind, False, tmp_path / kind.replace(" ", "-"))


@pytest.mark.slow
def test_the_command_line_says_it_in_words(tmp_path: Path) -> None:
    """Real processes whose files may not grow beyond a limit: exit code 1, no traceback, nothing half."""
    corpus = make_tone_corpus(tmp_path / "corpus", train=6, dev=2, test=1)
    source = tmp_path / "source"
    source.mkdir()
    for path in sorted((corpus / "audio").glob("*.wav")):
        shutil.copy(path, source)
        (source / path.with_suffix(".txt").name).write_text("a text", encoding="utf-8")
    commands: dict[str, list[Any]] = {
        "import": ["import", source, "--to", tmp_path / "new"],
        "check": ["check", corpus],
        "train": ["train", corpus, "--to", tmp_path / "run", "--size", "nano", "--set", "training.steps=1"],
        "doctor": ["doctor", "--bundle", tmp_path / "bundle.txt"],
    }
    for name, arguments in commands.items():
        before = snapshot(corpus)
        script = (
            "import resource, sys\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))\n"
            "from firstwords.cli.main import main\nmain()\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 1, (name, done.stderr[-500:])
        assert "Traceback" not in done.stderr, name
        assert "cannot be written" in done.stderr, (name, done.stderr)
        assert snapshot(corpus) == before, name
        assert not list(tmp_path.rglob("*.writing")), name
