"""Speed of the edge runtime against sherpa-onnx: the same bundle, cores and audio, in one run.

    python benchmarks/runtime.py BUNDLE FILES... [--rounds 5] [--threads 1,2] [--long 300] [--cpu-time]
        [--out FILE]

Each side is a process of its own, with its engine loaded once; both take turns in every round, in an order
that changes. What is timed is samples to text; reading and resampling files is not.

    utterance   the first five seconds of the files, alone
    long        the first ``--long`` seconds of the files joined. Ours: ``Runtime.transcribe``, the search
                for speech counted. sherpa-onnx has no way with long recordings of its own, so it gets our
                windows of speech ready made, not counted: one after the other, and all at once as a batch
                (``decode_streams``); its faster way is what we are compared with
    cold        process start to the first text of a five-second file, by 'firstwords transcribe' (our side)

"same text" of "long" is about the graphs: our reading of each of those windows alone against sherpa-onnx's.
The text of ``transcribe`` is another one: windows overlap at cuts, and it keeps what each of them answers
for, where sherpa-onnx is asked for all of it and writes words near cuts twice. In int8 a few words differ
(on 120 s of Yoruba 5 of 194; none in fp32), why is not known; and a batch in int8 reads a little otherwise
than its windows alone, since ranges of activations are those of the whole batch.

Rates are medians over the rounds, in seconds of audio per second; a ratio above 1 says that ours is faster.
With --cpu-time processor seconds are counted in place of those of the clock (one thread only): for machines
that do other things at the same time.
"""

# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SHORT = 5.0  # seconds


def ours(folder: Path, variant: str, threads: int, samples: np.ndarray) -> dict[str, Callable[[], str]]:
    """Task -> the work of our side."""
    from firstwords.export.runtime import Runtime

    runtime = Runtime.load(folder, variant, threads)
    rate = runtime.sample_rate
    short = samples[: round(SHORT * rate)]
    return {
        "utterance": lambda: runtime.transcribe(short, rate).text,
        "long": lambda: runtime.transcribe(samples, rate).text,
        "windows": lambda: " ".join(
            runtime.tokenizer.decode(runtime.plain_reading(part, rate).tokens)
            for part in windows_of(samples, rate, runtime.facts.frame_seconds)
        ),
    }


def windows_of(samples: np.ndarray, rate: int, frame_seconds: float) -> list[np.ndarray]:
    """The windows of speech that ``transcribe`` reads."""
    from firstwords.audio.windows import WindowConfig, cut_speech

    grid = round(frame_seconds * rate)
    return [w.samples for w in cut_speech([samples], rate, WindowConfig(), grid=grid) if len(w.samples)]


def sherpa(folder: Path, variant: str, threads: int, samples: np.ndarray) -> dict[str, Callable[[], str]]:
    """Task -> the work of sherpa-onnx."""
    import sherpa_onnx

    from firstwords.export.bundle import read_bundle

    facts = read_bundle(folder)
    rate = facts.sample_rate
    files = {part: str(folder / name) for part, name in facts.graphs(variant).items()}
    offline: Any = sherpa_onnx.OfflineRecognizer
    make = offline.from_zipformer_ctc if facts.kind == "ctc" else offline.from_transducer
    recognizer = make(
        **files,
        tokens=str(folder / "tokens.txt"),
        num_threads=threads,
        sample_rate=rate,
        feature_dim=facts.mels,
    )
    windows = windows_of(samples, rate, facts.frame_seconds)

    def streams(parts: Iterable[np.ndarray]) -> list[Any]:
        made: list[Any] = []
        for part in parts:
            made.append(recognizer.create_stream())
            made[-1].accept_waveform(rate, part)
        return made

    def one_by_one(parts: Iterable[np.ndarray]) -> str:
        texts: list[str] = []
        for part in parts:
            (stream,) = streams([part])
            recognizer.decode_stream(stream)
            texts.append(stream.result.text)
        return " ".join(texts)

    def at_once() -> str:
        made = streams(windows)
        recognizer.decode_streams(made)
        return " ".join(stream.result.text for stream in made)

    return {
        "utterance": lambda: one_by_one([samples[: round(SHORT * rate)]]),
        "long": lambda: one_by_one(windows),
        "long, a batch": at_once,
    }


SIDES = {"ours": ours, "sherpa-onnx": sherpa}


