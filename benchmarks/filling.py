"""Reading in bfloat16 on a processor: utterances filled up to few lengths, against each with its own.

    python benchmarks/filling.py MODEL CORPUS [--limit 60] [--rounds 3] [--threads 1]

Every reading is a process of its own that meets the utterances of dev (the first ``--limit``) for the first
time, one by one, as a server gets them (batches are not filled up). Sides take turns; medians of seconds of
speech encoded per second of the processor (all threads together), and the peak memory of the process. How
many of the first 20 texts differ between the sides (bfloat16 rounds) is counted.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded; as the command line does
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TypedDict

import torch

from firstwords.audio.waveform import read as read_audio
from firstwords.data.manifest import load_corpus
from firstwords.device import machine_name, set_threads
from firstwords.inference import frames
from firstwords.inference.recognizer import Recognizer

SIDES = ("own lengths", "filled up")


class Reading(TypedDict):
    rate: float  # seconds of speech a second
    mb: float
    texts: list[str]


def measure(options: argparse.Namespace) -> Reading:
    """One side, in this process."""
    if options.side == SIDES[0]:
        frames.filled_up = lambda samples, rate, longest=0.0: samples
    recognizer = Recognizer.load(options.model, device="cpu", precision="bf16")
    utterances = list(load_corpus(options.corpus).split("dev"))[: options.limit]
    rate = recognizer.sample_rate
    audio = [
        read_audio(u.audio, sample_rate=rate, start=u.start, duration=u.duration).samples for u in utterances
    ]
    began = time.process_time()
    with torch.inference_mode():
        for one in audio:
            recognizer.encode([one])
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    texts = [recognizer.transcribe(u.audio, start=u.start, duration=u.duration).text for u in utterances[:20]]
    return {"rate": sum(map(len, audio)) / rate / seconds, "mb": peak, "texts": texts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--limit", type=int, default=60, help="utterances")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    set_threads(options.threads)
    if options.side is not None:
        print("\n" + json.dumps(measure(options)))
        return
    print(machine_name())
    found: dict[str, list[Reading]] = {side: [] for side in SIDES}
    for n in range(options.rounds):
        for side in SIDES if n % 2 == 0 else SIDES[::-1]:
            orders = [sys.executable, __file__, *sys.argv[1:], "--side", side]
            done = subprocess.run(orders, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            found[side].append(json.loads(done.stdout.splitlines()[-1]))
    middle = {
        side: (statistics.median(r["rate"] for r in rows), statistics.median(r["mb"] for r in rows))
        for side, rows in found.items()
    }
    for side, (speed, peak) in middle.items():
        all_ = ", ".join(f"{row['rate']:.1f}" for row in found[side])
        print(f"{side}: {speed:.1f} x real time ({all_}), {peak:.0f} MB", flush=True)
    (own, heavy), (filled, light) = middle.values()
    pairs = zip(found[SIDES[0]][0]["texts"], found[SIDES[1]][0]["texts"], strict=True)
    print(
        f"  {filled / own:.2f} times as fast, {light / heavy:.2f} of the memory; "
        f"{sum(a != b for a, b in pairs)} of the first 20 texts differ",
        flush=True,
    )


if __name__ == "__main__":
    main()
