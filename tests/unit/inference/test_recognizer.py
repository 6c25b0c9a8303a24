"""The recogniser on an untrained model: what it says is nonsense, but it must be the same nonsense always."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from firstwords.audio.waveform import write
from firstwords.data.manifest import Utterance
from firstwords.encoders.transformer import TransformerConfig
from firstwords.errors import AudioError, CheckpointError, SearchError, UsageError
from firstwords.inference.recognizer import Recognizer
from firstwords.inference.transcript import Transcript
from firstwords.search.fusion import Scorers
from firstwords.search.hypothesis import Hypothesis
from nonsense_model import make_nonsense_model
from tone_corpus import RATE, random_text, sing
from toy_scorers import TrigramScorer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_nonsense_model(tmp_path_factory.mktemp("models") / "nonsense")


@pytest.fixture(scope="module")
def recognizer(folder: Path) -> Recognizer:
    return Recognizer.load(folder, device="cpu", check=True)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    """Clips of 0.5 to 8 seconds, one of them 45 s long, one silent, one a stretch of another."""
    path = tmp_path_factory.mktemp("clips")
    generator = np.random.default_rng(0)
    made: list[Utterance] = []
    for number, words in enumerate([1, 12, 3, 70, 2, 7]):
        samples = sing(random_text(generator, words), generator)
        write(path / f"{number}.flac", samples, RATE)
        made.append(Utterance(id=str(number), audio=path / f"{number}.flac", duration=len(samples) / RATE))
    write(path / "silent.flac", np.zeros(RATE, np.float32), RATE)
    made.append(Utterance(id="silent", audio=path / "silent.flac", duration=1.0))
    made.append(Utterance(id="part", audio=made[1].audio, start=1.0, duration=2.5))
    assert made[3].duration > 31
    return made


def same(one: Transcript, other: Transcript) -> None:
    assert one.text == other.text
    assert [(w.word, w.start, w.end) for w in one.words] == [(w.word, w.start, w.end) for w in other.words]
    np.testing.assert_allclose(
        [w.confidence for w in one.words], [w.confidence for w in other.words], atol=2e-3
    )


def test_one_by_one_equals_many(recognizer: Recognizer, clips: list[Utterance]) -> None:
    many = list(recognizer.transcribe_many(clips))
    assert len(many) == len(clips)
    for utterance, made in zip(clips, many, strict=True):
        alone = recognizer.transcribe(utterance.audio, start=utterance.start, duration=utterance.duration)
        same(alone, made)
        assert made.duration == pytest.approx(utterance.duration, abs=0.001)
        assert made.audio == str(utterance.audio)
        assert bool(made.text) == (utterance.id != "silent")
        for word in made.words:
            assert 0 <= word.start < word.end
            assert 0 <= word.confidence <= 1


def test_files_and_samples_agree(recognizer: Recognizer, clips: list[Utterance]) -> None:
    from firstwords.audio.waveform import read

    samples = read(clips[1].audio).samples
    same(recognizer.transcribe(clips[1].audio), recognizer.transcribe_samples(samples, RATE))
    assert recognizer.transcribe_samples(np.zeros(0, np.float32), RATE).text == ""
    with pytest.raises(UsageError, match="one channel"):
        recognizer.transcribe_samples(np.zeros((5, 2), np.float32), RATE)


def test_samples_that_are_no_sound_are_refused(recognizer: Recognizer) -> None:
    """Whole numbers were read as if they were 32768 times too loud, NaN as whatever came of it."""
    with pytest.raises(UsageError, match="int16"):
        recognizer.transcribe_samples(np.zeros(100, np.int16), RATE)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="NaN"):
        recognizer.transcribe_samples(np.full(100, np.nan, np.float32), RATE)
    with pytest.raises(UsageError, match="16 Hz"):
        recognizer.transcribe_samples(np.zeros(100, np.float32), 16)


@pytest.mark.parametrize("samples", [1, 100, 399, 1600, 4000])
def test_the_shortest_recordings(recognizer: Recognizer, samples: int) -> None:
    sound = 0.1 * np.random.default_rng(0).standard_normal(samples)
    assert recognizer.transcribe_samples(sound, RATE).duration == round(samples / RATE, 3)


def test_a_language_model_takes_part(folder: Path, recognizer: Recognizer, clips: list[Utterance]) -> None:
    """One that knows a single letter leaves no other in the text; a journal knows which one it was."""
    pieces = recognizer.tokenizer.pieces
    lm = TrigramScorer(len(pieces), 0)
    lm.table[:] = -np.inf
    lm.table[:, :, [0, pieces.index("a")]] = np.log(0.5)
    fused = Recognizer.load(folder, device="cpu", scorers=Scorers(lm, identity="only a"))
    plain = recognizer.transcribe(clips[1].audio).text
    assert set(fused.transcribe(clips[1].audio).text) == {"a"}
    assert set(plain) - {"a", " "}
    key = "language model or list of phrases"
    assert fused.identity == recognizer.identity | {key: "only a"} != recognizer.identity


def test_errors_stand_in_their_places(recognizer: Recognizer, clips: list[Utterance], tmp_path: Path) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_text("no audio")
    mixed = [clips[0], Utterance(id="bad", audio=bad, duration=1.0), clips[2]]
    results = list(recognizer.attempt_many(mixed))
    assert [type(r) for r in results] == [Transcript, AudioError, Transcript]
    found = recognizer.transcribe_many(mixed)
    next(found)
    with pytest.raises(AudioError, match=r"bad\.wav"):
        next(found)
    long = Utterance(id="bad", audio=bad, duration=100.0)
    assert isinstance(next(recognizer.attempt_many([long])), AudioError)
    assert list(recognizer.attempt_many([])) == []


def test_one_that_cannot_be_decoded_leaves_the_others(
    recognizer: Recognizer, clips: list[Utterance], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended the command and lost what else was in its group."""
    read, long = Recognizer._read, max(utterance.duration for utterance in clips[:3])

    def broken(self: Recognizer, stretches: Sequence[np.ndarray]) -> list[list[Hypothesis]]:
        if any(len(samples) == round(long * RATE) for samples in stretches):
            raise SearchError("It has no numbers.", mend="None.")
        return read(self, stretches)

    monkeypatch.setattr(Recognizer, "_read", broken)
    found = list(recognizer.attempt_many(clips[:3]))
    assert [type(one) for one in found] == [Transcript, SearchError, Transcript]