def child(side: str, folder: str, variant: str, threads: str, sounds: str, cpu_time: str) -> None:
    """Load one side; then a task a line on standard input, [seconds, text] a line on standard output."""
    clock = time.process_time if cpu_time == "1" else time.perf_counter
    tasks = SIDES[side](Path(folder), variant, int(threads), np.load(sounds))
    print(json.dumps(sorted(tasks)), flush=True)
    for line in sys.stdin:
        began = clock()
        text = tasks[line.strip()]()
        print(json.dumps([clock() - began, text]), flush=True)


class Side:
    """A child process that answers."""

    def __init__(self, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--child", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self.tasks: list[str] = self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"One side ended with exit code {self._process.wait()}.")
        return json.loads(line)

    def __call__(self, task: str) -> tuple[float, str]:
        assert self._process.stdin is not None
        self._process.stdin.write(task + "\n")
        self._process.stdin.flush()
        seconds, text = self._answer()
        return seconds, text

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def compare(
    folder: Path, variant: str, threads: int, sounds: Path, seconds: float, rounds: int, cpu_time: bool
) -> list[dict[str, Any]]:
    """Both sides in turns -> a row for each task."""
    sides = {name: Side(name, folder, variant, threads, sounds, int(cpu_time)) for name in SIDES}
    times: dict[tuple[str, str], list[float]] = {}
    texts: dict[tuple[str, str], str] = {}
    for turn in range(rounds + 1):  # the first round warms up
        for name in sorted(sides, reverse=bool(turn % 2)):
            for task in sides[name].tasks:
                if turn and task == "windows":
                    continue  # for its text alone
                spent, texts[name, task] = sides[name](task)
                if turn:
                    times.setdefault((name, task), []).append(spent)
    for side in sides.values():
        side.close()
    rows: list[dict[str, Any]] = []
    for task, length in (("utterance", min(SHORT, seconds)), ("long", seconds)):
        ours_rate = length / statistics.median(times["ours", task])
        ways = {t: length / statistics.median(v) for (n, t), v in times.items() if n != "ours" and task in t}
        best = max(ways, key=lambda way: ways[way])
        rows.append(
            {
                "variant": variant,
                "threads": threads,
                "task": task,
                "ours": round(ours_rate, 2),
                **{f"sherpa-onnx {way}": round(rate, 2) for way, rate in ways.items()},
                "ratio": round(ours_rate / ways[best], 3),
                "same text": "".join(texts["ours", "windows" if task == "long" else task].split())
                == "".join(texts["sherpa-onnx", task].split()),
            }
        )
    return rows


def cold_start(folder: Path, file: Path, rounds: int) -> float:
    """Median seconds from process start to text."""
    command = [sys.executable, "-m", "firstwords.cli.main", "transcribe", str(folder), str(file)]
    times: list[float] = []
    for _ in range(rounds):
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--long", type=float, default=300.0)
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    from firstwords.audio.waveform import read, write
    from firstwords.export.bundle import read_bundle

    facts = read_bundle(given.bundle)
    if facts.streaming:
        sys.exit("Give an offline bundle: streams go as fast as somebody speaks.")
    parts, held = [], 0
    for file in given.files:
        parts.append(read(file, sample_rate=facts.sample_rate).samples)
        held += len(parts[-1])
        if held >= given.long * facts.sample_rate:
            break
    samples = np.concatenate(parts)[: round(given.long * facts.sample_rate)]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        sounds = Path(place) / "long.npy"
        np.save(sounds, samples)
        short = Path(place) / "short.wav"
        write(short, samples[: round(SHORT * facts.sample_rate)], facts.sample_rate)
        for threads in [1] if given.cpu_time else [int(part) for part in given.threads.split(",")]:
            for variant in facts.variants:
                rows += compare(
                    given.bundle, variant, threads, sounds, len(samples) / facts.sample_rate, given.rounds,
                    given.cpu_time,
                )  # fmt: skip
                for row in rows[-2:]:
                    print(json.dumps(row), flush=True)
        cold = cold_start(given.bundle, short, given.rounds)
    print(f"cold start: {cold:.2f} s")
    if given.out is not None:
        report = {
            "bundle": facts.name,
            "seconds": len(samples) / facts.sample_rate,
            "rows": rows,
            "cold": cold,
        }
        given.out.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    sys.path.insert(0, str(ROOT / "src"))
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
    else:
        main()
