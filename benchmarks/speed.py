"""Speed and memory of the Zipformer encoder against its plain fp32 twin, both in one run.

    python benchmarks/speed.py [--size S] [--rounds 9] [--threads 2] [--losses]
        [--quick] [--cpu-time] [--out FILE]

The twin is tests/reference/zipformer: the published model in ordinary eager PyTorch, which tests hold equal
to ours. Three sides with the same weights take turns in every round: the twin, ours in float32, and ours with
the precision 'auto' (bfloat16 where the processor has it). Only the encoder differs between them:

    training    forward, CTC head (500 pieces) and loss, backward, ScaledAdam step; not counted: reading,
                features, augmentation
    inference   forward of the encoder in evaluation mode, without gradients; ours as the recogniser holds it
                after loading: in bfloat16, linear layers keep their weights rounded
    parts       ours divide a batch as the product does by itself (choose.py): S into halves. The twin
                computes all at once, as a plain implementation does; its random decisions have other shapes
    batch       8 x 10 s of noise with the band levels, syllables and pauses of speech, 12 tokens a second
    state       schedules at count 2000, the middle of a short run, where skips and regularisers are all
                active; fresh weights after a few steps; the same random decisions on all sides
    memory      ru_maxrss of one process per side that does nothing but three training steps; the twin then
                keeps its front end's derivatives in bytes as the published kernels do

Rates are medians over the rounds, in seconds of audio per second. Floors are stated for a machine of
190 GFLOP/s and scaled by the sgemm rate of this run. What is called default is what the product does when
nobody chooses: training's and the recogniser's own default precision. ``--losses`` adds 200 steps in bfloat16
against float32. Exit code 1 where a bar fails.
"""

# The environment of torch and the path of the twin must be set before they are imported.
# ruff: noqa: E402
# pyright: reportMissingImports=false

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded; as the command line does
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

import argparse
import copy
import gc
import inspect
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from speed_data import MELS, PIECES, ROWS, SECONDS, SPECTRA, batch, learnable

from firstwords.device import choose_compute, has_native_bf16, machine_name, set_threads
from firstwords.encoders.zipformer import Zipformer, ZipformerConfig
from firstwords.heads.ctc import CtcConfig, CtcHead, ctc_loss
from firstwords.inference.recognizer import Recognizer
from firstwords.model.linears import keep_narrow
from firstwords.model.recipe import Recipe
from firstwords.model.speech_model import SpeechModel
from firstwords.tensors import Padded
from firstwords.training.choose import parts_of_batch
from firstwords.training.scaled_adam import ScaledAdam
from firstwords.training.settings import TrainingConfig
from reference.zipformer import EagerZipformer

COUNT = 2000.0  # of every schedule
REFERENCE_GFLOPS = 190.0  # sgemm of the machine for which the floors are stated
SMOOTHING = 0.9  # of the losses that are compared
Numbers = dict[str, list[float]]


@dataclass
class Side:
    """One encoder with head and optimizer, and the number format it computes in."""

    encoder: nn.Module
    head: CtcHead
    dtype: torch.dtype
    rate: float = 0.01
    parts: int = 1  # of which a batch is made

    def __post_init__(self) -> None:
        parameters = [*self.encoder.parameters(), *self.head.parameters()]
        self.optimizer = ScaledAdam(parameters, lr=self.rate)

    def encode(self, frames: Padded) -> Padded:
        with torch.autocast("cpu", self.dtype, enabled=self.dtype is not torch.float32):
            encoded: Padded = self.encoder(frames)
        return Padded(encoded.values.float(), encoded.lengths)

    def train(self, frames: Padded, targets: Padded, seed: int) -> float:
        """One optimizer step -> loss in nats per token."""
        self.encoder.train()
        self.head.train()
        torch.manual_seed(seed)
        total = 0.0
        for part in range(self.parts):
            some = slice(part, None, self.parts)
            labels = Padded(targets.values[some], targets.lengths[some])
            heard = self.encode(Padded(frames.values[some], frames.lengths[some]))
            loss = ctc_loss(self.head.log_probs(heard), labels).sum()
            loss.backward()
            total += float(loss.detach())
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total / float(targets.lengths.sum())

    def infer(self, frames: Padded) -> None:
        self.encoder.eval()
        with torch.inference_mode():
            self.encode(frames)

    def reader(self) -> Side:
        """The same weights as the recogniser holds them when it has loaded a model."""
        if self.dtype is torch.float32:
            return self
        encoder = copy.deepcopy(self.encoder)
        settings = {"kind": "zipformer", **encoder.config.model_dump()}
        model = SpeechModel(
            Recipe.model_validate({"encoder": settings, "heads": {"ctc": {"kind": "ctc"}}}), PIECES
        )
        model.encoder = encoder
        keep_narrow(model, self.dtype)
        return Side(encoder, self.head, self.dtype)


