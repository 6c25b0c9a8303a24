"""``firstwords compress MODEL --target ...``: which steps, how far, until the limits are kept.

A ``Way`` is a share of the parameters that is cut and a way to keep the weights, each with the share of the
bytes it is counted with: fp32 100 %, bf16 52, int8 28, 6-bit k-means 22, mixed bits 15 and more.

The first way is the mildest that should do, by arithmetic: bytes, parameters and multiply-accumulates fall
with what is cut, time roughly too. What was really reached is measured, and the next way makes good for what
was missing: stronger where the model was too large or too slow, milder where it erred too much and had room
left. No way is tried twice. A step that refuses is asked for less: a smaller cut where the cut failed,
fewer weights within the same bytes where those were too few. The attempt that keeps to all limits, else the
one nearest to them, becomes the model; the original is only read.

    TO/attempts/NAME/        the model of one way; NAME.json what was measured: a second call goes on there
    TO/                      a copy of the best one
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, get_args

from firstwords.compression.history import FILE as HISTORY
from firstwords.compression.target import METRICS, Broken, Measures, Target, shown
from firstwords.errors import CompressionError, TrainingError, UsageError
from firstwords.files import staged, write_atomically
from firstwords.model.checkpoint import WEIGHTS, require_files

Keep = Literal["fp32", "bf16", "int8", "kmeans6", "mixed"]
KEEPS: tuple[Keep, ...] = get_args(Keep)  # from mild to strong
SHARE_OF_BYTES: dict[Keep, float] = {"fp32": 1.0, "bf16": 0.52, "int8": 0.28, "kmeans6": 0.22, "mixed": 0.15}
ATTEMPTS, MEASURES, ORDER = "attempts", "measures.json", "order.json"
LEFTOVERS = ("resume", "rounds", "tuning", ATTEMPTS)  # of a training, a pruning, a search like this one
MOST_ATTEMPTS = 4
MOST_CUT = 0.7
_FINER = 0.05  # shares are multiples of it
_MARGIN = 0.03  # of a limit, kept free
_BY_CUTTING = ("parameters", "macs", "rtf")  # what falls with the parameters
Say = Callable[[str], None]


@dataclass(frozen=True)
class Way:
    """What is done to a model.

    Args:
        cut: share of the parameters that goes, 0 to MOST_CUT.
        budget: bytes of the file, for "mixed" alone.
    """

    cut: float = 0.0
    keep: Keep = "fp32"
    budget: int | None = None

    @property
    def name(self) -> str:
        """Of its folder."""
        parts = [f"cut{round(100 * self.cut)}"] if self.cut else []
        parts.append(f"mixed{self.budget}" if self.keep == "mixed" else self.keep)
        return "-".join(parts)


class Reach(NamedTuple):
    """The largest share of a model's parameters that can be cut; where that is 0, why."""

    share: float
    why: str = ""


class Steps(Protocol):
    """The steps of compression, folder in, folder out; each goes on where it was stopped."""

    def reach(self, source: Path) -> Reach:
        """How much can be cut at all."""
        ...

    def prune(self, source: Path, to: Path, share: float) -> None: ...

    def store(self, source: Path, to: Path, keep: Keep, budget: int | None) -> None: ...

    def measure(self, folder: Path) -> Measures: ...


@dataclass(frozen=True)
class Attempt:
    """A way that was gone, and where it led."""

    way: Way
    folder: Path
    measures: Measures
    broken: tuple[Broken, ...]
    excess: float


@dataclass(frozen=True)
class Planned:
    """What came of it: all attempts, and the best of them, which is now the model in ``folder``.

    Args:
        refused: ways that a step would not go, and its reason.
        ended: why no more was tried, in a sentence.
    """

    folder: Path
    original: Measures
    attempts: tuple[Attempt, ...]
    best: Attempt
    refused: tuple[tuple[Way, str], ...] = ()
    ended: str = ""

    @property
    def met(self) -> bool:
        """Whether the best one keeps to every limit."""
        return not self.best.broken

    @property
    def course(self) -> list[str]:
        """What was tried, what came of it and why it ended, a sentence each."""
        lines = [
            f"{said(a.way)}: {'; '.join(map(str, a.broken)) or 'keeps to all limits'}." for a in self.attempts
        ]
        return [*lines, *(f"{said(way)}: not possible. {why}" for way, why in self.refused), self.ended]


