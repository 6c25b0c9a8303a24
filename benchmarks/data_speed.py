"""How fast a corpus is imported, checked, and read into batches.

    python benchmarks/data_speed.py [--utterances 10000] [--seconds 3] [--kinds wav flac opus]
        [--rounds 3]

Writes a corpus of speech-like noise (16 kHz mono; 'wav' and 'flac' take half of one corpus each and are what
the bar is stated for, 'opus' is measured apart), then times, each in a process of its own:

    import        firstwords import FOLDER --to CORPUS
    check         firstwords check CORPUS: every file decoded whole
    check --fast  headers only
    batches       training's loader with two processes, no cache, no augmentation, on FLAC alone:
                  seconds of audio per second, without the start of the processes

Medians over the rounds; files lie in the page cache, as they do after they were copied. Exit code 1 where a
bar fails: import and check together at most 60 s for 10,000 x 3 s on two cores, batches at least 1,900 times
real time.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from firstwords.data.examples import ExampleSource
from firstwords.data.loader import Loader
from firstwords.data.manifest import Corpus, load_corpus
from firstwords.data.places import Item
from firstwords.data.sampler import BucketSampler
from firstwords.device import machine_name, set_threads

RATE = 16000
MOST_SECONDS = 60.0  # for 30,000 s of audio
LEAST_RATE = 1900.0
WORDS = ("water", "stone", "bird", "river", "house", "seven", "morning", "goat", "mother", "walks")


def write_corpus(folder: Path, kinds: Sequence[str], count: int, seconds: float) -> None:
    """Files in folders of speakers, and a table of transcripts beside them."""
    draw = np.random.default_rng(0)
    lines = ["path\tsentence\tspeaker"]
    time_ = np.arange(round(seconds * RATE)) / RATE
    for number in range(count):
        kind = kinds[number % len(kinds)]
        name = f"s{number % 50:02d}/u{number:05d}.{kind}"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        white = draw.standard_normal(len(time_) + 400)
        sums = np.cumsum(white)
        noise = sums[400:] - sums[:-400] + 4 * white[400:]  # falling spectrum: the usual work for a codec
        loud = 0.1 + np.abs(np.sin(2 * np.pi * draw.uniform(1.5, 3) * time_ + draw.uniform(0, 3)))
        samples = 0.3 * noise * loud / np.abs(noise * loud).max()
        options = {"format": "OGG", "subtype": "OPUS"} if kind == "opus" else {}
        soundfile.write(folder / name, samples.astype(np.float32), RATE, **options)
        text = " ".join(draw.choice(WORDS, 6)) + f" {number}"
        lines.append(f"{name}\t{text}\tspeaker{number % 50}")
    (folder / "transcripts.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def verdict(met: bool) -> str:
    return "PASS" if met else "FAIL"


def timed(*command: str | Path) -> float:
    """Seconds of one firstwords command, start of the process included."""
    start = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-m", "firstwords.cli.main", *map(str, command)],
        check=False,
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - start
    if result.returncode != 0:
        sys.exit(
            f"{command} failed with {result.returncode}:\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}"
        )
    return seconds


def batch_rate(corpus: Corpus, audio_seconds: float) -> float:
    """Audio-seconds per second of wall clock that two loader processes bring to the training process."""
    items = [Item(u.id, u.audio, u.start, u.duration, u.text or "", (1, 2, 3)) for u in corpus.utterances]
    source = ExampleSource(items, RATE, "mix", 0)
    sampler = BucketSampler([item.duration for item in items], batch_seconds=60.0, seed=0)
    samples, start = 0, 0.0
    with Loader(source, sampler, workers=2) as loader:
        for number, batch in loader.batches():
            if number == 10:  # the processes are up and their queues full
                start, samples = time.perf_counter(), 0
            if batch is not None:
                samples += int(batch.audio.lengths.sum())
            if number >= 10 and samples > audio_seconds * RATE:
                break
    return samples / RATE / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--utterances", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--kinds", nargs="+", default=["wav", "flac", "opus"])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    set_threads()
    print(machine_name())
    audio_seconds = options.utterances * options.seconds
    passed = True
    bar = MOST_SECONDS * audio_seconds / 30_000
    sets = [[k for k in options.kinds if k != "opus"], [k for k in options.kinds if k == "opus"]]
    for kinds in filter(None, sets):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_corpus(folder / "source", kinds, options.utterances, options.seconds)
            rounds: list[tuple[float, float, float]] = []
            for _ in range(options.rounds):
                shutil.rmtree(folder / "corpus", ignore_errors=True)
                rounds.append(
                    (
                        timed("import", folder / "source", "--to", folder / "corpus"),
                        timed("check", folder / "corpus"),
                        timed("check", folder / "corpus", "--fast", "--out", folder / "fast"),
                    )
                )
            imported, checked, fast = (statistics.median(column) for column in zip(*rounds, strict=True))
            whole = statistics.median(one + other for one, other, _ in rounds)
            print(
                f"{' + '.join(kinds)}, {options.utterances} x {options.seconds:g} s: "
                f"import {imported:.1f} s, check {checked:.1f} s (--fast {fast:.1f} s), "
                f"import and check {whole:.1f} s"
            )
            if kinds != ["opus"]:
                passed &= whole <= bar
                print(f"  {verdict(whole <= bar)}: at most {bar:.0f} s")
            if "flac" in kinds:
                flac = [u for u in load_corpus(folder / "corpus").utterances if u.audio.suffix == ".flac"]
                few = Corpus(folder / "corpus", tuple(flac), {})
                rate = statistics.median(batch_rate(few, audio_seconds) for _ in range(options.rounds))
                passed &= rate >= LEAST_RATE
                print(f"  {verdict(rate >= LEAST_RATE)}: batches from FLAC {rate:.0f} times real time")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