def make_sides(size: str, names: Sequence[str], *, in_bytes: bool = False) -> dict[str, Side]:
    """'twin', 'fp32', 'auto' -> sides with equal weights."""
    torch.manual_seed(0)
    config = ZipformerConfig.preset(size)
    ours = Zipformer(config, MELS)
    head = CtcHead(CtcConfig(), ours.dim, PIECES)
    sides: dict[str, Side] = {}
    for name in names:
        if name == "twin":
            twin = EagerZipformer(config, MELS, in_bytes=in_bytes)
            twin.load_state_dict(ours.state_dict())
            twin.set_step(COUNT)
            sides[name] = Side(twin, copy.deepcopy(head), torch.float32)
        else:
            mine = copy.deepcopy(ours)
            mine.set_step(COUNT)
            dtype = choose_compute("cpu", "fp32" if name == "fp32" else "auto").dtype
            sides[name] = Side(mine, copy.deepcopy(head), dtype, parts=parts_of_batch(size, ROWS * SECONDS))
    return sides


clock: Callable[[], float] = time.perf_counter  # time.process_time with --cpu-time


def gemm_rate(dtype: torch.dtype, size: int = 1536, repeats: int = 5) -> float:
    """GFLOP/s of square matrix products, the median of a few."""
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    out = a @ b
    times: list[float] = []
    for _ in range(repeats):
        start = clock()
        torch.mm(a, b, out=out)
        times.append(clock() - start)
    return 2e-9 * size**3 / statistics.median(times)


def timed(work: Callable[[], object]) -> float:
    """Seconds of audio per second."""
    gc.collect()
    start = clock()
    work()
    return ROWS * SECONDS / (clock() - start)


def measure_rates(size: str, rounds: int, warm: int) -> Numbers:
    """Every round: both matrix rates, each side's inference and training; another side begins each time."""
    sides = make_sides(size, ("twin", "fp32", "auto"))
    frames, targets = batch(1)
    numbers: Numbers = {}
    for n in range(warm):
        for side in sides.values():
            side.infer(frames)
            side.train(frames, targets, seed=1000 + n)
    readers = {name: side.reader() for name, side in sides.items()}
    names = list(sides)
    for n in range(rounds):
        print(f"{size}: round {n + 1} of {rounds}", file=sys.stderr, flush=True)
        for dtype in (torch.float32, torch.bfloat16):
            numbers.setdefault(f"gemm {dtype}", []).append(gemm_rate(dtype))
        for name in names[n % 3 :] + names[: n % 3]:
            side = sides[name]
            numbers.setdefault(f"{name} inference", []).append(timed(lambda s=readers[name]: s.infer(frames)))
            rate = timed(lambda s=side, n=n: s.train(frames, targets, seed=n))
            numbers.setdefault(f"{name} training", []).append(rate)
    return numbers


def peak_of_child(side: str, size: str, threads: int) -> float:
    """MiB: ru_maxrss of a process that trains three steps on one side."""
    command = [
        sys.executable,
        str(Path(__file__)),
        "--peak-of",
        side,
        "--size",
        size,
        "--threads",
        str(threads),
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout.splitlines()[-1])["peak"])


