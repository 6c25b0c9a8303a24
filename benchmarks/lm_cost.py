"""What a language model costs greedy search: processor time of whole transcriptions with it and without.

    python benchmarks/lm_cost.py MODEL CORPUS LM [--split dev] [--rounds 5] [--threads 1]

Each round transcribes the split three times: without by a model just opened, with a language model that was
just opened ("new": it makes the rows of each state that it meets for the first time), and again with the same
one ("met", as in a long recording or a server). Reading files, features, encoder, search and times of words
are all counted. Weight and bonus are those that 'firstwords lm tune' chose for the model, or the default.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded

from firstwords.data.manifest import load_corpus
from firstwords.device import machine_name, set_threads
from firstwords.inference.fused import SearchHelp, add_help
from firstwords.inference.recognizer import Recognizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("lm", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    set_threads(options.threads)
    print(machine_name())
    utterances = list(load_corpus(options.corpus).split(options.split))

    def opened() -> Recognizer:
        return Recognizer.load(options.model, device="cpu")

    def seconds(recognizer: Recognizer) -> float:
        began = time.process_time()
        for _ in recognizer.transcribe_many(utterances):
            pass
        return time.process_time() - began

    seconds(opened())  # what is made once: threads, kernels
    times: dict[str, list[float]] = {"without": [], "new": [], "met": []}
    told: list[str] = []
    for _ in range(options.rounds):
        helped = opened()
        told = list(add_help(helped, SearchHelp(language_model=options.lm)))
        times["without"].append(seconds(opened()))
        times["new"].append(seconds(helped))
        times["met"].append(seconds(helped))
    audio = sum(u.duration for u in utterances) / 60
    told.append(f"{len(utterances)} utterances of {options.split}, {audio:.1f} min; rounds: {options.rounds}")
    print(*told, sep="\n")
    usual = statistics.median(times["without"])
    for name, each in times.items():
        more = statistics.median(a / b - 1 for a, b in zip(each, times["without"], strict=True))
        median = statistics.median(each)
        print(f"  {name:8} {median:6.2f} s, {median / usual - 1:+.1%} by medians, {more:+.1%} in pairs")


if __name__ == "__main__":
    main()
