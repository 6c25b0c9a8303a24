"""Pruning whole folders: what is written, what is refused, what a killed call leaves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from firstwords.cli import main as entry
from firstwords.cli.info import facts
from firstwords.compression import prune, tuning
from firstwords.compression.families import FAMILIES
from firstwords.compression.history import read_history
from firstwords.compression.material import Material
from firstwords.compression.prune import Orders, PruneResult, prune_model
from firstwords.data.manifest import load_corpus, write_manifest
from firstwords.encoders.lstm import LstmConfig
from firstwords.encoders.zipformer import Zipformer
from firstwords.errors import CorpusError, FirstwordsError, UsageError
from firstwords.inference.recognizer import Recognizer
from firstwords.model.checkpoint import LoadedModel, load_model, save_model, weights_digest
from firstwords.model.selfcheck import synthetic_clip
from firstwords.model.speech_model import SpeechModel
from firstwords.tensors import pad
from firstwords.training.progress import Progress
from firstwords.training.tasks.task import Validation
from nonsense_model import make_nonsense_model
from tone_corpus import make_tone_corpus

QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_nonsense_model(tmp_path_factory.mktemp("models") / "nonsense")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tone_corpus(tmp_path_factory.mktemp("corpora") / "tones", train=6, dev=2, test=1)


@pytest.fixture(scope="module")
def pruned(source: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> PruneResult:
    return pruned_to(source, corpus, tmp_path_factory.mktemp("pruned") / "small", rounds=2)


def pruned_to(source: Path, corpus: Path, to: Path, share: float = 0.3, **orders: Any) -> PruneResult:
    return prune_model(source, corpus, to, Orders(share, **orders), device="cpu", progress=QUIET)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_parameters_are_really_gone(source: Path, corpus: Path, pruned: PruneResult) -> None:
    old, new = load_model(source, device="cpu"), load_model(pruned.folder, device="cpu", check=True)
    count = new.model.num_parameters
    assert 0.27 < 1 - count / old.model.num_parameters < 0.33
    assert (pruned.before.parameters, pruned.after.parameters) == (old.model.num_parameters, count)
    sizes = [(f / "model.safetensors").stat().st_size for f in (source, pruned.folder)]
    assert (pruned.before.file_bytes, pruned.after.file_bytes) == tuple(sizes)
    assert sizes[0] - sizes[1] > 0.8 * 4 * (old.model.num_parameters - count)
    assert pruned.after.macs_per_second < pruned.before.macs_per_second
    assert new.recipe.encoder == old.recipe.encoder  # what it was born from
    assert new.model.structure


def test_loaded_it_writes_what_it_wrote(pruned: PruneResult, corpus: Path) -> None:
    one, two = (load_model(pruned.folder, device="cpu").model for _ in range(2))
    audio = pad([torch.from_numpy(synthetic_clip(16000))])
    with torch.inference_mode():
        assert torch.equal(one(audio).values, two(audio).values)
    wav = load_corpus(corpus).utterances[0].audio
    texts = {Recognizer.load(pruned.folder, device="cpu").transcribe(wav).text for _ in range(2)}
    assert len(texts) == 1


def test_what_was_done_is_written_down(source: Path, pruned: PruneResult) -> None:
    (step,) = read_history(pruned.folder).steps
    assert step.step == "prune"
    assert (step.settings["cut"], step.settings["by"], step.settings["rounds"]) == (0.3, "taylor", 2)
    assert step.settings["after"]["parameters"] == pruned.after.parameters
    assert step.settings["after"]["file_bytes"] == (pruned.folder / "model.safetensors").stat().st_size
    rows = dict(facts(pruned.folder))
    assert "parts with fewer units" in rows["cut since the recipe"]
    assert rows["parameters"] == f"{pruned.after.parameters / 1e6:.2f} M"
    assert "before:" in rows["dev CER"]


@pytest.mark.slow
def test_the_same_call_gives_the_same_model_and_leaves_the_original(
    source: Path, corpus: Path, pruned: PruneResult, tmp_path: Path
) -> None:
    before = files(source)
    again = pruned_to(source, corpus, tmp_path / "again", rounds=2)
    assert files(source) == before
    states = [load_model(f, device="cpu").model.state_dict() for f in (again.folder, pruned.folder)]
    assert weights_digest(states[0]) == weights_digest(states[1])
    other = pruned_to(source, corpus, tmp_path / "other", by="random")
    state = load_model(other.folder, device="cpu").model.state_dict()
    assert weights_digest(state) != weights_digest(states[0])


@pytest.mark.slow
def test_a_killed_call_goes_on_where_it_was(
    source: Path, corpus: Path, pruned: PruneResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to, whole, cuts = tmp_path / "small", prune.cut, 0

    def killed_at_the_second(*arguments: Any) -> Any:
        nonlocal cuts
        cuts += 1
        if cuts == 2:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(prune, "cut", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        pruned_to(source, corpus, to, rounds=2)
    assert not (to / "model.safetensors").exists()
    first = load_model(to / "rounds" / "1" / "cut", device="cpu", check=True)
    assert first.model.num_parameters < pruned.before.parameters
    with pytest.raises(UsageError, match="begun with another cut"):
        pruned_to(source, corpus, to, 0.2, rounds=2)
    pruned_to(source, corpus, to, rounds=2)
    assert cuts == 3
    states = [load_model(f, device="cpu").model.state_dict() for f in (to, pruned.folder)]
    assert weights_digest(states[0]) == weights_digest(states[1])
    with pytest.raises(UsageError, match="holds the finished model already"):
        pruned_to(source, corpus, to, rounds=2)


@pytest.mark.slow
def test_zeros_among_the_weights(source: Path, corpus: Path, tmp_path: Path) -> None:
    found = pruned_to(source, corpus, tmp_path / "zeros", 0.4, by="magnitude", unstructured=True)
    old, new = (load_model(f, device="cpu").model for f in (source, found.folder))
    assert new.num_parameters == old.num_parameters
    pairs = [
        (a, b)
        for (_, a), (_, b) in zip(old.named_parameters(), new.named_parameters(), strict=True)
        if not torch.equal(a, b)
    ]
    gone = torch.cat([a[b == 0].abs() for a, b in pairs])
    kept = torch.cat([b[b != 0].abs() for _, b in pairs])
    assert gone.max() <= kept.min()
    total = sum(p.numel() for p in old.encoder.parameters() if p.dim() > 1)
    assert len(gone) == pytest.approx(0.4 * total, rel=0.01)
    assert 0.3 < found.after.zeros < 0.45
    assert found.after.file_bytes < 0.8 * found.before.file_bytes


BAD: dict[str, tuple[float, dict[str, Any], str]] = {
    "share of nothing": (0.0, {}, "between 0 and 1"),
    "share of all": (1.0, {}, "between 0 and 1"),
    "share that is no number": (float("nan"), {}, "between 0 and 1"),
    "out of reach": (0.97, {}, "at most [0-9.]+ % can go"),
    "rounds": (0.3, {"rounds": 0}, "expected 1 to"),
    "minutes": (0.3, {"minutes": 0.0}, "expected more than 0"),
    "parts": (0.3, {"kinds": ("heds",)}, "names 'heds'"),
    "parts that are not there": (0.3, {"kinds": ("hidden",)}, "has none of these"),
    "zeros and training": (0.3, {"unstructured": True, "minutes": 1.0}, "would fill the zeros"),
    "zeros by units": (0.3, {"unstructured": True, "by": "activation"}, "not single weights"),
}


@pytest.mark.parametrize(("share", "orders", "said"), BAD.values(), ids=BAD.keys())
def test_bad_orders_are_refused(
    source: Path, corpus: Path, tmp_path: Path, share: float, orders: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        pruned_to(source, corpus, tmp_path / "small", share, **orders)
    assert not (tmp_path / "small" / "model.safetensors").exists()


@pytest.mark.slow
def test_a_target_out_of_reach_can_be_asked_for_again_within_it(
    source: Path, corpus: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="can go") as caught:
        pruned_to(source, corpus, tmp_path / "small", 0.97)
    share = float(caught.value.mend.split("--cut ")[1].split()[0])
    assert pruned_to(source, corpus, tmp_path / "small", share, by="magnitude").after.parameters > 0


def test_what_a_criterion_cannot_judge_is_refused_before_anything_is_written(
    corpus: Path, tmp_path: Path
) -> None:
    """No module is called with the units inside an LSTM: their activation is unknown."""
    small = make_nonsense_model(tmp_path / "lstm", encoder=LstmConfig(hidden=8, layers=2))
    with pytest.raises(UsageError, match=r"at most 0\.0 % can go") as caught:
        pruned_to(small, corpus, tmp_path / "new", 0.2, by="activation")
    assert caught.value.mend.startswith("Use another --by")
    assert not (tmp_path / "new").exists()


def test_a_corpus_without_text_is_refused(source: Path, corpus: Path, tmp_path: Path) -> None:
    silent = Path(shutil.copytree(corpus, tmp_path / "silent"))
    lines = [json.loads(line) | {"text": ""} for line in (silent / "manifest.jsonl").read_text().splitlines()]
    (silent / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(CorpusError):
        pruned_to(source, silent, tmp_path / "small")
    write_manifest(silent / "manifest.jsonl", [])
    with pytest.raises(FirstwordsError):
        pruned_to(source, silent, tmp_path / "other")


def test_a_model_without_groups_and_a_full_folder_are_refused(
    source: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="not empty"):
        pruned_to(source, corpus, tmp_path / "full")
    with pytest.raises(UsageError, match="lies in the model"):
        pruned_to(source, corpus, source / "small")
    assert not (source / "small").exists()
    with pytest.raises(FirstwordsError, match="is not a folder"):
        pruned_to(tmp_path / "nowhere", corpus, tmp_path / "small")
    monkeypatch.delitem(FAMILIES, Zipformer)
    with pytest.raises(FirstwordsError, match="nothing is known of what can be cut"):
        pruned_to(source, corpus, tmp_path / "small")


def test_tuning_keeps_the_pieces_and_names_the_teacher(source: Path) -> None:
    recipe = load_model(source, device="cpu").recipe
    made = tuning.tuning_recipe(recipe, minutes=3, teacher=source)
    assert made.training.schedule.lr == pytest.approx(recipe.training.schedule.lr / 5)
    assert (made.training.minutes, made.training.steps, made.encoder) == (3, None, recipe.encoder)
    assert made.distillation is not None
    assert (made.distillation.teacher, made.distillation.hears) == (str(source.resolve()), "varied")
    taught = recipe.with_(distillation=made.distillation)  # of a model that was a student itself
    assert tuning.tuning_recipe(taught, minutes=3, teacher=None).distillation is None


@pytest.mark.parametrize("teacher", [True, False])
def test_the_model_before_the_cut_teaches_unless_it_shall_not(
    source: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, teacher: bool
) -> None:
    asked: list[Path | None] = []

    def tune(folder: Path, start: LoadedModel, *_: Any, **named: Any) -> Path:
        asked.append(named["teacher"])
        save_model(folder, start.model, start.tokenizer, card="")
        return folder

    monkeypatch.setattr(tuning, "tune", tune)
    to = tmp_path / "small"
    line = ["compress", "prune", str(source), "--corpus", str(corpus), "--to", str(to), "--minutes", "3"]
    line += ["--cut", "0.2", "--by", "magnitude", *([] if teacher else ["--no-teacher"])]
    result = CliRunner().invoke(entry.app, line)
    assert result.exit_code == 0, result.output
    assert asked == [source if teacher else None]
    told = dict(facts(to))
    assert told["compressed by"] == f"prune (3 min of training{', taught by the model before' * teacher})"
    assert told["fine-tuned"] == "3 min, by transcripts" + " and by what tones answers" * teacher


@pytest.mark.slow
@pytest.mark.parametrize("helps", [True, False])
def test_fine_tuning_that_does_not_help_is_not_kept(
    source: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, helps: bool
) -> None:
    def marked(model: SpeechModel) -> bool:
        return bool((next(model.encoder.parameters()) == 7).all())

    def tune(folder: Path, start: LoadedModel, *_: Any, **__: Any) -> Path:
        with torch.no_grad():
            next(start.model.encoder.parameters()).fill_(7)
        save_model(folder, start.model, start.tokenizer, card="")
        with torch.no_grad():
            next(start.model.encoder.parameters()).fill_(6)
        return folder

    def error(_: object, model: SpeechModel) -> Validation:
        return Validation(float(marked(model) != helps), {"cer": 1.0, "wer": 1.0}, ())

    monkeypatch.setattr(tuning, "tune", tune)
    monkeypatch.setattr(prune.Material, "error", error)
    found = pruned_to(source, corpus, tmp_path / "small", minutes=1.0)
    assert marked(load_model(found.folder, device="cpu").model) == helps


@pytest.mark.slow
def test_a_cut_model_is_tuned_by_the_training_loop(source: Path, corpus: Path, tmp_path: Path) -> None:
    found = pruned_to(source, corpus, tmp_path / "small", minutes=0.15)
    round_one = found.folder / "rounds" / "1"
    written = load_model(found.folder, device="cpu", check=True)
    tuned, cut = (load_model(round_one / stage, device="cpu") for stage in ("tuned", "cut"))
    assert written.model.structure == tuned.model.structure == cut.model.structure
    assert written.tokenizer.piece_hash == cut.tokenizer.piece_hash
    digests = [weights_digest(m.model.state_dict()) for m in (tuned, cut, written)]
    assert digests[0] != digests[1]
    # Steps in seconds of the clock, a dev split of two clips: either may be the better one, and is kept.
    trial = Material(load_corpus(corpus), load_model(source, device="cpu"), "cpu")
    worse = trial.error(cut.model).objective < trial.error(tuned.model).objective
    assert digests[2] == digests[1 if worse else 0]
    assert written.recipe.training == load_model(source, device="cpu").recipe.training
    assert written.recipe.distillation is None
    taught = tuned.recipe.distillation
    assert taught is not None
    assert taught.teacher == str(source.resolve())
    told = dict(facts(found.folder))
    assert told["compressed by"] == "prune (0.15 min of training, taught by the model before)"
    assert "by what tones answers" in told["fine-tuned"]
    assert not list(found.folder.glob("rounds/*/tuned/resume"))


def test_the_command(source: Path, corpus: Path, tmp_path: Path) -> None:
    runner, to = CliRunner(), tmp_path / "small"
    common = ["compress", "prune", str(source), "--corpus", str(corpus), "--to", str(to), "--cut", "0.2"]
    for wrong in ([], ["--minutes", "1", "--no-tuning"], ["--no-tuning", "--by", "luck"]):
        assert isinstance(runner.invoke(entry.app, [*common, *wrong]).exception, UsageError)
    assert isinstance(
        runner.invoke(entry.app, [*common, "--no-tuning", "--per", "watt"]).exception, UsageError
    )
    result = runner.invoke(entry.app, [*common, "--no-tuning", "--by", "magnitude", "--per", "mac"])
    assert result.exit_code == 0, result.output
    for said in ("Before:", "After:", "dev CER", "M parameters", "MACs", "feedforward:", "Wrote"):
        assert said in result.output
    load_model(to, device="cpu", check=True)