def own_peak() -> float:
    """ru_maxrss of this process in MiB (kilobytes on Linux, bytes on macOS; Windows has none)."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def report_peak(side: str, size: str) -> None:
    """Three training steps of one side -> a JSON line with this process's peak."""
    before = own_peak()
    (made,) = make_sides(size, (side,), in_bytes=True).values()
    frames, targets = batch(1)
    for n in range(3):
        made.train(frames, targets, seed=n)
    print(json.dumps({"peak": own_peak(), "before": before}))


def loss_curves(steps: int) -> dict[str, list[float]]:
    """Nano on learnable batches -> smoothed loss per token of each run, same seeds and batches.

    'rounded': float32 from weights rounded once to bfloat16; how far two float32 runs drift apart at all.
    """
    curves: dict[str, list[float]] = {}
    for name in ("fp32", "bf16", "rounded"):
        torch.manual_seed(0)
        encoder = Zipformer(ZipformerConfig.preset("nano"), MELS)
        head = CtcHead(CtcConfig(), encoder.dim, SPECTRA)
        if name == "rounded":
            with torch.no_grad():
                for parameter in (*encoder.parameters(), *head.parameters()):
                    parameter.copy_(parameter.bfloat16().float())
        side = Side(encoder, head, torch.bfloat16 if name == "bf16" else torch.float32, rate=0.045)
        smooth, curve = 0.0, list[float]()
        for n in range(steps):
            encoder.set_step(COUNT + 8.0 * n)
            for group in side.optimizer.param_groups:
                group["lr"] = side.rate * min(1.0, (n + 1) / 20)
            loss = side.train(*learnable(n), seed=n)
            smooth = loss if n == 0 else SMOOTHING * smooth + (1 - SMOOTHING) * loss
            curve.append(smooth)
        curves[name] = curve
        print(f"losses: {name} from {curve[0]:.3f} to {curve[-1]:.3f}", file=sys.stderr, flush=True)
    return curves


@dataclass
class Bar:
    """What must hold: ``value`` at least (or at most) ``bound``."""

    name: str
    value: float
    bound: float
    aim: float | None = None
    at_most: bool = False

    @property
    def passed(self) -> bool:
        return self.value <= self.bound if self.at_most else self.value >= self.bound

    def __str__(self) -> str:
        sign = "<=" if self.at_most else ">="
        aim = "" if self.aim is None else f", aim {self.aim:g}"
        verdict = "PASS" if self.passed else "FAIL"
        return f"{verdict}  {self.name}: {self.value:.3g} (bar {sign} {self.bound:.3g}{aim})"


@dataclass
class Result:
    """Everything that goes into the JSON."""

    machine: str
    threads: int
    load: list[float]  # of the system before the run; a quiet machine is near 0
    quick: bool
    cpu_time: bool
    default_precision: dict[str, str]
    rates: dict[str, Numbers] = field(default_factory=dict[str, Numbers])
    peaks: dict[str, float] = field(default_factory=dict[str, float])
    losses: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    bars: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


def default_sides() -> dict[str, str]:
    """The side that the product takes by default, for training and for inference."""
    training: str = TrainingConfig.model_fields["precision"].default
    inference: str = inspect.signature(Recognizer.load).parameters["precision"].default
    return {"training": training, "inference": inference}


