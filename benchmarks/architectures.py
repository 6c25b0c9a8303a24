"""Encoders and heads at about two million parameters, each after the same seconds of training audio.

    python benchmarks/architectures.py CORPUS [--epochs 20] [--minutes 20] [--size tiny] [--only NAME ...]
        [--best 3] [--seeds 1 2 3] [--set training.mask_warmup=60000 ...] [--no-test]
        [--folder runs/architectures]
    python benchmarks/architectures.py --speed [--size tiny] [--only NAME ...] [--rounds 5] [--cpu-time]
        [--folder runs/architectures]

CORPUS is a folder that 'firstwords import' takes. Every variant of the table below is trained from scratch
with the first seed, then the best ones by dev CER with the other seeds. All hear ``--epochs`` passes over the
training split; ``--minutes`` is the most a run may take, and a run that it cut short is marked. ``--set``
gives all of them a setting of the recipe. Each run is a process of its own, with one training process and the
loader inside, so that its peak memory is its own.

Results are appended to FOLDER/results.jsonl; what is there under the same conditions, ``--set`` included, is
not run again, and a run that was interrupted goes on. Kinds that this version does not have are named as
missing. At the end FOLDER/table.md holds:

    CER, WER     of the test split (``--no-test``: dev) with 95 % bootstrap intervals, greedy unless said
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

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when a child loads torch; as the command line does
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

if TYPE_CHECKING:
    from firstwords.model.recipe import Recipe

CTC = {"ctc": {"kind": "ctc"}}
# Of encoders other than the Zipformer. With ScaledAdam as it is set for that one, a Conformer broke down in
# batches of 20 s (dev CER 70 %; 22 % so: LOG.md, 2026-11-21). --set overrules them.
PLAIN = {"optimizer": "adamw", "schedule": {"kind": "cosine", "lr": 0.001}}
# Encoder settings on top of its preset, heads by kind, search.
VARIANTS: dict[str, dict[str, Any]] = {
    "zipformer": {"encoder": {"kind": "zipformer", "dropout": [0.15, 0.1]}, "heads": CTC},
    "conformer": {"encoder": {"kind": "conformer"}, "heads": CTC},
    # Fewer frames and smaller kernels: arXiv:2305.05084, there with 256 channels.
    "fastconformer": {
        "encoder": {
            "kind": "conformer",
            "kernel": 9,
            "subsampling": {"factor": 8, "separable": True, "channels": 112},
        },
        "heads": CTC,
    },
    "squeezeformer": {"encoder": {"kind": "squeezeformer"}, "heads": CTC},
    "e_branchformer": {"encoder": {"kind": "e_branchformer"}, "heads": CTC},
    "transformer": {"encoder": {"kind": "transformer"}, "heads": CTC},
    "las": {
        "encoder": {"kind": "listener"},
        "heads": {"ctc": {"kind": "ctc", "weight": 0.3}, "speller": {"kind": "speller"}},
        "search": {"kind": "attention_beam"},
    },
    "quartznet": {"encoder": {"kind": "quartznet"}, "heads": CTC},
    "mobilenet": {"encoder": {"kind": "mobilenet"}, "heads": CTC},
    "resnet": {"encoder": {"kind": "resnet"}, "heads": CTC},
    "lstm": {"encoder": {"kind": "lstm"}, "heads": CTC},
    "dnn": {"encoder": {"kind": "dnn"}, "heads": CTC},
    "zipformer, CR-CTC": {
        "encoder": {"kind": "zipformer", "dropout": [0.15, 0.1]},
        "heads": {"ctc": {"kind": "ctc", "consistency": 0.2}},
    },
    "zipformer, AED+CTC": {
        "encoder": {"kind": "zipformer", "dropout": [0.15, 0.1]},
        "heads": {
            "ctc": {"kind": "ctc", "weight": 0.3},
            "transformer_decoder": {"kind": "transformer_decoder"},
        },
        "search": {"kind": "attention_beam"},
    },
    "zipformer, transducer": {
        "encoder": {"kind": "zipformer", "dropout": [0.15, 0.1]},
        "heads": {"transducer": {"kind": "transducer"}},
        "search": {"kind": "transducer_greedy"},
    },
    "zipformer, TDT": {
        "encoder": {"kind": "zipformer", "dropout": [0.15, 0.1]},
        "heads": {"transducer": {"kind": "transducer", "loss": "full", "durations": [0, 1, 2, 3, 4]}},
        "search": {"kind": "transducer_greedy"},
    },
}


# What makes other encoders as large as the Zipformer of that name (S: 22 M), where their presets do not.
EQUAL: dict[str, dict[str, dict[str, Any]]] = {
    "S": {
        "conformer": {"dim": 256, "layers": 13, "feedforward": 1024, "subsampling": {"channels": 256}},
        "squeezeformer": {
            "dim": 256,
            "layers": 12,
            "feedforward": 1024,
            "reduce_at": 5,
            "recover_at": 11,
            "subsampling": {"channels": 256, "separable": True},
        },
        "e_branchformer": {"layers": 10, "subsampling": {"channels": 256}},
        "transformer": {"layers": 15, "feedforward": 2048, "subsampling": {"channels": 256}},
    }
}


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
    own = {} if variant["encoder"]["kind"] == "zipformer" else PLAIN
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
        },
    }
    if "search" in variant:
        values["search"] = variant["search"]
    values = override(values, options.set) | {"name": name, "seed": options.seed}
    return parse_config(values, Recipe, name="recipe", source=name)


def folder_name(name: str, options: argparse.Namespace) -> str:
    """A model folder of its own for each variant, seed and choice of ``--set``."""
    plain = f"{name.replace(', ', '-')}-{options.seed}"
    if not options.set:
        return plain
    return f"{plain}-{hashlib.sha256(json.dumps(sorted(options.set)).encode()).hexdigest()[:8]}"


def corpus_folder(options: argparse.Namespace) -> Path:
    return options.folder / f"{options.corpus.name}-corpus"


def run_one(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train and measure one variant; for a process of its own."""
    import resource  # not on Windows

    from accuracy import described

    from firstwords.data.manifest import load_corpus
    from firstwords.device import machine_name
    from firstwords.model.checkpoint import load_model
    from firstwords.model.cost import model_cost
    from firstwords.report.evaluate_model import evaluate_model
    from firstwords.training.log import read_log
    from firstwords.training.run import train_corpus

    if missing := missing_kinds(VARIANTS[name]):
        return {"missing": missing}
    folder = options.folder / folder_name(name, options)
    recipe = recipe_of(name, options)
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
    split = "dev" if options.no_test else "test"
    return report | {"scores": described(evaluate_model(folder, corpus, split))}


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


