"""Float32 products by torch's own library, by oneDNN and as the product chooses: speed and memory.

    python benchmarks/products.py CORPUS --model MODEL [--limit 40] [--rounds 3] [--threads 1]
    python benchmarks/products.py CORPUS --size nano [--steps 100] [--rounds 3] [--threads 1] [--set a.b=1]

With --model utterances of the dev split are encoded one by one, in the order of the corpus, and in batches
of six of like length; with --size a recogniser is trained for a few steps, as recipes do it. Utterances
differ in length, and oneDNN prepares each product anew for a new number of rows: that is what is measured
here, and what one shape repeated does not show. Each figure comes from a process of its own (peak memory:
ru_maxrss), sides in turn; seconds are those of the processor for reading, of the clock for training.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded; as the command line does
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

import torch

from firstwords.audio.waveform import read as read_audio
from firstwords.data.manifest import load_corpus
from firstwords.device import machine_name, set_threads
from firstwords.inference.recognizer import Recognizer
from firstwords.nn import linear
from firstwords.training.log import read_log
from firstwords.training.run import train_corpus

# Least multiply-accumulates of a product that oneDNN makes; None: what the product has for this processor.
SIDES: dict[str, float | None] = {"torch's own": float("inf"), "oneDNN": 2**20, "chosen": None}
BATCH = 6
WARM_STEPS = 10


def choose(side: str) -> None:
    """From here on this process multiplies as ``side`` says."""
    least = SIDES[side]
    if least is not None:
        linear._is_faster_here = lambda: True
        linear._LEAST_WORK = least


def encode(options: argparse.Namespace) -> dict[str, float]:
    """Seconds of speech encoded per second of the processor, all utterances new to the process."""
    recognizer = Recognizer.load(options.model, device="cpu", precision="fp32")
    utterances = list(load_corpus(options.corpus).split("dev"))[: options.limit]
    rate = recognizer.sample_rate
    audio = [
        read_audio(u.audio, sample_rate=rate, start=u.start, duration=u.duration).samples for u in utterances
    ]
    by_length = sorted(audio, key=len)
    batches = [by_length[n : n + BATCH] for n in range(0, len(audio), BATCH)]
    found = {}
    for name, work in (("one by one", [[a] for a in audio]), ("in batches", batches)):
        began = time.process_time()
        with torch.inference_mode():
            for batch in work:
                recognizer.encode(batch)
        found[name] = sum(map(len, audio)) / rate / (time.process_time() - began)
    return found


def train(options: argparse.Namespace) -> dict[str, float]:
    """Seconds of speech trained on per second of the clock, without the first steps."""
    with tempfile.TemporaryDirectory() as folder:
        train_corpus(
            options.corpus,
            Path(folder) / "run",
            size=options.size,
            device="cpu",
            precision="fp32",
            threads=options.threads,
            overrides=[
                f"training.steps={options.steps}",
                "training.processes=1",
                f"training.validate_every={options.steps}",
                *options.set,
            ],
        )
        steps = [r for r in read_log(Path(folder) / "run/resume/log.jsonl") if r["kind"] == "train"]
    kept = steps[WARM_STEPS:]
    return {"training": sum(r["audio"] for r in kept) / sum(r["seconds"] for r in kept)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("corpus", type=Path)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", type=Path)
    what.add_argument("--size", help="of a Zipformer")
    parser.add_argument("--limit", type=int, default=40, help="utterances")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    set_threads(options.threads)
    if options.side is not None:
        choose(options.side)
        rates = train(options) if options.size else encode(options)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print("\n" + json.dumps(rates | {"MB": peak}))
        return
    print(machine_name())
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for n in range(options.rounds):
        order = list(SIDES)[n % len(SIDES) :] + list(SIDES)[: n % len(SIDES)]
        for side in order:
            orders = [sys.executable, __file__, *sys.argv[1:], "--side", side]
            done = subprocess.run(orders, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            found[side].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"  {side}: " + ", ".join(f"{k} {v:.1f}" for k, v in found[side][-1].items()), flush=True)
    print("\nmedians, and what is chosen against each:")
    middle = {s: {k: statistics.median(r[k] for r in rows) for k in rows[0]} for s, rows in found.items()}
    for side, values in middle.items():
        told = (f"{k} {v:.1f} ({middle['chosen'][k] / v:.2f})" for k, v in values.items())
        print(f"  {side:12s} " + ", ".join(told))


if __name__ == "__main__":
    main()
