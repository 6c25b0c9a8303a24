"""How many frames tokens take."""

from __future__ import annotations

from firstwords.text.tokenizer import fewest_frames


def test_repeats_need_a_blank_between() -> None:
    assert fewest_frames(list("abc")) == 3
    assert fewest_frames(list("aabb")) == 6
    assert fewest_frames([2, 2, 5]) == 4
    assert fewest_frames([]) == 0
