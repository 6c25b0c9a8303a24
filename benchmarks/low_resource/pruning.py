"""C7, C8, C12: what can be cut from a model, and what that costs, beside cutting at random.

    python benchmarks/low_resource/pruning.py MODEL CORPUS [--shares 0.3 0.5] [--minutes 4] [--seeds 1 2 3]
    python benchmarks/low_resource/pruning.py --reference-1m CORPUS     trains recipes/reference_1m.toml first

Each share is cut by Taylor gates and at random (the control), and tuned for equal minutes. Claims: 30 % of
the parameters at no more than 1.5 points of WER (aim: half); 25 % fewer multiply-accumulates and 15 % less
time at no more than 0.3 points. Each seed cuts and tunes anew (magnitude
always cuts the same); the model is one.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from pathlib import Path

from study import Scored, parser_of, report, sum_of, train

from firstwords.compression.prune import Orders, prune_model
from firstwords.data.manifest import load_corpus
from firstwords.model.recipe import read_recipe
from firstwords.report.compression import Variant, compare_variants
from firstwords.scoring.significance import paired_difference

RECIPE = Path(__file__).parents[2] / "recipes" / "reference_1m.toml"


def main() -> None:
    parser = parser_of(__doc__, minutes=4.0)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--reference-1m", action="store_true")
    parser.add_argument("--reference-minutes", type=float, default=15.0)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.3, 0.5])
    parser.add_argument("--by", nargs="+", default=["taylor", "random"])
    parser.add_argument("--per", choices=("parameter", "mac"), default="parameter")
    options = parser.parse_args()
    if options.reference_1m:
        model: Path = options.folder / "reference-1m"
        train(
            options.corpus, model, recipe=read_recipe(RECIPE), minutes=options.reference_minutes,
            threads=options.threads,
        )  # fmt: skip
    elif options.model is not None:
        model = options.model
    else:
        parser.error("name a MODEL, or --reference-1m")
    split = options.scored
    before = Scored()
    before.add(model, options.corpus, split)
    scores: dict[str, dict[str, Scored]] = {"whole": {split: before}}
    folders: dict[str, list[Path]] = defaultdict(list)
    for seed in options.seeds:
        for share in options.shares:
            for by in options.by:
                name = f"{by} {share:.0%}"
                folder = options.folder / f"{model.name}-{by}-{options.per}-{share}-{seed}"
                orders = Orders(cut=share, by=by, minutes=options.minutes, per=options.per, seed=seed)
                if not (folder / "compression.json").is_file():  # of a study that was stopped
                    prune_model(model, options.corpus, folder, orders)
                scores.setdefault(name, {split: Scored()})[split].add(folder, options.corpus, split)
                folders[name].append(folder)
    report(f"pruning_{model.name}", scores, options)
    first = {name: found[0] for name, found in folders.items()}
    variants = compare_variants([model, *first.values()], load_corpus(options.corpus), split).variants
    for name, variant in zip(first, variants[1:], strict=True):
        print(f"  {name}: {_told(variants[0], variant)}; {_lost(before, scores[name][split], options.seeds)}")


def _told(whole: Variant, small: Variant) -> str:
    times = [
        f"{length:g} s {1 - small.seconds[length] / whole.seconds[length]:+.0%}" for length in whole.seconds
    ]
    return (
        f"parameters {1 - small.parameters / whole.parameters:.1%} fewer, MACs "
        f"{1 - small.macs_per_second / whole.macs_per_second:.1%} fewer, time saved {', '.join(times)}"
    )


def _lost(before: Scored, after: Scored, seeds: list[int]) -> str:
    """Points of WER more than the whole model has, mean of the seeds, with the interval of one."""
    names = list(before.words)
    times = len(seeds)
    repeated = [sum_of([before.words[n]] * times) for n in names]
    found = paired_difference(repeated, [after.words[n] for n in names], [before.speakers[n] for n in names])
    each = statistics.mean(wer for _, wer in after.each)
    return (
        f"WER {each - before.each[0][1]:+.2f} points "
        f"({100 * found.interval.low:+.2f} to {100 * found.interval.high:+.2f})"
    )


if __name__ == "__main__":
    main()
