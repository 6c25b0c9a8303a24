"""Who speaks into what, in a corpus and among recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from firstwords.audio.voices import equalized, equalizer, filtered, spectrum_of
from firstwords.audio.waveform import AudioReader, write
from firstwords.data import voices
from firstwords.data.examples import ExampleSource, LoadedExample
from firstwords.data.manifest import Utterance
from firstwords.data.places import Item
from firstwords.data.voices import Stretch, measure_voices, stretches_of

RATE = 8000


def noise(seconds: float, seed: int, level: float = 0.1) -> NDArray[np.float32]:
    return (level * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


@pytest.fixture
def clips(tmp_path: Path) -> list[Utterance]:
    """Two clips of ann, one of ben, one of nobody."""
    made: list[Utterance] = []
    for n, (speaker, level) in enumerate([("ann", 0.1), ("ann", 0.2), ("ben", 0.01), (None, 0.05)]):
        path = tmp_path / f"{n}.wav"
        write(path, noise(2, n, level), RATE)
        made.append(Utterance(id=str(n), audio=path, duration=2.0, speaker=speaker, text="a"))
    return made


def test_a_speakers_clips_share_one_filter(clips: list[Utterance]) -> None:
    found = measure_voices(stretches_of(clips), RATE, "mix")
    assert set(found.taps) == {"ann", "ben", str(clips[3].audio)}
    sounds = [AudioReader(u.audio, sample_rate=RATE).whole() for u in clips]
    expected = equalizer(spectrum_of(sounds[0], RATE) + spectrum_of(sounds[1], RATE), RATE)
    for clip in clips[:2]:
        np.testing.assert_allclose(found.at(clip.audio, 0.0), expected)  # type: ignore[arg-type]


def test_a_recording_that_cannot_be_read_says_nothing(clips: list[Utterance], tmp_path: Path) -> None:
    (tmp_path / "torn.wav").write_bytes(b"RIFF")
    torn = Utterance(id="torn", audio=tmp_path / "torn.wav", duration=3.0, speaker="ben")
    gone = Utterance(id="gone", audio=tmp_path / "gone.wav", duration=3.0, speaker="eve")
    found = measure_voices(stretches_of([*clips, torn, gone]), RATE, "mix")
    assert found.taps["eve"] is None
    np.testing.assert_allclose(
        found.taps["ben"],  # type: ignore[arg-type]
        measure_voices(stretches_of(clips), RATE, "mix").taps["ben"],  # type: ignore[arg-type]
    )


def test_hours_of_a_voice_are_heard_for_two_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "long.wav"
    write(path, noise(1000, 1), RATE)
    heard: list[float] = []

    def listen(samples: NDArray[np.float32], rate: int) -> object:
        heard.append(len(samples) / rate)
        return spectrum_of(samples, rate)

    monkeypatch.setattr(voices, "spectrum_of", listen)
    measure_voices([Stretch("ann", path, 0.0, 1000.0)], RATE, "mix")
    assert 100 <= sum(heard) <= 121
    assert max(heard) <= 11


def test_a_stretch_that_was_not_met_is_a_voice_of_its_own(clips: list[Utterance]) -> None:
    found = measure_voices(stretches_of(clips[:2]), RATE, "mix")
    other = clips[2].audio
    taps = found.filter_for(other, 0.0, None, sample_rate=RATE, channels="mix")
    samples = AudioReader(other, sample_rate=RATE).whole()
    np.testing.assert_allclose(
        AudioReader(other, sample_rate=RATE, taps=taps).whole(), equalized(samples, RATE), atol=1e-6
    )
    met = found.filter_for(clips[0].audio, 0.0, 2.0, sample_rate=RATE, channels="mix")
    assert met is found.taps["ann"]


def test_blocks_of_a_recording_are_the_whole(clips: list[Utterance]) -> None:
    taps = measure_voices(stretches_of(clips), RATE, "mix").taps["ann"]
    read = AudioReader(clips[0].audio, sample_rate=RATE, taps=taps)
    blocks = list(AudioReader(clips[0].audio, sample_rate=RATE, taps=taps).blocks(999))
    assert [len(b) for b in blocks[:-1]] == [999] * (len(blocks) - 1)
    np.testing.assert_allclose(np.concatenate(blocks), read.whole(), atol=1e-6)


def test_training_hears_what_reading_hears(clips: list[Utterance]) -> None:
    """Speech by its voice; non-speech as a recording by itself."""
    met = measure_voices(stretches_of(clips), RATE, "mix")
    items = [Item(u.id, u.audio, 0.0, 2.0, "a", (1,), voice=u.speaker or "") for u in clips[:1]]
    items.append(Item("probe", clips[2].audio, 0.5, 1.0, "", ()))
    source = ExampleSource(items, RATE, "mix", 1, voices=met)
    speech, probe = source.load(0, 0), source.load(0, 1)
    assert isinstance(speech, LoadedExample)
    assert isinstance(probe, LoadedExample)
    raw = AudioReader(clips[0].audio, sample_rate=RATE).whole()
    np.testing.assert_allclose(
        speech.samples, filtered(raw, met.taps["ann"]), atol=1e-4
    )  # 16 bits in the cache
    other = AudioReader(clips[2].audio, sample_rate=RATE, start=0.5, duration=1.0).whole()
    np.testing.assert_allclose(probe.samples, equalized(other, RATE), atol=1e-4)
    plain = ExampleSource(items, RATE, "mix", 1).load(0, 0)
    assert isinstance(plain, LoadedExample)
    assert np.abs(plain.samples - speech.samples).max() > 0.01