def results(path: Path, key: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Finished runs under the same conditions."""
    if not path.exists():
        return []
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [r for r in records if r["key"] == dict(key) and "scores" in r]


def run_apart(name: str, seed: int, options: argparse.Namespace, key: Mapping[str, Any], path: Path) -> None:
    """One variant in a process of its own, unless its result is there; its record is appended to ``path``."""
    if any(r["variant"] == name and r["seed"] == seed for r in results(path, key)):
        return
    print(f"{name}, seed {seed} ...", flush=True)
    answer = options.folder / "answer.json"
    answer.unlink(missing_ok=True)
    orders = [sys.executable, __file__, *sys.argv[1:], "--child", name, "--seed", str(seed)]
    done = subprocess.run(orders, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode or not answer.exists():
        report = {"error": done.stderr[-2000:] or f"exit code {done.returncode}"}
    else:
        report = json.loads(answer.read_text(encoding="utf-8"))
    with path.open("a", encoding="utf-8") as file:
        record = {"variant": name, "seed": seed, "key": dict(key)} | report
        file.write(json.dumps(record, ensure_ascii=False) + "\n")
    if "missing" in report:
        print(f"    missing: {', '.join(report['missing'])}", flush=True)
    elif "error" in report:
        print(f"    failed: {report['error'].strip().splitlines()[-1]}", flush=True)


def table(records: list[dict[str, Any]], wanted: list[str]) -> str:
    """Results as markdown, best CER first; several seeds: the mean of all and the interval of the first."""
    lines = [
        "| variant | CER % (95 %) | WER % (95 %) | seeds | parameters M | MMAC/s | training xRT "
        "| inference xRT | memory MB | hours heard |",
        "|---|---|---|---|---|---|---|---|---|---|",
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
            f"| {name} | {cer} | {wer} | {spread} | {first['parameters'] / 1e6:.2f} "
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
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.speed:
        from architectures_speed import speed_mode  # beside this file; it loads torch

        options.seed = 1
        speed_mode(options)
        return
    if options.corpus is None:
        parser.error("CORPUS is missing (only --speed does without)")
    if options.child:
        report = run_one(options.child, options)
        (options.folder / "answer.json").write_text(json.dumps(report, ensure_ascii=False), encoding="utf-8")
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
    key = {
        "corpus": options.corpus.name,
        "split": "dev" if options.no_test else "test",
        **{
            name: getattr(options, name) for name in ("epochs", "minutes", "batch_seconds", "size", "threads")
        },
    }
    if options.set:  # results from before --set keep their key
        key["set"] = sorted(options.set)
    first, *others = options.seeds
    for name in options.only:
        run_apart(name, first, options, key, path)
    ranked = sorted(
        (r for r in results(path, key) if r["seed"] == first and r["variant"] in options.only),
        key=lambda r: r["dev_cer"],
    )
    for record in ranked[: options.best]:
        for seed in others:
            run_apart(record["variant"], seed, options, key, path)
    written = table(results(path, key), options.only)
    (options.folder / "table.md").write_text(written, encoding="utf-8")
    print(written)


if __name__ == "__main__":
    main()
