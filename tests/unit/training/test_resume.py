from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from firstwords.errors import TrainingError
from firstwords.model.checkpoint import weights_digest
from firstwords.training import resume
from firstwords.training.resume import Checkpoints, check_identity


def state(step: int) -> dict:
    generator = torch.Generator().manual_seed(step)
    weight = torch.randn(3, 4, generator=generator)
    return {
        "model": {"layer.weight": weight, "count": torch.tensor(step)},
        "optimizer": {"state": {0: {"step": 3, "m": weight.double()}}, "groups": [{"betas": (0.9, 0.98)}]},
        "counters": {"best": float("inf"), "none": None, "flag": True, "text": "ẹ̀"},
    }


def same(one: object, two: object) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(two, torch.Tensor) and one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        return isinstance(two, dict) and one.keys() == two.keys() and all(same(one[k], two[k]) for k in one)
    if isinstance(one, list | tuple):
        return type(one) is type(two) and len(one) == len(two) and all(map(same, one, two))
    return one == two and type(one) is type(two)


def test_what_is_saved_comes_back_with_its_types(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(7, state(7))
    back = Checkpoints(tmp_path).newest()
    assert back is not None
    assert back.step == 7
    assert same(dict(back.state), state(7))


def test_the_last_three_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in range(1, 7):
        checkpoints.save(step, state(step))
        if step in (2, 4):
            checkpoints.save_best(step, state(step))
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["best-00000004", "step-00000004", "step-00000005", "step-00000006"]
    assert (best := checkpoints.best()) is not None
    assert best.step == 4
    assert (earlier := checkpoints.newest(skip=1)) is not None
    assert earlier.step == 5
    assert (earliest := checkpoints.newest(skip=99)) is not None
    assert earliest.step == 4


def test_a_torn_checkpoint_gives_way_to_the_one_before(tmp_path: Path) -> None:
    """500 ways to tear the newest: cut or flip at random places of either file."""
    draw = random.Random(5)
    Checkpoints(tmp_path).save(1, state(1))
    newest = Checkpoints(tmp_path).save(2, state(2))
    files = {name: (newest / name).read_bytes() for name in (resume.TENSORS, resume.STATE)}
    for trial in range(500):
        name = (resume.TENSORS, resume.STATE)[trial % 2]
        content = bytearray(files[name])
        place = draw.randrange(len(content))
        if trial % 4 < 2:
            content = content[:place]
        else:
            content[place] ^= 1 << draw.randrange(8)
        (newest / name).write_bytes(bytes(content))
        checkpoints = Checkpoints(tmp_path)
        found = checkpoints.newest()
        assert found is not None
        assert found.step == 1, (trial, name, place)
        assert "step-00000002" in checkpoints.spoiled[0]
        (newest / name).write_bytes(files[name])
    assert (whole := Checkpoints(tmp_path).newest()) is not None
    assert whole.step == 2


def test_all_torn(tmp_path: Path) -> None:
    (Checkpoints(tmp_path).save(1, state(1)) / resume.STATE).write_text("{}")
    with pytest.raises(TrainingError, match="No checkpoint"):
        Checkpoints(tmp_path).newest()


def test_identity(tmp_path: Path) -> None:
    check_identity(tmp_path / "resume", {"recipe": "a", "corpus": "b"})
    check_identity(tmp_path / "resume", {"recipe": "a", "corpus": "b"})
    with pytest.raises(TrainingError, match="another corpus") as caught:
        check_identity(tmp_path / "resume", {"recipe": "a", "corpus": "c"})
    assert "--to" in caught.value.mend


def test_an_identity_may_have_several_names_and_the_first_is_written(tmp_path: Path) -> None:
    check_identity(tmp_path / "resume", {"recipe": ("a", "b")})
    check_identity(tmp_path / "resume", {"recipe": ("b", "a")})
    with pytest.raises(TrainingError, match="another recipe"):
        check_identity(tmp_path / "resume", {"recipe": ("b", "c")})


def test_identity_may_be_asked_for_whole(tmp_path: Path) -> None:
    check_identity(tmp_path / "run" / "resume", {"recipe": "a", "start model": "b"})
    check_identity(tmp_path / "run" / "resume", {"recipe": "a"})
    with pytest.raises(TrainingError, match="another start model"):
        check_identity(tmp_path / "run" / "resume", {"recipe": "a"}, whole=True)


def test_digest_sees_a_single_bit() -> None:
    one = {"a": torch.zeros(3), "n": torch.tensor(3)}
    two = {"a": torch.tensor([0.0, -0.0, 0.0]), "n": torch.tensor(3)}
    assert weights_digest(one) == weights_digest({"n": torch.tensor(3), "a": torch.zeros(3)})
    assert weights_digest(one) != weights_digest(two)
