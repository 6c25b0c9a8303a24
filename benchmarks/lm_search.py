"""What does a language model cost in CTC search? A flat posterior, a beam of 10, a toy 3-gram.

    python benchmarks/lm_search.py [--frames 250] [--vocabulary 500] [--beam 10] [--repeats 15]

The posterior is flat on purpose: no frame is sure of anything, so that hardly any search can prune. Each
symbol's logit is normal with a spread of 1.5; the blank has 3 more, and one token of a planted sentence has
4 more over three frames in ten. The 3-gram is a table of 4096 hashed contexts: a look-up, as flat arrays of
a real n-gram give. Search alone is timed (no alignment of the readings), then the whole with its alignments,
both as medians of wall-clock and processor time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from firstwords.device import machine_name, set_threads
from firstwords.nn.scorer import TokenScorer
from firstwords.search.ctc_beam import CtcBeamSearch, prefix_readings
from firstwords.search.fusion import Weighted
from firstwords.search.interface import CtcBeamConfig
from firstwords.search.search import GreedyConfig, build_search
from firstwords.tensors import Padded

CONTEXTS = 4096


class HashedTrigram(TokenScorer[Tensor]):
    """log P(next | two tokens before) from a table of hashed contexts; state: the token before the last."""

    def __init__(self, vocabulary: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.table = (2.0 * torch.randn(CONTEXTS, vocabulary, generator=generator)).log_softmax(-1)

    def start(self, rows: int) -> Tensor:
        return torch.zeros(rows, dtype=torch.int64)

    def score(self, last: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.table[(state * 7919 + last * 104729) % CONTEXTS], last

    def reorder(self, state: Tensor, kept: Tensor) -> Tensor:
        return state[kept]


def flat_posterior(frames: int, vocabulary: int, seed: int = 0) -> NDArray[np.float64]:
    """(T, V) natural-log probabilities in which no frame is sure."""
    generator = np.random.default_rng(seed)
    logits = 1.5 * generator.standard_normal((frames, vocabulary))
    logits[:, 0] += 3.0
    for start in range(0, frames - 3, 10):
        logits[start : start + 3, generator.integers(1, vocabulary)] += 4.0
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def measure(task: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Medians of wall-clock and processor time, in milliseconds."""
    wall: list[float] = []
    processor: list[float] = []
    task()
    for _ in range(repeats):
        started, busy = time.perf_counter(), time.process_time()
        task()
        wall.append(1000 * (time.perf_counter() - started))
        processor.append(1000 * (time.process_time() - busy))
    return statistics.median(wall), statistics.median(processor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--frames", type=int, default=250)
    parser.add_argument("--vocabulary", type=int, default=500)
    parser.add_argument("--beam", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    set_threads(1)
    log_probs = flat_posterior(options.frames, options.vocabulary)
    best = np.exp(log_probs).max(axis=1)
    scorers = [Weighted("language_model", 0.3, HashedTrigram(options.vocabulary, 0), hears=False)]
    batch = Padded(torch.from_numpy(log_probs)[None], torch.tensor([options.frames]))
    config = CtcBeamConfig(beam=options.beam, n_best=options.beam)
    one = CtcBeamConfig(beam=options.beam, n_best=1)
    print(f"{machine_name()}, one thread; {options.frames} x {options.vocabulary}, beam {options.beam}")
    print(f"largest probability of a frame: median {np.median(best):.2f}, highest {best.max():.2f}")
    print(f"tokens read: {len(prefix_readings(log_probs, config, scorers)[0].tokens)}")
    print(f"{'':44}  wall ms   processor ms")
    tasks: list[tuple[str, Callable[[], object]]] = [
        ("greedy", lambda: build_search(GreedyConfig(), 0.04)(batch)),
        ("greedy, 3-gram", lambda: build_search(GreedyConfig(), 0.04, scorers)(batch)),
        ("beam, search alone", lambda: prefix_readings(log_probs, config)),
        ("beam, search alone, 3-gram", lambda: prefix_readings(log_probs, config, scorers)),
        ("beam, best reading aligned", lambda: CtcBeamSearch(one, 0.04)(batch)),
        ("beam, best reading aligned, 3-gram", lambda: CtcBeamSearch(one, 0.04, scorers)(batch)),
        ("beam, all readings aligned, 3-gram", lambda: CtcBeamSearch(config, 0.04, scorers)(batch)),
    ]
    for name, task in tasks:
        wall, processor = measure(task, options.repeats)
        print(f"{name:44} {wall:8.1f} {processor:14.1f}")


if __name__ == "__main__":
    main()
