"""What each choice of the default recipe is worth on an hour of speech, at equal seconds of audio encoded.

    python benchmarks/low_resource/ablations.py [--corpus yoruba] [--passes 8] [--seeds 1 2] [--only NAME ...]
                                               [--rates 0.5 1 2]

Every arm of the table below is trained with three learning rates (half, once and twice the default; a
twentieth of that for AdamW, which learned nothing with more), all with the first seed; the best rate of each
arm, by dev CER, with the other seeds, too. ``--every`` trains all rates with all seeds. Always on dev:
nothing here looks at the test split.

``--passes`` counts passes of the encoder over the training split: CR-CTC hears two views from a point of
the run on, and so gets fewer updates. What was really encoded stands in the table. Runs lie in FOLDER and are
gone on with where they are there; what other recipes left there is refused, not mixed in.
"""

from __future__ import annotations

import statistics
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

from study import Scored, parser_of, report, saved, sum_of, train

from firstwords.data.corpora.importing import import_corpus
from firstwords.data.manifest import load_corpus
from firstwords.training.choose import CONSISTENCY, CONSISTENCY_START, LIGHT_DROPOUT, MASK_WARMUP
from firstwords.training.log import read_log
from firstwords.training.plan import PHASES, REFERENCE_STEPS

RATE = 0.045  # ScaledAdam's default
RATES = (0.5, 1.0, 2.0)  # of an arm's own
BATCH = 20.0  # seconds, for each arm

OFF = ("data.augment.room.probability=0", "data.augment.noise.probability=0")
PLAIN = ("heads.ctc.consistency=0", "training.consistency_start=0")
LIGHT = f"training.mask_warmup={MASK_WARMUP[1]}"


@dataclass(frozen=True)
class Choice:
    """One way to train; ``rate`` is what its three rates go around."""

    settings: tuple[str, ...]
    size: str = "tiny"
    rate: float = RATE
    two_views: bool = False


CHOICES = {
    "CTC": Choice((*PLAIN, *OFF, LIGHT)),
    "CR-CTC": Choice(
        (
            f"heads.ctc.consistency={CONSISTENCY}",
            f"training.consistency_start={CONSISTENCY_START}",
            f"training.mask_warmup={MASK_WARMUP[2]}",
            *OFF,
        ),
        two_views=True,
    ),
    "AdamW": Choice((*PLAIN, *OFF, LIGHT, "training.optimizer=adamw"), rate=RATE / 20),
    "no masks": Choice((*PLAIN, *OFF, "training.specaugment.probability=0")),
    "full masks from the start": Choice((*PLAIN, *OFF, "training.mask_warmup=0")),
    "one speed": Choice((*PLAIN, *OFF, LIGHT, "data.speeds=[1.0]")),
    "no gain": Choice((*PLAIN, *OFF, LIGHT, "data.augment.gain.probability=0")),
    "rooms and noise": Choice(
        (*PLAIN, LIGHT, "data.augment.room.probability=0.3", "data.augment.noise.probability=0.5")
    ),
    "schedules not scaled": Choice((*PLAIN, *OFF, LIGHT, "training.schedule_scale=1.0")),
    "nano": Choice((*PLAIN, *OFF, LIGHT), size="nano"),
    "S": Choice((*PLAIN, *OFF, LIGHT), size="S"),
}


def steps_of(choice: Choice, train_seconds: float, passes: float) -> int:
    """Updates after which so many passes are encoded, if batches were full."""
    late = 1 - CONSISTENCY_START * PHASES / REFERENCE_STEPS  # share of the run with two views
    return round(passes * train_seconds / (BATCH * (1 + late if choice.two_views else 1)))


def encoded_hours(folder: Path, choice: Choice) -> float:
    """Of audio that the encoder of a finished run has gone over, by its log."""
    steps = [r for r in read_log(folder / "resume" / "log.jsonl") if r["kind"] == "train"]
    start = CONSISTENCY_START * PHASES / REFERENCE_STEPS * len(steps) if choice.two_views else len(steps)
    return sum(r["audio"] * (2 if n >= start else 1) for n, r in enumerate(steps)) / 3600


def run(name: str, share: float, seed: int, options: Namespace, corpus: Path, steps: int) -> Path:
    """Train an arm with one rate and seed, or go on -> its folder."""
    choice = CHOICES[name]
    folder: Path = options.folder / f"{name.replace(' ', '_')}-{share:g}-{seed}"
    train(
        corpus,
        folder,
        size=choice.size,
        minutes=options.minutes,
        overrides=[
            f"seed={seed}",
            f"training.schedule.lr={choice.rate * share}",
            f"training.batch_seconds={BATCH}",
            "training.accumulate=1",
            "training.processes=1",
            f"training.steps={steps}",
            f"encoder.dropout={list(LIGHT_DROPOUT)}",
            "heads.ctc.intermediate=[]",
            "heads.ctc.self_conditioned=false",
            *choice.settings,
            *options.set,
        ],
        threads=options.threads,
    )
    return folder


def main() -> None:
    parser = parser_of(__doc__, minutes=240.0)
    parser.set_defaults(seeds=[1, 2], scored="dev", folder=Path("runs/ablations"))
    parser.add_argument("--corpus", default="yoruba")
    parser.add_argument("--passes", type=float, default=8.0)
    parser.add_argument("--only", nargs="+", choices=list(CHOICES), default=list(CHOICES))
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="of an arm's own")
    parser.add_argument("--every", action="store_true", help="all rates with all seeds")
    options = parser.parse_args()
    if options.scored != "dev":
        parser.error("choices are made on dev")
    corpus: Path = options.folder / options.corpus
    if not (corpus / "manifest.jsonl").exists():
        import_corpus(options.shared / options.corpus, corpus)
    seconds = sum(u.duration for u in load_corpus(corpus).split("train"))
    best: dict[str, Scored] = {}
    rows: list[str] = []
    for name in options.only:
        choice = CHOICES[name]
        steps = options.steps or steps_of(choice, seconds, options.passes)
        found: dict[float, Scored] = {}
        hours: list[float] = []
        for share in options.rates:
            found[share] = Scored()
            for seed in options.seeds if options.every else options.seeds[:1]:
                folder = run(name, share, seed, options, corpus, steps)
                found[share].add(folder, corpus, "dev")
                hours.append(encoded_hours(folder, choice))
        chosen = min(options.rates, key=lambda share: sum_of(list(found[share].graphemes.values())).rate)
        for seed in [] if options.every else options.seeds[1:]:
            found[chosen].add(run(name, chosen, seed, options, corpus, steps), corpus, "dev")
        best[name] = found[chosen]
        by_rate = ", ".join(f"{statistics.mean(cer for cer, _ in found[s].each):.1f}" for s in options.rates)
        rows.append(
            f"  {name:26s} best rate {choice.rate * chosen:g}; dev CER by rate {by_rate}; "
            f"{steps} updates, {statistics.mean(hours):.2f} h encoded"
        )
        print(rows[-1], flush=True)
    report("ablations", {name: {"dev": scored} for name, scored in best.items()}, options)
    print("\n".join(rows))
    first, *others = best
    for name in others:
        print(f"  {name} against {first}: {saved(best[first], best[name])}")


if __name__ == "__main__":
    main()
