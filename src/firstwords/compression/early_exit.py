"""Choose on dev how sure a model must be to leave early, and show what each threshold costs and brings.

Every utterance is encoded once, alone, and read at each inner stack and at the end, with the wall clock of
each; what a threshold would have done follows from that. The error rates are those of the utterances that
choose the threshold, so they look a little too good.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import torch

from firstwords.data.batch import Batch
from firstwords.inference.early_exit import (
    ExitPoint,
    ExitSettings,
    Measure,
    check_taps,
    sureness,
)
from firstwords.model.checkpoint import LoadedModel, weights_digest
from firstwords.scoring.error_rate import ErrorRate, grapheme_errors
from firstwords.search.greedy import GreedySearch
from firstwords.tensors import Padded
from firstwords.text.normalize import normalizer

END = "end"
_POINTS = 20  # thresholds of the curve
_TIMES = 3  # passes over an utterance; the median counts


@dataclass(frozen=True)
class Way:
    """One utterance at each inner stack, and at the end.

    Args:
        sure: at each inner stack, 0 to 1.
        seconds: wall clock until each is read; the last: of encoding everything, without looking on the way.
        errors: at each, and at the end.
    """

    sure: tuple[float, ...]
    seconds: tuple[float, ...]
    errors: tuple[ErrorRate, ...]

    def exit(self, above: float) -> int:
        """Number of the stack it leaves from; that of the end for none."""
        return next((n for n, sure in enumerate(self.sure) if sure >= above), len(self.sure))


@torch.inference_mode()
def ways(
    loaded: LoadedModel,
    batches: Iterable[Batch],
    measure: Measure,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Way]:
    """Utterances one by one -> how each fares at every place where it could leave."""
    model = loaded.model.eval()
    head = check_taps(model)
    search = GreedySearch(model.frame_seconds)
    score = normalizer(loaded.recipe.text.scoring)
    found: list[Way] = []

    def errors(log_probs: Padded, text: str) -> ErrorRate:
        ((best, *_),) = search(log_probs)
        return grapheme_errors(score(text), score(loaded.tokenizer.decode(best.tokens)))

    for batch in batches:
        passes: list[list[float]] = []
        said: list[Padded] = []
        sure: list[float] = []
        for _ in range(_TIMES):
            times: list[float] = []
            said, sure = [], []

            def look(stack: int, tap: Padded, log_probs: Padded) -> bool:
                del stack, tap
                sure.append(float(sureness(log_probs, measure)))  # noqa: B023 - used within this pass
                times.append(clock() - began)  # noqa: B023
                said.append(log_probs)  # noqa: B023
                return False

            began = clock()
            model.encode_with_taps(model.features(batch.audio), look)
            began = clock()
            said.append(head.log_probs(model.encode(batch.audio)))
            times.append(clock() - began)
            passes.append(times)
        found.append(
            Way(
                tuple(sure),
                tuple(median(times) for times in zip(*passes, strict=True)),
                tuple(errors(one, batch.texts[0]) for one in said),
            )
        )
    return found


def point(found: Sequence[Way], stacks: Sequence[int], above: float) -> ExitPoint:
    """What this threshold does to these utterances."""
    rate, seconds, whole = ErrorRate(), 0.0, 0.0
    exits: Counter[int] = Counter()
    for way in found:
        place = way.exit(above)
        rate += way.errors[place]
        seconds += way.seconds[place]
        whole += way.seconds[-1]
        exits[place] += 1
    names = [*map(str, stacks), END]
    return ExitPoint(
        above=above,
        cer=rate.rate,
        seconds_share=seconds / max(whole, 1e-9),
        exits={names[place]: count for place, count in sorted(exits.items())},
    )


def choose_exit(
    loaded: LoadedModel,
    found: Sequence[Way],
    *,
    measure: Measure,
    most_loss: float,
    corpus: str,
    split: str,
) -> ExitSettings:
    """The threshold that takes least time at no more than ``most_loss`` (a fraction) more errors.

    Among thresholds at the quantiles of what was measured; "never" (above 1) where none is good enough.
    """
    stacks = check_taps(loaded.model).config.intermediate
    sure = sorted(value for way in found for value in way.sure)
    places = [round(n * (len(sure) - 1) / (_POINTS - 1)) for n in range(_POINTS)] if sure else []
    thresholds = sorted({round(sure[place], 4) for place in places} | {1.01})
    curve = tuple(point(found, stacks, above) for above in thresholds)
    whole = curve[-1].cer
    good = [one for one in curve if one.cer <= whole + most_loss + 1e-9]
    best = min(good, key=lambda one: (one.seconds_share, -one.above))
    return ExitSettings(
        model=weights_digest(loaded.model.state_dict()),
        above=best.above if best.seconds_share < 1.0 else 1.01,
        measure=measure,
        corpus=corpus,
        split=split,
        utterances=len(found),
        cer_whole=whole,
        curve=curve,
    )
