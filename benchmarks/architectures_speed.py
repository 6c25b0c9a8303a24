"""The part of architectures.py that measures speed and memory without training: ``--speed``.

Every variant has random weights and the recipe of the comparison. In each round all take their turn, another
one first each time:

    training     what a training step does with a batch of 4 x 10 s: features, masks, encoder, heads, losses,
                 gradients, ScaledAdam; in the precision of a training on this machine
    inference    encoder and frame-wise heads of 1 or 8 recordings of 15 or 30 s, from their features; in
                 float32 and in the machine's own precision. (A recogniser takes float32 below ten million
                 parameters, unless asked otherwise.)
    memory       largest resident set of processes that do three training steps, or read 30 s three times

Rates are seconds of audio per second, medians over the rounds. In brackets: how many times as fast the
Zipformer was, the median of that over the rounds. ``--cpu-time`` counts processor time over the number of
threads instead of the wall clock, for a machine that is not idle.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from architectures import missing_kinds, recipe_of
from architectures_variants import EQUAL, VARIANTS
from speed_data import speech_like

from firstwords.data.batch import Batch
from firstwords.device import choose_compute, machine_name, set_threads
from firstwords.errors import ConfigError
from firstwords.features.specaugment import SpecAugment
from firstwords.heads.head import FrameHead
from firstwords.model.cost import model_cost
from firstwords.model.linears import keep_narrow
from firstwords.model.speech_model import SpeechModel
from firstwords.tensors import Padded
from firstwords.text.characters import GraphemeTokenizer
from firstwords.training.scaled_adam import ScaledAdam
from firstwords.training.tasks.recognition import RecognitionSettings, RecognitionTask

if TYPE_CHECKING:
    from firstwords.device import Precision

ZIPFORMER = "zipformer"  # the others are compared with it
ROWS, SECONDS = 4, 10  # of a training batch
LETTERS_PER_SECOND = 8  # few enough for twelve frames a second
LENGTHS, BATCHES = (15, 30), (1, 8)  # of inference
PRECISIONS: tuple[Precision, ...] = ("fp32", "auto")
COUNT = 2000.0  # of every schedule: the middle of a short run
TOKENIZER = GraphemeTokenizer.train(["the quick brown fox jumps over the lazy dog and writes éàüọṣẹ"])


class Side:
    """One variant, its training batch and its optimizer."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        torch.manual_seed(1)
        recipe = recipe_of(name, options)
        self.model = SpeechModel(recipe, len(TOKENIZER.pieces))
        self.narrow: SpeechModel | None = None  # a copy that reads in bfloat16; it cannot be trained
        self.task = RecognitionTask(
            self.model,
            TOKENIZER,
            compute=choose_compute("cpu", recipe.training.precision),
            masking=SpecAugment(recipe.training.specaugment),
            settings=RecognitionSettings(scoring=str),
        )
        self.optimizer = ScaledAdam(self.model.parameters(), lr=0.01, clipping_scale=2.0)
        self.batch = training_batch(recipe.data.sample_rate)

    def train(self) -> None:
        """One step."""
        self.model.train()
        self.task.set_step(int(COUNT), COUNT)
        self.task.loss(self.batch).total.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def infer(self, frames: Padded, precision: Precision) -> None:
        """Encoder and frame-wise heads, linear layers as a recogniser has them (inference/loading.py)."""
        compute = choose_compute("cpu", precision)
        if compute.autocast and self.narrow is None:
            self.narrow = copy.deepcopy(self.model)
            keep_narrow(self.narrow, compute.dtype)
        model = self.narrow if compute.autocast and self.narrow is not None else self.model
        model.eval()
        with torch.inference_mode():
            with torch.autocast("cpu", compute.dtype, enabled=compute.autocast):
                encoded = model.encode_frames(frames)
            encoded = Padded(encoded.values.float(), encoded.lengths)
            for head in model.heads.values():
                if isinstance(head, FrameHead):
                    head.log_probs(encoded)


def training_batch(sample_rate: int) -> Batch:
    """Noise as loud as speech that swells four times a second, and letters."""
    draw = torch.Generator().manual_seed(2)
    count = SECONDS * sample_rate
    loudness = 0.05 + 0.05 * torch.sin(8 * math.pi * torch.arange(count) / sample_rate)
    audio = loudness * torch.randn(ROWS, count, generator=draw)
    letters = torch.randint(1, len(TOKENIZER.pieces), (ROWS, LETTERS_PER_SECOND * SECONDS), generator=draw)
    return Batch(
        Padded(audio, torch.full((ROWS,), count)),
        Padded(letters, torch.full((ROWS,), letters.shape[1])),
        tuple(f"noise-{n}" for n in range(ROWS)),
        ("",) * ROWS,
        torch.arange(ROWS),
        (1.0,) * ROWS,
    )


def features(rows: int, seconds: int) -> Padded:
    """Of as many recordings of equal length."""
    frames = 100 * seconds
    values = speech_like(rows, frames, torch.Generator().manual_seed(3))
    return Padded(values, torch.full((rows,), frames))


def works(side: Side, heard: dict[tuple[int, int], Padded]) -> dict[str, tuple[float, Callable[[], None]]]:
    """Name of each measurement -> seconds of audio, and what is done."""
    made: dict[str, tuple[float, Callable[[], None]]] = {"training": (ROWS * SECONDS, side.train)}
    for precision in PRECISIONS:
        for (rows, seconds), frames in heard.items():

            def read(frames: Padded = frames, precision: Precision = precision) -> None:
                side.infer(frames, precision)

            made[f"{precision} {rows} x {seconds} s"] = (rows * seconds, read)
    return made


