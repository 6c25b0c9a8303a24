"""C2: does clipping gradients lower the error rate? AdamW with and without, easy and stress recipe.

    python benchmarks/low_resource/clipping.py [--minutes 4] [--seeds 1 2 3] [--rate 0.0045]

Easy: the usual rate (``--rate``; 0.0045, a tenth of ScaledAdam's, for the Zipformer) and batches. Stress:
eight times the rate and utterances joined to mixed lengths. ScaledAdam, the default, clips by its own
statistics and cannot do without; hence AdamW. 1,000 clips of the digits.
"""

from __future__ import annotations

from study import Arm, digits, parser_of, report, run_arms, saved

KINDS = {"clipped": "training.max_grad_norm=5.0", "unclipped": "training.max_grad_norm=1e9"}


def main() -> None:
    parser = parser_of(__doc__, minutes=4.0)
    parser.add_argument("--rate", type=float, default=0.0045, help="of the easy recipe")
    options = parser.parse_args()
    recipes = {
        "easy": (f"training.schedule.lr={options.rate}",),
        "stress": (f"training.schedule.lr={8 * options.rate}", "data.joined_share=0.5"),
    }
    corpus = digits(options, 1000)
    tests = {options.scored: (corpus, options.scored)}
    arms = [
        Arm(f"{name} {kind}", corpus, tests, ("training.optimizer=adamw", *settings, clipping))
        for name, settings in recipes.items()
        for kind, clipping in KINDS.items()
    ]
    scores = run_arms(arms, options)
    report("clipping", scores, options)
    for name in recipes:
        one, two = (scores[f"{name} {kind}"][options.scored] for kind in ("unclipped", "clipped"))
        print(f"  {name}, clipped against unclipped: {saved(one, two)}")


if __name__ == "__main__":
    main()
