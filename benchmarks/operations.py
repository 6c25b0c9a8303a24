"""Where the time of an encoder goes: operations by group, their calls, bytes and time, and what leaving parts
out is worth.

    python benchmarks/operations.py [--only zipformer conformer squeezeformer] [--size tiny] [--rounds 5]
                                    [--threads 1] [--part NAME ...] [--no-groups]

Models have random weights (about 2 M parameters at tiny), as in ``architectures.py --speed``; everything is
measured on encoder and CTC head, from features, or on a whole training step of 4 x 10 s.

    groups      self time of torch's own operations (its profiler), calls, and the bytes that operations
                read and write, by kind of operation. A layer is many of them.
    parts       the same models with one thing changed, in turn: milliseconds, medians over the rounds. The
                change that closes the gap to another encoder is what the gap is made of.

Beside them: the bytes that a training step keeps from its forward for its backward pass.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded

import torch
from architectures_speed import ROWS, SECONDS, Side, features
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from firstwords.device import machine_name, set_threads
from firstwords.encoders.zipformer import activations, constraints
from firstwords.encoders.zipformer.attention import NonlinAttention
from firstwords.encoders.zipformer.convolution import ConvolutionModule

# Names of operations, or how they begin -> group; the first that fits counts.
GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("attention products", ("bmm", "baddbmm", "matmul", "_scaled_dot", "scaled_dot")),
    ("linear products", ("addmm", "mm", "linear", "_linear", "mkldnn_linear", "_mkl_linear")),
    ("convolutions", ("conv", "mkldnn_conv", "thnn_conv", "_convolution", "slow_conv")),
    ("softmax", ("_softmax", "softmax", "_log_softmax", "log_softmax")),
    ("exp, log, sigmoid, tanh", ("exp", "log", "sigmoid", "tanh", "softplus", "logaddexp", "silu", "gelu")),
    ("copies and layout", ("copy", "_to_copy", "clone", "contiguous", "cat", "stack", "pad", "constant_pad")),
    ("look-ups", ("index", "gather", "embedding", "take", "_index")),
    (
        "sums and norms",
        ("sum", "mean", "pow", "rsqrt", "var", "norm", "native_layer", "native_batch", "amax"),
    ),
)
OTHER = "element by element"
VIEWS = ("view", "reshape", "as_strided", "transpose", "permute", "slice", "select", "unsqueeze", "squeeze")


def group_of(operation: str) -> str:
    """'aten::addmm' -> its group."""
    name = operation.rpartition("::")[2].removesuffix("_")
    for group, starts in GROUPS:
        if any(name == start or name.startswith(start) for start in starts if start != "mm"):
            return group
        if "mm" in starts and name == "mm":
            return group
    return "views and sizes" if name.startswith((*VIEWS, "t", "expand", "detach", "empty")) else OTHER


class Bytes(TorchDispatchMode):
    """Counts, by group, the bytes of all tensors that operations take and give; views take nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: defaultdict[str, int] = defaultdict(int)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        group = group_of(f"aten::{func.__name__.split('.')[0]}")
        if group != "views and sizes":
            tensors = [t for t in tree_leaves((args, kwargs, found)) if isinstance(t, Tensor)]
            self.counts[group] += sum(t.numel() * t.element_size() for t in tensors)
        return found


@dataclass(frozen=True)
class Spent:
    """Of one group: milliseconds, calls, megabytes."""

    milliseconds: float
    calls: int
    megabytes: float


def groups_of(work: Callable[[], None], repeats: int) -> dict[str, Spent]:
    """What one run of ``work`` spends, group by group; the mean over the repeats."""
    work()
    with Bytes() as counted:
        work()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(repeats):
            work()
    times: defaultdict[str, float] = defaultdict(float)
    calls: defaultdict[str, int] = defaultdict(int)
    for event in seen.key_averages():
        name = event.key
        group = group_of(name) if name.startswith(("aten::", "mkldnn::")) else "Python, autograd, optimizer"
        times[group] += event.self_cpu_time_total / 1e3 / repeats
        calls[group] += round(event.count / repeats)
    return {
        g: Spent(times[g], calls[g], counted.counts[g] / 1e6) for g in sorted(times, key=lambda g: -times[g])
    }


