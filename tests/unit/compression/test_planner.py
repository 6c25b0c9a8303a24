"""The planner, on made-up models whose bytes, speed and errors follow from what was done to them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from firstwords.compression.planner import (
    KEEPS,
    MOST_CUT,
    Keep,
    Planned,
    Reach,
    Way,
    compress_to_target,
    first_way,
)
from firstwords.compression.target import Measures, Target, fitting
from firstwords.errors import CheckpointError, CompressionError, TrainingError, UsageError

BYTES: dict[Keep, float] = {"fp32": 1.0, "bf16": 0.5, "int8": 0.26, "kmeans6": 0.21, "mixed": 0.0}
HARM: dict[Keep, float] = {"fp32": 0.0, "bf16": 0.0, "int8": 0.1, "kmeans6": 0.4, "mixed": 2.0}


class Toy:
    """Steps on files that say what was done; cutting a third costs 1.5 points, and saves less time."""

    def __init__(self, *, speed_gain: float = 0.8, stop_after: int | None = None, most: float = 1.0) -> None:
        self.calls: list[str] = []
        self.speed_gain, self.most = speed_gain, Reach(most, "" if most else "it was changed by low-rank.")
        self.stop_after = stop_after

    def _count(self, call: str) -> None:
        self.calls.append(call)
        if self.stop_after is not None and len(self.calls) > self.stop_after:
            raise KeyboardInterrupt

    def reach(self, source: Path) -> Reach:
        return self.most

    def prune(self, source: Path, to: Path, share: float) -> None:
        self._count(f"prune {share}")
        self._write(to, {**self._read(source), "cut": share})

    def store(self, source: Path, to: Path, keep: Keep, budget: int | None) -> None:
        self._count(f"store {keep}")
        self._write(to, {**self._read(source), "keep": keep, "budget": budget})

    def measure(self, folder: Path) -> Measures:
        self._count(f"measure {folder.name}")
        state = self._read(folder)
        cut, keep, budget = state["cut"], state["keep"], state["budget"]
        size = 8e6 * (1 - cut) * BYTES[keep] if budget is None else 0.98 * budget
        return {
            "size": size,
            "parameters": 2e6 * (1 - cut),
            "macs": 1e8 * (1 - cut),
            "rtf": 0.1 * (1 - self.speed_gain * cut),
            "cer": 10 + 4.5 * cut + HARM[keep],
        }

    @staticmethod
    def _read(folder: Path) -> dict[str, Any]:
        return json.loads((folder / "model.safetensors").read_text())

    @staticmethod
    def _write(folder: Path, state: dict[str, Any]) -> None:
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_text(json.dumps(state))
        (folder / "recipe.toml").write_text("a recipe")
        (folder / "compression.json").write_text("{}")
        (folder / "tokenizer").mkdir()
        (folder / "check").mkdir()
        (folder / "check" / "clip.flac").write_text("sound")
        (folder / "resume").mkdir()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    Toy._write(tmp_path / "model", {"cut": 0.0, "keep": "fp32", "budget": None})
    return tmp_path / "model"


def planned(model: Path, target: str, toy: Toy | None = None, **options: Any) -> Planned:
    return compress_to_target(model, model.parent / "small", Target.parse(target), toy or Toy(), **options)


@pytest.mark.parametrize(
    ("target", "way"),
    [
        ("size<10MB", Way()),
        ("size<5MB", Way(0, "bf16")),
        ("size<2.5MB, cer<=+1", Way(0, "int8")),
        ("parameters<1.5M", Way(0.3)),
        ("macs<50M, size<4MB", Way(0.55, "fp32")),
        ("size<1.3MB", Way(0, "mixed", 1_261_000)),
        ("size<600KB, rtf<0.001", Way(MOST_CUT, "kmeans6")),  # bytes of what is left, not of what was wished
        ("size<1.3MB, parameters<1.9M", Way(0.1, "mixed", 1_261_000)),
        ("cer<=+1", Way()),
    ],
)
def test_the_first_way_is_the_mildest_that_should_do(target: str, way: Way) -> None:
    original: Measures = {"size": 8e6, "parameters": 2e6, "macs": 1e8, "rtf": 0.1, "cer": 10.0}
    assert first_way(original, Target.parse(target)) == way


@pytest.mark.parametrize(
    ("target", "way"),
    [
        ("size<3MB", Way()),
        ("parameters<1.5M", Way(0.3, "int8")),
        ("size<1.9MB", Way(0, "kmeans6")),
        ("size<1.3MB", Way(0, "mixed", 1_261_000)),
    ],
)
def test_a_model_in_few_bits_is_not_kept_in_more(target: str, way: Way) -> None:
    original: Measures = {"size": 2.1e6, "parameters": 2e6, "cer": 10.0}
    assert first_way(original, Target.parse(target)) == way


def test_a_limit_that_cannot_be_measured_is_refused_at_once(model: Path) -> None:
    with pytest.raises(UsageError, match="memory cannot be measured"):
        planned(model, "memory<1GB, size<5MB")


def test_a_target_that_arithmetic_meets(model: Path) -> None:
    done = planned(model, "size<2.5MB, cer<=+0.5")
    assert done.met
    assert [a.way for a in done.attempts] == [Way(0, "int8")]
    small = model.parent / "small"
    assert Toy._read(small)["keep"] == "int8"
    assert (small / "check" / "clip.flac").read_text() == "sound"
    assert not (small / "resume").exists()
    assert Toy._read(model) == {"cut": 0.0, "keep": "fp32", "budget": None}


def test_a_model_that_keeps_to_it_already_is_copied(model: Path) -> None:
    done = planned(model, "size<10MB")
    assert done.met
    assert done.best.way == Way()
    assert Toy._read(model.parent / "small") == Toy._read(model)


def test_what_is_still_too_slow_is_cut_more(model: Path) -> None:
    done = planned(model, "rtf<0.08", Toy(speed_gain=0.5))
    assert done.met
    cuts = [a.way.cut for a in done.attempts]
    assert len(cuts) > 1
    assert cuts == sorted(cuts)
    assert done.best.measures["rtf"] < 0.08


def test_what_errs_too_much_is_treated_more_mildly(model: Path) -> None:
    class Fragile(Toy):
        def measure(self, folder: Path) -> Measures:
            found = dict(super().measure(folder))
            found["cer"] += 5.0 if self._read(folder)["keep"] == "int8" else 0.0
            return found  # pyright: ignore[reportReturnType]

    done = planned(model, "size<4.2MB, cer<=+1", Fragile())
    assert [a.way.keep for a in done.attempts] == ["int8", "bf16"]
    assert done.met


def test_a_target_that_cannot_be_met_keeps_the_best_and_says_why(model: Path) -> None:
    done = planned(model, "parameters<1M, cer<=+1.0")
    assert not done.met
    assert [b.limit.metric for b in done.best.broken] == ["cer"]
    assert "points above 11.00%" in str(done.best.broken[0])
    assert Toy._read(model.parent / "small")["cut"] == done.best.way.cut
    assert Toy._read(model) == {"cut": 0.0, "keep": "fp32", "budget": None}
    assert done.best.excess == min(a.excess for a in done.attempts)


def test_ways_are_not_tried_twice_and_end(model: Path) -> None:
    done = planned(model, "size<1KB, rtf<0.001, cer<=-5", most=50)
    ways = [a.way for a in done.attempts]
    assert len(set(ways)) == len(ways) < 50
    assert all(way.cut <= MOST_CUT for way in ways)


def test_nothing_is_cut_beyond_what_can_go(model: Path) -> None:
    done = planned(model, "parameters<0.5M", Toy(most=0.337))
    assert [a.way.cut for a in done.attempts] == [0.33]
    assert not done.met
    none = compress_to_target(model, model.parent / "none", Target.parse("rtf<0.01"), Toy(most=0.0))
    assert [a.way for a in none.attempts] == [Way()]


@pytest.mark.parametrize(
    ("target", "most", "ended"),
    [
        ("size<10MB", 1.0, "Then the target was met."),
        ("rtf<0.01", 0.0, r"no other way is left: nothing can be cut \(it was changed by low-rank\)"),
        ("parameters<0.5M", 0.337, "no more than 33% of its parameters can be cut"),
        ("size<100KB", 0.0, r"low-rank\), and weights are kept in as few bits"),
        ("cer<=-1", 1.0, "nothing was done to it"),
        ("parameters<1.5M, cer<=-1", 1.0, "nothing milder keeps the other limits"),
    ],
)
def test_why_it_ended_is_said(model: Path, target: str, most: float, ended: str) -> None:
    told: list[str] = []

    class Few(Toy):
        def store(self, source: Path, to: Path, keep: Keep, budget: int | None) -> None:
            if budget is not None:
                raise UsageError("too few bytes", mend="more")
            super().store(source, to, keep, budget)

    done = planned(model, target, Few(most=most), say=told.append, most=20)
    assert re.search(ended, done.ended)
    assert done.course[-1] == done.ended
    assert ("Nothing can be cut: it was changed by low-rank." in told) == (target == "rtf<0.01")
    assert any("too few bytes" in line for line in done.course) == (target == "size<100KB")


def test_that_there_were_no_more_attempts_is_said(model: Path) -> None:
    done = planned(model, "rtf<0.04", Toy(speed_gain=0.5), most=1)
    assert "Ended after 1 attempts" in done.ended


def test_what_a_step_refuses_is_asked_in_another_way(model: Path) -> None:
    class Choosy(Toy):
        def store(self, source: Path, to: Path, keep: Keep, budget: int | None) -> None:
            cut = self._read(source)["cut"]
            if budget is not None and budget < 1e6 * (1 - cut):
                raise UsageError("too few bytes", mend="more")
            super().store(source, to, keep, budget)

    done = planned(model, "size<600KB", Choosy())
    assert done.met
    assert done.best.way.cut > 0.4
    hopeless = compress_to_target(model, model.parent / "no", Target.parse("size<1KB"), Choosy(most=0.1))
    assert hopeless.attempts[0].way.keep == "kmeans6"
    assert not hopeless.met
    assert "size is" in str(hopeless.best.broken[0])


@pytest.mark.parametrize("good", [0, 1])
def test_a_training_that_fails_leaves_the_best_attempt(model: Path, good: int) -> None:
    class Failing(Toy):
        def prune(self, source: Path, to: Path, share: float) -> None:
            if sum(call.startswith("prune") for call in self.calls) >= good:
                raise TrainingError("0.1 minutes are too short", mend="Give more --minutes.")
            super().prune(source, to, share)

    if not good:
        with pytest.raises(TrainingError, match="too short"):
            planned(model, "rtf<0.04", Failing(speed_gain=0.5))
        return
    done = planned(model, "rtf<0.04", Failing(speed_gain=0.5))
    assert not done.met
    assert done.best == done.attempts[0]
    assert done.best.way.cut > 0.5
    assert "0.1 minutes are too short" in " ".join(done.course)
    assert (done.folder / "model.safetensors").exists()


def failing_above(most: float, error: type[TrainingError | UsageError]) -> type[Toy]:
    """Steps whose cut goes wrong beyond a share that nobody knows before."""

    class Failing(Toy):
        def prune(self, source: Path, to: Path, share: float) -> None:
            if share > most:
                self.calls.append(f"failed {share}")
                raise error("it went wrong", mend="Ask less.")
            super().prune(source, to, share)

    return Failing


def test_after_a_cut_that_failed_less_is_cut(model: Path) -> None:
    toy = failing_above(0.62, TrainingError)(speed_gain=0.5)
    done = planned(model, "rtf<0.06", toy)  # 0.45 is not enough; 0.7 and 0.65 fail, 0.6 comes nearest
    assert [a.way for a in done.attempts] == [Way(0.45), Way(0.6)]
    assert [call for call in toy.calls if "failed" in call] == ["failed 0.7", "failed 0.65"]
    assert done.best.way == Way(0.6)
    assert done.ended == "Ended because no other way is left: no more than 60% of its parameters can be cut."


def test_a_first_cut_that_is_refused_is_asked_for_less(model: Path) -> None:
    done = planned(model, "parameters<1.2M", failing_above(0.22, UsageError)())
    assert [way.cut for way, _ in done.refused] == [0.45, 0.25]
    assert [a.way for a in done.attempts] == [Way(0.15)]
    none = compress_to_target(
        model, model.parent / "none", Target.parse("macs<50M"), failing_above(0.0, UsageError)()
    )
    assert [a.way for a in none.attempts] == [Way()]


def test_other_wishes_get_their_turn_after_a_refusal(model: Path) -> None:
    """No choice of bits fits the bytes, however much is cut; a little less of what has 6 bits does."""

    class Few(Toy):
        def store(self, source: Path, to: Path, keep: Keep, budget: int | None) -> None:
            if budget is not None:
                raise UsageError("too few bytes", mend="more")
            super().store(source, to, keep, budget)

    done = planned(model, "size<1.5MB", Few(), most=2)
    assert [(way.cut, way.keep) for way, _ in done.refused] == [(0, "mixed"), (0.2, "mixed")]
    assert [a.way for a in done.attempts] == [Way(0, "kmeans6"), Way(0.15, "kmeans6")]
    assert done.met


def test_where_nothing_can_be_done_it_is_said(model: Path) -> None:
    class Broken(Toy):
        def store(self, source: Path, to: Path, keep: Keep, budget: int | None) -> None:
            raise UsageError("no", mend="never")

    with pytest.raises(CompressionError, match=r"(?s)Nothing that was tried can be done.*: no\n"):
        planned(model, "size<1MB", Broken(most=0.3))
    assert not (model.parent / "small" / "model.safetensors").exists()


@pytest.mark.parametrize("stop_after", range(8))
def test_a_plan_that_was_stopped_goes_on(model: Path, stop_after: int) -> None:
    target = "rtf<0.08, size<1.2MB"
    whole = compress_to_target(model, model.parent / "whole", Target.parse(target), Toy(speed_gain=0.5))
    with pytest.raises(KeyboardInterrupt):
        planned(model, target, Toy(speed_gain=0.5, stop_after=stop_after))
    second = Toy(speed_gain=0.5)
    done = planned(model, target, second)
    assert [a.way for a in done.attempts] == [a.way for a in whole.attempts]
    assert done.best.measures == whole.best.measures
    third = Toy(speed_gain=0.5)
    planned(model, target, third)
    assert third.calls == []


def test_other_orders_are_refused(model: Path) -> None:
    planned(model, "size<5MB")
    with pytest.raises(UsageError, match="another model, target"):
        planned(model, "size<4MB")
    with pytest.raises(UsageError, match="only read"):
        compress_to_target(model, model / "small", Target.parse("size<5MB"), Toy())
    full = model.parent / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        compress_to_target(model, full, Target.parse("size<5MB"), Toy())
    with pytest.raises(CheckpointError, match="is not a model"):
        compress_to_target(full, model.parent / "other", Target.parse("size<5MB"), Toy())


def test_of_several_models_the_most_accurate_that_fits(tmp_path: Path) -> None:
    models: list[tuple[Path, Measures]] = [
        (tmp_path / "large", {"size": 8e6, "cer": 10.0}),
        (tmp_path / "middle", {"size": 2e6, "cer": 10.4}),
        (tmp_path / "small", {"size": 1e6, "cer": 12.0}),
    ]
    best, why = fitting(models, Target.parse("size<3MB"))
    assert best == tmp_path / "middle"
    assert len(why) == 1
    none, why = fitting(models, Target.parse("size<1.5MB, cer<=+1"))
    assert none is None
    assert len(why) == 3
    assert "cer is 12.00%, 1.00 points above 11.00%" in why[2]


def test_ways_go_from_mild_to_strong() -> None:
    assert KEEPS == ("fp32", "bf16", "int8", "kmeans6", "mixed")
