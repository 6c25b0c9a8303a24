"""How large the inputs of layers are: a percentile over real speech, from a histogram that grows.

A scale from the largest value of all wastes most of the 255 steps on a few outliers; the 99.99th percentile
clips one value in ten thousand (G.3 of the design).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from firstwords.model.speech_model import SpeechModel
from firstwords.nn.int8 import LARGEST
from firstwords.tensors import Padded

PERCENTILE = 99.99
LEAST_UTTERANCES, MOST_UTTERANCES = 50, 200  # to calibrate on; fewer only where there are no more
_BINS = 4096


@final
class MagnitudeHistogram:
    """Counts of |x| in equal bins from 0 on; when a larger value comes, bins are joined in pairs."""

    def __init__(self) -> None:
        self.width = 0.0  # of a bin; 0 before the first value above 0
        self.counts = torch.zeros(_BINS, dtype=torch.float64)

    def add(self, values: Float[Tensor, "*any"]) -> None:
        """Count finite values."""
        sizes = values.detach().float().abs().flatten()
        sizes = sizes[sizes.isfinite()]
        if not sizes.numel():
            return
        largest = float(sizes.max())
        if self.width == 0.0 and largest > 0:
            self.width = largest / _BINS
        while largest > self.width * _BINS:
            pairs = self.counts.view(-1, 2).sum(dim=1)
            self.counts = torch.cat([pairs, torch.zeros_like(pairs)])
            self.width *= 2
        places = (sizes / self.width).clamp_(max=_BINS - 1) if self.width else torch.zeros_like(sizes)
        self.counts += torch.bincount(places.long(), minlength=_BINS)

    def percentile(self, percent: float) -> float:
        """The upper end of the bin in which the percentile lies: at most a bin too large, never too small."""
        running = self.counts.cumsum(0)
        place = int(torch.searchsorted(running, percent / 100 * running[-1] - 1e-9))
        return self.width * (min(place, _BINS - 1) + 1)


def input_scales(
    model: SpeechModel,
    layers: Sequence[str],
    utterances: Iterable[Padded],
    *,
    percent: float = PERCENTILE,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Layer -> scale of its input, so that the percentile of |x| becomes 127.

    Args:
        utterances: batches of one, as padding would be counted too.
        progress: called after each.
    """
    found = {name: MagnitudeHistogram() for name in layers}

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: tuple[Any, ...]) -> None:
            del module
            found[name].add(given[0])

        return hook

    hooks = [model.get_submodule(name).register_forward_pre_hook(note(name)) for name in layers]
    model.eval()
    try:
        with torch.no_grad():
            for audio in utterances:
                model.encode(audio)
                progress()
    finally:
        for hook in hooks:
            hook.remove()
    return {
        name: histogram.percentile(percent) / LARGEST
        for name, histogram in found.items()
        if histogram.width > 0
    }
