"""Each effect by itself, against numbers that can be worked out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstwords.audio import effects
from firstwords.audio.codec import through_codec
from firstwords.audio.noise import cut

RATE = 16000


def tone(hertz: float, seconds: float = 1.0, level: float = 0.5, rate: int = RATE) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def pitch_of(samples: np.ndarray, rate: int = RATE) -> float:
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 1 << 18))
    return float(spectrum.argmax()) * rate / (1 << 18)


@pytest.mark.parametrize(
    ("before", "after"), [(0.1, 0.05), (-0.02, 0.1), (0.1, -0.03), (-0.03, -0.02), (0, 0)]
)
def test_edges_add_and_cut_what_is_asked(before: float, after: float) -> None:
    samples = tone(440)
    moved = effects.move_edges(samples, RATE, before, after, np.random.default_rng(0))
    first, last = round(before * RATE), round(after * RATE)
    assert len(moved) == RATE + first + last
    kept = samples[max(0, -first) : RATE - max(0, -last)]
    assert np.array_equal(moved[max(0, first) : max(0, first) + len(kept)], kept)


def test_edges_cut_a_tenth_at_most() -> None:
    samples = tone(440, 0.1)
    moved = effects.move_edges(samples, RATE, -0.05, -0.05, np.random.default_rng(0))
    assert np.array_equal(moved, samples[160:-160])


def test_room_tone_has_level_and_color_of_the_quietest_stretch() -> None:
    """A hum of 1 kHz under a loud voice that pauses: the tone is the hum, and goes on without a gap."""
    generator = np.random.default_rng(0)
    loud = 0.2 * generator.standard_normal(2 * RATE)
    loud[RATE : RATE + 4000] = 0
    samples = (loud + tone(1000, 2.0, 0.01)).astype(np.float32)
    made = effects.room_tone(samples, RATE, 5 * RATE, np.random.default_rng(1))
    assert made.shape == (5 * RATE,)
    assert float(np.sqrt(np.mean(made**2))) == pytest.approx(0.01 / np.sqrt(2), rel=0.15)
    assert pitch_of(made) == pytest.approx(1000, rel=0.02)
    levels = np.sqrt(np.mean(made.reshape(-1, 1600) ** 2, axis=1))  # a tenth of a second each
    assert levels.min() > 0.3 * levels.mean()


def test_edges_of_silence_are_silent() -> None:
    moved = effects.move_edges(np.zeros(RATE, np.float32), RATE, 0.1, 0.1, np.random.default_rng(0))
    assert len(moved) == RATE + 3200
    assert not moved.any()


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.0, 1.1, 1.37, 2.0])
def test_speed_changes_length_and_pitch(factor: float) -> None:
    fast = effects.change_speed(tone(440), factor)
    assert abs(len(fast) - RATE / factor) <= 1
    assert pitch_of(fast) == pytest.approx(440 * factor, rel=2e-3)


@pytest.mark.parametrize("factor", [0.7, 0.85, 1.0, 1.2, 1.5])
def test_stretch_changes_length_alone(factor: float) -> None:
    stretched = effects.stretch_time(tone(440), RATE, factor)
    assert len(stretched) == round(RATE / factor)
    assert pitch_of(stretched) == pytest.approx(440, rel=5e-3)
    inner = stretched[2000:-2000]
    assert float(np.sqrt(np.mean(inner**2))) == pytest.approx(0.5 / np.sqrt(2), rel=0.03)


def test_stretch_keeps_the_place_of_events() -> None:
    marks = np.zeros(3 * RATE, np.float32)
    for at in (RATE // 2, RATE, 2 * RATE):
        marks[at : at + 1600] = tone(700, 0.1)
    stretched = effects.stretch_time(marks, RATE, 0.8)
    envelope = np.convolve(np.abs(stretched), np.ones(160) / 160, mode="same") > 0.05
    starts = np.flatnonzero(np.diff(envelope.astype(int)) == 1)
    grouped = [starts[0], *(b for a, b in itertools.pairwise(starts) if b - a > RATE // 4)]
    assert np.array(grouped) / RATE == pytest.approx([0.625, 1.25, 2.5], abs=0.03)


@pytest.mark.parametrize("semitones", [-4.0, -1.0, 0.0, 2.0])
def test_pitch_shift_keeps_the_length(semitones: float) -> None:
    shifted = effects.shift_pitch(tone(440), RATE, semitones)
    assert len(shifted) == RATE
    assert pitch_of(shifted) == pytest.approx(440 * 2 ** (semitones / 12), rel=6e-3)


def test_gain_is_in_decibels() -> None:
    assert effects.change_gain(np.array([0.1], np.float32), 20)[0] == pytest.approx(1.0)


@given(fraction=st.floats(0, 1), samples=st.integers(0, 300))
@settings(deadline=None)
def test_clip_flattens_the_wanted_share(fraction: float, samples: int) -> None:
    values = np.random.default_rng(samples).standard_normal(samples).astype(np.float32)
    clipped = effects.clip(values, fraction)
    changed = int((clipped != values).sum())
    assert changed <= round(fraction * samples)
    assert changed >= min(round(fraction * samples), samples - 1) - 1
    assert not samples or np.abs(clipped).max() <= np.abs(values).max()


def test_dropouts_are_silent_and_short() -> None:
    ones = np.ones(RATE, np.float32)
    result = effects.drop_out(ones, RATE, np.random.default_rng(2), gaps=3, longest=0.05)
    assert 0 < int((result == 0).sum()) <= 3 * 800
    assert set(np.unique(result)) == {0.0, 1.0}


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize(
    ("hertz", "least", "most"), [(50, -200, -40), (1000, -0.2, 0.2), (3000, -0.5, 0.3), (3800, -200, -40)]
)
def test_band_limit_passes_the_telephone_band(rate: int, hertz: float, least: float, most: float) -> None:
    sent = tone(hertz, rate=rate)
    heard = effects.band_limit(sent, rate)
    inner = slice(rate // 4, -rate // 4)
    level = 10 * np.log10(np.mean(heard[inner] ** 2) / np.mean(sent[inner] ** 2) + 1e-20)
    assert least <= level <= most
    if most > 0:  # and without delay
        assert np.corrcoef(heard[inner], sent[inner])[0, 1] > 0.999


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize("hertz", [120, 700, 2500, 3600])
def test_the_equalizer_gives_every_tone_its_gain(rate: int, hertz: float) -> None:
    edges, gains = np.array([0.0, 0.35, 0.8, 1.0]), np.array([-8.0, 3.0, -2.0, 6.0])
    place = np.log10(1 + hertz / 700) / np.log10(1 + rate / 2 / 700)  # on the mel scale
    wanted = np.interp(place, edges, gains)
    sent = tone(hertz, rate=rate)
    heard = effects.equalize(sent, rate, edges, gains)
    inner = slice(rate // 4, -rate // 4)
    level = 10 * np.log10(np.mean(heard[inner] ** 2) / np.mean(sent[inner] ** 2))
    assert level == pytest.approx(wanted, abs=0.2)
    assert np.corrcoef(heard[inner], sent[inner])[0, 1] > 0.999  # without delay


def test_the_equalizer_does_not_reach_around_the_ends() -> None:
    click = np.zeros(4096, np.float32)
    click[-3] = 1.0
    edges, gains = np.array([0.0, 0.1, 0.2, 1.0]), np.array([-10.0, 10.0, -10.0, 10.0])
    heard = effects.equalize(click, RATE, edges, gains)
    assert np.abs(heard[-40:]).max() > 0.5
    assert np.abs(heard[:2000]).max() < 1e-3
    flat = effects.equalize(click, RATE, np.array([0.0, 1.0]), np.array([-20.0, -20.0]))
    np.testing.assert_allclose(flat, 0.1 * click, atol=1e-6)


@pytest.mark.parametrize("law", [effects.mu_law, effects.a_law])
def test_companding_has_the_signal_to_noise_ratio_of_eight_bits(law: object) -> None:
    assert callable(law)
    for level in (0.9, 0.1, 0.02):  # nearly independent of level: that is the point of companding
        sent = tone(441, level=level)
        noise = law(sent) - sent
        ratio = 10 * np.log10(np.mean(sent**2) / np.mean(noise**2))
        assert 30 < ratio < 42
    assert np.array_equal(law(np.zeros(5, np.float32)), np.zeros(5, np.float32))
    assert np.abs(law(np.array([3.0, -3.0], np.float32))).max() <= 1 + 1e-6


@given(
    snr_db=st.floats(-10, 40),
    seed=st.integers(0, 1000),
    pause=st.floats(0, 0.9),
    rate=st.sampled_from([8000, 16000]),
)
@settings(max_examples=60, deadline=None)
def test_noise_at_an_exact_ratio_to_active_speech(snr_db: float, seed: int, pause: float, rate: int) -> None:
    generator = np.random.default_rng(seed)
    speech = (0.1 * generator.standard_normal(rate)).astype(np.float32)
    spoken = round((1 - pause) * 50) * (rate // 50)  # whole frames of 20 ms
    speech[spoken:] = 0
    noise = generator.standard_normal(rate).astype(np.float32) * np.float32(generator.uniform(0.001, 1))
    mixed = effects.add_noise(speech, noise, snr_db, rate)
    added = mixed.astype(np.float64) - speech
    active = np.mean(speech[:spoken].astype(np.float64) ** 2)  # pauses do not count
    assert 10 * np.log10(active / np.mean(added**2)) == pytest.approx(snr_db, abs=0.1)


def test_noise_without_speech_or_without_noise_changes_nothing() -> None:
    silence, hiss = np.zeros(1000, np.float32), np.ones(1000, np.float32)
    assert not effects.add_noise(silence, hiss, 10, RATE).any()
    assert np.array_equal(effects.add_noise(hiss, silence, 10, RATE), hiss)
    assert effects.active_power(np.zeros(0, np.float32), RATE) == 0


def test_active_power_ignores_pauses_and_faint_hiss() -> None:
    speech = np.concatenate([tone(200, 0.4), 1e-4 * tone(50, 3.0)]).astype(np.float32)
    assert effects.active_power(speech, RATE) == pytest.approx(0.125, rel=1e-3)


@pytest.mark.parametrize(("samples", "kernel"), [(1, 1), (5, 3), (1000, 257), (40000, 700), (300, 9000)])
def test_convolution_equals_numpy(samples: int, kernel: int) -> None:
    generator = np.random.default_rng(samples)
    x, h = generator.standard_normal(samples), generator.standard_normal(kernel)
    ours = effects.convolve(x.astype(np.float32), h.astype(np.float32))
    expected = np.convolve(x, h)
    assert ours.shape == expected.shape
    assert ours == pytest.approx(expected, abs=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("rate", [8000, 16000, 22050])
@pytest.mark.parametrize("codec", ["mp3", "opus", "vorbis"])
def test_codecs_keep_length_and_place(codec: str, rate: int) -> None:
    generator = np.random.default_rng(0)
    rough = np.convolve(generator.standard_normal(rate), np.ones(12) / 12, mode="same")
    sent = (0.3 * rough * np.repeat(generator.uniform(0, 1, 10), rate // 10)).astype(np.float32)
    heard = through_codec(sent, rate, codec, 0.3)  # pyright: ignore[reportArgumentType]
    assert heard.shape == sent.shape
    assert not np.array_equal(heard, sent)
    shifts = {s: float(np.dot(heard[100:-100], np.roll(sent, s)[100:-100])) for s in range(-60, 61)}
    assert max(shifts, key=shifts.__getitem__) in (-1, 0, 1)
    assert np.corrcoef(heard, sent)[0, 1] > 0.9
    assert heard.tobytes() == through_codec(sent, rate, codec, 0.3).tobytes()  # pyright: ignore[reportArgumentType]
    assert len(through_codec(sent[:0], rate, codec)) == 0  # pyright: ignore[reportArgumentType]


def test_long_vorbis_does_not_end_the_process() -> None:
    assert len(through_codec(np.zeros(40 * RATE, np.float32), RATE, "vorbis")) == 40 * RATE


@given(have=st.integers(0, 500), want=st.integers(0, 2000), place=st.floats(0, 1, exclude_max=True))
@settings(deadline=None)
def test_cut_gives_the_length_asked_for(have: int, want: int, place: float) -> None:
    noise = np.random.default_rng(have).standard_normal(have).astype(np.float32)
    piece = cut(noise, want, place, 8000)
    assert len(piece) == want
    if 0 < want <= have:  # an unchanged stretch of it
        views = np.lib.stride_tricks.sliding_window_view(noise, want)
        assert (views == piece).all(axis=1).any()


def test_loops_have_no_click() -> None:
    ramp = np.linspace(-0.5, 0.5, 8000).astype(np.float32)  # end and start are far apart
    looped = cut(ramp, 30000, 0.0, 8000)
    assert np.abs(np.diff(looped)).max() < 0.15


@pytest.mark.parametrize("factor", [0.0, -1.0, 11.0, float("nan")])
def test_absurd_factors_are_refused(factor: float) -> None:
    for change in (
        lambda: effects.change_speed(tone(440), factor),
        lambda: effects.stretch_time(tone(440), RATE, factor),
    ):
        with pytest.raises(ValueError, match="speed factor"):
            change()
