"""What the studies of this folder share: arms, seeds, corpora made from corpora, tables with intervals.

A study compares arms. Each arm is trained once per seed (gone on with where its folder is already there) and
scored; the counts of all seeds are added up utterance by utterance, so that an interval covers both chance in
training and the choice of utterances (whole speakers are drawn where there are ten or more).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from firstwords.audio.effects import add_noise
from firstwords.audio.noise import cut
from firstwords.audio.waveform import read, write
from firstwords.data.corpora.importing import import_corpus
from firstwords.data.manifest import Utterance, load_corpus, write_manifest
from firstwords.device import machine_name
from firstwords.report.evaluate_model import evaluate_model
from firstwords.scoring.error_rate import ErrorRate
from firstwords.scoring.significance import bootstrap_interval, relative_gain
from firstwords.training.log import read_log
from firstwords.training.run import train_corpus

RATE = 16000


@dataclass(frozen=True)
class Arm:
    """One way to train, on one corpus folder; ``tests``: name -> corpus folder and split."""

    name: str
    corpus: Path
    tests: dict[str, tuple[Path, str]]
    settings: tuple[str, ...] = ()
    size: str | None = None


@dataclass
class Scored:
    """Counts per utterance, summed over seeds, and each seed's own rates (percent)."""

    words: dict[str, ErrorRate] = field(default_factory=dict)
    graphemes: dict[str, ErrorRate] = field(default_factory=dict)
    speakers: dict[str, str | None] = field(default_factory=dict)
    each: list[tuple[float, float]] = field(default_factory=list)  # (CER, WER) of each seed

    def add(self, folder: Path, corpus: Path, split: str) -> None:
        evaluation = evaluate_model(folder, load_corpus(corpus), split)
        for result in evaluation.results:
            name = result.utterance.id
            self.words[name] = self.words.get(name, ErrorRate()) + result.words
            self.graphemes[name] = self.graphemes.get(name, ErrorRate()) + result.graphemes
            self.speakers[name] = result.utterance.speaker
        self.each.append((100 * evaluation.graphemes.rate, 100 * evaluation.words.rate))

    def line(self) -> str:
        """Mean rates with 95 % intervals, and those of each seed."""
        parts: list[str] = []
        for label, counts, column in (("CER", self.graphemes, 0), ("WER", self.words, 1)):
            rates = list(counts.values())
            low, high = bootstrap_interval(rates, list(self.speakers.values())).bounds(sum_of(rates))
            seeds = ", ".join(f"{rates[column]:.1f}" for rates in self.each)
            parts.append(
                f"{label} {100 * sum_of(rates).rate:.2f} % ({100 * low:.2f} to {100 * high:.2f}; {seeds})"
            )
        return " · ".join(parts)


def sum_of(rates: Sequence[ErrorRate]) -> ErrorRate:
    return sum(rates, ErrorRate())


def saved(before: Scored, after: Scored) -> str:
    """The share of word errors that the second saves, with its interval."""
    names = [name for name in before.words if name in after.words]
    one, two = [before.words[n] for n in names], [after.words[n] for n in names]
    gain = relative_gain(one, two, [before.speakers[n] for n in names])
    share = 1 - sum_of(two).rate / max(sum_of(one).rate, 1e-9)
    return f"{100 * share:.1f} % fewer word errors ({100 * gain.low:.1f} to {100 * gain.high:.1f})"


