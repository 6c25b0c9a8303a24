from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from firstwords.data.batch import Batch, Example, collate
from firstwords.device import Compute
from firstwords.features.specaugment import SpecAugment, SpecAugmentConfig
from firstwords.heads.ctc import CtcHead, ctc_loss
from firstwords.model.checkpoint import LoadedModel
from firstwords.model.recipe import Recipe
from firstwords.model.speech_model import SpeechModel
from firstwords.tensors import Padded
from firstwords.text.characters import GraphemeConfig
from firstwords.text.load import train_tokenizer
from firstwords.text.normalize import normalizer
from firstwords.training.fine_tune import ADAMW_RATE, gentle, take_over
from firstwords.training.schedule import CosineConfig
from firstwords.training.tasks.ctc_objective import prior_weighted_ctc_loss
from firstwords.training.tasks.recognition import RecognitionSettings, RecognitionTask
from tone_corpus import tone_recipe


def recognition_task(head: dict[str, Any] | None = None, *, masking: bool = False) -> RecognitionTask:
    recipe = tone_recipe()
    values = recipe.model_dump()
    values["heads"]["ctc"] |= head or {}
    recipe = Recipe.model_validate(values)
    tokenizer = train_tokenizer(GraphemeConfig(), ["aeiou " * 3] * 3)
    torch.manual_seed(5)
    return RecognitionTask(
        SpeechModel(recipe, len(tokenizer.pieces)),
        tokenizer,
        compute=Compute(torch.device("cpu"), torch.float32, "test"),
        masking=SpecAugment(SpecAugmentConfig()) if masking else None,
        settings=RecognitionSettings(scoring=normalizer("score_default")),
    )


def ctc_of(task: RecognitionTask) -> CtcHead:
    assert task.speech.ctc is not None
    return task.speech.ctc


def batch_of(lengths: list[tuple[float, int]], keys: list[int] | None = None) -> Batch:
    """Noise of so many seconds with so many tokens; each row depends on its key alone."""
    examples: list[Example] = []
    for (seconds, tokens), key in zip(lengths, keys or range(len(lengths)), strict=True):
        generator = torch.Generator().manual_seed(key)
        samples = 0.1 * torch.randn(int(seconds * 16000), generator=generator)
        ids = torch.randint(1, 6, (tokens,), generator=generator)
        examples.append(Example(f"u{key}", samples, ids, "aei ou"[: max(tokens, 0)], key))
    return collate(examples)


def test_the_loss_is_a_sum_over_utterances() -> None:
    task = recognition_task()
    task.model.eval()
    lengths = [(1.4, 4), (0.8, 2), (1.0, 0)]
    together = task.loss(batch_of(lengths))
    alone = [task.loss(batch_of([pair], keys=[n])) for n, pair in enumerate(lengths)]
    assert together.size == pytest.approx(3.2)
    assert together.total.item() == pytest.approx(sum(x.total.item() for x in alone), rel=1e-5)
    assert together.each.tolist() == pytest.approx([x.total.item() for x in alone], rel=1e-5)
    assert together.total.dtype == torch.float32


def test_an_utterance_that_cannot_align_does_not_spoil_the_batch() -> None:
    task = recognition_task()
    task.model.eval()
    loss = task.loss(batch_of([(1.0, 3), (0.4, 60)]))
    assert torch.isfinite(loss.total)
    assert loss.each[1] == 0
    loss.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in task.model.parameters() if p.grad is not None)


def test_two_views_cost_the_same_when_nothing_differs() -> None:
    """Without masks and dropout both views are equal: the CTC part is that of one view, consistency is 0."""
    one, two = recognition_task(), recognition_task({"consistency": 0.2})
    two.model.load_state_dict(one.model.state_dict())
    one.model.eval()
    two.model.eval()
    two.set_step(1, 2000.0)
    batch = batch_of([(1.4, 4), (0.8, 2)])
    single, double = one.loss(batch), two.loss(batch)
    assert double.total.item() == pytest.approx(single.total.item(), rel=1e-5)
    assert double.parts["consistency"].item() == pytest.approx(0, abs=1e-4)
    assert double.size == single.size


