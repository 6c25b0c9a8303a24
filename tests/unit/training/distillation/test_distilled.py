"""Students of every head: what is asked, that they learn from the teacher, that a kill changes nothing."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from firstwords.data.batch import collate
from firstwords.data.examples import LoadedExample
from firstwords.data.loader import to_example
from firstwords.device import Compute
from firstwords.errors import ConfigError, TrainingError
from firstwords.features.specaugment import SpecAugment, SpecAugmentConfig
from firstwords.model.checkpoint import LoadedModel, load_model, save_model
from firstwords.model.recipe import Recipe
from firstwords.model.speech_model import SpeechModel
from firstwords.tensors import Padded
from firstwords.text.characters import GraphemeTokenizer
from firstwords.text.normalize import normalizer
from firstwords.training.distillation.cache import TargetCache
from firstwords.training.distillation.objective import Distillation
from firstwords.training.distillation.teacher import Asked, Questions, Teacher, questions_for
from firstwords.training.run import train_corpus
from firstwords.training.session import Run
from firstwords.training.settings import DistillationConfig
from firstwords.training.tasks.recognition import RecognitionSettings, RecognitionTask
from tone_corpus import make_tone_corpus, random_text, sing, tone_recipe

CPU = Compute(torch.device("cpu"), torch.float32, "float32")
TOKENIZER = GraphemeTokenizer.train(["aeiou aeiou"] * 3)
HEADS: dict[str, dict[str, Any]] = {
    "ctc": {"dropout": 0.0},
    "attention": {
        "kind": "transformer_decoder",
        "width": 16,
        "layers": 1,
        "heads": 2,
        "feedforward": 32,
        "dropout": 0.0,
    },
    "transducer": {"kind": "transducer", "joiner_dim": 16, "predictor": {"kind": "stateless", "dim": 16}},
}


def recipe_of(*heads: str, **changes: Any) -> Recipe:
    values = tone_recipe().model_dump()
    values["heads"] = {name: HEADS[name] for name in heads}
    values["search"] = {"kind": "greedy"} if "ctc" in heads else {"kind": "transducer_greedy"}
    if heads == ("attention",):
        values["search"] = {"kind": "attention_beam", "ctc_weight": 0.0}
    for name, value in changes.items():
        values[name] = values[name] | value
    return Recipe.model_validate(values)


def loaded(recipe: Recipe, seed: int = 7) -> LoadedModel:
    torch.manual_seed(seed)
    model = SpeechModel(recipe, len(TOKENIZER.pieces)).eval()
    return LoadedModel(Path("teacher"), recipe, TOKENIZER, model)


def batch_of(*texts: str, speeds: tuple[float, ...] | None = None) -> Any:
    draw = np.random.default_rng(3)
    examples = [
        LoadedExample(f"u{n}", sing(text, draw), tuple(TOKENIZER.encode(text)), text, n, (), 1.0)
        for n, text in enumerate(texts)
    ]
    batch = collate([to_example(e) for e in examples])
    return batch if speeds is None else batch._replace(speeds=speeds)


def distilled(
    student: Recipe, teacher: LoadedModel, *, masking: SpecAugment | None = None, **settings: Any
) -> RecognitionTask:
    torch.manual_seed(1)
    model = SpeechModel(student, len(TOKENIZER.pieces))
    config = DistillationConfig(teacher="teacher", **settings)
    hidden = config.hidden_layers if config.hidden else None
    questions = questions_for(model, teacher.model, ctc=config.ctc, readings=config.readings, hidden=hidden)
    distillation = Distillation(config, model, Teacher(teacher, questions, CPU))
    scoring = normalizer(student.text.scoring)
    return RecognitionTask(
        model,
        TOKENIZER,
        compute=CPU,
        masking=masking,
        settings=RecognitionSettings(scoring=scoring),
        distillation=distillation,
    )


@pytest.mark.parametrize(
    ("heads", "settings", "part"),
    [
        (("ctc",), {}, "teacher_frames"),
        (("ctc",), {"guide": 0.5}, "teacher_guide"),
        (("ctc",), {"ctc": "sequence"}, "teacher_readings"),
        (("ctc",), {"hidden": 1.0}, "teacher_hidden"),
        (("ctc",), {"hidden": 1.0, "hidden_layers": (0, 1)}, "teacher_hidden"),
        (("ctc", "attention"), {"temperature": 2.0}, "teacher_tokens"),
        (("attention",), {}, "teacher_tokens"),
        (("transducer",), {}, "teacher_lattice"),
    ],
)
def test_each_part_falls_when_only_the_teacher_is_followed(
    heads: tuple[str, ...], settings: dict[str, Any], part: str
) -> None:
    teacher = loaded(recipe_of(*heads))
    with torch.no_grad():  # one that says something
        for parameter in teacher.model.heads.parameters():
            parameter.mul_(3.0)
    task = distilled(recipe_of(*heads), teacher, weight=1.0, **settings)
    batch = batch_of("aei", "ou ae")
    optimizer = torch.optim.Adam(task.model.parameters(), lr=3e-3)
    task.model.train()
    losses: list[float] = []
    for step in range(8):
        torch.manual_seed(step)
        loss = task.loss(batch)
        assert torch.isfinite(loss.total)
        losses.append(float(loss.parts[part]))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    if settings.get("hidden"):
        count = max(1, len(settings.get("hidden_layers", ())))
        assert len(task.distillation.projections) == count  # pyright: ignore[reportOptionalMemberAccess]
        assert any("projections" in name for name in task.model.state_dict())
        assert not any("projections" in name for name in task.speech.state_dict())


def test_both_views_of_a_student_are_held_against_one_answer() -> None:
    """Without masks both views are one, and so is what they lose."""
    teacher = loaded(recipe_of("ctc"))
    batch = batch_of("aei", "ou ae")
    plain = distilled(recipe_of("ctc"), teacher)
    two = distilled(recipe_of("ctc", heads={"ctc": {"dropout": 0.0, "consistency": 0.2}}), teacher)
    for task in (plain, two):
        task.model.eval()  # no random layers
    one, both = (float(task.loss(batch).parts["teacher_frames"]) for task in (plain, two))
    assert both == pytest.approx(one, rel=1e-5)
    masking = SpecAugment(SpecAugmentConfig(time_warp=0, probability=1.0))
    masked = distilled(two.speech.recipe, teacher, masking=masking)
    masked.model.eval()
    assert float(masked.loss(batch).parts["teacher_frames"]) != pytest.approx(one, rel=1e-5)


@pytest.mark.parametrize("heads", [("ctc",), ("ctc", "attention")])
def test_steps_of_one_view_before_two_begin(heads: tuple[str, ...]) -> None:
    """As long as CR-CTC has one view, a student loses what one without CR-CTC loses; then two views count."""
    teacher = loaded(recipe_of(*heads))
    batch = batch_of("aei", "ou ae")
    masking = SpecAugment(SpecAugmentConfig(time_warp=0, probability=1.0))
    recipe = recipe_of(*heads)
    own = {name: head.model_dump() for name, head in recipe.heads.items()}
    twice = recipe_of(*heads, heads={**own, "ctc": own["ctc"] | {"consistency": 0.2}})
    plain = distilled(recipe, teacher, masking=masking)
    task = distilled(twice, teacher, masking=masking)
    task.settings = replace(task.settings, consistency_start=100.0)
    for one in (plain, task):
        one.model.eval()  # no random layers
    plain.set_step(1, 50.0)
    task.set_step(1, 50.0)
    expected, found = plain.loss(batch), task.loss(batch)
    assert found.total.item() == pytest.approx(expected.total.item(), rel=1e-5)
    for part in ("teacher_frames", *(("teacher_tokens",) if "attention" in heads else ())):
        assert float(found.parts[part]) == pytest.approx(float(expected.parts[part]), rel=1e-5)
    found.total.backward()
    task.set_step(2, 150.0)
    both = task.loss(batch)
    assert torch.isfinite(both.total)
    assert float(both.parts["teacher_frames"]) != pytest.approx(
        float(expected.parts["teacher_frames"]), rel=1e-5
    )
    assert both.each.shape == (2,)


def test_non_speech_is_left_to_the_transcript() -> None:
    teacher = loaded(recipe_of("ctc"))
    task = distilled(recipe_of("ctc"), teacher, weight=0.7)
    plain = distilled(recipe_of("ctc"), teacher)
    plain.distillation = None
    batch = batch_of("aei", "")
    task.model.eval()
    plain.model.eval()
    found, own = task.loss(batch), plain.loss(batch)
    assert float(found.each[1]) == pytest.approx(float(own.each[1]))
    kl = float(found.parts["teacher_frames"])
    assert float(found.each[0]) == pytest.approx(0.3 * float(own.each[0]) + 0.7 * kl, rel=1e-5)


def asked_of(batch: Any) -> Asked:
    return Asked(batch.audio, batch.targets, batch.ids, batch.speeds, batch.keys)


def test_what_was_kept_changes_nothing(tmp_path: Path) -> None:
    """Clean utterances: the same numbers computed, read again, and beside any neighbour."""
    teacher = loaded(recipe_of("ctc", "attention", "transducer"))
    batch = batch_of("aei", "ou ae", "ei")
    heard: list[tuple[str, float]] = []

    def hear(name: str, speed: float) -> torch.Tensor | None:
        heard.append((name, speed))
        row = int(name[1:])
        return batch.audio.values[row, : int(batch.audio.lengths[row])]

    questions = Questions(frames=True, tokens=True, lattice=True, hidden=())
    cache = TargetCache(tmp_path, "k", "a", 1e8)
    asker = Teacher(teacher, questions, CPU, cache=cache, hear=hear)
    first = asker.says(asked_of(batch))
    again = Teacher(teacher, questions, CPU, cache=TargetCache(tmp_path, "k", "b", 0), hear=hear)
    second = again.says(asked_of(batch))
    third = Teacher(teacher, questions, CPU, hear=hear).says(asked_of(batch))
    assert heard == 2 * [("u0", 1.0), ("u1", 1.0), ("u2", 1.0)]
    for one, two, three in zip(first, second, third, strict=True):
        assert one.keys() == two.keys() == three.keys()
        assert all(torch.equal(one[k], two[k]) and torch.equal(one[k], three[k]) for k in one)
    together = Teacher(teacher, questions, CPU).says(asked_of(batch))
    for one, two in zip(first, together, strict=True):
        for name in one:
            torch.testing.assert_close(one[name].float(), two[name].float(), atol=2e-2, rtol=1e-2)


def test_rows_put_together_for_an_epoch_are_heard_as_they_are() -> None:
    teacher = loaded(recipe_of("ctc"))
    batch = batch_of("aei", "ou ae", speeds=(0.0, 1.0))
    silence = torch.zeros(16000)
    asker = Teacher(teacher, Questions(frames=True), CPU, hear=lambda name, speed: silence)
    found = asker.says(asked_of(batch))
    with torch.no_grad():
        whole = teacher.model(Padded(batch.audio.values[:1], batch.audio.lengths[:1]))
        quiet = teacher.model(Padded(silence[None], torch.tensor([16000])))
    count = int(whole.lengths[0])
    torch.testing.assert_close(found[0]["frames"].float(), whole.values[0, :count], atol=2e-2, rtol=1e-2)
    torch.testing.assert_close(found[1]["frames"].float(), quiet.values[0], atol=2e-2, rtol=1e-2)


def test_what_cannot_be_asked_is_said() -> None:
    ctc, transducer = SpeechModel(recipe_of("ctc"), 8), SpeechModel(recipe_of("transducer"), 8)
    slow = SpeechModel(recipe_of("ctc", encoder={"output_downsampling": 1}), 8)
    with pytest.raises(ConfigError, match="teacher has ctc and the student transducer"):
        questions_for(transducer, ctc, ctc="auto", readings=4, hidden=None)
    with pytest.raises(ConfigError, match="20 ms a frame, the teacher 40 ms"):
        questions_for(slow, ctc, ctc="frames", readings=4, hidden=None)
    with pytest.raises(ConfigError, match="hidden = 0"):
        questions_for(slow, ctc, ctc="auto", readings=4, hidden=())
    assert questions_for(slow, ctc, ctc="auto", readings=3, hidden=None) == Questions(readings=3)
    assert questions_for(ctc, transducer, ctc="auto", readings=3, hidden=None) == Questions(readings=3)
    assert questions_for(ctc, ctc, ctc="auto", readings=3, hidden=None) == Questions(frames=True)


def test_a_recipe_in_which_times_would_differ_is_refused() -> None:
    values = tone_recipe().model_dump()
    values["distillation"] = {"teacher": "t"}
    Recipe.model_validate(values)  # no SpecAugment
    values["training"]["specaugment"]["probability"] = 0.9
    with pytest.raises(ValueError, match=r"time_warp = 0, or distillation.hears"):
        Recipe.model_validate(values)
    values["distillation"]["hears"] = "varied"
    Recipe.model_validate(values)


class Killed(BaseException):
    pass


def run_recipe(teacher: Path, **distillation: Any) -> Recipe:
    values = tone_recipe(steps=6, batch_seconds=6, validate_every=3, save_every_seconds=1e-6).model_dump()
    values["distillation"] = {"teacher": str(teacher), **distillation}
    values["encoder"] |= {"dims": [24, 24], "unmasked_dims": 24}
    return Recipe.model_validate(values)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A corpus, and a teacher whose pieces stand in another order than the corpus would give."""
    folder = tmp_path_factory.mktemp("distilled")
    corpus = make_tone_corpus(folder / "corpus", train=10, dev=2, test=1)
    draw = np.random.default_rng(1)
    tokenizer = GraphemeTokenizer.train([*(random_text(draw) for _ in range(20)), "xyz"] * 3)
    torch.manual_seed(5)
    recipe = recipe_of("ctc")
    model = SpeechModel(recipe, len(tokenizer.pieces)).eval()
    save_model(folder / "teacher", model, tokenizer, card="")
    return corpus, folder / "teacher"


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        pytest.param({"hears": "varied", "hidden": 0.5}, marks=pytest.mark.slow),
        pytest.param({"ctc": "sequence"}, marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_ends_with_the_same_weights(
    tmp_path: Path, material: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    corpus, teacher = material
    recipe = run_recipe(teacher, **settings)
    train_corpus(corpus, tmp_path / "whole", recipe=recipe, device="cpu", workers=0, threads=1)
    real = Run.end

    def end(self: Run, *given: Any, **named: Any) -> None:
        if self.step == 3:
            raise Killed
        real(self, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "end", end)
        with pytest.raises(Killed):
            train_corpus(corpus, tmp_path / "cut", recipe=recipe, device="cpu", workers=0, threads=1)
    for path in (tmp_path / "cut" / "resume").glob("*.targets"):  # the last record half-written
        path.write_bytes(path.read_bytes()[:-50])
    train_corpus(corpus, tmp_path / "cut", recipe=recipe, device="cpu", workers=0, threads=1)
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")
    assert not list((tmp_path / "cut" / "resume").glob("*.targets"))
    student = load_model(tmp_path / "whole", device="cpu")
    assert student.tokenizer.pieces == load_model(teacher, device="cpu").tokenizer.pieces
    assert student.recipe.encoder.dims == (24, 24)  # pyright: ignore[reportAttributeAccessIssue]


def test_another_teacher_is_another_run(
    tmp_path: Path, material: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, teacher = material
    real = Run.end

    def end(self: Run, *given: Any, **named: Any) -> None:
        if self.step == 1:
            raise Killed
        real(self, *given, **named)

    recipe = run_recipe(teacher)
    with monkeypatch.context() as patch:
        patch.setattr(Run, "end", end)
        with pytest.raises(Killed):
            train_corpus(corpus, tmp_path / "run", recipe=recipe, device="cpu", workers=0, threads=1)
    known = load_model(teacher, device="cpu")
    with torch.no_grad():
        known.model.heads["ctc"].projection.weight.mul_(1.5)  # pyright: ignore[reportAttributeAccessIssue]
    kept = (teacher / "model.safetensors").read_bytes()
    try:
        save_model(teacher, known.model, known.tokenizer, card="")
        with pytest.raises(TrainingError, match="teacher"):
            train_corpus(corpus, tmp_path / "run", device="cpu", workers=0, threads=1)
    finally:
        (teacher / "model.safetensors").write_bytes(kept)
