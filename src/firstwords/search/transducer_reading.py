"""What a transducer wrote, token by token, as a reading with times; no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from firstwords.search.hypothesis import Hypothesis


class Emission(NamedTuple):
    """A token, the frame at which it was written, and its probability there."""

    token: int
    frame: int
    probability: float


def reading(written: Sequence[Emission], parts: Mapping[str, float], frame_seconds: float) -> Hypothesis:
    """Tokens in their order -> Hypothesis. A token lasts for its frame, or less if another follows in it.

    What a transducer writes may come some frames after what was said.
    """
    frames = [emission.frame for emission in written]
    ends = [min(now + 1, then) for now, then in zip(frames, [*frames[1:], *frames[-1:]], strict=True)]
    if ends:
        ends[-1] = frames[-1] + 1
    return Hypothesis(
        tokens=tuple(emission.token for emission in written),
        score=sum(parts.values()),
        parts=parts,
        times=tuple(frame * frame_seconds for frame in frames),
        ends=tuple(end * frame_seconds for end in ends),
        confidences=tuple(min(1.0, emission.probability) for emission in written),
    )
