"""The edge runtime on bundles that read tones (tone_bundle.py): what is said is known."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import pytest

from firstwords.audio.waveform import probe, resample, write
from firstwords.data.manifest import Utterance
from firstwords.errors import AudioError, SearchError, UsageError
from firstwords.export import runtime_graphs
from firstwords.export.bundle import BUNDLE
from firstwords.export.runtime import Runtime
from firstwords.inference.endpointing import EndpointConfig
from firstwords.inference.transcript import Transcript
from tone_bundle import make_tone_bundle
from tone_corpus import RATE, random_text, sing

KINDS = [("ctc", False), ("ctc", True), ("transducer", False), ("transducer", True)]


@pytest.fixture(scope="module", params=KINDS, ids=lambda k: f"{'streaming ' if k[1] else ''}{k[0]}")
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind, streaming = request.param
    return make_tone_bundle(tmp_path_factory.mktemp("bundle") / "b", kind, streaming=streaming)


@pytest.fixture(scope="module")
def runtime(bundle: Path) -> Runtime:
    return Runtime.load(bundle)


def said(runtime: Runtime, text: str) -> str:
    """What a bundle reads: letters alone, and a transducer no letter twice."""
    letters = text.replace(" ", "")
    return letters if runtime.facts.kind == "ctc" else "".join(letter for letter, _ in groupby(letters))


def heard(text: str) -> str:
    return text.replace(" ", "")


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_samples_of_any_rate(runtime: Runtime, rate: int) -> None:
    text = "aei iou uoea"
    samples = resample(sing(text, np.random.default_rng(0)), RATE, rate)
    transcript = runtime.transcribe(samples, rate)
    assert heard(transcript.text) == said(runtime, text)
    assert transcript.duration == pytest.approx(len(samples) / rate, abs=1e-3)


def test_long_recordings_in_windows(runtime: Runtime, bundle: Path) -> None:
    generator = np.random.default_rng(5)
    text = random_text(generator, 120)
    samples = sing(text, generator)
    assert len(samples) / RATE > 60
    transcript = runtime.transcribe(samples, RATE)
    assert heard(transcript.text) == said(runtime, text)
    assert heard(Runtime.load(bundle, threads=2).transcribe(samples, RATE, window=12.0).text) == said(
        runtime, text
    )
    words = transcript.words
    assert all(0 <= w.start < w.end <= transcript.duration for w in words)
    assert all(a.end <= b.start for a, b in pairwise(words))
    assert all(0 < w.confidence <= 1 for w in words)


def test_times_are_where_the_tones_are(runtime: Runtime) -> None:
    """A second of silence parts words; each begins where its first tone does, but for a frame or two."""
    generator = np.random.default_rng(2)
    quiet = 0.002 * generator.standard_normal(3 * RATE // 2).astype(np.float32)
    parts = [sing("ai", generator), quiet, sing("eo", generator), quiet, sing("ua", generator)]
    starts = [0.1, *((np.cumsum([len(p) for p in parts])[[1, 3]]) / RATE + 0.1)]
    words = runtime.transcribe(np.concatenate(parts), RATE).words
    assert [w.word for w in words] == ["ai", "eo", "ua"]
    late = 0.04 if runtime.facts.streaming else 0.0  # the streaming graphs hand on frames one late
    for word, start in zip(words, starts, strict=True):
        assert word.start == pytest.approx(start + late, abs=0.08)


def test_files_are_as_their_samples_and_in_order(runtime: Runtime, tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    texts = ["aei", "ou", "iou aei", "uu oo ee", "a"]
    paths = [tmp_path / f"{i}{suffix}" for i, suffix in enumerate((".wav", ".flac", ".ogg", ".wav", ".mp3"))]
    for path, text in zip(paths, texts, strict=True):
        write(path, sing(text, generator, 22050), 22050)
    found = list(runtime.transcribe_many(paths))
    assert [heard(t.text) for t in found] == [said(runtime, text) for text in texts]
    assert [t.audio for t in found] == [str(p) for p in paths]
    assert runtime.transcribe(paths[2]).text == found[2].text


def test_the_channel_that_the_model_was_trained_on_is_read(bundle: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(4)
    left, right = sing("aei iou", generator), sing("uoe", generator)
    right = np.concatenate([right, np.zeros(len(left) - len(right), np.float32)])
    recording = tmp_path / "interview.wav"
    write(recording, np.stack([left, right], axis=1), RATE)
    facts = json.loads((bundle / BUNDLE).read_text(encoding="utf-8"))
    assert Runtime.load(bundle).facts.channels == "mix"  # as bundles of before have it
    copy = tmp_path / "second"
    shutil.copytree(bundle, copy)
    (copy / BUNDLE).write_text(json.dumps(facts | {"channels": 1}), encoding="utf-8")
    second = Runtime.load(copy)
    expected = said(second, "uoe")
    assert heard(second.transcribe(recording).text) == expected
    assert [heard(t.text) for t in second.transcribe_many([recording])] == [expected]
    (copy / BUNDLE).write_text(json.dumps(facts | {"channels": 2}), encoding="utf-8")
    with pytest.raises(AudioError, match="no channel 2: it has 2"):
        Runtime.load(copy).transcribe(recording)


def test_one_that_cannot_be_computed_leaves_the_others(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(3)
    paths = [tmp_path / f"{i}.wav" for i in range(3)]
    for path, text in zip(paths, ("aei", "ouoa", "a"), strict=True):
        write(path, sing(text, generator), RATE)
    long, encode = max(probe(path).duration for path in paths), runtime._encode

    def broken(batch: Sequence[np.ndarray], threads: int) -> list[np.ndarray]:
        if any(len(one) / RATE == long for one in batch):
            raise SearchError("It has no numbers.", mend="None.")
        return encode(batch, threads)

    monkeypatch.setattr(runtime, "_encode", broken)
    found = list(
        runtime.attempt_many(Utterance(id=str(p), audio=p, duration=probe(p).duration) for p in paths)
    )
    assert isinstance(found[1], SearchError)
    assert [heard(t.text) for t in found if isinstance(t, Transcript)] == ["aei", "a"]


def test_graphs_for_several_threads_are_made_when_a_batch_of_a_large_model_is_alone(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Runtime.load(bundle, threads=2)
    small._decode([sing("aei", np.random.default_rng(0))])
    assert {threads for _, threads in small._graphs._engines} == {1}
    monkeypatch.setattr(runtime_graphs, "WORTH_THREADS", 0)
    several = Runtime.load(bundle, threads=2)
    made = several._graphs._engines
    assert {threads for _, threads in made} == {1}
    several._decode([sing("aei", np.random.default_rng(0)), sing("ou", np.random.default_rng(1))])
    assert {threads for _, threads in made} == {1}
    several._decode([sing("aei", np.random.default_rng(0))])
    assert {part for part, threads in made if threads == 2} == {several._graphs.main}


def test_numbers_of_the_host_stay_what_they_were(runtime: Runtime) -> None:
    said(runtime, "a")
    least = np.array([5e-324, 1e-310])
    assert (least + 0.0 != 0).all(), "onnxruntime made this process flush small numbers to zero"


def test_nothing_said_is_no_text(runtime: Runtime) -> None:
    for count in (0, 1, 399, 4000, 16000, 40 * RATE):
        assert runtime.transcribe(np.zeros(count, np.float32), RATE).text == ""


def test_wrong_samples_are_refused(runtime: Runtime, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one channel"):
        runtime.transcribe(np.zeros((100, 2), np.float32), RATE)
    with pytest.raises(UsageError, match="int16"):
        runtime.transcribe(np.zeros(100, np.int16), RATE)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="NaN"):
        runtime.transcribe(np.full(100, np.nan, np.float32), RATE)
    with pytest.raises(AudioError, match="nowhere"):
        runtime.transcribe(tmp_path / "nowhere.wav")
    with pytest.raises(UsageError, match="0 threads"):
        Runtime(runtime.bundle, threads=0)


@pytest.mark.parametrize("block", [160, 1111, 16000])
def test_streams(runtime: Runtime, block: int) -> None:
    if not runtime.facts.streaming:
        with pytest.raises(SearchError, match="cannot stream"):
            runtime.stream()
        return
    generator = np.random.default_rng(7)
    text = random_text(generator, 9)
    samples = sing(text, generator)
    stream = runtime.stream()
    shown: list[str] = []
    for at in range(0, len(samples), block):
        stream.accept(samples[at : at + block], RATE)
        shown.append(heard(stream.text))
    stream.finish()
    assert heard(stream.text) == said(runtime, text)
    assert heard("".join(word.word for word in stream.words)) == said(runtime, text)
    assert all(later.startswith(before) for before, later in pairwise([*shown, heard(stream.text)]))
    assert stream.finish() == []
    with pytest.raises(UsageError, match="16000 Hz"):
        stream.accept(samples[:10], 8000)


def test_a_letter_said_at_the_very_end_is_read_as_a_stream_reads_it(runtime: Runtime) -> None:
    """The streaming graphs hand frames on one late: its letter begins behind the end of the sound."""
    if not runtime.facts.streaming:
        return
    samples = sing("ai", np.random.default_rng(4))
    (whole,) = runtime.transcribe(samples, RATE).words
    for count in range(round((whole.start + 0.1) * RATE), round(whole.end * RATE), 160):
        heard_whole = runtime.transcribe(samples[:count], RATE)
        stream = runtime.stream()
        stream.accept(samples[:count], RATE)
        stream.finish()
        assert heard_whole.text == stream.text
        assert all(word.start < word.end <= count / RATE for word in heard_whole.words)


def test_streams_end_utterances_at_pauses(runtime: Runtime) -> None:
    if not runtime.facts.streaming:
        return
    generator = np.random.default_rng(7)
    quiet = np.zeros(2 * RATE, np.float32)
    samples = np.concatenate([sing("aei", generator), quiet, sing("uoa", generator), quiet])
    listener = runtime.listener(endpoints=EndpointConfig(trailing_silence=0.6), partials=False)
    events = [e for at in range(0, len(samples), 800) for e in listener.accept(samples[at : at + 800])]
    events += listener.finish()
    assert [heard(e.text) for e in events if e.text] == ["aei", "uoa"]


def test_feature_frames_of_pieces_are_those_of_the_whole(runtime: Runtime) -> None:
    """What a stream feeds its graph equals features.onnx on the whole, but for the reflected edges."""
    if not runtime.facts.streaming:
        return
    from firstwords.export.runtime_stream import BundleEncoding

    samples = sing("aeiou aeiou", np.random.default_rng(1))
    encoding = BundleEncoding(runtime._graphs, runtime.facts)
    pieces: list[np.ndarray] = []
    make = encoding._new_frames

    def noted(ready: int) -> np.ndarray:
        frames = make(ready)
        pieces.append(frames)
        return frames

    encoding._new_frames = noted  # type: ignore[method-assign]
    for at in range(0, len(samples), 777):
        encoding.push(samples[at : at + 777])
    (whole, _) = runtime._graphs.engine("features")(samples[None], np.array([len(samples)]))
    joined = np.concatenate(pieces)
    assert len(joined) >= len(samples) // 160 - 2
    np.testing.assert_allclose(joined, whole[0, : len(joined)], atol=1e-4)


def test_a_transducer_takes_no_beam(runtime: Runtime) -> None:
    if runtime.facts.kind == "ctc":
        if runtime.facts.streaming:  # the first frame of these graphs is no distribution
            return
        runtime.use(beam=4)
        assert heard(runtime.transcribe(sing("aeiou", np.random.default_rng(0)), RATE).text) == "aeiou"
        runtime.use()
        return
    with pytest.raises(SearchError, match="greedily"):
        runtime.use(beam=2)
