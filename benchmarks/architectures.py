"""Encoders and heads at about two million parameters, each after the same seconds of training audio.

    python benchmarks/architectures.py CORPUS [--epochs 20] [--minutes 20] [--size tiny] [--only NAME ...]
        [--rates 1 0.5 2 | --as-found] [--best 3] [--seeds 1 2 3] [--set training.mask_warmup=60000 ...]
        [--no-test] [--folder runs/architectures]
    python benchmarks/architectures.py --speed [--size tiny] [--only NAME ...] [--rounds 5] [--cpu-time]
        [--folder runs/architectures]

CORPUS is a folder that 'firstwords import' takes. Every variant of architectures_variants.py is trained
from scratch with the first seed and each of ``--rates`` (in units of its own learning rate); of each the best
rate by dev CER stays, and the best variants are trained with the other seeds. All hear ``--epochs`` passes of
the training split; ``--minutes`` is the most a run may take, and a run that it cut short is marked. ``--set``
gives all of them a setting of the recipe. Each run is a process of its own, with one training process and the
loader inside, so that its peak memory is its own. The test split is read with the runs that stay alone.

Results are appended to FOLDER/results.jsonl; what is there under the same conditions, ``--set`` included, is
not run again, and a run that was interrupted goes on. Two processes may share the folder where they run other
variants; ``--as-found`` then chooses each variant's rate among their runs. Kinds that this version does not
have are named as missing. At the end FOLDER/table.md holds:

    CER, WER     of the test split (``--no-test``: dev) with 95 % bootstrap intervals, greedy unless said
    rate         in units of the variant's own
    MACs         of encoder and frame-wise heads per second of audio (model/cost.py)
    training     seconds of audio per second of training steps, validation not counted
    inference    of encoder and frame-wise heads in the training's precision, batches of 8 x 10 s, median of 5
    memory       largest resident set of the process while it trained

Rates of trainings that ran one after the other are as good as the machine was idle. ``--speed`` compares them
without training: random weights, all variants in turn in one run (architectures_speed.py), and writes
FOLDER/speed-SIZE.md.
"""

# The parent stays small: on Linux a child's ru_maxrss starts at what its parent used. So no torch up here.
from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from architectures_variants import ADAMW, EQUAL, SCALED_ADAM, VARIANTS

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when a child loads torch; as the command line does
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

if TYPE_CHECKING:
    from firstwords.model.recipe import Recipe


def missing_kinds(variant: Mapping[str, Any]) -> list[str]:
    """Words of a variant that model/kinds.py does not know."""
    from firstwords.model.kinds import ENCODERS, HEADS

    encoder = variant["encoder"]["kind"]
    wanted = [] if encoder in ENCODERS else [f"encoder {encoder}"]
    return wanted + [f"head {h['kind']}" for h in variant["heads"].values() if h["kind"] not in HEADS]


def recipe_of(name: str, options: argparse.Namespace) -> Recipe:
    """A variant's recipe; all differ in encoder, heads and search alone."""
    from firstwords.config import override, parse_config
    from firstwords.data.manifest import load_corpus
    from firstwords.model import kinds
    from firstwords.model.recipe import Recipe
    from firstwords.text.normalize import normalizers_for
    from firstwords.training.choose import MASK_WARMUP

    variant = VARIANTS[name]
    config: Any = kinds.ENCODERS[variant["encoder"]["kind"]].config
    encoder = EQUAL.get(options.size, {}).get(variant["encoder"]["kind"])
    if encoder is None:
        encoder = config.preset(options.size).model_dump() if hasattr(config, "preset") else {}
    names = getattr(kinds, "HEAD_NAMES", {})
    language = "und"
    if not options.speed:
        language = load_corpus(corpus_folder(options)).utterances[0].language or "und"
    training, scoring = normalizers_for(language)
    quiet = {"probability": 0.0}
    own = SCALED_ADAM if variant["encoder"]["kind"] == "zipformer" else ADAMW
    schedule = own["schedule"] | {"lr": own["schedule"]["lr"] * options.rate}
    values: dict[str, Any] = {
        "name": name,
        "language": language,
        "seed": options.seed,
        "text": {"normalizer": training, "scoring": scoring},
        "tokenizer": {"kind": "graphemes"},
        "encoder": encoder | variant["encoder"],
        "heads": {names.get(head["kind"], key): head for key, head in variant["heads"].items()},
        "data": {"augment": {"room": quiet, "noise": quiet}},
        "training": {
            "epochs": options.epochs,
            "minutes": options.minutes,
            "batch_seconds": options.batch_seconds,
            "processes": 1,
            "sorted_first_epoch": False,
            "mask_warmup": MASK_WARMUP[2 if variant["heads"].get("ctc", {}).get("consistency") else 1],
            **own,
            "schedule": schedule,
        },
    }
    if "search" in variant:
        values["search"] = variant["search"]
    values = override(values, options.set) | {"name": name, "seed": options.seed}
    return parse_config(values, Recipe, name="recipe", source=name)