def saved_megabytes(side: Side) -> float:
    """What the forward pass of one training step keeps for the backward pass; each storage counts once."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    own = {p.untyped_storage().data_ptr() for p in side.model.parameters()}
    side.model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        total = side.task.loss(side.batch).total
    total.backward()
    side.optimizer.zero_grad(set_to_none=True)
    return sum(size for place, size in kept.items() if place not in own) / 1e6


@contextmanager
def plain_activations() -> Generator[None]:
    """ReLU wherever a Swoosh is computed."""
    own = activations._apply_swoosh
    activations._apply_swoosh = lambda x, _shift, _offset: x.relu()
    try:
        yield
    finally:
        activations._apply_swoosh = own


def without(kind: type[nn.Module], names: tuple[str, ...] = ()) -> Callable[[nn.Module], None]:
    """Modules of this kind (of these names only, where some are given) add nothing."""

    def change(model: nn.Module) -> None:
        for path, module in model.named_modules():
            if isinstance(module, kind) and (not names or path.rpartition(".")[2] in names):
                module.forward = lambda x, *_args, **_more: torch.zeros((), dtype=x.dtype)  # type: ignore[method-assign]

    return change


def passing(*kinds: type[nn.Module]) -> Callable[[nn.Module], None]:
    """Modules of these kinds give what they get."""

    def change(model: nn.Module) -> None:
        for module in model.modules():
            if isinstance(module, kinds):
                module.forward = lambda x, *_args, **_more: x  # type: ignore[method-assign]

    return change


@dataclass(frozen=True)
class Part:
    """One encoder with one thing changed: settings of the recipe, or a change of the built model."""

    variant: str
    settings: tuple[str, ...] = ()
    change: Callable[[nn.Module], None] | None = None
    around: Callable[[], AbstractContextManager[None]] = nullcontext  # while it runs


PARTS: dict[str, Part] = {
    "zipformer": Part("zipformer"),
    "zipformer, ReLU for Swoosh": Part("zipformer", around=plain_activations),
    "zipformer, no stack at 50 frames/s": Part("zipformer", ("encoder.downsampling=[2,2,4,8,4,2]",)),
    "zipformer, no gated attention": Part("zipformer", change=without(NonlinAttention)),
    "zipformer, one convolution a layer": Part(
        "zipformer", change=without(ConvolutionModule, ("conv_module2",))
    ),
    "zipformer, no Balancer, no Whiten": Part(
        "zipformer", change=passing(constraints.Balancer, constraints.Whiten)
    ),
    "conformer": Part("conformer"),
    "conformer at 50 frames/s": Part("conformer", ("encoder.subsampling.factor=2",)),
}


def options_with(options: argparse.Namespace, settings: tuple[str, ...]) -> argparse.Namespace:
    """What ``architectures_speed.Side`` asks for."""
    own = argparse.Namespace(**vars(options))
    own.set = [*options.set, *settings]
    own.speed, own.seed, own.rate = True, 1, 1.0
    own.epochs, own.minutes, own.batch_seconds = 1.0, 1.0, float(ROWS * SECONDS)
    return own


def works_of(side: Side) -> dict[str, Callable[[], None]]:
    """Name of each measurement -> what is done."""
    one, eight = features(1, 15), features(8, 15)
    return {
        "1 x 15 s fp32": lambda: side.infer(one, "fp32"),
        "8 x 15 s fp32": lambda: side.infer(eight, "fp32"),
        "1 x 15 s auto": lambda: side.infer(one, "auto"),
        "8 x 15 s auto": lambda: side.infer(eight, "auto"),
        "training step": side.train,
    }


def group_tables(options: argparse.Namespace) -> str:
    """For each measurement a table of all groups, side by side."""
    built = {name: Side(name, options_with(options, ())) for name in options.only}
    sides = {name: works_of(side) for name, side in built.items()}
    kept = (f"{name} {saved_megabytes(side):.0f}" for name, side in built.items())
    lines = [f"A training step keeps for its way back, MB: {', '.join(kept)}"]
    for work in next(iter(sides.values())):
        found = {name: groups_of(works[work], options.rounds) for name, works in sides.items()}
        lines += ["", f"{work}: milliseconds (calls, MB) by group", ""]
        lines += [f"| group | {' | '.join(found)} |", "|" + "---|" * (len(found) + 1)]
        every = sorted({g for groups in found.values() for g in groups})
        every.sort(key=lambda g: -max(groups[g].milliseconds for groups in found.values() if g in groups))
        nothing = Spent(0.0, 0, 0.0)
        for group in every:
            cells = [groups.get(group, nothing) for groups in found.values()]
            shown = (f"{c.milliseconds:.1f} ({c.calls}, {c.megabytes:.0f})" for c in cells)
            lines.append(f"| {group} | {' | '.join(shown)} |")
        sums = [
            f"{sum(s.milliseconds for s in groups.values()):.1f} ({sum(s.calls for s in groups.values())}, "
            f"{sum(s.megabytes for s in groups.values()):.0f})"
            for groups in found.values()
        ]
        lines.append(f"| all | {' | '.join(sums)} |")
    return "\n".join(lines)


def part_table(options: argparse.Namespace) -> str:
    """Milliseconds of every part, medians over the rounds; all take their turn in each."""
    ready: dict[str, dict[str, Callable[[], None]]] = {}
    for name in options.part:
        part = PARTS[name]
        side = Side(part.variant, options_with(options, part.settings))
        if part.change is not None:
            part.change(side.model)
        ready[name] = works_of(side)
    works = list(next(iter(ready.values())))
    times: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in ready}
    for turn in range(options.rounds + 1):  # the first warms up
        for work in works:
            for name, own in ready.items():
                gc.collect()
                with PARTS[name].around():
                    started = time.perf_counter()
                    own[work]()
                    took = time.perf_counter() - started
                if turn:
                    times[name][work].append(1e3 * took)
    lines = [f"| what | {' | '.join(works)} |", "|" + "---|" * (len(works) + 1)]
    for name, found in times.items():
        lines.append(f"| {name} | {' | '.join(f'{statistics.median(found[w]):.1f}' for w in works)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", default=["zipformer", "conformer", "squeezeformer"])
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--part", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--no-groups", action="store_true")
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    set_threads(options.threads)
    print(machine_name(), f"{options.threads} threads, size {options.size}", sep=", ")
    print(part_table(options), flush=True)
    if not options.no_groups:
        print(group_tables(options))


if __name__ == "__main__":
    main()