def measure(sides: dict[str, Side], rounds: int, cpu_time: bool) -> dict[str, dict[str, list[float]]]:
    """Variant -> measurement -> seconds of audio per second in each round."""
    heard = {(rows, seconds): features(rows, seconds) for seconds in LENGTHS for rows in BATCHES}
    ready = {name: works(side, heard) for name, side in sides.items()}
    threads = torch.get_num_threads()

    def clock() -> float:
        return time.process_time() / threads if cpu_time else time.perf_counter()

    names = list(sides)
    rates: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    for turn in range(rounds + 1):  # the first one warms up and does not count
        print(f"round {turn} of {rounds}", file=sys.stderr, flush=True)
        first = turn % len(names)
        for work in ready[names[0]]:
            for name in names[first:] + names[:first]:
                seconds, run = ready[name][work]
                gc.collect()
                started = clock()
                run()
                took = clock() - started
                if turn:
                    rates[name].setdefault(work, []).append(seconds / took)
    return rates


def peak_of(name: str, work: str, options: argparse.Namespace) -> dict[str, float]:
    """Megabytes of a process of its own that does ``work`` three times: before it and at most."""
    orders = [sys.executable, __file__, name, work, "--size", options.size, "--threads", str(options.threads)]
    orders += [part for setting in options.set for part in ("--set", setting)]
    done = subprocess.run(orders, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def report_peak(name: str, work: str, options: argparse.Namespace) -> None:
    """Do ``work`` three times; print this process's peak in megabytes."""
    import resource  # not on Windows

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)

    side = Side(name, options)
    compute = choose_compute("cpu", "auto")
    if work != "training" and compute.autocast:  # no copy here: it would count
        keep_narrow(side.model, compute.dtype)
        side.narrow = side.model
    frames = features(1, max(LENGTHS))
    before = peak()
    for _ in range(3):
        if work == "training":
            side.train()
        else:
            side.infer(frames, "auto")
    print(json.dumps({"before": before, "peak": peak()}))


def make_sides(options: argparse.Namespace) -> tuple[dict[str, Side], list[str]]:
    """Variants that can be built, the Zipformer first, and the names of the others."""
    names = [ZIPFORMER, *(name for name in options.only if name != ZIPFORMER)]
    sides: dict[str, Side] = {}
    without: list[str] = []
    for name in names:
        variant = VARIANTS[name]
        sized = options.size in ("tiny", "nano") or variant["encoder"]["kind"] in EQUAL.get(options.size, {})
        try:
            if missing_kinds(variant) or not (sized or variant["encoder"]["kind"] == ZIPFORMER):
                raise ConfigError("no such kind or size", mend="")
            sides[name] = Side(name, options)
        except ConfigError:
            without.append(name)
    return sides, without


def table(
    sides: dict[str, Side],
    rates: dict[str, dict[str, list[float]]],
    peaks: dict[str, dict[str, dict[str, float]]],
) -> str:
    """All of it as markdown."""
    works = list(rates[ZIPFORMER])
    head = ["variant", "parameters M", "MMAC/s", *works, "memory training MB", "memory 30 s MB"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for name, side in sides.items():
        cost = model_cost(side.model)
        cells = [name, f"{cost.parameters / 1e6:.2f}", f"{cost.macs_per_second / 1e6:.0f}"]
        for work in works:
            pairs = zip(rates[ZIPFORMER][work], rates[name][work], strict=True)
            ratio = statistics.median(zipformer / own for zipformer, own in pairs)
            cells.append(f"{statistics.median(rates[name][work]):.0f} ({ratio:.2f})")
        cells += [f"{peaks[name][work]['peak']:.0f}" for work in ("training", "inference")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def speed_mode(options: argparse.Namespace) -> None:
    """Measure, print and write the table."""
    options.threads = set_threads(options.threads)
    sides, without = make_sides(options)
    peaks = {name: {w: peak_of(name, w, options) for w in ("training", "inference")} for name in sides}
    written = table(sides, measure(sides, options.rounds, options.cpu_time), peaks)
    before = statistics.mean(p["before"] for side in peaks.values() for p in side.values())
    written += (
        f"\nSize {options.size}, {machine_name()}; {options.rounds} rounds, "
        f"{'processor time' if options.cpu_time else 'wall clock'}; 'auto' is "
        f"{str(choose_compute('cpu', 'auto').dtype).removeprefix('torch.')}. Seconds of audio per second; in "
        "brackets how many times as fast the Zipformer is. Of the memory, libraries and weights take "
        f"{before:.0f} MB.\n"
    )
    if without:
        written += f"\nNot of this size: {', '.join(without)}.\n"
    options.folder.mkdir(parents=True, exist_ok=True)
    (options.folder / f"speed-{options.size}.md").write_text(written, encoding="utf-8")
    print(written)


def main() -> None:
    """The process of one peak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("variant", choices=list(VARIANTS))
    parser.add_argument("work", choices=("training", "inference"))
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    set_threads(options.threads)
    options.speed, options.seed, options.rate = True, 1, 1.0
    options.epochs, options.minutes, options.batch_seconds = 1.0, 1.0, float(ROWS * SECONDS)
    report_peak(options.variant, options.work, options)


if __name__ == "__main__":
    main()
