"""Do trainings in bfloat16 lose as those in float32 do, on real speech?

    python benchmarks/bf16_losses.py CORPUS [--from MODEL] [--steps 200] [--size tiny] [--seeds 1 2 3]

Trains each seed three times on CORPUS (a folder that 'firstwords import' made), with the recipe that
'firstwords train' would choose, the same batches and the same random decisions: in float32, in bfloat16, and
in float32 from weights that were rounded to bfloat16 once. The third says how far two float32 trainings
drift apart by chance alone. With --from the encoder of MODEL is gone on from: its losses are no longer those
of blanks.

The float32 training also measures, at every step, the loss that bfloat16 gives for the same weights, batch
and random decisions ("same weights"): rounding alone, without what a training makes of it.

Losses (per second of audio) are smoothed with a time constant of ten steps. Printed per seed: the largest
difference over all steps, that of the means over all steps, that at the end. Exit code 1 where the mean over
the seeds of bfloat16's smoothed curve leaves 2 % of float32's at any step.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from unittest import mock

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded

import numpy as np
import torch
from torch.optim import Optimizer

from firstwords.data.batch import Batch
from firstwords.device import machine_name
from firstwords.model.speech_model import SpeechModel
from firstwords.training import run as training
from firstwords.training.feeding import Feeding
from firstwords.training.progress import Progress
from firstwords.training.tasks.recognition import RecognitionTask
from firstwords.training.tasks.task import Loss

SMOOTHING = 0.9
MOST = 0.02
KINDS = ("fp32", "bf16", "rounded")
SAME = "same weights"


def losses_of_same_weights(found: list[float]) -> contextlib.AbstractContextManager[object]:
    """While a float32 task trains, append to ``found`` what bfloat16 would have lost, each step."""
    plain = RecognitionTask.loss

    def loss(task: RecognitionTask, batch: Batch) -> Loss:
        before, compute = torch.get_rng_state(), task.compute
        priors = list(task.ctc.priors) if task.ctc is not None else []
        task.compute = replace(compute, dtype=torch.bfloat16)
        other = plain(task, batch)  # with its graph: what is drawn at random depends on whether there is one
        found.append(float(other.total.detach()) / other.size)
        task.compute = compute
        if task.ctc is not None:
            task.ctc.priors = priors
        torch.set_rng_state(before)
        return plain(task, batch)

    return mock.patch.object(RecognitionTask, "loss", loss)


def smoothed(values: Iterable[float]) -> list[float]:
    """Running mean with a time constant of ten steps."""
    curve: list[float] = []
    for value in values:
        before = curve[-1] if curve else value
        curve.append(SMOOTHING * before + (1 - SMOOTHING) * value)
    return curve


def losses(
    kind: str, corpus: Path, folder: Path, options: argparse.Namespace, seed: int
) -> tuple[list[float], list[float]]:
    """Loss of every step of one training, smoothed; of a float32 one also bfloat16's for the same weights."""
    found: list[float] = []
    make = training._Session._optimizer

    def with_rounded_weights(session: training._Session, model: SpeechModel) -> Optimizer:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(parameter.bfloat16().float())
        return make(session, model)

    overrides = [
        f"seed={seed}",
        f"training.steps={options.steps}",
        f"training.batch_seconds={options.batch_seconds}",
        "training.processes=1",
        "training.accumulate=1",
        f"training.validate_every={options.steps}",
    ]
    # Batches are filled up alike, so that dropout and all else that is random has the same shape.
    filled = mock.patch.object(Feeding, "_few_shapes", property(lambda _: True))
    first = make if kind != "rounded" else with_rounded_weights
    beside = losses_of_same_weights(found) if kind == "fp32" else contextlib.nullcontext()
    with filled, beside, mock.patch.object(training._Session, "_optimizer", first):
        training.train_corpus(
            corpus,
            folder,
            size=options.size if options.start is None else None,
            start_from=options.start,
            overrides=overrides,
            device="cpu",
            precision="bf16" if kind == "bf16" else "fp32",
            workers=0,
            threads=options.threads,
            progress=Progress(quiet=True),
        )
    lines = (folder / "resume" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    own = smoothed(record["loss"] for record in records if record["kind"] == "train")
    return own, smoothed(found[-options.steps :])  # those before are of the measuring at the start


def differences(curve: np.ndarray, reference: np.ndarray) -> str:
    """Largest difference, that of the means, that at the end, in percent."""
    off = curve / reference - 1
    worst = int(np.abs(off).argmax())
    mean = curve.mean() / reference.mean() - 1
    most = f"at most {100 * abs(off[worst]):.2f} % (step {worst + 1})"
    return f"{most}, mean {100 * mean:+.2f} %, end {100 * off[-1]:+.2f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--from", dest="start", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--batch-seconds", type=float, default=30.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    options = parser.parse_args()
    print(machine_name())
    curves: dict[str, list[list[float]]] = {kind: [] for kind in (*KINDS, SAME)}
    for seed in options.seeds:
        for kind in KINDS:
            with tempfile.TemporaryDirectory() as folder:
                own, beside = losses(kind, options.corpus, Path(folder) / "run", options, seed)
            curves[kind].append(own)
            if beside:
                curves[SAME].append(beside)
        reference = np.array(curves["fp32"][-1])
        print(f"seed {seed}: float32 from {reference[0]:.1f} to {reference[-1]:.2f}")
        for kind in (*KINDS[1:], SAME):
            print(f"  {kind:<12} {differences(np.array(curves[kind][-1]), reference)}", flush=True)
    means = {kind: np.mean(np.array(every), axis=0) for kind, every in curves.items()}
    print(f"mean of {len(options.seeds)} seeds")
    for kind in (*KINDS[1:], SAME):
        print(f"  {kind:<12} {differences(means[kind], means['fp32'])}")
    met = bool(np.abs(means["bf16"] / means["fp32"] - 1).max() <= MOST)
    print(f"{'PASS' if met else 'FAIL'}: bfloat16 within {MOST:.0%} of float32")
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
