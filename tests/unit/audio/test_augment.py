"""Augmentation as a whole: same seed same bytes, nothing mutated, nothing but finite samples."""

from __future__ import annotations

import hashlib
import pickle
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstwords.audio.augment import AugmentConfig, Babble, ColoredNoise, FolderNoise, NoiseClip, augment
from firstwords.audio.waveform import write
from firstwords.config import dump_config, parse_config
from firstwords.errors import AudioError, ConfigError

RATE = 16000
ALL = AugmentConfig.model_validate(
    {
        name: {"probability": 1.0}
        for name in AugmentConfig.model_fields
        if name not in ("codec", "edges", "speed", "stretch")
    }
)


def voice(samples: int, seed: int = 0) -> np.ndarray:
    """Something with the ups and downs of speech."""
    generator = np.random.default_rng(seed)
    envelope = np.repeat(generator.uniform(0, 1, samples // 800 + 1), 800)[:samples]
    return (0.2 * envelope * generator.standard_normal(samples)).clip(-1, 1).astype(np.float32)


@given(
    samples=st.integers(0, 6000),
    kind=st.sampled_from(["voice", "silence", "full scale", "click"]),
    seed=st.integers(0, 2**63 - 1),
    effect=st.sampled_from([*AugmentConfig.model_fields, "default", "all"]),
)
@settings(max_examples=150, deadline=None)
def test_any_effect_on_anything(samples: int, kind: str, seed: int, effect: str) -> None:
    if effect == "codec":
        config = AugmentConfig.model_validate(
            {"codec": {"probability": 1.0, "names": ["mu_law", "a_law", "vorbis"]}}
        )
    elif effect in ("default", "all"):
        config = ALL if effect == "all" else AugmentConfig()
    else:
        config = AugmentConfig.model_validate({effect: {"probability": 1.0}})
    given_samples = {
        "voice": voice(samples, seed % 100),
        "silence": np.zeros(samples, np.float32),
        "full scale": np.where(np.arange(samples) % 7 < 3, 1, -1).astype(np.float32),
        "click": (np.arange(samples) == samples // 2).astype(np.float32),
    }[kind]
    before = given_samples.tobytes()
    given_samples.setflags(write=False)
    results = [
        augment(given_samples, RATE, config, np.random.default_rng(seed), ColoredNoise()) for _ in range(2)
    ]
    assert results[0].tobytes() == results[1].tobytes()
    assert given_samples.tobytes() == before
    assert results[0].dtype == np.float32
    assert results[0].flags.writeable
    assert np.isfinite(results[0]).all()
    assert not len(results[0]) or np.abs(results[0]).max() <= 1 + 1e-6
    if effect in ("speed", "stretch"):
        assert 0.8 * samples - 1 <= len(results[0]) <= 1.2 * samples + 1
    elif effect == "edges":
        assert 0.8 * samples - 2 <= len(results[0]) <= samples + 0.3 * RATE
    else:
        assert len(results[0]) == samples
    if kind == "silence":
        assert not results[0].any()


def test_seeds_differ() -> None:
    results = {augment(voice(8000), RATE, ALL, np.random.default_rng(s)).tobytes() for s in range(20)}
    assert len(results) == 20


def test_one_effect_does_not_change_the_draws_of_another() -> None:
    quiet = AugmentConfig.model_validate({"room": {"probability": 0}, "gain": {"probability": 1}})
    with_clipping = quiet.with_(clipping={"probability": 1, "fraction": (0.0, 0.0)})
    one = augment(voice(4000), RATE, quiet, np.random.default_rng(4))
    other = augment(voice(4000), RATE, with_clipping, np.random.default_rng(4))
    assert np.array_equal(one, other)


def test_the_equalizer_draws_by_itself() -> None:
    """It came after the others: what these drew before, they draw still."""
    plain = AugmentConfig.model_validate({"gain": {"probability": 0}, "room": {"probability": 0}})
    colored = plain.with_(equalizer={"probability": 1, "gain_db": (-6.0, -6.0)})
    samples = voice(4000)
    one = augment(samples, RATE, plain, np.random.default_rng(4), ColoredNoise())
    other = augment(samples, RATE, colored, np.random.default_rng(4), ColoredNoise())
    np.testing.assert_allclose(other, one * 10 ** (-6 / 20), atol=1e-6)
    curves = colored.with_(equalizer={"probability": 0.5})
    shares = [
        not np.array_equal(augment(samples, RATE, curves, np.random.default_rng(seed)), samples)
        for seed in range(200)
    ]
    assert 0.4 < np.mean(shares) < 0.6


def test_edges_draw_by_themselves() -> None:
    """They came last: with them at zero seconds, everything else is as it was without."""
    plain = ALL.with_(edges={"probability": 0})
    still = ALL.with_(edges={"probability": 1, "seconds": (0.0, 0.0)})
    samples = voice(4000)
    one = augment(samples, RATE, plain, np.random.default_rng(4), ColoredNoise())
    other = augment(samples, RATE, still, np.random.default_rng(4), ColoredNoise())
    assert np.array_equal(one, other)
    moved = AugmentConfig.model_validate({"edges": {"probability": 0.5}})
    lengths = [len(augment(samples, RATE, moved, np.random.default_rng(seed))) for seed in range(200)]
    assert 0.4 < np.mean([length != len(samples) for length in lengths]) < 0.6
    assert min(lengths) >= 4000 - 2 * 400  # a tenth at each end
    assert max(lengths) <= 4000 + 2 * 0.15 * RATE


def test_default_share_of_rooms_and_noise() -> None:
    """p = 0.3 and 0.5: count which of the two changed the shape of the voice."""
    plain = AugmentConfig.model_validate({"gain": {"probability": 0}})
    samples = voice(2000)
    changed = [
        not np.array_equal(augment(samples, RATE, plain, np.random.default_rng(seed)), samples)
        for seed in range(400)
    ]
    assert 0.22 < np.mean(changed) < 0.38
    changed = [
        not np.array_equal(
            augment(samples, RATE, plain, np.random.default_rng(seed), ColoredNoise()), samples
        )
        for seed in range(400)
    ]
    assert 0.57 < np.mean(changed) < 0.73  # 1 - 0.7 * 0.5


def test_peak_stays_at_one() -> None:
    loud = AugmentConfig.model_validate(
        {"gain": {"probability": 1, "gain_db": (20, 20)}, "room": {"probability": 0}}
    )
    result = augment(voice(4000), RATE, loud, np.random.default_rng(0))
    assert np.abs(result).max() == pytest.approx(1.0)


def test_measured_responses_are_used(tmp_path: Path) -> None:
    response = np.zeros(800, np.float32)
    response[100], response[500] = 0.8, 0.4
    write(tmp_path / "room.wav", response, RATE)
    config = AugmentConfig.model_validate(
        {
            "room": {"probability": 1, "measured_share": 1, "responses": [str(tmp_path)]},
            "gain": {"probability": 0},
        }
    )
    click = np.zeros(4000, np.float32)
    click[1000] = 0.5
    result = augment(click, RATE, config, np.random.default_rng(0))
    assert np.abs(result).argmax() == 1000
    assert result[1400] == pytest.approx(result[1000] / 2, rel=1e-3)
    with pytest.raises(AudioError, match="nowhere"):
        augment(
            click,
            RATE,
            config.with_(room={"probability": 1, "measured_share": 1, "responses": ["nowhere"]}),
            np.random.default_rng(0),
        )


@pytest.mark.parametrize(
    "values",
    [
        {"noise": {"snr_db": [25, 5]}},
        {"noise": {"snr_db": [float("nan"), 5]}},
        {"room": {"distance": [1, float("inf")]}},
        {"speed": {"factor": [0.0, 1.1]}},
        {"room": {"t60": [0.0, 0.5]}},
        {"codec": {"names": ["flac"]}},
        {"gain": {"probability": 1.5}},
        {"edges": {"seconds": [0.2, 0.1]}},
        {"edges": {"seconds": [-2, 0.1]}},
        {"equalizer": {"bands": [0, 4]}},
        {"equalizer": {"bands": [5, 3]}},
        {"equalizer": {"gain_db": [float("-inf"), 3]}},
        {"reverb": {}},
    ],
)
def test_impossible_settings_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="augment"):
        parse_config(values, AugmentConfig, name="augment", source="recipe.toml")


# ---- noise sources -------------------------------------------------------------------------------------


@pytest.fixture
def noises(tmp_path: Path) -> Path:
    for name, seconds in (("b.wav", 0.5), ("a.wav", 2.0), ("deep/c.flac", 1.0)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, voice(int(seconds * RATE), seed=len(name)), RATE)
    return tmp_path


def test_folder_noise_is_the_same_whatever_was_asked_before(noises: Path) -> None:
    used, fresh = FolderNoise([noises]), FolderNoise([noises], cache_megabytes=0)
    assert [c.path.name for c in used.clips] == ["a.wav", "b.wav", "c.flac"]
    for seed in range(30):
        used.draw(np.random.default_rng(seed), 1000, 8000)
    copy = pickle.loads(pickle.dumps(used))  # noqa: S301 - as a loader process gets it
    for seed in range(10):
        drawn = [
            source.draw(np.random.default_rng(seed), 24000, RATE).tobytes() for source in (used, fresh, copy)
        ]
        assert len(set(drawn)) == 1
        assert len(drawn[0]) == 4 * 24000
    assert len({used.draw(np.random.default_rng(s), 100, RATE).tobytes() for s in range(50)}) == 50
    assert fresh._size == 0


def test_folder_noise_reads_stretches_of_long_recordings(tmp_path: Path) -> None:
    ramp = (np.arange(70 * 8000) / (70 * 8000)).astype(np.float32)  # a value tells its place
    write(tmp_path / "long.wav", ramp, 8000)
    source = FolderNoise([tmp_path])
    starts = [float(source.draw(np.random.default_rng(s), 8000, 8000)[0]) for s in range(20)]
    assert min(starts) < 0.2
    assert max(starts) > 0.8
    assert not source._kept
    clip = FolderNoise([NoiseClip(tmp_path / "long.wav", start=35.0, duration=1.0)])
    piece = clip.draw(np.random.default_rng(0), 8000, 8000)  # a kept clip is brought to full range
    assert piece[0] / piece[-1] == pytest.approx(35 / 36, abs=1e-3)


def test_broken_noise_is_passed_over_and_named(noises: Path) -> None:
    (noises / "a.wav").write_bytes(b"not audio")
    source = FolderNoise([noises])
    for seed in range(40):
        assert source.draw(np.random.default_rng(seed), 100, RATE).any()
    assert [clip.path.name for clip in source.unreadable] == ["a.wav"]
    only_broken = FolderNoise([noises / "a.wav"])
    with pytest.raises(AudioError, match="None of the 1 noise recordings"):
        only_broken.draw(np.random.default_rng(0), 100, RATE)


def test_folders_without_recordings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no recordings"):
        FolderNoise([tmp_path])
    with pytest.raises(AudioError, match="no such"):
        FolderNoise([tmp_path / "absent"])


def test_babble_mixes_voices_of_equal_power(noises: Path) -> None:
    babble = Babble(FolderNoise([noises]), count=(4, 4))
    mixed = babble.draw(np.random.default_rng(0), 16000, RATE)
    assert 2.0 < float(np.mean(mixed**2)) < 7.0  # four independent voices of power one
    assert not np.array_equal(mixed, babble.draw(np.random.default_rng(1), 16000, RATE))


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_colored_noise_falls_with_its_slope(slope: float) -> None:
    noise = ColoredNoise((slope, slope)).draw(np.random.default_rng(0), 1 << 17, RATE)
    power = np.abs(np.fft.rfft(noise)) ** 2
    low, high = power[2000:4000].mean(), power[16000:32000].mean()  # three octaves apart
    assert 10 * np.log10(low / high) == pytest.approx(9.03 * slope, abs=0.5)
    assert float(np.mean(noise**2)) == pytest.approx(0.01, rel=1e-3)


def test_real_noise_corpus(corpora: Path) -> None:
    source = FolderNoise([corpora / "noise" / "audio"])
    generator = np.random.default_rng(0)
    digest = hashlib.sha256()
    for _ in range(5):
        digest.update(augment(voice(RATE), RATE, ALL, generator, source).tobytes())
    again = np.random.default_rng(0)
    other = hashlib.sha256()
    for _ in range(5):
        other.update(augment(voice(RATE), RATE, ALL, again, source).tobytes())
    assert digest.digest() == other.digest()
    assert not source.unreadable


def test_settings_survive_toml() -> None:
    config = ALL.with_(room={"probability": 0.2, "responses": ["rooms"]})
    loaded = parse_config(tomllib.loads(dump_config(config)), AugmentConfig, name="augment", source="test")
    assert loaded == config


def test_the_manual_names_every_effect() -> None:
    manual = (Path(__file__).parents[3] / "docs" / "recipes.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in manual.splitlines() if line.startswith("| `")]
    named = {name.strip(" `") for row in rows for name in row.split(",")}
    assert set(AugmentConfig.model_fields) <= named