@pytest.mark.parametrize("frames", [70, 20])
def test_what_is_longer_than_the_learned_positions_is_cut(
    clips: list[Utterance], tmp_path: Path, frames: int
) -> None:
    """Read as a whole, one recording too long ended the batch it was in, and with it the command."""
    encoder = TransformerConfig(
        dim=16, heads=2, layers=1, feedforward=16, positions="learned", max_frames=frames
    )
    recognizer = Recognizer.load(make_nonsense_model(tmp_path / "model", encoder=encoder), device="cpu")
    limit = recognizer.model.longest_seconds
    assert limit == pytest.approx(0.04 * frames)
    assert {one.duration > limit for one in clips} == {True, False}
    found = list(recognizer.transcribe_many(clips))
    for one, clip in zip(found, clips, strict=True):
        same(one, recognizer.transcribe(clip.audio, start=clip.start, duration=clip.duration))
    assert found[3].words[-1].end > clips[3].duration - 3
    scores = recognizer.log_probs(clips[3].audio)
    assert abs(len(scores) * recognizer.frame_seconds - clips[3].duration) < 0.2
    if limit > 2:
        same(found[3], recognizer.transcribe(clips[3].audio, window=limit))


def test_language_is_checked(folder: Path, recognizer: Recognizer, clips: list[Utterance]) -> None:
    recognizer.transcribe(clips[0].audio, language="sw")  # the recipe states none
    loaded = Recognizer.load(folder, device="cpu")
    loaded.recipe = loaded.recipe.with_(language="sw-KE")
    assert loaded.transcribe(clips[0].audio, language="sw").language == "sw-KE"
    with pytest.raises(UsageError, match="trained for 'sw-KE', not for 'yo'"):
        loaded.transcribe(clips[0].audio, language="yo")
    with pytest.raises(UsageError, match="too short"):
        recognizer.transcribe(clips[0].audio, window=0.5)


def test_log_probs_of_windows_lie_on_one_grid(recognizer: Recognizer, clips: list[Utterance]) -> None:
    whole = recognizer.log_probs(clips[3].audio, window=1000.0)
    cut = recognizer.log_probs(clips[3].audio, window=12.0)
    assert whole.shape == cut.shape
    assert np.allclose(np.exp(whole).sum(axis=1), 1, atol=1e-4)
    assert len(whole) == pytest.approx(clips[3].duration / recognizer.frame_seconds, abs=5)
    # Frames in the middle of the first window hear the same whatever comes later.
    assert np.abs(whole[:50] - cut[:50]).mean() < 0.5


def test_alignment_gives_every_word_its_time(recognizer: Recognizer, clips: list[Utterance]) -> None:
    made = recognizer.align(clips[1].audio, "aei ou  ua")
    assert made.text == "aei ou ua"
    times = [t for word in made.words for t in (word.start, word.end)]
    assert times == sorted(times)
    assert times[-1] <= clips[1].duration + 0.1
    assert recognizer.align(clips[1].audio, "").text == ""
    with pytest.raises(SearchError, match="at least"):
        recognizer.align(clips[0].audio, "a" * 500)


def test_loading_says_what_is_missing(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(CheckpointError, match="not a folder"):
        Recognizer.load(tmp_path / "none")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        Recognizer.load(tmp_path)


def test_large_models_are_read_in_bfloat16_where_it_is_native(
    folder: Path, clips: list[Utterance], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from firstwords import device
    from firstwords.inference import loading as module

    monkeypatch.setattr(device, "has_native_bf16", lambda _: True)
    assert Recognizer.load(folder, device="cpu").compute.dtype is torch.float32
    monkeypatch.setattr(module, "LARGE", 1000)
    assert Recognizer.load(folder, device="cpu", precision="fp32").compute.dtype is torch.float32
    large = Recognizer.load(folder, device="cpu")
    assert large.compute.dtype is torch.bfloat16
    assert large.transcribe(clips[1].audio).text
    monkeypatch.setattr(device, "has_native_bf16", lambda _: False)
    assert Recognizer.load(folder, device="cpu").compute.dtype is torch.float32


def test_the_package_offers_it() -> None:
    import firstwords

    assert firstwords.Recognizer is Recognizer
    assert firstwords.Transcript is Transcript
