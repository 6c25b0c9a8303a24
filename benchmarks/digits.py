"""Isolated digits: the official split, its dev part for tuning, and one speaker left out after the other.

    python benchmarks/digits.py CORPUS {dev,official,voices,speakers} [--seeds 1 2 3] [--minutes 6]
                                [--set key=value ...] [--dev-indices 10] [--words ORDER]

CORPUS is the Free Spoken Digit Dataset as shared (ids DIGIT_SPEAKER_INDEX; 0 to 4 are the official test).

    dev        trains on indices from 10 on, scores indices 5 to 9: for tuning. Where those are nearly all
               right, --dev-indices 20 scores 5 to 19 (900 clips) and trains on the rest
    official   trains on indices from 5 on, scores 0 to 4, once per seed
    voices     trains on all clips of all but the --voices, scores theirs: for tuning what 'speakers' reports.
               Weights are chosen on a fifth of the scored clips, so that its curve shows when to stop
    speakers   for each speaker: trains on all clips of the others, scores all of the one who was left out

With --words each model is scored a second time, helped by an n-gram of its own training transcripts (weight
0.3, the default): every clip is one word, and the n-gram knows it.

Weights are chosen on indices 5 to 9 of the training speakers, in 'official' and 'speakers' although these are
in the training, too.
Prints the share of clips that are read right, with 95 % Wilson intervals; 'speakers' uses the first seed.
Runs lie in runs/digits and are gone on with when they are there.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from firstwords.data.manifest import Corpus, Utterance, load_corpus, write_manifest
from firstwords.device import machine_name
from firstwords.inference.recognizer import Recognizer
from firstwords.lm.language_model import NgramHeader, NgramLanguageModel
from firstwords.lm.ngram_estimate import estimate_ngram
from firstwords.lm.ngram_scorer import NgramScorer
from firstwords.lm.ngram_text import Line, gather, splitter
from firstwords.report.evaluate_model import evaluate_model
from firstwords.report.evaluation import Evaluation
from firstwords.search.fusion import Scorers
from firstwords.search.interface import GreedyConfig
from firstwords.text.normalize import normalizer
from firstwords.training.run import train_corpus


def index_of(utterance: Utterance) -> int:
    return int(utterance.id.rpartition("_")[2])


def write_split(
    utterances: Sequence[Utterance],
    folder: Path,
    *,
    tested: Callable[[Utterance], bool],
    dev_in_train: bool,
    dev_indices: int = 10,
    dev_tested: bool = False,
) -> None:
    """A corpus folder: test as told, dev the indices 5 to ``dev_indices`` - 1 of the rest, and training.

    Args:
        dev_tested: dev is every fifth clip of test instead.
    """
    rows: list[Utterance] = []
    for utterance in utterances:
        if tested(utterance):
            rows.append(replace(utterance, split="test"))
            if dev_tested and index_of(utterance) % 5 == 0:
                rows.append(replace(utterance, split="dev", id=f"{utterance.id}_dev"))
            continue
        if dev_tested:
            rows.append(replace(utterance, split="train"))
            continue
        if index_of(utterance) < 5:
            if dev_in_train:
                rows.append(replace(utterance, split="train"))
            continue
        is_dev = index_of(utterance) < dev_indices
        if is_dev:
            rows.append(replace(utterance, split="dev", id=f"{utterance.id}_dev"))
        if dev_in_train or not is_dev:
            rows.append(replace(utterance, split="train"))
    folder.mkdir(parents=True, exist_ok=True)
    write_manifest(folder / "manifest.jsonl", rows)


def interval(right: int, of: int) -> tuple[float, float]:
    """Wilson score interval, 95 %."""
    z, share = 1.96, right / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of)) / (1 + z * z / of)
    return middle - half, middle + half


def with_words(folder: Path, corpus: Corpus, order: int) -> Recognizer:
    """The model, greedy with an n-gram of the transcripts that it was trained with, over its own pieces."""
    recognizer = Recognizer.load(folder, device="cpu")
    normal = recognizer.recipe.text.normalizer
    lines = (Line(u.text or "", u.id, 1) for u in corpus.split("train"))
    text = gather(lines, split=splitter("piece", recognizer.tokenizer), normalize=normalizer(normal))
    header = NgramHeader(unit="piece", order=order, normalizer=normal, pieces=recognizer.tokenizer.piece_hash)
    model = estimate_ngram(text.tokens, text.words, order).model
    lm = NgramLanguageModel(header, model, recognizer.tokenizer)
    recognizer.use(GreedyConfig(), Scorers(language_model=NgramScorer(lm, recognizer.tokenizer)))
    return recognizer


def one_run(name: str, corpus: Path, split: str, seed: int, options: argparse.Namespace) -> tuple[int, int]:
    """Train and score -> clips read right, clips; with --words those of the second scoring."""
    folder = options.folder / f"{name}-{seed}"
    done = train_corpus(
        corpus,
        folder,
        minutes=options.minutes,
        size=options.size,
        overrides=[f"seed={seed}", *options.set],
        threads=options.threads,
    )
    if not done.finished:
        raise SystemExit(f"{name}, seed {seed}: interrupted, not scored. The same command goes on with it.")
    loaded = load_corpus(corpus)
    found = scored(f"{name}, seed {seed}", evaluate_model(folder, loaded, split))
    if options.words is not None:
        helped = with_words(folder, loaded, options.words)
        found = scored(
            f"{name}, seed {seed}, with words", evaluate_model(folder, loaded, split, recognizer=helped)
        )
    return found


def scored(name: str, evaluation: Evaluation) -> tuple[int, int]:
    """Clips read right, clips; printed, and what was read wrong."""
    wrong = [r for r in evaluation.results if r.words.errors]
    for result in wrong:
        print(f"    {result.utterance.id}: '{result.reference}' read as '{result.hypothesis}'")
    right, of = len(evaluation.results) - len(wrong), len(evaluation.results)
    low, high = interval(right, of)
    print(f"{name}: {right} of {of} right, {right / of:.2%} ({low:.2%} to {high:.2%})", flush=True)
    return right, of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("mode", choices=("dev", "official", "voices", "speakers"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--size")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--folder", type=Path, default=Path("runs/digits"))
    parser.add_argument("--dev-indices", type=int, default=10, help="of mode dev: 5 to below this are dev")
    parser.add_argument("--voices", nargs="+", default=["lucas", "theo"], help="of mode voices: left out")
    parser.add_argument("--folds", nargs="+", help="of mode speakers: these are left out, not all in turn")
    parser.add_argument(
        "--words", type=int, metavar="ORDER", help="score with an n-gram of the transcripts, too"
    )
    options = parser.parse_args()
    print(machine_name())
    utterances = load_corpus(options.corpus).utterances
    options.folder.mkdir(parents=True, exist_ok=True)
    scores: list[tuple[int, int]] = []
    if options.mode == "voices":
        name = "without-" + "-".join(sorted(options.voices))
        corpus = options.folder / f"corpus-{name}"
        write_split(
            utterances,
            corpus,
            tested=lambda u: u.speaker in options.voices,
            dev_in_train=True,
            dev_tested=True,
        )
        scores += [one_run(name, corpus, "test", seed, options) for seed in options.seeds]
    elif options.mode == "speakers":
        for speaker in options.folds or sorted({u.speaker for u in utterances if u.speaker}):
            corpus = options.folder / f"corpus-without-{speaker}"
            write_split(utterances, corpus, tested=lambda u, s=speaker: u.speaker == s, dev_in_train=True)
            scores.append(one_run(f"without-{speaker}", corpus, "test", options.seeds[0], options))
    else:
        official = options.mode == "official"
        dev_indices = 10 if official else options.dev_indices
        corpus = options.folder / f"corpus-{options.mode}{'' if dev_indices == 10 else dev_indices}"
        write_split(
            utterances,
            corpus,
            tested=lambda u: official and index_of(u) < 5,
            dev_in_train=official,
            dev_indices=dev_indices,
        )
        split = "test" if official else "dev"
        scores += [one_run(options.mode, corpus, split, seed, options) for seed in options.seeds]
    shares = [right / of for right, of in scores]
    print(
        f"{options.mode}: mean {statistics.mean(shares):.2%} of {len(shares)} runs, lowest {min(shares):.2%}"
    )
    (options.folder / f"{options.mode}.json").write_text(json.dumps(scores), encoding="utf-8")


if __name__ == "__main__":
    main()