def test_two_views_differ_under_masks_and_the_weight_warms_up() -> None:
    task = recognition_task({"consistency": 0.2}, masking=True)
    task.model.eval()
    batch = batch_of([(2.4, 4), (1.8, 2)])
    totals = []
    for count in (0.0, 1000.0, 2000.0, 4000.0):
        task.set_step(1, count)
        totals.append(task.loss(batch))
    consistency = totals[0].parts["consistency"].item()
    assert consistency > 0
    ctc = totals[0].parts["ctc"].item()
    assert [t.total.item() for t in totals] == pytest.approx(
        [ctc, ctc + 0.1 * consistency, ctc + 0.2 * consistency, ctc + 0.2 * consistency], rel=1e-5
    )


def test_the_second_view_may_come_later() -> None:
    task, single = recognition_task({"consistency": 0.2}, masking=True), recognition_task(masking=True)
    single.model.load_state_dict(task.model.state_dict())
    for one in (task, single):
        one.model.eval()
    task.settings = replace(task.settings, consistency_start=500.0)
    batch = batch_of([(2.4, 4), (1.8, 2)])
    task.set_step(1, 499.0)
    before = task.loss(batch)
    assert "consistency" not in before.parts
    assert before.total.item() == single.loss(batch).total.item()
    task.set_step(2, 500.0)  # two views, which need not agree yet
    start = task.loss(batch)
    assert start.total.item() == pytest.approx(start.parts["ctc"].item(), rel=1e-6)
    task.set_step(3, 1500.0)
    half = task.loss(batch)
    consistency = half.parts["consistency"].item()
    assert half.total.item() == pytest.approx(half.parts["ctc"].item() + 0.1 * consistency, rel=1e-5)
    assert consistency > 0


def test_masks_depend_on_keys_alone() -> None:
    task = recognition_task(masking=True)
    task.model.eval()
    batch = batch_of([(2.4, 4), (1.8, 2)])
    first = task.loss(batch).total.item()
    torch.manual_seed(99)
    assert task.loss(batch).total.item() == first
    assert task.loss(batch._replace(keys=batch.keys + 1)).total.item() != first


def test_masks_widen_until_the_end_of_their_warm_up() -> None:
    task = recognition_task(masking=True)
    task.model.eval()
    batch, bare = batch_of([(2.4, 4), (1.8, 2)]), recognition_task()
    assert task.masking is not None
    task.masking = SpecAugment(task.masking.config.with_(time_warp=0))
    bare.model.load_state_dict(task.model.state_dict())
    bare.model.eval()
    full = task.loss(batch).total.item()
    task.settings = replace(task.settings, mask_warmup=1000.0)
    at = {
        count: (task.set_step(1, count), task.loss(batch).total.item())[1]
        for count in (0.0, 300.0, 1000.0, 1e6)
    }
    assert at[0.0] == bare.loss(batch).total.item()
    assert at[1000.0] == at[1e6] == full
    assert len({at[0.0], at[300.0], full}) == 3


@pytest.mark.parametrize("conditioned", [False, True])
def test_intermediate_losses_reach_the_early_stacks(conditioned: bool) -> None:
    settings = {"intermediate": [0], "intermediate_weight": 0.3, "self_conditioned": conditioned}
    task = recognition_task(settings)
    plain = recognition_task()
    plain.model.load_state_dict(task.model.state_dict(), strict=False)
    for some in (task, plain):
        some.model.eval()
    batch = batch_of([(1.4, 4), (0.8, 2)])
    loss = task.loss(batch)
    loss.total.backward()
    assert loss.total.item() != pytest.approx(plain.loss(batch).total.item(), rel=1e-4)
    assert all(torch.isfinite(p.grad).all() for p in task.model.parameters() if p.grad is not None)


def test_halves_are_the_whole() -> None:
    task = recognition_task()
    task.model.eval()
    batch = batch_of([(1.4, 4), (0.8, 2), (1.0, 0)])
    halves = task.halves(batch)
    assert halves is not None
    assert [h.ids for h in halves] == [("u0",), ("u1", "u2")]
    assert sum(task.loss(h).total.item() for h in halves) == pytest.approx(
        task.loss(batch).total.item(), rel=1e-5
    )
    assert task.halves(halves[0]) is None
    assert task.cost(batch) > sum(task.cost(h) for h in halves)


def test_validation_counts_and_keeps_the_mode() -> None:
    task = recognition_task()
    task.model.train()
    found = task.validate([batch_of([(1.4, 4), (0.8, 2)]), batch_of([(1.0, 0)])])
    assert task.model.training
    assert found.numbers["utterances"] == 3
    assert found.objective == found.numbers["cer"]
    assert 0 <= found.numbers["false_alarms"] <= 1
    assert {s.id for s in found.samples} <= {"u0", "u1"}


