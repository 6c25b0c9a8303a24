"""SpecAugment: warp features along time, then hide bands of frequency and stretches of time.

Park et al., 2019, arXiv:1904.08779, with the settings of the Zipformer recipes (lhotse): bicubic time warp,
the number of time masks grows with the utterance, hidden places take the utterance's mean.

Notable features. All randomness of a row follows from its key alone: the same key gives the same warp and
masks in any batch, on any worker and device. The two views of CR-CTC (arXiv:2410.05101) share one warp and
differ in their masks, which are ``consistency_scale`` times as many and as wide in total:

    warped = spec_augment.warp_time(frames, keys)
    one, two = (spec_augment.mask(warped, keys, view=v) for v in (0, 1))

``strength`` makes masks narrower in proportion: a model that has not found out yet where the letters are
learns it sooner from features that are nearly whole.
"""

from __future__ import annotations

import math
from typing import final

import numpy as np
import torch
from jaxtyping import Int
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from firstwords.config import Config
from firstwords.tensors import Padded, real_frames

BICUBIC = -0.75  # the free parameter of cubic convolution (Keys, 1981), as in torch's interpolation
_PLAIN_VIEW = 1 << 16  # the stream of random numbers of masks outside CR-CTC


class SpecAugmentConfig(Config):
    """Settings; the defaults are those of the Zipformer recipes."""

    probability: float = Field(default=0.9, ge=0, le=1)  # of warping a row, and independently of masking it
    time_warp: int = Field(
        80, ge=0
    )  # greatest shift, frames; rows up to twice as long are not warped; 0 = off
    frequency_masks: int = Field(default=2, ge=0)
    frequency_width: int = Field(default=27, ge=0)  # greatest width of one mask, features
    time_masks: int = Field(default=10, ge=0)  # greatest number of masks along time
    time_width: int = Field(default=100, ge=1)  # greatest width of one mask, frames
    time_fraction: float = Field(
        default=0.15, ge=0, le=1
    )  # no more than this share of an utterance is hidden
    consistency_scale: float = Field(
        default=2.5, ge=1
    )  # factor on time_masks and time_fraction for CR-CTC views

    @property
    def masks(self) -> bool:
        """False where nothing is ever hidden; features may be warped still."""
        bands, times = self.frequency_masks * self.frequency_width, self.time_masks * self.time_fraction
        return self.probability > 0 and (bands > 0 or times > 0)


