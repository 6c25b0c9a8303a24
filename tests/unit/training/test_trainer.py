from __future__ import annotations

import os
import signal
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from firstwords.errors import TrainingError
from firstwords.model.checkpoint import weights_digest
from firstwords.training.distributed import Processes
from firstwords.training.gradients import StepSums, backward, join
from firstwords.training.log import read_log
from firstwords.training.resume import Checkpoints
from firstwords.training.session import Run
from firstwords.training.trainer import make_optimizer, train
from toy_task import ToyDev, ToyLoader, ToyTask, toy_optimizer, toy_run


def go(
    folder: Path, loader: ToyLoader, *, optimizer: str = "scaled_adam", **settings: Any
) -> tuple[str, ToyTask, Run]:
    """Train, or go on training, in ``folder``."""
    task = ToyTask()
    run = toy_run(folder, task, **settings)
    made = toy_optimizer(task, optimizer)
    newest = run.checkpoints.newest()
    if newest is not None:
        run.restore(newest, task, made)
    return fit(task, loader, run, made), task, run


def fit(task: ToyTask, loader: ToyLoader, run: Run, optimizer: torch.optim.Optimizer | None = None) -> str:
    with closing(run.log):
        return train(task, loader, ToyDev(), optimizer or toy_optimizer(task), run)


def digest(task: ToyTask) -> str:
    return weights_digest(task.model.state_dict())


def test_it_learns(tmp_path: Path) -> None:
    outcome, _, run = go(tmp_path, ToyLoader(), steps=150, every=50)
    assert outcome == "finished"
    results = [r["cer"] for r in read_log(tmp_path / "log.jsonl") if r["kind"] == "dev"]
    assert run.counters.best == min(results) < 0.2 * results[0]
    assert (best := run.checkpoints.best()) is not None
    assert best.state["numbers"]["cer"] == run.counters.best


@pytest.mark.parametrize("optimizer", ["scaled_adam", "adamw"])
@pytest.mark.parametrize("stop", [1, 13, 29, 38])
def test_a_stopped_run_ends_with_the_same_weights(tmp_path: Path, optimizer: str, stop: int) -> None:
    _, whole, whole_run = go(tmp_path / "whole", ToyLoader(), optimizer=optimizer, accumulate=2)

    class Stopping(ToyLoader):
        def batch(self, number: int) -> Any:
            if number == 2 * stop:
                signal.raise_signal(signal.SIGTERM)
            return super().batch(number)

    outcome, _, run = go(tmp_path / "cut", Stopping(), optimizer=optimizer, accumulate=2)
    assert outcome == "interrupted"
    assert run.step == stop + 1
    outcome, resumed, resumed_run = go(tmp_path / "cut", ToyLoader(), optimizer=optimizer, accumulate=2)
    assert outcome == "finished"
    assert digest(resumed) == digest(whole)
    assert resumed_run.counters.best == whole_run.counters.best
    averages = [r.average.snapshot() for r in (whole_run, resumed_run)]
    assert averages[0].count == averages[1].count > 1
    assert weights_digest(averages[0].values) == weights_digest(averages[1].values)