def step_seconds(folder: Path) -> float:
    """Median time of a training step, the first tenth left out."""
    seconds = [r["seconds"] for r in read_log(folder / "resume" / "log.jsonl") if r["kind"] == "train"]
    return statistics.median(seconds[len(seconds) // 10 :])


def train(corpus: Path, folder: Path, **options: Any) -> None:
    """Train, or go on; an interruption ends the study: half a training is no result."""
    if not train_corpus(corpus, folder, **options).finished:
        raise KeyboardInterrupt


def run_arms(
    arms: Sequence[Arm], options: argparse.Namespace, *, after: Callable[[Arm, int, Path], None] | None = None
) -> dict[str, dict[str, Scored]]:
    """Train and score all arms, seed by seed (so that a slow hour of the machine meets all of them).

    Returns:
        name of arm -> name of test -> what came out.
    """
    scores: dict[str, dict[str, Scored]] = {arm.name: defaultdict(Scored) for arm in arms}
    for seed in options.seeds:
        for arm in arms:
            folder = options.folder / f"{arm.name}-{seed}"
            train(
                arm.corpus,
                folder,
                size=arm.size or options.size,
                minutes=options.minutes,
                overrides=[
                    f"seed={seed}",
                    *([f"training.steps={options.steps}"] if options.steps else []),
                    *arm.settings,
                    *options.set,
                ],
                threads=options.threads,
            )
            if after is not None:
                after(arm, seed, folder)
            for name, (corpus, split) in arm.tests.items():
                scores[arm.name][name].add(folder, corpus, split)
    return scores


def report(study: str, scores: dict[str, dict[str, Scored]], options: argparse.Namespace) -> None:
    """Print the table and keep the counts."""
    print(f"\n{study}; {machine_name()}; seeds {options.seeds}; scored: {options.scored}")
    for arm, tests in scores.items():
        for test, scored in tests.items():
            print(f"  {arm:24s} {test:12s} {scored.line()}")
    record = {
        arm: {
            test: {"each": s.each, "words": {name: asdict(rate) for name, rate in s.words.items()}}
            for test, s in tests.items()
        }
        for arm, tests in scores.items()
    }
    (options.folder / f"{study}.json").write_text(json.dumps(record, indent=1), encoding="utf-8")


def parser_of(text: str | None, *, minutes: float) -> argparse.ArgumentParser:
    """The options that all studies take."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--shared", type=Path, default=Path("../shared/corpora"), help="folder of the corpora"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--minutes", type=float, default=minutes, help="at most, of each training")
    parser.add_argument("--steps", type=int, help="of each training, whatever the machine")
    parser.add_argument("--size")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--threads", type=int)
    parser.add_argument(
        "--scored", choices=("dev", "test"), default="test", help="dev: while settings are chosen"
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/low_resource"))
    return parser


def index_of(utterance: Utterance) -> int:
    """Which recording of a digit by its speaker (ids DIGIT_SPEAKER_INDEX; 0 to 4 are the official test)."""
    return int(utterance.id.rpartition("_")[2])


def digits(options: argparse.Namespace, clips: int) -> Path:
    """A corpus folder with so many training clips.

    They are the first of a seeded order that goes round all speakers and digits, so that a smaller set is
    part of a larger. Test: indices 0 to 4; dev: 5 to 9 (in training, too, where all 2,700 are asked for).
    """
    folder: Path = options.folder / f"digits-{clips}"
    if (folder / "manifest.jsonl").exists():
        return folder
    cells: dict[str, list[Utterance]] = defaultdict(list)
    rows: list[Utterance] = []
    for one in load_corpus(options.shared / "digits_en").utterances:
        if index_of(one) < 5:
            rows.append(replace(one, split="test"))
        else:
            if index_of(one) < 10:
                rows.append(replace(one, split="dev", id=f"{one.id}_dev"))
            cells[one.id.rpartition("_")[0]].append(one)
    chance = random.Random(7)
    for cell in cells.values():
        chance.shuffle(cell)
        cell.sort(key=lambda u: index_of(u) < 10)  # what dev holds, too, comes last
    names = sorted(cells)
    chance.shuffle(names)
    order = [cells[name][turn] for turn in range(max(map(len, cells.values()))) for name in names
             if turn < len(cells[name])]  # fmt: skip
    rows += [replace(one, split="train") for one in order[:clips]]
    folder.mkdir(parents=True, exist_ok=True)
    write_manifest(folder / "manifest.jsonl", rows)
    return folder


def whole(options: argparse.Namespace, name: str) -> Path:
    """A shared corpus as the product imports it."""
    folder: Path = options.folder / name
    if not (folder / "manifest.jsonl").exists():
        import_corpus(options.shared / name, folder)
    return folder


def shortened(options: argparse.Namespace, name: str, minutes: float) -> Path:
    """A corpus folder with the first so many minutes of a seeded order of the training utterances."""
    folder: Path = options.folder / f"{name}-{minutes:g}min"
    if (folder / "manifest.jsonl").exists():
        return folder
    corpus = load_corpus(whole(options, name))
    train = list(corpus.split("train"))
    random.Random(7).shuffle(train)
    kept: list[Utterance] = []
    seconds = 0.0
    for one in train:
        if seconds < 60 * minutes:
            kept.append(one)
            seconds += one.duration
    folder.mkdir(parents=True, exist_ok=True)
    others = [u for u in corpus.utterances if u.split in ("dev", "test")]
    write_manifest(folder / "manifest.jsonl", [*kept, *others])
    return folder


def noisy(options: argparse.Namespace, corpus: Path, split: str, snr_db: tuple[float, float]) -> Path:
    """The utterances of a split with recordings of noise (fold 5) at random SNRs, always the same."""
    folder: Path = options.folder / f"{corpus.name}-{split}-noisy"
    if (folder / "manifest.jsonl").exists():
        return folder
    chance = np.random.default_rng(7)
    noise = load_corpus(options.shared / "noise").split("fold5")
    rows: list[Utterance] = []
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    for one in load_corpus(corpus).split(split):
        clean = samples_of(one)
        drawn = samples_of(noise[int(chance.integers(len(noise)))])
        mixed = add_noise(
            clean, cut(drawn, len(clean), float(chance.random()), RATE), float(chance.uniform(*snr_db)), RATE
        )
        path = folder / "audio" / f"{one.id}.wav"
        write(path, mixed / max(1.0, float(np.abs(mixed).max())), RATE)
        rows.append(replace(one, audio=path, start=0.0))
    write_manifest(folder / "manifest.jsonl", rows)
    return folder


def samples_of(utterance: Utterance) -> np.ndarray:
    """At 16 kHz, one channel."""
    return read(utterance.audio, sample_rate=RATE, start=utterance.start, duration=utterance.duration).samples