@final
class SpecAugment:
    """Frames and keys -> augmented frames of the same lengths."""

    def __init__(self, config: SpecAugmentConfig) -> None:
        self.config = config

    def __call__(self, frames: Padded, keys: Int[Tensor, " batch"], *, strength: float = 1.0) -> Padded:
        """Warp, then mask once (plain training, without CR-CTC); ``strength`` as in ``mask``."""
        return self._mask(self.warp_time(frames, keys), keys, _PLAIN_VIEW, scale=1.0, strength=strength)

    def mask(
        self,
        frames: Padded,
        keys: Int[Tensor, " batch"],
        *,
        view: int,
        scale: float | None = None,
        strength: float = 1.0,
    ) -> Padded:
        """Mask one view of CR-CTC.

        Args:
            scale: widens the time masking (default: ``consistency_scale``).
            strength: 0 to 1, share of their greatest widths that masks may have.
        """
        if not 0 <= view < _PLAIN_VIEW:
            raise ValueError(f"view = {view} is not a small non-negative number.")
        scale = self.config.consistency_scale if scale is None else scale
        return self._mask(frames, keys, view, scale=scale, strength=strength)

    def warp_time(self, frames: Padded, keys: Int[Tensor, " batch"]) -> Padded:
        """Move one random frame of each utterance by up to ``time_warp`` frames, stretching both sides.

        source  0 1 2 3 | 4 5 6 7      center 4 moved to 2
        output  0   2 | 4 4.7 5.3 6 7  the left part is squeezed, the right part stretched
        """
        time = frames.values.shape[1]
        factor = self.config.time_warp
        lengths, seeds = frames.lengths.tolist(), keys.tolist()
        moves: list[tuple[int, int, int]] = []
        for row, (length, key) in enumerate(zip(lengths, seeds, strict=True)):
            generator = _generator(key, purpose=0, stream=0)
            if not factor or length <= 2 * factor + 1 or generator.random() >= self.config.probability:
                continue
            center = int(generator.integers(factor + 1, length - factor))
            warped = int(generator.integers(center - factor, center + factor + 1))
            if warped != center:
                moves.append((row, center, warped))
        if not moves:
            return frames
        taps = np.repeat(np.arange(time)[None, :, None], len(lengths), axis=0).repeat(4, axis=2)
        weights = np.zeros(taps.shape, dtype=np.float32)
        weights[..., 1] = 1  # rows without a warp are copied
        for row, center, warped in moves:
            length = lengths[row]
            taps[row, :warped], weights[row, :warped] = _cubic(center, warped)
            right_taps, weights[row, warped:length] = _cubic(length - center, length - warped)
            taps[row, warped:length] = right_taps + center
        taps += (np.arange(len(lengths)) * time)[:, None, None]
        device = frames.values.device
        warped_values = F.embedding_bag(  # the weighted sum of four rows, without writing the four
            torch.from_numpy(taps).reshape(-1, 4).to(device),
            frames.values.reshape(-1, frames.values.shape[2]),
            per_sample_weights=torch.from_numpy(weights).reshape(-1, 4).to(device, frames.values.dtype),
            mode="sum",
        )
        return Padded(warped_values.reshape(frames.values.shape), frames.lengths)

    def _mask(self, frames: Padded, keys: Tensor, stream: int, *, scale: float, strength: float) -> Padded:
        if not 0 <= strength <= 1:
            raise ValueError(f"strength = {strength} is not between 0 and 1.")
        rows, time, dim = frames.values.shape
        hidden_times = np.zeros((rows, time), dtype=bool)
        hidden_bands = np.zeros((rows, dim), dtype=bool)
        lengths = frames.lengths.tolist()
        for row, (length, key) in enumerate(zip(lengths, keys.tolist(), strict=True)):
            generator = _generator(key, purpose=1, stream=stream)
            if generator.random() < self.config.probability:
                self._draw_bands(hidden_bands[row], generator, strength)
                self._draw_times(hidden_times[row, :length], generator, scale, strength)
        device = frames.values.device
        hidden = torch.from_numpy(hidden_times).to(device)[:, :, None]
        hidden = hidden | torch.from_numpy(hidden_bands).to(device)[:, None, :]
        hidden &= real_frames(frames.lengths, time)[:, :, None]
        # Padding is zero, so the sum over the whole row is the sum over its real frames.
        means = frames.values.sum(dim=(1, 2)) / (frames.lengths * dim).clamp(min=1)
        values = torch.where(hidden, means[:, None, None].to(frames.values.dtype), frames.values)
        return Padded(values, frames.lengths)

    def _draw_bands(self, hidden: np.ndarray, generator: np.random.Generator, strength: float) -> None:
        widest = round(strength * min(self.config.frequency_width, len(hidden)))
        for _ in range(self.config.frequency_masks):
            _hide(hidden, widest, generator)

    def _draw_times(
        self, hidden: np.ndarray, generator: np.random.Generator, scale: float, strength: float
    ) -> None:
        most = min(1.0, self.config.time_fraction * scale) * len(hidden)  # frames in all
        masks = min(int(self.config.time_masks * scale), math.ceil(most / self.config.time_width))
        for _ in range(masks):
            _hide(hidden, int(strength * min(self.config.time_width, int(most / masks))), generator)


def _generator(key: int, *, purpose: int, stream: int) -> np.random.Generator:
    return np.random.default_rng([purpose, stream, key % 2**64])


def _hide(hidden: np.ndarray, widest: int, generator: np.random.Generator) -> None:
    """Mark one stretch of 0 to ``widest`` places, in place."""
    width = int(generator.integers(0, widest + 1))
    start = int(generator.integers(0, len(hidden) - width + 1))
    hidden[start : start + width] = True


def _cubic(source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Resize ``source`` frames to ``target``: the four source places of each output and their weights.

    Cubic convolution on pixel centers, places outside repeat the border (as torch's bicubic interpolation).
    """
    at = (np.arange(target) + 0.5) * (source / target) - 0.5
    below = np.floor(at)
    part = at - below
    distance = np.stack([part + 1, part, 1 - part, 2 - part], axis=1)
    a = BICUBIC
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    weights = np.where(distance <= 1, near, far).astype(np.float32)
    taps = below.astype(np.int64)[:, None] + np.arange(-1, 3)
    return taps.clip(0, source - 1), weights