def test_the_random_state_of_the_process_does_not_matter(tmp_path: Path) -> None:
    digests = []
    for seed in (1, 2):
        task = ToyTask()
        torch.manual_seed(seed)
        fit(task, ToyLoader(), toy_run(tmp_path / str(seed), task))
        digests.append(digest(task))
    assert digests[0] == digests[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_save_and_end(tmp_path: Path, number: int) -> None:
    timer = threading.Timer(0.5, os.kill, (os.getpid(), number))
    before = signal.getsignal(number)
    timer.start()
    outcome, task, run = go(tmp_path, ToyLoader(pause=0.01), steps=100000, every=100000)
    assert outcome == "interrupted"
    assert signal.getsignal(number) is before
    newest = Checkpoints(tmp_path).newest()
    assert newest is not None
    assert newest.step == run.step > 3
    assert weights_digest(newest.state["model"]) == digest(task)


def test_a_step_that_is_not_finite_is_skipped_and_named(tmp_path: Path) -> None:
    _, task, run = go(tmp_path, ToyLoader(poison=[5, 20]))
    skipped = [r for r in read_log(tmp_path / "log.jsonl") if r["kind"] == "skipped"]
    assert [r["step"] for r in skipped] == [5, 20]
    # BatchNorm spreads the NaN over the batch: there the loss of every utterance is NaN.
    assert "utterance-5-1" in skipped[0]["utterances"]
    assert all(torch.isfinite(p).all() for p in task.model.parameters())
    assert run.counters.rollbacks == 0
    assert run.step == 40


def test_the_suspect_is_the_one_whose_loss_is_not_finite() -> None:
    sums = backward(ToyTask(dropout=0), [ToyLoader(poison=[3]).batch(3)], seed=0)
    assert sums.suspects == ["utterance-3-1"]


def test_the_suspect_of_another_process_is_named(tmp_path: Path) -> None:
    class Two(Processes):
        def gather(self, value: Any) -> list[Any]:
            return [value, ["theirs"] if value == [] else value]

    task = ToyTask(dropout=0)
    run = toy_run(tmp_path, task)
    run.processes = Two()
    run.skip(StepSums(names=["mine"]), float("nan"), task, toy_optimizer(task))
    run.log.close()
    (skipped,) = [r for r in read_log(tmp_path / "log.jsonl") if r["kind"] == "skipped"]
    assert skipped["utterances"] == ["theirs"]
    assert "its loss is not finite" in skipped["message"]


def test_a_resumed_run_knows_what_a_validation_costs(tmp_path: Path) -> None:
    task = ToyTask(dropout=0)
    run = toy_run(tmp_path, task)
    optimizer = toy_optimizer(task)
    run.replan(7.0)
    run.save(task, optimizer)
    run.log.close()
    again = toy_run(tmp_path, task)
    newest = again.checkpoints.newest()
    assert newest is not None
    again.restore(newest, task, optimizer)
    again.replan(0.0)
    again.log.close()
    assert again.counters.validation_seconds == 7.0


def test_skipping_leaves_the_weights_alone(tmp_path: Path) -> None:
    digests: list[str] = []
    task = ToyTask(dropout=0)
    run = toy_run(tmp_path, task, steps=3, every=100)

    class Watching(ToyLoader):
        def batch(self, number: int) -> Any:
            digests.append(digest(task))
            return ToyLoader(poison=[1]).batch(number)

    fit(task, Watching(), run)
    assert digests[0] != digests[1] == digests[2] != digest(task)


def test_five_in_a_row_roll_back_and_halve_the_rate(tmp_path: Path) -> None:
    _, task, run = go(tmp_path, ToyLoader(poison=range(10, 15)))
    (rollback,) = [r for r in read_log(tmp_path / "log.jsonl") if r["kind"] == "rollback"]
    assert rollback["to"] == 0  # the only checkpoint so far
    assert run.counters.rate_factor == 0.5
    assert run.counters.rollbacks == 1
    assert run.step == 40
    assert all(torch.isfinite(p).all() for p in task.model.parameters())
    rates = {r["step"]: r["rate"] for r in read_log(tmp_path / "log.jsonl") if r["kind"] == "train"}
    assert rates[16] < 0.6 * rates[14]


def test_four_in_a_row_do_not(tmp_path: Path) -> None:
    _, _, run = go(tmp_path, ToyLoader(poison=range(10, 14)))
    assert run.counters.rollbacks == 0


def test_endless_trouble_ends_with_advice(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="utterance-") as caught:
        go(tmp_path, ToyLoader(poison=range(2, 100000)), steps=1000, every=1000)
    assert "training.schedule.lr" in caught.value.mend


def test_memory_that_runs_out_splits_the_batch(tmp_path: Path) -> None:
    plain, tight = ToyTask(dropout=0), ToyTask(dropout=0, too_large=3)
    batches = [ToyLoader().batch(1), ToyLoader().batch(2)]
    sums = [join(t.model, backward(t, batches, seed=1), Processes()) for t in (plain, tight)]
    assert sums[1].splits > 0
    assert sums[0].loss == pytest.approx(sums[1].loss)
    assert sums[0].size == sums[1].size == 16
    for one, two in zip(plain.model.parameters(), tight.model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)


def test_an_utterance_that_never_fits_is_left_out_and_named(tmp_path: Path) -> None:
    task = ToyTask(dropout=0, too_large=0)
    sums = backward(task, [ToyLoader(size=2).batch(1)], seed=1)
    assert sorted(sums.left_out) == ["utterance-1-0", "utterance-1-1"]
    assert sums.size == 0


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    class Broken(ToyTask):
        def loss(self, batch: Any) -> Any:
            raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape"):
        backward(Broken(), [ToyLoader().batch(1)], seed=1)


def test_accumulation_is_one_large_batch() -> None:
    task, joint = ToyTask(dropout=0), ToyTask(dropout=0)
    parts = [ToyLoader(size=3).batch(1), ToyLoader(size=5).batch(2)]
    whole = type(parts[0])(
        parts[0].ids + parts[1].ids,
        torch.cat([p.inputs for p in parts]),
        torch.cat([p.outputs for p in parts]),
    )
    join(task.model, backward(task, parts, seed=1), Processes())
    join(joint.model, backward(joint, [whole], seed=1), Processes())
    for one, two in zip(task.model.parameters(), joint.model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)


def test_unreadable_batches_are_passed_over_until_it_is_too_many(tmp_path: Path) -> None:
    _, _, run = go(tmp_path / "few", ToyLoader(empty=[3, 4]))
    assert run.step == 40
    assert run.skipped == {"utterance-3-0": "cannot be read", "utterance-4-0": "cannot be read"}
    with pytest.raises(TrainingError, match="cannot be read"):
        go(tmp_path / "all", ToyLoader(empty=range(1000)))


def test_early_stop(tmp_path: Path) -> None:
    class Growing(ToyTask):
        def validate(self, batches: Any) -> Any:
            self.calls += 1
            return super().validate(batches)._replace(objective=float(self.calls))

    task = Growing()
    run = toy_run(tmp_path, task, steps=1000, every=5, early_stop=3)
    assert fit(task, ToyLoader(), run) == "stopped early"
    assert run.step == 20


def test_of_equally_good_weights_the_later_are_kept_and_count_as_no_gain(tmp_path: Path) -> None:
    class Level(ToyTask):
        def validate(self, batches: Any) -> Any:
            return super().validate(batches)._replace(objective=0.25)

    task = Level()
    run = toy_run(tmp_path, task, steps=1000, every=5, early_stop=3)
    assert fit(task, ToyLoader(), run) == "stopped early"
    assert run.step == run.counters.best_step == 20  # the first validation gained, three did not
    kept = [record["best"] for record in read_log(tmp_path / "log.jsonl") if record["kind"] == "dev"]
    assert all(kept)
    found = run.checkpoints.best()
    assert found is not None
    assert found.step == 20


def test_the_time_budget_is_a_guard(tmp_path: Path) -> None:
    task = ToyTask()
    run = toy_run(tmp_path, task, steps=100000, every=100000)
    run.plan = type(run.plan)(**(vars(run.plan) | {"minutes": 0.01}))
    assert fit(task, ToyLoader(pause=0.02), run) == "time over"
    assert 0.5 < run.counters.elapsed < 3
    assert read_log(tmp_path / "log.jsonl")[-1]["kind"] == "dev"


def test_a_slow_machine_gets_fewer_steps_and_the_rate_still_falls(tmp_path: Path) -> None:
    task = ToyTask()
    run = toy_run(tmp_path, task, steps=200, every=1000)
    run.plan = type(run.plan)(**(vars(run.plan) | {"minutes": 0.03}))
    assert fit(task, ToyLoader(pause=0.02), run) == "finished"
    assert 30 < run.step < 120
    rates = [r["rate"] for r in read_log(tmp_path / "log.jsonl") if r["kind"] == "train"]
    assert rates[-1] < 0.1 * max(rates)


def test_sums_without_utterances() -> None:
    assert StepSums().means == {}


def test_memory_that_a_library_misses_counts_too() -> None:
    from firstwords.training.gradients import is_out_of_memory

    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_adamw_is_the_published_one_whatever_the_layout() -> None:
    """Loshchilov and Hutter, 2019, arXiv:1711.05101, algorithm 2, in float64, on kernels of both layouts."""
    torch.manual_seed(0)
    model = torch.nn.ModuleList(
        [torch.nn.Conv2d(8, 16, 3).to(memory_format=torch.channels_last), torch.nn.Conv2d(8, 16, 3)]
    )
    rate, decay, b1, b2 = 0.01, 0.1, 0.9, 0.98
    made = make_optimizer(model, "adamw", rate=rate, weight_decay=decay)
    params = list(model.parameters())
    wanted = [p.detach().double().contiguous() for p in params]
    first, second = [torch.zeros_like(w) for w in wanted], [torch.zeros_like(w) for w in wanted]
    for step in range(1, 6):
        model.zero_grad()
        x = torch.randn(2, 8, 9, 7)
        for conv in model:
            conv(x.contiguous(memory_format=torch.channels_last)).square().mean().backward()
        for place, p in enumerate(params):
            assert p.grad is not None
            g, w = p.grad.double().contiguous(), wanted[place]
            first[place] = b1 * first[place] + (1 - b1) * g
            second[place] = b2 * second[place] + (1 - b2) * g * g
            change = first[place] / (1 - b1**step) / ((second[place] / (1 - b2**step)).sqrt() + 1e-8)
            wanted[place] = w - rate * (change + decay * w)
        made.step()
        for p, w in zip(params, wanted, strict=True):
            torch.testing.assert_close(p.detach().double().contiguous(), w, rtol=1e-5, atol=1e-6)
