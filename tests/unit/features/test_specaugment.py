"""SpecAugment: what it changes, what it must not, and that keys alone decide."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.testing import assert_close

from firstwords.features.specaugment import SpecAugment, SpecAugmentConfig, _cubic
from firstwords.tensors import Padded, pad

ALWAYS = SpecAugmentConfig(probability=1.0)


def frames(*lengths: int, dim: int = 80) -> Padded:
    generator = torch.Generator().manual_seed(sum(lengths))
    return pad([torch.randn(n, dim, generator=generator) - 5 for n in lengths])


def keys(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int64)


@pytest.mark.parametrize(("source", "target"), [(10, 10), (10, 7), (7, 10), (100, 180), (1, 3), (5, 1)])
def test_warp_weights_equal_torch_bicubic(source: int, target: int) -> None:
    values = torch.randn(source, 6)
    taps, weights = _cubic(source, target)
    ours = (values[torch.from_numpy(taps)] * torch.from_numpy(weights)[..., None]).sum(dim=1)
    theirs = F.interpolate(values[None, None], size=(target, 6), mode="bicubic", align_corners=False)
    assert_close(ours, theirs[0, 0], atol=1e-3, rtol=0)  # torch computes positions in float32


def test_warp_is_two_resized_parts() -> None:
    batch = frames(60)
    warped = SpecAugment(ALWAYS.with_(time_warp=10)).warp_time(batch, keys(3)).values[0]
    fits = []
    for center in range(11, 50):  # find the one (center, target) that explains the result
        for target in range(center - 10, center + 11):
            if target == center:
                continue
            taps, weights = _cubic(center, target)
            first = (
                batch.values[0, taps[target // 2]] * torch.from_numpy(weights[target // 2])[:, None]
            ).sum(0)
            if torch.allclose(first, warped[target // 2], atol=1e-3):
                fits.append((center, target))
    assert fits
    center, target = fits[0]
    for part, resized in (
        (batch.values[0, :center], warped[:target]),
        (batch.values[0, center:], warped[target:]),
    ):
        expected = F.interpolate(part[None, None], size=resized.shape, mode="bicubic", align_corners=False)
        assert_close(resized, expected[0, 0], atol=1e-3, rtol=0)


def test_same_key_same_result_in_any_batch() -> None:
    augment = SpecAugment(ALWAYS)
    batch = frames(300, 500, 220)
    together = augment(batch, keys(11, -5, 2**62))
    for row, key in enumerate((11, -5, 2**62)):
        n = int(batch.lengths[row])
        alone = augment(Padded(batch.values[row : row + 1, :n], batch.lengths[row : row + 1]), keys(key))
        assert_close(together.values[row, :n], alone.values[0], atol=1e-5, rtol=0)
    other = augment(batch, keys(12, -5, 2**62))
    assert not torch.equal(other.values[0], together.values[0])
    assert torch.equal(other.values[1], together.values[1])


def test_input_and_padding_are_left_alone() -> None:
    batch = frames(300, 170)
    before = batch.values.clone()
    result = SpecAugment(ALWAYS)(batch, keys(1, 2))
    assert torch.equal(batch.values, before)
    assert not result.values[1, 170:].any()
    assert torch.equal(result.lengths, batch.lengths)


def test_masks_hold_the_mean_of_the_utterance() -> None:
    batch = frames(400, 300)
    masked = SpecAugment(ALWAYS).mask(batch, keys(1, 2), view=0)
    for row, n in enumerate((400, 300)):
        changed = masked.values[row, :n] != batch.values[row, :n]
        assert changed.any()
        mean = batch.values[row, :n].mean()
        assert_close(masked.values[row, :n][changed], mean.expand(int(changed.sum())), atol=1e-4, rtol=0)


@given(length=st.integers(0, 1500), key=st.integers(-(2**63), 2**63 - 1), scale=st.sampled_from([1.0, 2.5]))
@settings(max_examples=60, deadline=None)
def test_hidden_share_is_bounded(length: int, key: int, scale: float) -> None:
    batch = frames(length, dim=8)
    only_time = SpecAugment(SpecAugmentConfig(probability=1.0, frequency_masks=0))
    masked = only_time.mask(batch, keys(key), view=0, scale=scale)
    hidden = (masked.values[0] != batch.values[0]).all(dim=1)
    assert int(hidden.sum()) <= 0.15 * scale * length
    edges = np.diff(np.concatenate([[0], hidden.numpy().astype(int), [0]]))
    assert int((edges == 1).sum()) <= int(10 * scale)


def test_bands_are_at_most_two_times_27_wide() -> None:
    only_bands = SpecAugment(SpecAugmentConfig(probability=1.0, time_masks=0, time_warp=0))
    widths = []
    for key in range(200):
        batch = frames(20)
        hidden = (only_bands(batch, keys(key)).values[0] != batch.values[0]).all(dim=0)
        widths.append(int(hidden.sum()))
    assert max(widths) <= 54
    assert 18 < float(np.mean(widths)) < 27  # two masks of 13.5 on average, less their overlap


@settings(max_examples=60, deadline=None)
@given(length=st.integers(0, 400), key=st.integers(0, 10_000), strength=st.sampled_from((0.0, 0.1, 0.5, 0.9)))
def test_weaker_masks_are_narrower_in_proportion(length: int, key: int, strength: float) -> None:
    augment = SpecAugment(ALWAYS.with_(frequency_masks=1, time_masks=1, time_width=50, time_fraction=1.0))
    batch = frames(length)
    hidden = augment.mask(batch, keys(key), view=0, scale=1.0, strength=strength).values[0] != batch.values[0]
    if length:
        assert int(hidden.all(dim=0).sum()) <= round(strength * 27)
        assert int(hidden.all(dim=1).sum()) <= strength * 50
    if strength == 0:
        assert not hidden.any()


def test_strength_is_checked_and_full_by_default() -> None:
    batch, augment = frames(200), SpecAugment(ALWAYS)
    assert torch.equal(augment(batch, keys(4)).values, augment(batch, keys(4), strength=1.0).values)
    assert not torch.equal(augment(batch, keys(4)).values, augment(batch, keys(4), strength=0.3).values)
    with pytest.raises(ValueError, match=r"strength = 1\.2"):
        augment(batch, keys(4), strength=1.2)


def test_views_differ_and_hide_more_than_plain_masking() -> None:
    config = SpecAugmentConfig(probability=1.0, frequency_masks=0, time_warp=0)
    augment = SpecAugment(config)
    batch, shares = frames(1000), {"plain": 0.0, "view": 0.0}
    for key in range(40):
        one, two = (augment.mask(batch, keys(key), view=v).values for v in (0, 1))
        assert not torch.equal(one, two)
        shares["view"] += float((one != batch.values).float().mean()) / 40
        shares["plain"] += float((augment(batch, keys(key)).values != batch.values).float().mean()) / 40
    assert 0.05 < shares["plain"] < 0.10  # half of 15 %, less overlap
    assert 2.0 < shares["view"] / shares["plain"] < 2.7


def test_probability_zero_changes_nothing_and_short_rows_are_not_warped() -> None:
    batch = frames(500, 161)
    assert torch.equal(SpecAugment(SpecAugmentConfig(probability=0))(batch, keys(1, 2)).values, batch.values)
    warped = SpecAugment(ALWAYS).warp_time(batch, keys(1, 2)).values
    assert torch.equal(warped[1], batch.values[1])
    assert not torch.equal(warped[0], batch.values[0])


def test_empty_rows_pass() -> None:
    batch = Padded(torch.zeros(2, 10, 80), torch.tensor([0, 10]))
    assert not SpecAugment(ALWAYS)(batch, keys(1, 2)).values.any()


def test_view_numbers_are_checked() -> None:
    with pytest.raises(ValueError, match="view = -1"):
        SpecAugment(ALWAYS).mask(frames(10), keys(1), view=-1)
