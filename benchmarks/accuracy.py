"""Error rate from scratch on one of the shared corpora, with the curve of dev errors over core-minutes.

    python benchmarks/accuracy.py CORPUS [--minutes 60] [--seed 1] [--recipe FILE] [--set key=value ...]
                                  [--no-test] [--folder runs/accuracy/NAME]

CORPUS is a folder that 'firstwords import' takes. Trains (or goes on training) with the recipe that
'firstwords train' would choose, or the given one; prints the dev curve, then dev and test error rates with
95 % intervals, with diacritics removed beside them. Settings are tuned with --no-test; the test split is
scored once.
"""

from __future__ import annotations

import argparse
import json
from datetime import date
from pathlib import Path
from typing import Any

from firstwords.data.corpora.importing import import_corpus
from firstwords.data.manifest import load_corpus
from firstwords.device import machine_name
from firstwords.model.recipe import read_recipe
from firstwords.report.evaluate_model import evaluate_model
from firstwords.report.evaluation import Evaluation
from firstwords.training.run import train_corpus


def dev_curve(log: Path, threads: int) -> list[dict[str, Any]]:
    """Validations of a run: core-minutes of training so far (validation not counted), CER, which weights."""
    curve: list[dict[str, Any]] = []
    seconds = audio = 0.0
    for line in log.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if record["kind"] == "train":
            seconds += record["seconds"]
            audio += record.get("audio", 0.0)
        elif record["kind"] == "dev":
            curve.append(
                {
                    "step": record["step"],
                    "core_minutes": seconds * threads / 60,
                    "audio_hours": audio / 3600,
                    "cer": record["cer"],
                    "wer": record["wer"],
                    "weights": record["weights"],
                }
            )
    return curve


def described(evaluation: Evaluation) -> dict[str, Any]:
    """Rates and intervals of one evaluation, in percent."""
    low, high = evaluation.grapheme_interval.low, evaluation.grapheme_interval.high
    right = sum(r.words.errors == 0 for r in evaluation.results)
    return {
        "split": evaluation.split,
        "utterances": len(evaluation.results),
        "cer": 100 * evaluation.graphemes.rate,
        "cer_interval": [100 * low, 100 * high],
        "wer": 100 * evaluation.words.rate,
        "wer_interval": [100 * evaluation.word_interval.low, 100 * evaluation.word_interval.high],
        "cer_without_diacritics": 100 * evaluation.total("bare_graphemes").rate,
        "utterances_right": 100 * right / len(evaluation.results),
        "rtf": evaluation.real_time_factor,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--recipe", type=Path)
    parser.add_argument("--size")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--no-test", action="store_true", help="tuning: leave the test split alone")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    folder: Path = options.folder or Path("runs/accuracy") / f"{options.corpus.name}-{options.seed}"
    corpus = folder.parent / f"{options.corpus.name}-corpus"
    if not (corpus / "manifest.jsonl").exists():
        import_corpus(options.corpus, corpus)
    result = train_corpus(
        corpus,
        folder,
        recipe=read_recipe(options.recipe) if options.recipe else None,
        size=options.size,
        minutes=options.minutes,
        overrides=[f"seed={options.seed}", *options.set],
        threads=options.threads,
    )
    if not result.finished:
        raise SystemExit("Interrupted, not scored. The same command goes on with it.")
    report: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": machine_name(),
        "corpus": options.corpus.name,
        "seed": options.seed,
        "steps": result.steps,
        "wall_minutes": result.elapsed / 60,
        "curve": dev_curve(folder / "resume" / "log.jsonl", options.threads or 2),
    }
    for split in ("dev",) if options.no_test else ("dev", "test"):
        report[split] = described(evaluate_model(folder, load_corpus(corpus), split))
    for point in report["curve"]:
        print(
            f"{point['core_minutes']:6.1f} core-min  {point['audio_hours']:6.2f} h of audio  "
            f"dev CER {100 * point['cer']:5.1f}  ({point['weights']})"
        )
    print(json.dumps({k: v for k, v in report.items() if k != "curve"}, indent=1, ensure_ascii=False))
    (folder / "accuracy.json").write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
