"""C1: how much speech is enough? Error rates over the size of the training part, equal minutes of training.

    python benchmarks/low_resource/learning_curve.py digits [--minutes 6] [--seeds 1 2 3]
    python benchmarks/low_resource/learning_curve.py yoruba [--minutes 20] [--seeds 1]

digits: 100, 300, 1,000 and 2,700 clips of the official training part (each set part of the next); yoruba:
5, 15, 30 and 50 minutes; others by ``--sizes``. The recipe is chosen by the product for each size of corpus,
as a user would get it, but for ``--set``.
"""

from __future__ import annotations

from itertools import pairwise

from study import Arm, digits, parser_of, report, run_arms, shortened, sum_of

CLIPS = (100, 300, 1000, 2700)
MINUTES = (5.0, 15.0, 30.0, 50.0)


def main() -> None:
    parser = parser_of(__doc__, minutes=6.0)
    parser.add_argument("corpus", choices=("digits", "yoruba"))
    parser.add_argument("--sizes", type=float, nargs="+", help="clips or minutes")
    options = parser.parse_args()
    if options.corpus == "digits":
        sizes = {f"{n:g} clips": digits(options, int(n)) for n in options.sizes or CLIPS}
    else:
        sizes = {f"{n:g} min": shortened(options, "yoruba", n) for n in options.sizes or MINUTES}
    arms = [
        Arm(f"{options.corpus} {name}", corpus, {options.scored: (corpus, options.scored)})
        for name, corpus in sizes.items()
    ]
    scores = run_arms(arms, options)
    report(f"learning_curve_{options.corpus}", scores, options)
    rates = [sum_of(list(scores[arm.name][options.scored].words.values())).rate for arm in arms]
    falling = all(more <= less for less, more in pairwise(rates))
    print(f"  The curve {'falls with every step' if falling else 'does NOT fall with every step'}.")


if __name__ == "__main__":
    main()
