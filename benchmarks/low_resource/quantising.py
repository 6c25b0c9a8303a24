"""C6, C9, C10, C13: weights in fewer bits: bytes, errors, and the speed of 8-bit computation.

    python benchmarks/low_resource/quantising.py MODEL CORPUS [--scored dev]

Without training after rounding. Claims: int8 at most 30 % of the bytes and 1 point; mixed 4 to 8 bits at most
18 % and 1 point, and better than equal bits everywhere at equal bytes (both are measured on dev); int8 1.3
times as fast as fp32 in the runtime (benchmarks/runtime.py on the exported bundle) at no more than 5 % more
errors.
"""

from __future__ import annotations

from pathlib import Path

from study import Scored, parser_of, report, sum_of

from firstwords.compression.quantize import Order, quantize
from firstwords.model.checkpoint import WEIGHTS
from firstwords.scoring.significance import paired_difference

SHARE = 0.18  # of the bytes, for mixed bits


def main() -> None:
    parser = parser_of(__doc__, minutes=0.0)
    parser.add_argument("model", type=Path)
    parser.add_argument("corpus", type=Path)
    options = parser.parse_args()
    whole = (options.model / WEIGHTS).stat().st_size
    budget = int(SHARE * whole)
    orders = {
        "bf16": Order(kind="bf16"),
        "int8": Order(kind="int8"),
        "kmeans 6 bits": Order(kind="kmeans", bits=6),
        "kmeans 4 bits": Order(kind="kmeans", bits=4),
        "mixed": Order(budget=budget, corpus=options.corpus),
    }
    split = options.scored
    before = Scored()
    before.add(options.model, options.corpus, split)
    scores: dict[str, dict[str, Scored]] = {"fp32": {split: before}}
    bytes_of: dict[str, int] = {}
    for name, order in orders.items():
        folder = options.folder / f"{options.model.name}-{name.replace(' ', '-')}"
        if not (folder / WEIGHTS).is_file():
            done = quantize(options.model, folder, order)
            for other in done.others:
                print(
                    f"  {name}, on dev: {other.name} {other.bytes} bytes, CER {other.cer}, loss {other.loss}"
                )
        bytes_of[name] = (folder / WEIGHTS).stat().st_size
        scores[name] = {split: Scored()}
        scores[name][split].add(folder, options.corpus, split)
    report(f"quantising_{options.model.name}", scores, options)
    names = list(before.words)
    for name, size in bytes_of.items():
        after = scores[name][split]
        found = paired_difference(
            [before.words[n] for n in names],
            [after.words[n] for n in names],
            [before.speakers[n] for n in names],
        )
        rate = {name: sum_of(list(one.words.values())).rate for name, one in (("", before), (name, after))}
        low, high = 100 * found.interval.low, 100 * found.interval.high
        print(
            f"  {name}: {size} bytes, {size / whole:.1%} of fp32; WER {100 * found.difference:+.2f} points "
            f"({low:+.2f} to {high:+.2f}), {rate[name] / max(rate[''], 1e-9) - 1:+.1%} relative"
        )


if __name__ == "__main__":
    main()
