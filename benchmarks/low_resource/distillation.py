"""C3, C4: what a teacher is worth to a small student, and how much faster the student is.

    python benchmarks/low_resource/distillation.py [digits] [--clips 1000] [--steps 2000] [--seeds 1 2 3]
    python benchmarks/low_resource/distillation.py yoruba [--teacher MODEL] [--steps 2000]

One teacher (size tiny, or --teacher MODEL) is trained on the corpus; students (size nano) learn from
transcripts alone, and from transcripts and the teacher, with equal steps and seeds. Claims: at least 15 (aim
18) % fewer word errors than the same student alone, and at least 1.25 times the teacher's speed (one thread,
5 s of speech).
"""

from __future__ import annotations

from pathlib import Path

from study import Arm, digits, parser_of, report, run_arms, saved, train, whole

from firstwords.data.manifest import load_corpus
from firstwords.report.compression import compare_variants


def main() -> None:
    parser = parser_of(__doc__, minutes=6.0)
    parser.set_defaults(size="nano", steps=2000, minutes=120.0)
    parser.add_argument(
        "corpus", choices=("digits", "yoruba", "swahili", "english"), nargs="?", default="digits"
    )
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--teacher", type=Path, help="a trained model instead of one made here")
    parser.add_argument("--teacher-minutes", type=float, default=12.0)
    options = parser.parse_args()
    few = options.corpus == "digits"
    corpus = digits(options, options.clips) if few else whole(options, options.corpus)
    teacher: Path = options.teacher or options.folder / f"teacher-{corpus.name}"
    if options.teacher is None:
        train(
            corpus, teacher, size="tiny", minutes=options.teacher_minutes, overrides=["seed=1"],
            threads=options.threads,
        )  # fmt: skip
    tests = {options.scored: (corpus, options.scored)}
    still = "training.specaugment.time_warp=0"  # the teacher hears what is cached, at the same times
    arms = [
        Arm("alone", corpus, tests, (still,)),
        Arm("taught", corpus, tests, (still, f"distillation.teacher={teacher.resolve()}")),
    ]
    scores = run_arms(arms, options)
    report("distillation", scores, options)
    print(
        f"  taught against alone: {saved(scores['alone'][options.scored], scores['taught'][options.scored])}"
    )
    student = options.folder / f"taught-{options.seeds[0]}"
    heavy, light = compare_variants([teacher, student], load_corpus(corpus), options.scored).variants
    for length, seconds in heavy.seconds.items():
        print(f"  {length:g} s of speech: {seconds / light.seconds[length]:.2f} times the teacher's speed")
    print(
        f"  parameters {heavy.parameters} -> {light.parameters}; teacher's errors {heavy.words.rate:.2%} WER"
    )


if __name__ == "__main__":
    main()