def judge(result: Result) -> list[Bar]:
    """Measured numbers -> bars; what was not measured has none."""
    bars: list[Bar] = []
    native = has_native_bf16(torch.device("cpu"))
    for size, numbers in result.rates.items():
        middle = {name: statistics.median(values) for name, values in numbers.items()}
        speed = middle["gemm torch.float32"] / REFERENCE_GFLOPS
        if size == "S":
            bars += [
                Bar("twin of S trains, x real time", middle["twin training"], 14.5 * speed),
                Bar("twin of S infers, x real time", middle["twin inference"], 50 * speed),
            ]
            for kind, bound in (("training", 2.0), ("inference", 2.2)):
                precision = result.default_precision[kind]
                ratio = middle[f"{precision} {kind}"] / middle[f"twin {kind}"]
                name = f"S by default ({precision}), {kind}, times the twin"
                bars.append(Bar(name, ratio, bound if native else 1.25, 3.0 if native else None))
        if size == "tiny":
            precision = result.default_precision["training"]
            name = f"tiny trains ({precision}), x real time"
            bars.append(Bar(name, middle[f"{precision} training"], 120 * speed, 200 * speed))
    if result.peaks:
        ratio = result.peaks["default"] / result.peaks["twin"]
        bars.append(Bar("peak memory of training S, share of the twin's", ratio, 0.6, 0.5, at_most=True))
    if result.losses:
        bars.append(Bar("bf16 losses off fp32, largest share", largest_drift(result)[0], 0.02, at_most=True))
    return bars


def largest_drift(result: Result, name: str = "bf16") -> tuple[float, int]:
    """(relative difference to fp32, step) where the smoothed losses differ most."""
    pairs = zip(result.losses[name], result.losses["fp32"], strict=True)
    return max((abs(other / loss - 1), n) for n, (other, loss) in enumerate(pairs, start=1))


def show(result: Result) -> None:
    """Tables of everything measured."""
    print(f"\n{result.machine}; load before the run {result.load}")
    for size, numbers in result.rates.items():
        print(f"\n{size:<20} {'median':>8} {'lowest':>8} {'highest':>8}  times the twin")
        for name, values in sorted(numbers.items()):
            middle = statistics.median(values)
            twin = numbers.get(f"twin {name.rpartition(' ')[2]}")
            ratio = f"{middle / statistics.median(twin):8.2f}" if twin else ""
            print(f"{name:<20} {middle:8.1f} {min(values):8.1f} {max(values):8.1f}  {ratio}")
    for side, peak in result.peaks.items():
        print(f"peak memory of training S, {side}: {peak:.0f} MiB")
    if result.losses:
        for name in ("bf16", "rounded"):
            share, step = largest_drift(result, name)
            last = result.losses[name][-1] / result.losses["fp32"][-1] - 1
            print(
                f"smoothed loss, {name}: {share:.2%} off fp32 at most (step {step}), {last:+.2%} at the end"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", default="S", help="measured beside tiny; bars hold for S")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--losses", action="store_true", help="add 200 steps of bf16 against fp32")
    parser.add_argument("--quick", action="store_true", help="two rounds: does it work?")
    parser.add_argument(
        "--cpu-time", action="store_true", help="for one thread on a busy machine; provisional"
    )
    parser.add_argument("--out", type=Path, help="write everything measured here, as JSON")
    parser.add_argument("--peak-of", choices=("twin", "auto", "fp32"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cpu_time:
        global clock
        clock = time.process_time
        options.threads = 1
    threads = set_threads(options.threads)
    if options.peak_of:
        report_peak(options.peak_of, options.size)
        return
    load = [round(x, 2) for x in os.getloadavg()] if hasattr(os, "getloadavg") else []
    result = Result(machine_name(), threads, load, options.quick, options.cpu_time, default_sides())
    if sys.platform != "win32" and options.size == "S":
        # First: on Linux a child's ru_maxrss starts at what its parent used, which is little by now.
        for side, name in (("twin", "twin"), (result.default_precision["training"], "default")):
            result.peaks[name] = peak_of_child(side, options.size, threads)
    for size in dict.fromkeys((options.size, "tiny")):
        rounds = min(options.rounds, 2) if options.quick else options.rounds
        result.rates[size] = measure_rates(size, rounds, warm=1 if options.quick else 3)
    if options.losses:
        result.losses = loss_curves(200)
    show(result)
    bars = judge(result)
    result.bars = [asdict(bar) | {"passed": bar.passed} for bar in bars]
    print()
    for bar in bars:
        print(bar)
    if options.out:
        options.out.write_text(json.dumps(asdict(result), indent=1), encoding="utf-8")
    sys.exit(0 if all(bar.passed for bar in bars) else 1)


if __name__ == "__main__":
    main()