def compress_to_target(
    source: Path,
    to: Path,
    target: Target,
    steps: Steps,
    *,
    most: int = MOST_ATTEMPTS,
    settings: str = "",
    say: Say = lambda _: None,
) -> Planned:
    """A model folder and limits -> ``to`` with the model that keeps them, or comes nearest.

    Args:
        most: attempts.
        settings: of ``steps``: a second call into the same folder must have the same.
    """
    _settle(source, to, target, settings)
    original = _measured(source, to / ATTEMPTS / "original.json", steps)
    told = ", ".join(f"{m} {shown(m, original[m])}" for m in METRICS if m in original)
    say(f"The original has {told}. Wanted: {target}.")
    for limit in target.limits:
        if math.isnan(original.get(limit.metric, math.nan)):
            raise UsageError(
                f"--target: {limit.metric} cannot be measured on this machine.", mend=f"Leave '{limit}' away."
            )
    reach = steps.reach(source)
    most_cut = min(MOST_CUT, math.floor(100 * reach.share) / 100)
    if reach.why and any(_cut_for(original, target, metric) for metric in _BY_CUTTING):
        say(f"Nothing can be cut: {reach.why}")
    attempts: list[Attempt] = []
    refused: list[tuple[Way, str]] = []
    tried: set[Way] = set()
    ahead = [first_way(original, target, most_cut=most_cut)]
    while (way := next((w for w in ahead if w not in tried), None)) is not None and len(attempts) < most:
        say(f"Attempt {len(attempts) + 1} of at most {most}: {said(way)}.")
        tried.add(way)
        try:
            attempts.append(_tried(way, source, to, target, original, steps))
        except (UsageError, TrainingError) as error:  # it cannot be done with this model, or goes wrong
            if isinstance(error, TrainingError) and not attempts:
                raise  # there is no attempt yet that could be kept
            say(f"  Not possible: {error.what}")
            refused.append((way, error.what))
            if _is_cut(way, to):
                ahead += _instead(way, most_cut)
            else:
                most_cut = _less(way, (w.cut for w in tried if _is_cut(w, to)))
                ahead = [*_wishes(attempts, original, target, most_cut), *ahead]
                ahead = [wish for wish in ahead if wish.cut <= most_cut]
            continue
        if not attempts[-1].broken:
            break
        say(f"  Not yet: {'; '.join(map(str, attempts[-1].broken))}.")
        ahead = _wishes(attempts, original, target, most_cut)
    if not attempts:
        reasons = "\n".join(f"  {said(way)}: {why}" for way, why in refused)
        raise CompressionError(
            f"Nothing that was tried can be done with '{source}':\n{reasons}",
            mend="Take a smaller size of the model: firstwords compress distil.",
        )
    ended = _ended(attempts, way, most, most_cut, reach)
    best = min(attempts, key=lambda a: (a.excess, a.measures.get("cer", 0.0)))
    _take(best, to)
    return Planned(to, original, tuple(attempts), best, tuple(refused), ended)


def first_way(original: Measures, target: Target, *, most_cut: float = MOST_CUT) -> Way:
    """The mildest way that keeps the limits, if bytes and time fall as they should."""
    cut = 0.0
    for metric in _BY_CUTTING:
        cut = max(cut, _rounded(_cut_for(original, target, metric), most_cut))
    size, whole = target.limit("size"), _as_fp32(original)
    mildest = KEEPS[_kept_so_far(original) :]  # what was lost in fewer bits does not come back
    if size is None or "size" not in original:
        return Way(cut, mildest[0]) if cut else Way()
    room = (1 - _MARGIN) * size.bound(original)
    if not cut and original["size"] <= room:
        return Way()
    for keep in mildest:
        if whole * (1 - cut) * SHARE_OF_BYTES[keep] <= room:
            break
    else:
        keep = "mixed"
        cut = max(cut, _rounded(1 - room / (whole * SHARE_OF_BYTES["mixed"]), most_cut))
    return _way(cut, keep, room)


def _as_fp32(original: Measures) -> float:
    """Bytes that the model would take in 32 bits."""
    return max(original.get("size", 0.0), 4 * original.get("parameters", 0.0))


