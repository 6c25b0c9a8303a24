"""Long recordings with a trained model: windows agree, time stays true, memory does not grow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from firstwords.inference.recognizer import Recognizer
from firstwords.inference.transcript import Transcript
from firstwords.scoring.error_rate import word_errors
from firstwords.training.run import train_corpus
from tone_corpus import LEARN, RATE, make_tone_corpus, random_text, sing, tone_recipe

pytestmark = pytest.mark.slow  # trains for a minute


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that reads tones without an error."""
    folder = tmp_path_factory.mktemp("tones")
    corpus = make_tone_corpus(folder / "corpus", train=160)
    result = train_corpus(corpus, folder / "model", recipe=tone_recipe(steps=320, **LEARN), workers=0)
    assert result.numbers["cer"] <= 0.02
    return folder / "model"


def test_windows_of_20_and_30_seconds_agree(model: Path) -> None:
    """Issue 2, point 9: at most 0.5 % WER between them; here also against what was sung."""
    generator = np.random.default_rng(5)
    text = random_text(generator, 900)
    samples = sing(text, generator)
    assert len(samples) / RATE > 500
    recognizer = Recognizer.load(model, device="cpu")
    made = {w: recognizer.transcribe_samples(samples, RATE, window=w).text for w in (12.0, 20.0, 30.0)}
    assert word_errors(made[20.0], made[30.0]).rate <= 0.005
    assert word_errors(made[12.0], made[30.0]).rate <= 0.005
    assert word_errors(text, made[30.0]).rate <= 0.02


_TRANSCRIBE = """
import json, resource, sys
from firstwords.inference.recognizer import Recognizer
recognizer = Recognizer.load(sys.argv[1], device="cpu")
recognizer.transcribe(sys.argv[2])  # everything is imported and warm
unit = 1 if sys.platform == "darwin" else 1024
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
made = recognizer.transcribe(sys.argv[3])
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
print(json.dumps({"grown": after - before, "peak": after, "made": made.to_record()}))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="resource.getrusage is not there")
def test_an_hour_takes_the_memory_of_two_minutes(model: Path, tmp_path: Path) -> None:
    """The same minute again and again: the same words at the same second of every minute."""
    generator = np.random.default_rng(6)
    minute = np.concatenate([sing(random_text(generator, 90), generator), np.zeros(60 * RATE)])[: 60 * RATE]
    minute[-RATE // 2 :] = 0  # a pause between the minutes
    minute += 1e-3 * generator.standard_normal(len(minute))
    for name, minutes in (("short.flac", 2), ("long.flac", 60)):
        with soundfile.SoundFile(tmp_path / name, "w", RATE, 1, "PCM_16") as file:
            for _ in range(minutes):
                file.write(minute)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            _TRANSCRIBE,
            str(model),
            str(tmp_path / "short.flac"),
            str(tmp_path / "long.flac"),
        ],
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
    )
    report = json.loads(done.stdout)
    assert report["grown"] < 40e6
    made = Transcript.from_record(report["made"])
    assert made.duration == 3600
    by_minute: dict[int, list[tuple[str, float]]] = {}
    for word in made.words:
        by_minute.setdefault(int(word.start // 60), []).append((word.word, word.start % 60))
    assert sorted(by_minute) == list(range(60))
    first = by_minute[0]
    assert len(first) > 60
    for words in by_minute.values():
        assert [word for word, _ in words] == [word for word, _ in first]
        # A minute is a whole number of frames of 40 ms, and windows start on frames.
        np.testing.assert_allclose([at for _, at in words], [at for _, at in first], atol=0.041)
