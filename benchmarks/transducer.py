"""Time and memory of the transducer losses with their gradients.

    python benchmarks/transducer.py [--threads 2] [--repeat 7] [--kinds pruned full joint]

8 utterances of 250 frames and 40 tokens, 500 pieces, all widths 512, float32. Each loss runs in a process of
its own:

    pruned    encoded frames and ids -> predictor, simple loss, ranges, joiner, pruned loss; gradients of the
              frames and of all weights. Elsewhere (fast_rnnt, C++): 0.175 s, 466 MB
    full      scores (8, 250, 41, 500) -> loss and their gradient. Elsewhere (torchaudio, C++): 2.71 s, 988 MB
    joint     the full loss with the joiner inside

Printed: the best and the median wall time, the least CPU time over the number of threads (the wall time of an
idle machine, were all of it parallel), the peak memory of the process, and what inputs and libraries take.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded; as the command line does
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

BATCH, FRAMES, TOKENS, VOCABULARY, DIM = 8, 250, 40, 500, 512
KINDS = ("pruned", "full", "joint")


def peak() -> float:
    """Megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def work(kind: str) -> Callable[[], None]:
    """One loss with its gradient."""
    import torch

    from firstwords.heads.transducer.head import TransducerConfig, TransducerHead
    from firstwords.heads.transducer.rnnt import rnnt_loss
    from firstwords.tensors import Padded

    torch.manual_seed(0)
    frames = torch.full((BATCH,), FRAMES)
    targets = Padded(
        torch.randint(1, VOCABULARY, (BATCH, TOKENS)), torch.full((BATCH,), TOKENS, dtype=torch.int64)
    )
    if kind == "full":
        logits = torch.randn(BATCH, FRAMES, TOKENS + 1, VOCABULARY, requires_grad=True)

        def full() -> None:
            logits.grad = None
            rnnt_loss(logits, frames, targets).sum().backward()

        return full

    head = TransducerHead(TransducerConfig(loss="full" if kind == "joint" else "pruned"), DIM, VOCABULARY)
    encoded = torch.randn(BATCH, FRAMES, DIM, requires_grad=True)

    def joined() -> None:
        encoded.grad = None
        head.zero_grad()
        head.loss(Padded(encoded, frames), targets).sum().backward()

    return joined


def measure(kind: str, threads: int, repeat: int) -> None:
    """Run one loss and print its line."""
    import torch

    torch.set_num_threads(threads)
    step = work(kind)
    before = peak()
    walls: list[float] = []
    cpus: list[float] = []
    for _ in range(repeat):
        wall, cpu = time.perf_counter(), time.process_time()
        step()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    print(
        f"{kind:8} wall best {min(walls):.3f} s, median {statistics.median(walls):.3f} s; "
        f"CPU / {threads} {min(cpus) / threads:.3f} s; "
        f"peak {peak():.0f} MB (inputs and libraries {before:.0f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--alone", action="store_true", help="measure in this process")
    options = parser.parse_args()
    for kind in options.kinds:
        if options.alone:
            measure(kind, options.threads, options.repeat)
            continue
        again = [
            "--kinds",
            kind,
            "--threads",
            str(options.threads),
            "--repeat",
            str(options.repeat),
            "--alone",
        ]
        subprocess.run([sys.executable, __file__, *again], check=True)


if __name__ == "__main__":
    main()