def _kept_so_far(original: Measures) -> int:
    """Index in KEEPS of the mildest way that takes no more bytes than the original does; never "mixed"."""
    if "size" not in original:
        return 0
    room = 1.1 * original["size"] / _as_fp32(original)  # SHARE_OF_BYTES is a little too high
    return next((n for n, keep in enumerate(KEEPS[:-1]) if SHARE_OF_BYTES[keep] <= room), len(KEEPS) - 2)


def _wishes(attempts: Sequence[Attempt], original: Measures, target: Target, most_cut: float) -> list[Way]:
    """What makes good for the limits that the last attempt broke, best first; before any, the first way."""
    if not attempts:
        return [first_way(original, target, most_cut=most_cut)]
    last = attempts[-1]
    broken = {b.limit.metric: b for b in last.broken}
    size = target.limit("size")
    room = (1 - _MARGIN) * size.bound(original) if size is not None else math.inf
    wishes: list[Way] = []
    slow = [m for m in ("parameters", "macs", "rtf", "memory") if m in broken]
    if slow:
        known = [broken[m].value / broken[m].bound for m in slow if not math.isnan(broken[m].value)]
        cut = 1 - (1 - last.way.cut) / max(known, default=1.0) * (1 - _MARGIN)
        wishes.append(_way(_rounded(max(cut, last.way.cut + _FINER), most_cut), last.way.keep, room))
    if "size" in broken:
        stronger = KEEPS[min(KEEPS.index(last.way.keep) + 1, len(KEEPS) - 1)]
        wishes.append(_way(last.way.cut, stronger, room))
        share = broken["size"].bound / broken["size"].value
        wishes.append(
            _way(_rounded(1 - (1 - last.way.cut) * share * (1 - _MARGIN), most_cut), last.way.keep, room)
        )
    if not slow and "size" not in broken:  # it errs too much: milder, as far as the other limits let it
        if last.way.cut:
            least = max((_cut_for(original, target, m) for m in _BY_CUTTING), default=0.0)
            wishes.append(
                _way(_rounded(max(least, last.way.cut - 2 * _FINER), most_cut), last.way.keep, room)
            )
        for keep in reversed(KEEPS[_kept_so_far(original) : KEEPS.index(last.way.keep)]):
            bytes_now = last.measures.get("size", math.nan)
            grown = bytes_now * SHARE_OF_BYTES[keep] / SHARE_OF_BYTES[last.way.keep]
            if math.isinf(room) or grown <= room:
                wishes.append(_way(last.way.cut, keep, room))
            elif last.way.keep == "mixed" and size is not None:  # fewer weights in more bits each
                wishes.append(_way(_rounded(1 - (1 - last.way.cut) * room / grown, most_cut), keep, room))
    return wishes


def _ended(attempts: Sequence[Attempt], left: Way | None, most: int, most_cut: float, reach: Reach) -> str:
    """Why no more was tried: the target is met, no attempt is left, or no way."""
    last = attempts[-1]
    if not last.broken:
        return "Then the target was met."
    if left is not None:
        return f"Ended after {most} attempts, which is all that --attempts allows; next: {said(left)}."
    broken = {b.limit.metric for b in last.broken}
    why: list[str] = []
    if broken & {*_BY_CUTTING, "memory", "size"} and last.way.cut >= most_cut:
        most_said = f"no more than {most_cut:.0%} of its parameters can be cut"
        why.append(f"nothing can be cut ({reach.why.rstrip('.')})" if reach.why else most_said)
    if "size" in broken and last.way.keep in ("kmeans6", "mixed"):
        why.append("weights are kept in as few bits as was possible")
    if broken <= {"cer", "wer"}:
        why.append("nothing milder keeps the other limits" if last.way != Way() else "nothing was done to it")
    return f"Ended because no other way is left: {', and '.join(why) or 'all that could help was tried'}."


def said(way: Way) -> str:
    """A way in words."""
    if way == Way():
        return "the model as it is"
    first = f"{way.cut:.0%} of the parameters cut" if way.cut else ""
    kept = {
        "fp32": "weights kept in 32 bits",
        "bf16": "weights kept in 16 bits",
        "int8": "weights kept in 8 bits",
        "kmeans6": "weights kept as 6-bit numbers of shared values",
        "mixed": f"bits by layer, within {shown('size', float(way.budget or 0))}",
    }[way.keep]
    return f"{first}, {kept}" if first else kept


def _way(cut: float, keep: Keep, room: float) -> Way:
    return Way(cut, keep, int(room) if keep == "mixed" and math.isfinite(room) else None)