def test_frozen_encoder_thaws() -> None:
    task = recognition_task()
    task.settings = RecognitionSettings(scoring=str, frozen_steps=3)
    task.set_step(3, 1.0)
    assert not any(p.requires_grad for p in task.speech.encoder.parameters())
    assert all(p.requires_grad for p in task.speech.heads.parameters())
    task.set_step(4, 1.0)
    assert all(p.requires_grad for p in task.speech.encoder.parameters())


def test_the_weight_of_a_head_scales_its_loss() -> None:
    one, half = recognition_task(), recognition_task({"weight": 0.5})
    one.model.eval(), half.model.eval()
    batch = batch_of([(1.4, 4), (0.8, 2)])
    assert half.loss(batch).total.item() == pytest.approx(0.5 * one.loss(batch).total.item(), rel=1e-6)


def test_a_head_of_another_name_is_refused() -> None:
    values = tone_recipe().model_dump()
    values["heads"]["phones"] = values["heads"]["ctc"]
    with pytest.raises(ValueError, match=r"heads\.phones: a head of kind 'ctc' is called heads\.ctc"):
        Recipe.model_validate(values)


def test_a_resumed_fine_tuning_thaws_when_it_was_to(tmp_path: Path) -> None:
    one, two = recognition_task(), recognition_task()
    one.settings = RecognitionSettings(scoring=str, frozen_steps=3)
    two.load_state(one.state())  # as where the second call came without --from
    two.set_step(3, 1.0)
    assert not any(p.requires_grad for p in two.speech.encoder.parameters())
    two.set_step(4, 1.0)
    assert all(p.requires_grad for p in two.speech.encoder.parameters())


def start_of(task: RecognitionTask) -> LoadedModel:
    return LoadedModel(Path("start"), task.speech.recipe, task.tokenizer, task.speech)


def test_a_head_is_kept_when_only_its_losses_change() -> None:
    start = recognition_task({"consistency": 0.2})
    with torch.no_grad():
        ctc_of(start).projection.weight.fill_(0.25)
    model = recognition_task({"intermediate": [0], "self_conditioned": True})
    new, said = take_over(model.speech, model.tokenizer, start_of(start))
    assert not new
    assert "the pieces are the same" in said
    assert torch.equal(ctc_of(model).projection.weight, ctc_of(start).projection.weight)
    feedback = ctc_of(model).feedback
    assert feedback is not None
    assert 0 < feedback.weight.abs().max().item() < 0.1


def test_other_pieces_of_the_same_number_make_a_new_head() -> None:
    start, model = recognition_task(), recognition_task()
    with torch.no_grad():
        ctc_of(start).projection.weight.fill_(0.25)
        next(start.speech.encoder.parameters()).fill_(0.5)
    other = train_tokenizer(GraphemeConfig(), ["bcdfg " * 3] * 3)
    assert len(other.pieces) == len(model.tokenizer.pieces)
    new, _ = take_over(model.speech, other, start_of(start))
    assert new
    assert not torch.equal(ctc_of(model).projection.weight, ctc_of(start).projection.weight)
    for own, given in zip(model.speech.encoder.parameters(), start.speech.encoder.parameters(), strict=True):
        assert torch.equal(own, given)


def test_a_corpus_that_grew_a_letter_keeps_what_its_head_knows() -> None:
    taps = {"intermediate": [0], "self_conditioned": True}
    start = recognition_task(taps)
    grown = train_tokenizer(GraphemeConfig(), ["aeiou b " * 3] * 3)
    assert set(grown.pieces) - set(start.tokenizer.pieces) == {"b"}
    torch.manual_seed(7)
    model = SpeechModel(start.speech.recipe, len(grown.pieces))
    head, before = model.ctc, ctc_of(start)
    assert head is not None
    untouched = head.projection.weight.detach().clone()
    new, said = take_over(model, grown, start_of(start))
    assert not new
    assert "letter by letter; new to it: " in said
    assert head.feedback is not None
    assert before.feedback is not None
    for place, piece in enumerate(grown.pieces):
        if piece not in start.tokenizer.pieces:
            assert piece in said
            assert torch.equal(head.projection.weight[place], untouched[place])
            continue
        old = start.tokenizer.pieces.index(piece)
        assert torch.equal(head.projection.weight[place], before.projection.weight[old])
        assert torch.equal(head.projection.bias[place], before.projection.bias[old])
        assert torch.equal(head.feedback.weight[:, place], before.feedback.weight[:, old])
    assert torch.equal(head.feedback.bias, before.feedback.bias)


