"""What a teacher said, on disk: whole or made anew."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from firstwords.training.distillation.cache import TargetCache


def opened(folder: Path, key: str = "k", owner: str = "a", limit: float = 1e6) -> TargetCache:
    return TargetCache(folder, key, owner, limit)


def tensors(n: int) -> dict[str, torch.Tensor]:
    return {"frames": torch.full((3, 4), n, dtype=torch.float16), "ids": torch.arange(n)}


def same(found: dict[str, torch.Tensor] | None, n: int) -> bool:
    return found is not None and all(torch.equal(found[k], v) for k, v in tensors(n).items())


def test_kept_over_processes_and_shared_between_owners(tmp_path: Path) -> None:
    one, two = opened(tmp_path / "new"), opened(tmp_path / "new", owner="b")
    one.put("u@1", tensors(1))
    one.put("ü@0.9", tensors(2))
    two.put("v@1", tensors(3))
    again = opened(tmp_path / "new", owner="c")
    assert len(again) == 3
    assert same(again.get("u@1"), 1)
    assert same(again.get("ü@0.9"), 2)
    assert same(again.get("v@1"), 3)
    assert opened(tmp_path / "new", key="other").get("u@1") is None


@pytest.mark.parametrize("cut", [1, 20, 150, 260])
def test_a_record_cut_off_is_made_anew(tmp_path: Path, cut: int) -> None:
    cache = opened(tmp_path)
    cache.put("u", tensors(1))
    first = cache.path.stat().st_size
    cache.put("v", tensors(2))
    content = cache.path.read_bytes()
    cache.path.write_bytes(content[: max(first, len(content) - cut)])
    again = opened(tmp_path)
    assert same(again.get("u"), 1)
    assert again.get("v") is None
    again.put("v", tensors(2))
    assert again.path.read_bytes() == content


def test_a_spoiled_byte_is_noticed(tmp_path: Path) -> None:
    cache = opened(tmp_path)
    cache.put("u", tensors(1))
    content = bytearray(cache.path.read_bytes())
    content[-3] ^= 4
    cache.path.write_bytes(bytes(content))
    assert opened(tmp_path).get("u") is None


def test_no_more_than_the_limit(tmp_path: Path) -> None:
    cache = opened(tmp_path, limit=400)
    for n in range(5):
        cache.put(f"u{n}", tensors(n))
    assert 0 < len(cache) < 5
    assert cache.path.stat().st_size <= 400
    assert not opened(tmp_path / "none", limit=0).path.exists()


def test_a_disk_that_fails_ends_the_keeping_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = TargetCache(tmp_path / "file" / "below", "k", "a", 1e6)
    cache.put("u", tensors(1))
    assert "no longer kept" in cache.problem
    assert cache.get("u") is None