def _cut_for(original: Measures, target: Target, metric: Literal["parameters", "macs", "rtf"]) -> float:
    """Share to cut so that a metric that falls with the parameters keeps its limit."""
    limit = target.limit(metric)
    if limit is None or metric not in original or limit.holds(original, original):
        return 0.0
    return 1 - (1 - _MARGIN) * limit.bound(original) / original[metric]


def _rounded(cut: float, most: float) -> float:
    """Up to the next multiple of ``_FINER``, and no more than may be cut at all."""
    return 0.0 if cut <= 0 else min(most, round(math.ceil(round(cut / _FINER, 6)) * _FINER, 4))


def _instead(way: Way, most_cut: float) -> list[Way]:
    """Of a way whose bytes are too few for what is left: fewer weights in them, or no bound on the bytes."""
    fewer = [Way(_rounded(way.cut + 4 * _FINER, most_cut), way.keep, way.budget)]
    return [*(fewer if way.budget is not None else []), Way(way.cut, "kmeans6")]


def _less(way: Way, made: Iterable[float]) -> float:
    """The most to cut after a cut that failed: halfway to the largest below it of those that were made."""
    went = max((cut for cut in made if cut < way.cut), default=0.0)
    return max(went, _rounded((went + way.cut) / 2, round(way.cut - _FINER, 4)))


def _is_cut(way: Way, to: Path) -> bool:
    """Whether the cut of a way was made, if it has one."""
    return not way.cut or (to / ATTEMPTS / Way(way.cut).name / HISTORY).is_file()  # what a step writes last


def _tried(way: Way, source: Path, to: Path, target: Target, original: Measures, steps: Steps) -> Attempt:
    folder = to / ATTEMPTS / way.name
    record = to / ATTEMPTS / f"{way.name}.json"
    if not record.is_file():
        at = source
        if way.cut:
            at = to / ATTEMPTS / Way(way.cut).name
            if not _is_cut(way, to):
                steps.prune(source, at, way.cut)
        if way.keep != "fp32":
            shutil.rmtree(folder, ignore_errors=True)
            steps.store(at, folder, way.keep, way.budget)
        elif not way.cut:
            _copy(source, folder)
    measures = _measured(folder, record, steps)
    broken = tuple(target.broken(measures, original))
    return Attempt(way, folder, measures, broken, target.excess(measures, original))


def _measured(folder: Path, record: Path, steps: Steps) -> Measures:
    if record.is_file():
        try:
            found = json.loads(record.read_text(encoding="utf-8"))
            return {metric: float(found[metric]) for metric in METRICS if metric in found}
        except (OSError, ValueError, TypeError, AttributeError):
            record.unlink(missing_ok=True)
    measures = steps.measure(folder)
    record.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(record, json.dumps(dict(measures), indent=1) + "\n")
    return measures


def _copy(source: Path, folder: Path, *, gone: Sequence[str] = ()) -> None:
    """A model folder without what its making left there to resume from."""
    with staged(folder, last=(WEIGHTS,), gone=gone) as new:
        shutil.copytree(source, new, ignore=lambda _, names: set(LEFTOVERS) & set(names), dirs_exist_ok=True)


def _take(best: Attempt, to: Path) -> None:
    """The files of the best attempt into ``to``, in place of those of an earlier best one."""
    old = [path.name for path in to.iterdir() if path.is_file()]
    _copy(best.folder, to, gone=[name for name in old if not (best.folder / name).exists()])


def _settle(source: Path, to: Path, target: Target, settings: str) -> None:
    require_files(source)
    if to.resolve().is_relative_to(source.resolve()) or source.resolve().is_relative_to(to.resolve()):
        raise UsageError(
            f"--to {to}: the model itself is only read.", mend="Give --to a folder of its own, elsewhere."
        )
    with (source / WEIGHTS).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    order = {"target": str(target), "settings": settings, "model": digest}
    path = to / ATTEMPTS / ORDER
    if path.is_file():
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = None
        if known != order:
            raise UsageError(
                f"'{to}' was begun with another model, target or settings.", mend="Give another --to folder."
            )
    elif to.exists() and (not to.is_dir() or any(p.name != ATTEMPTS for p in to.iterdir())):
        raise UsageError(f"'{to}' exists and is not empty.", mend="Give --to a new folder.")
    write_atomically(path, json.dumps(order, indent=1) + "\n")
