"""Early exit: nothing changes while nobody leaves, each utterance decides for itself, layers are saved."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from firstwords.compression.early_exit import Way, choose_exit, point, ways
from firstwords.compression.material import Material
from firstwords.compression.skipping import transcript_loss, without_layers
from firstwords.data.batch import Batch
from firstwords.data.manifest import load_corpus
from firstwords.device import Compute
from firstwords.encoders.layers import Absent
from firstwords.errors import CheckpointError, UsageError
from firstwords.inference.early_exit import EarlyExit, early_exit_of, read_exit, sureness, write_exit
from firstwords.inference.recognizer import Recognizer
from firstwords.model.checkpoint import LoadedModel, load_model, save_model
from firstwords.model.recipe import Recipe
from firstwords.model.speech_model import SpeechModel
from firstwords.scoring.error_rate import grapheme_errors
from firstwords.search.interface import GreedyConfig
from firstwords.tensors import Padded
from firstwords.text.characters import GraphemeTokenizer
from tone_corpus import make_tone_corpus, sing, tone_recipe

CPU = Compute(torch.device("cpu"), torch.float32, "float32")
TOKENIZER = GraphemeTokenizer.train(["aeiou aeiou"] * 3)
STACK = {"dim": 16, "layers": 4, "heads": 2, "feedforward": 24, "subsampling": {"channels": 8}}
ENCODERS: dict[str, dict[str, Any]] = {
    "zipformer": {},
    "transformer": STACK,
    "conformer": STACK,
    "e_branchformer": STACK,
    "squeezeformer": STACK | {"reduce_at": 1, "recover_at": 3},
}


def recipe_of(kind: str, *, conditioned: bool = False) -> Recipe:
    values = tone_recipe().model_dump()
    if kind != "zipformer":
        values["encoder"] = {"kind": kind} | ENCODERS[kind]
    inner = [0] if kind == "zipformer" else [0, 1, 2]
    values["heads"] = {"ctc": {"dropout": 0.0, "intermediate": inner, "self_conditioned": conditioned}}
    return Recipe.model_validate(values)


def model_of(kind: str, *, conditioned: bool = False) -> SpeechModel:
    torch.manual_seed(3)
    model = SpeechModel(recipe_of(kind, conditioned=conditioned), len(TOKENIZER.pieces)).eval()
    assert model.ctc is not None
    with torch.no_grad():
        model.ctc.projection.weight.mul_(4.0)
    return model


def audio_of(*texts: str) -> Padded:
    draw = np.random.default_rng(1)
    samples = [torch.from_numpy(sing(text, draw)) for text in texts]
    values = nn.utils.rnn.pad_sequence(samples, batch_first=True)
    return Padded(values, torch.tensor([len(s) for s in samples]))


@pytest.mark.parametrize("conditioned", [False, True])
@pytest.mark.parametrize("kind", ENCODERS)
def test_a_threshold_never_reached_is_the_whole_model(kind: str, conditioned: bool) -> None:
    model = model_of(kind, conditioned=conditioned)
    audio = audio_of("aei ou", "ua")
    exits = EarlyExit(model, 1.01)
    with torch.inference_mode():
        found, whole = exits.encode(audio), model.encode(audio)
    assert torch.equal(found.values, whole.values)
    assert torch.equal(found.lengths, whole.lengths)
    assert exits.exits == {-1: 2}


@pytest.mark.parametrize("kind", ENCODERS)
def test_leaving_at_the_first_tap_gives_that_tap_and_runs_nothing_later(kind: str) -> None:
    model = model_of(kind)
    audio = audio_of("aei ou", "ua")
    ran: list[str] = []
    layers: Any = model.encoder.stacks if kind == "zipformer" else model.encoder.layers
    for number, layer in enumerate(layers):
        layer.register_forward_hook(lambda *_, n=number: ran.append(n))
    with torch.inference_mode():
        found = EarlyExit(model, 0.0).encode(audio)
        assert ran == [0]
        _, (tap, *_) = model.encoder.forward_with_intermediate(model.features(audio), [0])  # type: ignore[operator]
    assert torch.equal(found.values, tap.values)


def test_each_utterance_decides_for_itself() -> None:
    """Alone and in a batch the same frames, whoever leaves first."""
    model = model_of("conformer")
    audio = audio_of("aei ou", "ua", "o")
    with torch.inference_mode():
        tapped = model.encode_with_taps(model.features(audio))
        sure = torch.stack([sureness(inner, "confidence") for inner in tapped.inner])
        above = float(sure.max(dim=0).values.median()) - 1e-4  # some leave, one does not
        together = EarlyExit(model, above)
        found = together.encode(audio)
        alone = EarlyExit(model, above)
        for row, length in enumerate(audio.lengths.tolist()):
            one = alone.encode(Padded(audio.values[row : row + 1, :length], audio.lengths[row : row + 1]))
            frames = int(one.lengths[0])
            torch.testing.assert_close(one.values[0, :frames], found.values[row, :frames])
    assert together.exits == alone.exits
    assert len(together.exits) > 1
    assert together.exits[-1] >= 1


def test_sureness_by_hand() -> None:
    p = torch.tensor([[[0.5, 0.5], [0.9, 0.1]], [[0.25, 0.75], [1.0, 0.0]]]).clamp_min(1e-30)
    log_probs = Padded(p.log(), torch.tensor([2, 1]))
    expected = [math.sqrt(0.5 * 0.9), 0.75]
    assert sureness(log_probs, "confidence").tolist() == pytest.approx(expected, rel=1e-5)

    def entropy(*values: float) -> float:
        return -sum(v * math.log(v) for v in values) / math.log(2)

    expected = [1 - (1.0 + entropy(0.9, 0.1)) / 2, 1 - entropy(0.25, 0.75)]
    assert sureness(log_probs, "certainty").tolist() == pytest.approx(expected, rel=1e-5)
    assert sureness(Padded(p.log(), torch.tensor([0, 2])), "confidence")[0] == 0.0


def way(sure: list[float], seconds: list[float], read: list[str], said: str = "abcd") -> Way:
    return Way(tuple(sure), tuple(seconds), tuple(grapheme_errors(said, text) for text in read))


def test_the_curve_by_hand() -> None:
    found = [
        way([0.9, 0.95], [1, 2, 4], ["abcd", "abcd", "abcd"]),
        way([0.5, 0.8], [1, 2, 4], ["a", "abc", "abcd"]),
    ]
    at = {above: point(found, (2, 5), above) for above in (0.4, 0.85, 0.99)}
    assert at[0.4].cer == pytest.approx(3 / 8)
    assert at[0.4].seconds_share == pytest.approx(2 / 8)
    assert at[0.4].exits == {"2": 2}
    assert at[0.85].cer == 0.0
    assert at[0.85].seconds_share == pytest.approx(5 / 8)
    assert at[0.85].exits == {"2": 1, "end": 1}
    assert at[0.99].exits == {"end": 2}
    loaded = LoadedModel(Path("m"), recipe_of("zipformer"), TOKENIZER, model_of("zipformer"))
    loaded.model.ctc.config = loaded.model.ctc.config.with_(intermediate=(2, 5))  # type: ignore[union-attr]

    def chosen(most_loss: float) -> float:
        settings = choose_exit(
            loaded, found, measure="confidence", most_loss=most_loss, corpus="c", split="dev"
        )
        assert settings.cer_whole == 0.0
        return settings.above

    assert chosen(0.0) == pytest.approx(0.9)
    assert chosen(1 / 8) == pytest.approx(0.8)  # the second leaves at stack 5, a letter short
    assert chosen(1.0) == pytest.approx(0.5)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("exits")
    corpus = make_tone_corpus(folder / "corpus", train=4, dev=3, test=1)
    save_model(folder / "model", model_of("conformer"), TOKENIZER, card="")
    return corpus, folder / "model"


def test_tuned_stored_and_used(tmp_path: Path, material: tuple[Path, Path]) -> None:
    corpus, folder = material
    loaded = load_model(folder, device="cpu")
    batches = dev_batches(corpus, loaded)
    found = ways(loaded, batches, "certainty")
    assert len(found) == 3
    assert all(len(w.sure) == 3 and len(w.seconds) == len(w.errors) == 4 for w in found)
    found = [replace(w, seconds=(1.0, 2.0, 3.0, 4.0)) for w in found]  # whatever else the machine does
    settings = choose_exit(loaded, found, measure="certainty", most_loss=10.0, corpus="c", split="dev")
    copy = tmp_path / "copy"
    save_model(copy, loaded.model, TOKENIZER, card="")
    write_exit(copy, settings)
    assert read_exit(copy) == settings
    audio = next(iter((corpus / "audio").glob("dev-*.wav")))
    used = Recognizer.load(copy, device="cpu")
    assert used.early_exit is not None
    assert used.early_exit.above == settings.above
    used.transcribe(audio)
    assert used.early_exit.exits
    in_eight_bits = Recognizer.load(copy, device="cpu", int8=True)  # other layers, the same weights
    assert in_eight_bits.early_exit is not None
    in_eight_bits.transcribe(audio)
    assert in_eight_bits.early_exit.exits
    never = Recognizer.load(copy, device="cpu", exit_above=2.0)
    assert never.early_exit is None
    assert never.identity != used.identity
    whole = Recognizer.load(folder, device="cpu")
    assert never.transcribe(audio) == whole.transcribe(audio)
    other = load_model(copy, device="cpu")
    with torch.no_grad():
        other.model.ctc.projection.bias[0] += 1  # type: ignore[union-attr]
    assert early_exit_of(copy, other.model, None, GreedyConfig()) is None  # other weights


def test_what_cannot_leave_early_is_told(tmp_path: Path, material: tuple[Path, Path]) -> None:
    _, folder = material
    plain = SpeechModel(tone_recipe(), 8)
    with pytest.raises(UsageError, match="intermediate"):
        EarlyExit(plain, 0.9)
    with pytest.raises(UsageError, match="exit_above = -1"):
        Recognizer.load(folder, device="cpu", exit_above=-1)
    (tmp_path / "early_exit.toml").write_text("format = 1\nabove = 'much'\n")
    with pytest.raises(CheckpointError, match="above"):
        read_exit(tmp_path)
    values = recipe_of("conformer").model_dump()
    values["heads"]["attention"] = {"kind": "transformer_decoder", "width": 16, "layers": 1, "heads": 2}
    values["search"] = {"kind": "attention_beam"}
    both = SpeechModel(Recipe.model_validate(values), 8)
    with pytest.raises(UsageError, match="attention_beam"):
        early_exit_of(tmp_path / "none", both, 0.9, both.recipe.search)
    assert early_exit_of(tmp_path / "none", both, None, both.recipe.search) is None


@pytest.mark.parametrize("kind", [pytest.param("zipformer", marks=pytest.mark.slow), "conformer"])
def test_layers_are_left_out_by_the_loss(material: tuple[Path, Path], tmp_path: Path, kind: str) -> None:
    corpus, _ = material
    values = recipe_of(kind).model_dump()
    if kind == "zipformer":
        values["encoder"]["layers"] = [2, 2]
    values["heads"]["ctc"]["intermediate"] = []
    torch.manual_seed(8)
    model = SpeechModel(Recipe.model_validate(values), len(TOKENIZER.pieces)).eval()
    loaded = LoadedModel(tmp_path, model.recipe, TOKENIZER, model)
    batches = dev_batches(corpus, loaded)

    def loss(one: SpeechModel) -> float:
        return transcript_loss(one, batches)

    shorter, before, skipped = without_layers(model, loss, most=2, limit=100.0)
    assert before == pytest.approx(loss(model))
    assert len(skipped) == 2
    assert sum(isinstance(m, Absent) for m in shorter.modules()) == 2
    assert loss(shorter) == pytest.approx(skipped[-1].loss)
    assert shorter.num_parameters < model.num_parameters
    assert not model.structure
    save_model(tmp_path / "short", shorter, TOKENIZER, card="")
    assert loss(load_model(tmp_path / "short", device="cpu").model) == pytest.approx(skipped[-1].loss)
    same, _, none = without_layers(model, loss, most=2, limit=0.0)
    assert not none
    assert same.num_parameters == model.num_parameters


def dev_batches(corpus: Path, loaded: LoadedModel) -> list[Batch]:
    material = Material(load_corpus(corpus), loaded, "cpu")
    return list(material.one_by_one(material.spoken_dev, seconds=60))
