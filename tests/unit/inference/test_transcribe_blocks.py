"""Long recordings: windows, silence and joining, with a recogniser that reads tones by their frequency."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from test_formats import Letters

from firstwords.audio.windows import Window, WindowConfig
from firstwords.inference.longform import in_groups, is_silent, transcribe_blocks
from firstwords.inference.transcript import Token, build_transcript
from tone_corpus import RATE, TONES, random_text, sing

TOKENIZER = Letters("".join(TONES))
FRAME = 160


def read_tones(samples: np.ndarray) -> list[Token]:
    """What a perfect recogniser would say: runs of loud frames, named by the nearest tone."""
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    loud = np.flatnonzero(np.diff(np.r_[0, np.sqrt(np.mean(frames**2, axis=1)) > 0.03, 0]))
    tokens: list[Token] = []
    end = -1.0
    for first, last in loud.reshape(-1, 2):
        piece = samples[first * FRAME : last * FRAME]
        spectrum = np.abs(np.fft.rfft(piece * np.hanning(len(piece)), 8192))
        pitch = spectrum.argmax() * RATE / 8192
        letter = min(TONES, key=lambda name: abs(TONES[name] - pitch))
        start = first * FRAME / RATE
        if end >= 0 and start - end > 0.12:
            tokens.append(Token(1, start - 0.05, start - 0.01, 1.0))
        end = last * FRAME / RATE
        tokens.append(Token(TOKENIZER.pieces.index(letter), start, end, 1.0))
    return tokens


def decode(batch: Sequence[np.ndarray]) -> list[list[Token]]:
    return [read_tones(samples) for samples in batch]


def text_of(samples: np.ndarray, seconds: float, block: int = 16_000, together: float = 0.0) -> str:
    blocks = [samples[at : at + block] for at in range(0, len(samples), block)]
    tokens, duration = transcribe_blocks(
        blocks, RATE, decode, WindowConfig(seconds=seconds), together=together
    )
    assert duration == pytest.approx(len(samples) / RATE)
    made = build_transcript(tokens, TOKENIZER, language="und", duration=duration, audio="")
    assert all(a.end <= b.start for a, b in zip(made.words, made.words[1:], strict=False))
    return made.text


@pytest.mark.parametrize("seed", range(4))
def test_no_word_is_lost_or_doubled_whatever_the_window(seed: int) -> None:
    generator = np.random.default_rng(seed)
    text = random_text(generator, 240)
    samples = sing(text, generator)
    assert len(samples) / RATE > 120
    assert text_of(samples, 1000.0) == text
    for seconds in (12.0, 20.0, 30.0):
        assert text_of(samples, seconds) == text
    assert text_of(samples, 20.0, block=3333, together=60.0) == text


def test_long_pauses_between_words() -> None:
    """Cuts then lie far from any word, and the windows agree in nothing."""
    generator = np.random.default_rng(9)
    words = [random_text(generator, 1) for _ in range(25)]
    gaps = [np.zeros(int(RATE * generator.uniform(1.0, 9.0)), np.float32) for _ in words]
    samples = np.concatenate(
        [part for word, gap in zip(words, gaps, strict=True) for part in (sing(word, generator), gap)]
    )
    samples += 1e-3 * generator.standard_normal(len(samples)).astype(np.float32)
    for seconds in (12.0, 20.0, 30.0):
        assert text_of(samples, seconds) == " ".join(words)


def test_stretches_between_pauses_are_decoded_each_by_itself_and_once() -> None:
    """So a model trained on short utterances hears such, and the length of windows does not matter."""
    generator = np.random.default_rng(4)
    texts = [random_text(generator, 3) for _ in range(30)]
    pause = np.zeros(int(1.5 * RATE), np.float32)
    samples = np.concatenate([part for text in texts for part in (sing(text, generator), pause)])
    samples += 1e-3 * generator.standard_normal(len(samples)).astype(np.float32)
    heard: dict[float, list[str]] = {}
    for seconds in (20.0, 30.0):
        own = heard.setdefault(seconds, [])

        def recording(batch: Sequence[np.ndarray], own: list[str] = own) -> list[list[Token]]:
            found = decode(batch)
            own += [TOKENIZER.decode([token.id for token in tokens]) for tokens in found]
            return found

        blocks = [samples[at : at + 16_000] for at in range(0, len(samples), 16_000)]
        transcribe_blocks(blocks, RATE, recording, WindowConfig(seconds=seconds), grid=640)
    assert heard[20.0] == heard[30.0] == texts


def test_windows_without_speech_are_not_decoded() -> None:
    calls: list[int] = []

    def counting(batch: Sequence[np.ndarray]) -> list[list[Token]]:
        calls.append(len(batch))
        return decode(batch)

    generator = np.random.default_rng(3)
    hiss = 1e-3 * generator.standard_normal(RATE * 300).astype(np.float32)
    tokens, duration = transcribe_blocks([hiss], RATE, counting, WindowConfig())
    assert (tokens, duration, calls) == ([], 300.0, [])
    transcribe_blocks([hiss[: RATE * 5]], RATE, counting, WindowConfig())
    assert calls == [1]  # short recordings are always left to the model
    transcribe_blocks([np.zeros(RATE * 5, np.float32)], RATE, counting, WindowConfig())
    assert calls == [1]
    assert transcribe_blocks([], RATE, counting, WindowConfig()) == ([], 0.0)


def test_progress_and_groups() -> None:
    seen: list[float] = []
    samples = sing(random_text(np.random.default_rng(1), 100), np.random.default_rng(1))
    transcribe_blocks([samples], RATE, decode, WindowConfig(seconds=12.0), progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(len(samples) / RATE)
    sizes = [5, 5, 5, 20, 1, *[0] * 40, 3]
    windows = [Window(0, n, 0, n, np.zeros(n, np.float32), False) for n in sizes]
    groups = [[len(w.samples) for w in group] for group in in_groups(windows, 10)]
    assert groups[:3] == [[5, 5], [5], [20]]  # one that is too large is alone
    assert [n for group in groups for n in group] == sizes
    assert [group.count(0) for group in groups[3:]] == [16, 16, 8]
    assert is_silent(np.zeros(3, np.float32))
    assert is_silent(np.zeros(0, np.float32))
    assert not is_silent(np.float32([0, 0.1]))
