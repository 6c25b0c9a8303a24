"""A recogniser that brings voices to one spectrum hears the same in training, alone and among others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from firstwords.audio.voices import equalized, equalizer, filtered, spectrum_of
from firstwords.audio.waveform import read, write
from firstwords.config import override, parse_config
from firstwords.data.manifest import Utterance
from firstwords.errors import ConfigError, UsageError
from firstwords.export.plan import plan_bundle
from firstwords.inference.recognizer import Recognizer
from firstwords.inference.sight import look
from firstwords.inference.together import convene
from firstwords.model.checkpoint import load_model, save_model
from firstwords.model.recipe import Recipe
from firstwords.model.speech_model import SpeechModel
from firstwords.text.characters import GraphemeTokenizer
from firstwords.training.distillation.begin import taught_recipe
from nonsense_model import CARD, make_nonsense_model
from tone_corpus import RATE, random_text, sing, tone_recipe


def model_that(folder: Path, *, equalize: bool, seed: int = 3) -> Path:
    """Of random weights, the same for the same seed."""
    recipe = tone_recipe()
    recipe = recipe.with_(data=recipe.data.with_(equalize=equalize))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tokenizer = GraphemeTokenizer.train(["aeiou aeiou aeiou"] * 5)
        model = SpeechModel(recipe, len(tokenizer.pieces)).eval()
        with torch.no_grad():
            model.ctc.projection.weight.normal_(0, 3)
            model.ctc.projection.bias[7:] = -1e3
    save_model(folder, model, tokenizer, card=CARD)
    return folder


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory: pytest.TempPathFactory) -> Recognizer:
    return Recognizer.load(model_that(tmp_path_factory.mktemp("m") / "equal", equalize=True), device="cpu")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    """Three clips of one speaker, one of another, one of 35 s."""
    folder = tmp_path_factory.mktemp("clips")
    draw = np.random.default_rng(0)
    made: list[Utterance] = []
    for n, (speaker, words) in enumerate([("ann", 3), ("ann", 5), ("ann", 4), ("ben", 4), (None, 70)]):
        samples = sing(random_text(draw, words), draw)
        samples = samples + (1e-3 * draw.standard_normal(len(samples))).astype(np.float32)
        write(folder / f"{n}.flac", samples, RATE)
        made.append(
            Utterance(id=str(n), audio=folder / f"{n}.flac", duration=len(samples) / RATE, speaker=speaker)
        )
    assert made[4].duration > 31
    return made


def heard_alone(recognizer: Recognizer, utterance: Utterance) -> str:
    """What a plain recogniser reads in samples that were filtered by hand."""
    samples = read(utterance.audio, sample_rate=recognizer.sample_rate).samples
    return recognizer.transcribe_samples(samples, recognizer.sample_rate).text


def test_a_recording_alone_is_a_voice_of_its_own(
    recognizer: Recognizer, clips: list[Utterance], tmp_path: Path
) -> None:
    plain = Recognizer.load(model_that(tmp_path / "plain", equalize=False), device="cpu")
    samples = read(clips[0].audio, sample_rate=RATE).samples
    expected = plain.transcribe_samples(equalized(samples, RATE), RATE).text
    assert recognizer.transcribe(clips[0].audio).text == expected
    assert recognizer.transcribe_samples(samples, RATE).text == expected
    assert plain.transcribe(clips[0].audio).text != expected
    ours = recognizer.encoded(clips[0].audio)
    theirs = plain.encode([equalized(samples, RATE)]).values[0, : len(ours)]
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_speakers_are_met_as_a_whole(recognizer: Recognizer, clips: list[Utterance], tmp_path: Path) -> None:
    plain = Recognizer.load(model_that(tmp_path / "plain", equalize=False), device="cpu")
    sounds = [read(u.audio, sample_rate=RATE).samples for u in clips]
    ann = spectrum_of(sounds[0], RATE) + spectrum_of(sounds[1], RATE) + spectrum_of(sounds[2], RATE)
    expected = [
        plain.transcribe_samples(filtered(own, equalizer(ann, RATE)), RATE).text for own in sounds[:3]
    ]
    found = [t.text for t in recognizer.transcribe_many(iter(clips))]
    assert found[:3] == expected
    assert found[3] == heard_alone(recognizer, clips[3])
    assert len(found) == len(clips)
    # Those that were met are known from then on, to all that listens utterance by utterance.
    recognizer.meet(clips)
    one = clips[1]
    assert recognizer.transcribe(one.audio, duration=one.duration).text == expected[1]
    recognizer.meet([])
    assert recognizer.transcribe(one.audio).text == heard_alone(recognizer, one)


def test_the_picture_shows_what_the_model_hears(recognizer: Recognizer, clips: list[Utterance]) -> None:
    seen = look(recognizer, clips[0].audio)
    samples = equalized(read(clips[0].audio, sample_rate=RATE).samples, RATE)
    frames = recognizer.model.features(
        type(recognizer.encode([samples]))(torch.from_numpy(samples)[None], torch.tensor([len(samples)]))
    )
    np.testing.assert_allclose(seen.frames, frames.values[0].numpy(), atol=1e-3)


def test_models_that_hear_otherwise_do_not_go_together(tmp_path: Path) -> None:
    equal = model_that(tmp_path / "equal", equalize=True)
    plain = model_that(tmp_path / "plain", equalize=False, seed=4)
    lead = Recognizer.load(equal, device="cpu")
    with pytest.raises(UsageError, match=r"one spectrum \(data.equalize\), the other does not"):
        convene(lead, [plain])
    convene(lead, [model_that(tmp_path / "third", equalize=True, seed=5)])
    with pytest.raises(ConfigError, match=r"data\.equalize = false: the teacher was trained with true"):
        taught_recipe(tone_recipe(), load_model(equal, device="cpu"), chosen=True)


def test_a_bundle_and_a_stream_are_refused(tmp_path: Path) -> None:
    loaded = load_model(model_that(tmp_path / "equal", equalize=True), device="cpu")
    with pytest.raises(ConfigError, match="which no bundle does yet"):
        plan_bundle(loaded.model)
    plan_bundle(load_model(make_nonsense_model(tmp_path / "plain"), device="cpu").model)
    values = {"encoder": {"kind": "zipformer"}, "heads": {"ctc": {}}}
    wanted = override(values, ["encoder.causal=true", "data.equalize=true"])
    with pytest.raises(ConfigError, match=r"listens to the whole of a recording first: set data\.equalize"):
        parse_config(wanted, Recipe, name="recipe", source="r.toml")