def test_a_chosen_recipe_keeps_the_heads_of_the_start() -> None:
    start = start_of(recognition_task({"intermediate": [0], "self_conditioned": True}))
    light = {"mask_warmup": 60_000, "consistency_start": 10_000}
    chosen = tone_recipe()
    recipe = gentle(chosen.with_(training=chosen.training.with_(**light)), start)
    assert recipe.heads == start.recipe.heads
    assert (recipe.training.mask_warmup, recipe.training.consistency_start) == (0, 0)
    assert recipe.training.schedule.lr == pytest.approx(tone_recipe().training.schedule.lr / 4)
    assert recipe.training.optimizer == "scaled_adam"
    before = start.recipe.with_(training=start.recipe.training.with_(optimizer="adamw"))
    again = gentle(chosen, replace(start, recipe=before)).training
    assert again.optimizer == "adamw"
    assert again.schedule == CosineConfig(lr=ADAMW_RATE / 4)


def test_state_holds_the_monitor_and_the_regularisers() -> None:
    one, two = recognition_task(), recognition_task()
    assert one.ctc is not None
    one.monitor.blank, one.ctc.priors = 0.7, [0.5, 0.5]
    flags = list(one._whitens())
    assert flags
    flags[0][1].high = False
    two.load_state(one.state())
    assert two.state() == one.state()
    assert next(two._whitens())[1].high is False


def brute_force(scores: torch.Tensor, targets: list[int]) -> torch.Tensor:
    """-log of the sum over all paths of unnormalized scores (T, V) that collapse to ``targets``."""
    time, vocabulary = scores.shape
    total = []
    for path in torch.cartesian_prod(*[torch.arange(vocabulary)] * time).tolist():
        merged = [k for n, k in enumerate(path) if n == 0 or k != path[n - 1]]
        if [k for k in merged if k] == targets:
            total.append(sum(scores[t, k] for t, k in enumerate(path)))
    return -torch.logsumexp(torch.stack(total), 0)


def test_label_priors_equal_brute_force_in_value_and_gradient() -> None:
    torch.manual_seed(2)
    logits = torch.randn(1, 4, 3, dtype=torch.float64, requires_grad=True)
    log_priors = torch.tensor([-0.05, -3.0, -4.0], dtype=torch.float64) * 0.3
    lengths, targets = torch.tensor([4]), Padded(torch.tensor([[1, 2]]), torch.tensor([2]))
    loss = prior_weighted_ctc_loss(Padded(logits.log_softmax(-1), lengths), targets, log_priors)
    expected = brute_force(logits[0].log_softmax(-1) - log_priors, [1, 2])
    assert loss.item() == pytest.approx(expected.item())
    (one,) = torch.autograd.grad(loss.sum(), logits)
    (two,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(one, two)


def test_without_priors_it_is_ctc() -> None:
    torch.manual_seed(2)
    logits = torch.randn(2, 6, 4, requires_grad=True)
    log_probs = Padded(logits.log_softmax(-1), torch.tensor([6, 4]))
    targets = Padded(torch.tensor([[1, 2], [3, 0]]), torch.tensor([2, 1]))
    both = [prior_weighted_ctc_loss(log_probs, targets, torch.zeros(4)), ctc_loss(log_probs, targets)]
    torch.testing.assert_close(both[0], both[1])
    gradients = [torch.autograd.grad(x.sum(), logits, retain_graph=True)[0] for x in both]
    torch.testing.assert_close(gradients[0], gradients[1])


def test_a_stuck_model_trains_with_priors() -> None:
    task = recognition_task()
    task.model.eval()
    batch = batch_of([(1.4, 4)])
    plain = task.loss(batch).total.item()
    assert task.ctc is not None
    task.monitor.prior_weight = 0.3
    assert task.loss(batch).total.item() != pytest.approx(plain)
    assert len(task.ctc.priors) == task.ctc.head.vocabulary
    task.monitor.prior_weight = 0.0
    assert task.loss(batch).total.item() == pytest.approx(plain)
    assert task.ctc.priors == []
