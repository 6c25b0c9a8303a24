"""Front end + encoder + heads as one module: what is trained, saved and asked for tokens.

Everything a step-dependent part of the network may know arrives by one call, ``set_step``.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Protocol, cast, final, runtime_checkable

import torch
from torch import nn

from firstwords.encoders.encoder import Encoder
from firstwords.features.frontend import Frontend
from firstwords.heads.ctc import CtcHead
from firstwords.heads.head import Head
from firstwords.heads.intermediate import Tapped, encode_with_taps
from firstwords.model.kinds import build_encoder, build_frontend, build_head
from firstwords.model.recipe import Recipe
from firstwords.model.structure import UNCHANGED, Structure, apply_structure
from firstwords.tensors import Padded

HEARD = 0.1  # seconds; recipes train on nothing shorter (data.min_duration)
_LONGEST_FIRST_FRAME = 10.0  # seconds; no encoder needs as much for its first frame


@runtime_checkable
class StepAware(Protocol):
    """A module whose regularisers follow a schedule."""

    def set_step(self, count: float) -> None:
        """``count`` in batches of the reference recipe."""
        ...


@final
class SpeechModel(nn.Module):
    """Samples -> frames -> encoded frames -> heads.

    Args:
        structure: what was cut since; the model is built by its recipe, then changed.
    """

    frontend: Frontend
    encoder: Encoder
    heads: nn.ModuleDict

    def __init__(self, recipe: Recipe, vocabulary: int, structure: Structure = UNCHANGED) -> None:
        super().__init__()
        self.recipe, self.structure = recipe, structure
        self.vocabulary = vocabulary
        self.frontend = build_frontend(recipe.features)
        self.encoder = build_encoder(recipe.encoder, self.frontend.dim)
        self.heads = nn.ModuleDict(
            {name: build_head(config, self.encoder.dim, vocabulary) for name, config in recipe.heads.items()}
        )
        apply_structure(self, structure)

    @property
    def ctc(self) -> CtcHead | None:
        """The head that alignment, times and the frame-wise searches use, if there is one."""
        return cast("CtcHead", self.heads["ctc"]) if "ctc" in self.heads else None

    def named_heads(self) -> Iterable[tuple[str, Head]]:
        """Name in the recipe, and head."""
        return cast("Iterable[tuple[str, Head]]", self.heads.items())

    @property
    def frame_seconds(self) -> float:
        """Seconds from one encoded frame to the next."""
        return self.frontend.frame_shift * self.encoder.subsampling

    @property
    def longest_seconds(self) -> float:
        """Of the longest recording that the encoder reads as a whole; infinite where it reads any."""
        longest = self.encoder.longest
        return math.inf if longest is None else longest * self.frame_seconds

    @cached_property
    def shortest_samples(self) -> int:
        """Audio shorter than this is filled up with silence: the encoder would give no frame, or ``HEARD``.

        No further: a model that was trained on single words that are cut close has heard no silence, and
        reads "six" and a tenth of a second of it as nothing.
        """
        rate = self.recipe.data.sample_rate

        def frames(samples: int) -> int:
            return int(self.encoder.output_lengths(self.frontend.num_frames(torch.tensor([samples]))))

        most = round(rate * _LONGEST_FIRST_FRAME)
        return max(round(HEARD * rate), bisect_left(range(most), 1, key=frames))

    def features(self, audio: Padded) -> Padded:
        """(B, S) samples -> (B, T, mels) frames."""
        return self.frontend(audio)

    def encode(self, audio: Padded) -> Padded:
        """(B, S) samples -> (B, T', D) encoded frames."""
        return self.encode_frames(self.frontend(audio))

    def encode_frames(self, frames: Padded) -> Padded:
        """(B, T, mels) frames -> (B, T', D); a self-conditioned head feeds its predictions back here too."""
        if self.ctc is not None and self.ctc.config.self_conditioned:
            return self.encode_with_taps(frames).encoded
        return self.encoder(frames)

    def encode_with_taps(
        self, frames: Padded, enough: Callable[[int, Padded, Padded], bool] | None = None
    ) -> Tapped:
        """(B, T, mels) frames -> (B, T', D), and what the CTC head says inside the encoder.

        ``enough``: see heads/intermediate.py.
        """
        if self.ctc is None:
            return Tapped(self.encoder(frames), [])
        return encode_with_taps(self.encoder, self.ctc, frames, enough)

    def forward(self, audio: Padded) -> Padded:
        """(B, S) samples -> (B, T', V) CTC log-probabilities, or (B, T', D) frames where no head is CTC."""
        encoded = self.encode(audio)
        return encoded if self.ctc is None else self.ctc.log_probs(encoded)

    def set_step(self, count: float) -> None:
        """Tell every scheduled regulariser how far training is (in batches of the reference recipe)."""
        for part in (self.encoder, *self.heads.values()):
            if isinstance(part, StepAware):
                part.set_step(count)

    @property
    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters())