def folder_name(name: str, options: argparse.Namespace) -> str:
    """A model folder of its own for each variant, seed, rate and choice of ``--set``."""
    plain = f"{name.replace(', ', '-')}-{options.seed}"
    if options.rate != 1:
        plain += f"-{options.rate:g}"
    if not options.set:
        return plain
    return f"{plain}-{hashlib.sha256(json.dumps(sorted(options.set)).encode()).hexdigest()[:8]}"


def corpus_folder(options: argparse.Namespace) -> Path:
    return options.folder / f"{options.corpus.name}-corpus"


def run_one(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train and measure one variant and read dev, or read test with one; for a process of its own."""
    import resource  # not on Windows

    from accuracy import described

    from firstwords.data.manifest import load_corpus
    from firstwords.device import machine_name
    from firstwords.inference.recognizer import Recognizer
    from firstwords.model.checkpoint import load_model
    from firstwords.model.cost import model_cost
    from firstwords.report.evaluate_model import evaluate_model
    from firstwords.training.log import read_log
    from firstwords.training.run import train_corpus

    if missing := missing_kinds(VARIANTS[name]):
        return {"missing": missing}
    folder = options.folder / folder_name(name, options)
    recipe = recipe_of(name, options)
    if options.split == "test":
        # The variant's search of today, were the model trained with another: it is chosen on dev.
        recognizer = Recognizer.load(folder, search=recipe.search)
        corpus = load_corpus(corpus_folder(options))
        return {"scores": described(evaluate_model(folder, corpus, "test", recognizer=recognizer))}
    result = train_corpus(
        corpus_folder(options),
        folder,
        recipe=recipe,
        workers=0,
        threads=options.threads,
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    steps = [record for record in read_log(folder / "resume" / "log.jsonl") if record["kind"] == "train"]
    seconds, audio = (sum(record[key] for record in steps) for key in ("seconds", "audio"))
    model = load_model(folder, device="cpu").model
    cost = model_cost(model)
    corpus = load_corpus(corpus_folder(options))
    train_seconds = sum(u.duration for u in corpus.utterances if u.split == "train")
    report = {
        "date": date.today().isoformat(),
        "machine": machine_name(),
        "outcome": result.outcome,
        "steps": result.steps,
        "parameters": cost.parameters,
        "macs_per_second": cost.macs_per_second,
        "hours_heard": audio / 3600,
        "hours_wanted": (recipe.training.epochs or 0.0) * train_seconds / 3600,
        "training_speed": audio / max(seconds, 1e-9),
        "inference_speed": inference_speed(model),
        "peak_bytes": peak,
        "dev_cer": 100 * result.numbers["cer"],
    }
    return report | {"scores": described(evaluate_model(folder, corpus, "dev"))}


def inference_speed(model: Any) -> float:
    """Audio-seconds per second: encoder and frame-wise heads on 8 x 10 s of features."""
    import torch

    from firstwords.device import choose_compute
    from firstwords.heads.head import FrameHead
    from firstwords.tensors import Padded

    compute = choose_compute("cpu", "auto")
    frames = Padded(torch.randn(8, 1000, model.frontend.dim) - 5, torch.full((8,), 1000))
    times: list[float] = []
    with torch.inference_mode():
        for _ in range(6):
            started = time.perf_counter()
            with torch.autocast("cpu", compute.dtype, enabled=compute.autocast):
                encoded = model.encode_frames(frames)
            encoded = Padded(encoded.values.float(), encoded.lengths)
            for head in model.heads.values():
                if isinstance(head, FrameHead):
                    head.log_probs(encoded)
            times.append(time.perf_counter() - started)
    return 80 / statistics.median(times[1:])


def results(path: Path, key: Mapping[str, Any], split: str) -> list[dict[str, Any]]:
    """Finished runs under the same conditions."""
    if not path.exists():
        return []
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    wanted = {**key, "split": split}
    return [{"rate": 1.0} | r for r in records if r["key"] == wanted and "scores" in r]


def run_apart(
    name: str,
    rate: float,
    seed: int,
    split: str,
    options: argparse.Namespace,
    key: Mapping[str, Any],
    path: Path,
) -> dict[str, Any] | None:
    """One variant in a process of its own, unless its result is there -> its record, as in ``path``.

    ``split`` dev: it is trained; test: what was trained is read.
    """
    for r in results(path, key, split):
        if (r["variant"], r["rate"], r["seed"]) == (name, rate, seed):
            return r
    print(f"{name}, rate {rate:g}, seed {seed}, {split} ...", flush=True)
    answer = options.folder / f"answer-{os.getpid()}.json"
    orders = [sys.executable, __file__, *sys.argv[1:], "--child", name, "--answer", str(answer)]
    orders += ["--seed", str(seed), "--rate", str(rate), "--split", split]
    done = subprocess.run(orders, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    report: dict[str, Any]
    if done.returncode or not answer.exists():
        report = {"error": done.stderr[-2000:] or f"exit code {done.returncode}"}
    else:
        report = json.loads(answer.read_text(encoding="utf-8"))
    answer.unlink(missing_ok=True)
    record = {"variant": name, "rate": rate, "seed": seed, "key": {**key, "split": split}} | report
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")
    if "missing" in report:
        print(f"    missing: {', '.join(report['missing'])}", flush=True)
    elif "error" in report:
        print(f"    failed: {report['error'].strip().splitlines()[-1]}", flush=True)
    else:
        print(f"    {split} CER {report['scores']['cer']:.1f} %", flush=True)
        return record
    return None


def table(records: list[dict[str, Any]], wanted: list[str]) -> str:
    """Results as markdown, best CER first; several seeds: the mean of all and the interval of the first."""
    lines = [
        "| variant | rate | CER % (95 %) | WER % (95 %) | seeds | parameters M | MMAC/s | training xRT "
        "| inference xRT | memory MB | hours heard |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    groups = {name: [r for r in records if r["variant"] == name] for name in wanted}
    there = {name: runs for name, runs in groups.items() if runs}
    for name in sorted(there, key=lambda n: statistics.mean(r["scores"]["cer"] for r in there[n])):
        runs = there[name]
        cer, wer = (
            f"{statistics.mean(r['scores'][rate] for r in runs):.1f} "
            f"({runs[0]['scores'][f'{rate}_interval'][0]:.1f}-{runs[0]['scores'][f'{rate}_interval'][1]:.1f})"
            for rate in ("cer", "wer")
        )
        spread = ", ".join(f"{r['scores']['cer']:.1f}" for r in runs) if len(runs) > 1 else "1"
        first = runs[0]
        cut = " (cut short)" if first["hours_heard"] < 0.95 * first["hours_wanted"] else ""
        lines.append(
            f"| {name} | {first['rate']:g} | {cer} | {wer} | {spread} | {first['parameters'] / 1e6:.2f} "
            f"| {first['macs_per_second'] / 1e6:.0f} | {first['training_speed']:.0f} "
            f"| {first['inference_speed']:.0f} | {first['peak_bytes'] / 1e6:.0f} "
            f"| {first['hours_heard']:.2f}{cut} |"
        )
    if without := [name for name in wanted if name not in there]:
        lines.append(f"\nNo result: {'; '.join(without)}.")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("corpus", type=Path, nargs="?")
    parser.add_argument("--epochs", type=float, default=20.0)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--batch-seconds", type=float, default=40.0)
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--rates", type=float, nargs="+", default=[1.0], help="in units of a variant's own")
    parser.add_argument("--as-found", action="store_true", help="choose rates among the runs there are")
    parser.add_argument("--best", type=int, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of every recipe")
    parser.add_argument("--no-test", action="store_true", help="tuning: leave the test split alone")
    parser.add_argument("--folder", type=Path, default=Path("runs/architectures"))
    parser.add_argument("--speed", action="store_true", help="speed and memory of all, without training")
    parser.add_argument("--rounds", type=int, default=5, help="of --speed")
    parser.add_argument(
        "--cpu-time", action="store_true", help="of --speed: processor time, on a busy machine"
    )
    for hidden in ("--child", "--split"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=float, default=1.0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.speed:
        from architectures_speed import speed_mode  # beside this file; it loads torch

        speed_mode(options)
        return
    if options.corpus is None:
        parser.error("CORPUS is missing (only --speed does without)")
    if options.child:
        report = run_one(options.child, options)
        options.answer.write_text(json.dumps(report, ensure_ascii=False), encoding="utf-8")
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    if not (corpus_folder(options) / "manifest.jsonl").exists():
        subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys; from pathlib import Path; from firstwords.data.corpora.importing import "
                "import_corpus; import_corpus(Path(sys.argv[1]), Path(sys.argv[2]))",
                str(options.corpus),
                str(corpus_folder(options)),
            ],
            check=True,
        )
    path = options.folder / "results.jsonl"
    named = ("epochs", "minutes", "batch_seconds", "size", "threads")
    key = {"corpus": options.corpus.name, **{name: getattr(options, name) for name in named}}
    if options.set:
        key["set"] = sorted(options.set)
    first, *others = options.seeds
    stay: list[dict[str, Any]] = []
    for name in options.only:
        rates = options.rates
        if options.as_found:
            known = [r for r in results(path, key, "dev") if r["seed"] == first]
            rates = [r["rate"] for r in known if r["variant"] == name]
        tried = [run_apart(name, rate, first, "dev", options, key, path) for rate in rates]
        if there := [record for record in tried if record]:
            stay.append(min(there, key=lambda record: record["dev_cer"]))
    stay.sort(key=lambda record: record["dev_cer"])
    for record in stay[: options.best]:
        for seed in others:
            more = run_apart(record["variant"], record["rate"], seed, "dev", options, key, path)
            stay += [more] if more else []
    if not options.no_test:
        for n, trained in enumerate(stay):
            name, rate, seed = trained["variant"], trained["rate"], trained["seed"]
            read = run_apart(name, rate, seed, "test", options, key, path)
            stay[n] = trained | read if read else trained
    written = table(stay, options.only)
    (options.folder / "table.md").write_text(written, encoding="utf-8")
    print(written)


if __name__ == "__main__":
    main()
