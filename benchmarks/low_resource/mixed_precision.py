"""C11: what half precision in training is worth: time of a step and errors, fp32 against bf16, equal steps.

    python benchmarks/low_resource/mixed_precision.py [digits|yoruba] [--steps 600] [--seeds 1 2 3]

The runs of a seed follow each other, so that a slow hour of the machine meets both. A processor without
native bfloat16 trains in fp32 either way, and the ratio says so (benchmarks/bf16_losses.py compares the loss
curves).
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from pathlib import Path

from study import Arm, digits, parser_of, report, run_arms, step_seconds, whole

LEAST = 1.2


def main() -> None:
    parser = parser_of(__doc__, minutes=60.0)
    parser.set_defaults(steps=600, size="tiny")
    parser.add_argument(
        "corpus", choices=("digits", "yoruba", "swahili", "english"), nargs="?", default="digits"
    )
    options = parser.parse_args()
    corpus = digits(options, 1000) if options.corpus == "digits" else whole(options, options.corpus)
    tests = {options.scored: (corpus, options.scored)}
    arms = [
        Arm(precision, corpus, tests, (f"training.precision={precision}",)) for precision in ("fp32", "bf16")
    ]
    times: dict[str, list[float]] = defaultdict(list)

    def keep(arm: Arm, seed: int, folder: Path) -> None:
        times[arm.name].append(step_seconds(folder))

    scores = run_arms(arms, options, after=keep)
    report("mixed_precision", scores, options)
    ratios = [slow / fast for slow, fast in zip(times["fp32"], times["bf16"], strict=True)]
    told = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(
        f"  A step in bf16 is {statistics.median(ratios):.2f} times as fast (by seed {told}; goal {LEAST})."
    )


if __name__ == "__main__":
    main()
