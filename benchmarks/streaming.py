"""What does streaming cost? Error rates by chunk against the full pass, and how late words come.

    python benchmarks/streaming.py MODEL CORPUS [--split test] [--chunks 320,640,1280] [--left-ms 5120]
                                   [--search KIND] [--limit UTTERANCES]

Every utterance is streamed by itself in blocks of 20 ms, with a second of silence behind it. Latencies count
from the ends of words in the reference text, aligned in a full pass, which sees what comes later; only
utterances whose words were all read right are timed, and only of models with a CTC head. Computing time is
this machine's, now.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from firstwords.audio.waveform import read
from firstwords.data.manifest import Utterance, load_corpus
from firstwords.device import machine_name, set_threads
from firstwords.errors import SearchError, UsageError
from firstwords.inference.events import Event, Final
from firstwords.inference.fused import SearchHelp, add_help
from firstwords.inference.latency import Spread
from firstwords.inference.recognizer import Recognizer
from firstwords.scoring.error_rate import ErrorRate, grapheme_errors, word_errors
from firstwords.text.normalize import normalizer


@dataclass
class Measured:
    """One way of reading the corpus; times in seconds."""

    words: ErrorRate = field(default_factory=ErrorRate)
    graphemes: ErrorRate = field(default_factory=ErrorRate)
    computing: list[float] = field(default_factory=list)  # per chunk, the median of each utterance
    shown: list[float] = field(default_factory=list)  # from the end of a word to its first appearance
    final: list[float] = field(default_factory=list)
    processing: float = 0.0
    audio: float = 0.0

    def score(self, reference: str, text: str) -> None:
        self.words += word_errors(reference, text)
        self.graphemes += grapheme_errors(reference, text)


def stream(
    recognizer: Recognizer, samples: np.ndarray, chunk_ms: float, left_ms: float | None, into: Measured
) -> list[Event]:
    """Samples in blocks of 20 ms -> the events; computing times are added."""
    rate = recognizer.sample_rate
    listener = recognizer.listener(chunk_ms=chunk_ms, left_ms=left_ms)
    sound = np.concatenate([samples, np.zeros(rate, np.float32)])
    events: list[Event] = []
    step = rate // 50
    for at in range(0, len(sound), step):
        events += listener.accept(sound[at : at + step])
    events += listener.finish()
    report = listener.latency
    into.processing += report.processing
    into.audio += report.audio
    if report.per_chunk is not None:
        into.computing.append(report.per_chunk.median)
    return events


def word_ends(recognizer: Recognizer, utterance: Utterance) -> list[tuple[str, float]]:
    """The reference's words and their ends, from a full pass; none where it cannot be aligned."""
    try:
        aligned = recognizer.align(
            utterance.audio, utterance.text or "", start=utterance.start, duration=utterance.duration
        )
    except (SearchError, UsageError):  # more letters than frames, or no CTC head
        return []
    return [(word.word, word.end) for word in aligned.words]


def time_words(events: Sequence[Event], said: Sequence[tuple[str, float]], into: Measured) -> None:
    """Add the latency of each word; ``said``: the words, all of them read in the end, and their ends."""
    before = 0  # words of the utterances that are over
    appeared: dict[int, float] = {}
    for event in events:
        words = event.text.split()
        for number, word in enumerate(words, start=before):
            if number < len(said) and word == said[number][0]:
                appeared.setdefault(number, event.heard)
        if isinstance(event, Final):
            for number in range(before, before + len(words)):
                into.shown.append(appeared[number] - said[number][1])
                into.final.append(event.heard - said[number][1])
            before += len(words)


def told(values: Sequence[float]) -> str:
    spread = Spread.of(values)
    return "-" if spread is None else f"{1000 * spread.median:.0f} / {1000 * spread.high:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--chunks", default="320,640,1280")
    parser.add_argument("--left-ms", type=float)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--search", help="kind of search, both in the full pass and in streams; the recipe's")
    options = parser.parse_args()
    set_threads()
    recognizer = Recognizer.load(options.model, device="cpu", precision="fp32")
    for line in add_help(recognizer, SearchHelp(search=options.search), stream=True):
        print(line)
    clean = normalizer(recognizer.recipe.text.scoring)
    chunks = [float(number) for number in options.chunks.split(",")]
    utterances: list[Utterance] = [u for u in load_corpus(options.corpus).split(options.split) if u.text]
    utterances = utterances[: options.limit]
    full, streamed = Measured(), {chunk: Measured() for chunk in chunks}
    for utterance, made in zip(utterances, recognizer.transcribe_many(utterances), strict=True):
        reference = clean(utterance.text or "")
        full.score(reference, clean(made.text))
        sound = read(
            utterance.audio,
            sample_rate=recognizer.sample_rate,
            start=utterance.start,
            duration=utterance.duration,
        )
        ends = word_ends(recognizer, utterance)
        for chunk, measured in streamed.items():
            events = stream(recognizer, sound.samples, chunk, options.left_ms, measured)
            heard = [word for event in events if isinstance(event, Final) for word in event.text.split()]
            measured.score(reference, clean(" ".join(heard)))
            if heard == [word for word, _ in ends]:
                time_words(events, ends, measured)
    print(machine_name())
    print(f"{options.split}: {len(utterances)} utterances, {full.words.reference_length} words")
    print("chunk      WER      CER   RTF    chunk ms   word to partial ms   to final ms   words timed")
    print(f"full   {100 * full.words.rate:5.1f} %  {100 * full.graphemes.rate:5.1f} %")
    for chunk, m in streamed.items():
        share = m.processing / m.audio if m.audio else 0.0
        print(
            f"{chunk:<7g}{100 * m.words.rate:5.1f} %  {100 * m.graphemes.rate:5.1f} %  {share:.3f}"
            f"  {told(m.computing):>9}   {told(m.shown):>18}   {told(m.final):>11}   {len(m.shown)}"
        )
    print("(times: median / 95th percentile; words: seconds of sound alone, without computing)")


if __name__ == "__main__":
    main()
