"""What a recogniser hands out: text, segments, words, all with times in seconds and confidences.

    Transcript  the whole recording
      Segment   a stretch between pauses, as long as a subtitle or a line in ELAN
        Word    the tokens between two spaces
      Formatted the same segments after the stages of formatting/, where there are any

Languages written without spaces give one word per stretch between pauses. Confidences are mean posteriors of
the tokens: CTC is overconfident, so compare them, do not read them as probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby, pairwise
from typing import Any

from firstwords.formatting.stage import Change, Formatter, Word
from firstwords.search.hypothesis import Hypothesis
from firstwords.text.pieces import SPACE, legible
from firstwords.text.tokenizer import Tokenizer

_SEGMENT_GAP = 0.6  # seconds without a word that end a segment
_WORD_GAP = 1.0  # seconds without a token that end a word even where no space was read
_LONGEST_SEGMENT = 12.0  # seconds; longer ones are parted at their widest gap
_CUT = (
    "words may be missing behind {:.1f} s: the attention decoder can write no more at once "
    "(heads.attention.most_tokens). Shorter windows help: --window"
)
_SHORTEST_WORD = 0.02  # seconds; a token lasts at least a frame, but neighbours may squeeze it


@dataclass(frozen=True, slots=True)
class Token:
    """One piece of the vocabulary in the recording; ten hours hold half a million of them."""

    id: int
    start: float
    end: float
    confidence: float
    breaks: bool = False  # a new word begins here although no space says so
    cut: bool = False  # the decoder could write no more behind it


def timed_tokens(reading: Hypothesis, duration: float) -> list[Token]:
    """A reading of so many seconds -> its tokens; what begins behind the end is padding."""
    count = len(reading.tokens)
    times = reading.times or (0.0,) * count
    ends = reading.ends or times
    sure = reading.confidences or (0.0,) * count
    tokens = [
        Token(*facts) for facts in zip(reading.tokens, times, ends, sure, strict=True) if facts[1] < duration
    ]
    if reading.cut and len(tokens) == count:
        tokens[-1] = replace(tokens[-1], cut=True)
    return tokens


@dataclass(frozen=True)
class Segment:
    """Words between two pauses."""

    start: float
    end: float
    text: str
    words: tuple[Word, ...]
    confidence: float


@dataclass(frozen=True)
class Formatted:
    """The segments as the stages of formatting write them, and what each stage changed."""

    text: str
    segments: tuple[Segment, ...]
    stages: tuple[str, ...]
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Transcript:
    """What was said in one recording.

    Args:
        language: BCP 47, as the model's recipe states it.
        duration: seconds of the recording.
        audio: its path, or "" for samples given directly.
        repairs: what had to be mended to read it and where words may be missing, in words.
        formatted: what is shown in place of text and segments, which stay what was recognised.
    """

    text: str
    segments: tuple[Segment, ...]
    language: str
    duration: float
    audio: str
    repairs: tuple[str, ...] = ()
    formatted: Formatted | None = None

    @property
    def shown(self) -> Transcript:
        """The transcript as people shall read it: of the formatted text where there is one."""
        if self.formatted is None:
            return self
        return replace(self, text=self.formatted.text, segments=self.formatted.segments, formatted=None)

    @property
    def words(self) -> tuple[Word, ...]:
        return tuple(word for segment in self.segments for word in segment.words)

    def to_record(self) -> dict[str, Any]:
        """Transcript -> plain values for JSON."""
        record = {"format": 1, **asdict(self)}
        if self.formatted is None:
            del record["formatted"]
        return record

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Transcript:
        """What ``to_record`` gave -> the Transcript."""
        repairs = tuple(record.get("repairs", ()))
        known = record.get("formatted")
        formatted = None if known is None else _formatted_from(known)
        return cls(
            record["text"],
            _segments_from(record),
            record["language"],
            record["duration"],
            record["audio"],
            repairs,
            formatted,
        )


def _segments_from(record: dict[str, Any]) -> tuple[Segment, ...]:
    return tuple(
        Segment(s["start"], s["end"], s["text"], tuple(Word(**w) for w in s["words"]), s["confidence"])
        for s in record["segments"]
    )


def _formatted_from(record: dict[str, Any]) -> Formatted:
    changes = tuple(Change(**change) for change in record["changes"])
    return Formatted(record["text"], _segments_from(record), tuple(record["stages"]), changes)


def format_transcript(transcript: Transcript, formatter: Formatter) -> Transcript:
    """A transcript -> the same with its formatted text; segments stay as many, and their times."""
    segments, changes = formatter.format([segment.words for segment in transcript.segments])
    made = tuple(_segment(words) for words in segments)
    formatted = Formatted(" ".join(segment.text for segment in made), made, formatter.names, tuple(changes))
    return replace(transcript, formatted=formatted)


def tokens_of(found: Sequence[Sequence[Hypothesis]], durations: Sequence[float]) -> list[list[Token]]:
    """Readings of stretches, best first (or none), and their seconds -> the tokens of the best of each."""
    return [
        timed_tokens(readings[0], duration) if readings else []
        for readings, duration in zip(found, durations, strict=True)
    ]


def build_transcript(
    tokens: Sequence[Token],
    tokenizer: Tokenizer,
    *,
    language: str,
    duration: float,
    audio: str,
    repairs: tuple[str, ...] = (),
) -> Transcript:
    """Tokens in order of time -> Transcript. Its text is its words with single spaces between them."""
    words = _words(tokens, tokenizer, duration)
    repairs = (*repairs, *(_CUT.format(token.end) for token in tokens if token.cut))
    segments = tuple(_segment(part) for part in _parts(words))
    return Transcript(
        " ".join(word.word for word in words), segments, language, round(duration, 3), audio, repairs
    )


def _words(tokens: Sequence[Token], tokenizer: Tokenizer, duration: float) -> list[Word]:
    numbers: list[int] = []
    number, end = 0, 0.0
    for token in tokens:
        number += (
            token.breaks or tokenizer.pieces[token.id].startswith(SPACE) or token.start - end > _WORD_GAP
        )
        numbers.append(number)
        end = token.end
    words: list[Word] = []
    at = 0.0
    for _, group in groupby(zip(numbers, tokens, strict=True), key=lambda pair: pair[0]):
        all_of = [token for _, token in group]
        heard = [token for token in all_of if tokenizer.pieces[token.id] != SPACE]
        text = legible(tokenizer.decode([token.id for token in all_of])).strip()
        if not text or not heard:
            continue
        # Two windows may differ by a frame about the words at a cut: times never go back.
        start = max(heard[0].start, at)
        end = max(min(heard[-1].end, duration), start + _SHORTEST_WORD)
        at = end
        sure = sum(token.confidence for token in heard) / len(heard)
        words.append(Word(" ".join(text.split()), round(start, 3), round(end, 3), round(sure, 4)))
    return words


def _parts(words: Sequence[Word]) -> list[list[Word]]:
    """Words -> segments: parted at pauses, and too long ones at their widest gap again and again."""
    parts: list[list[Word]] = []
    for word in words:
        if parts and word.start - parts[-1][-1].end <= _SEGMENT_GAP:
            parts[-1].append(word)
        else:
            parts.append([word])
    return [piece for part in parts for piece in _shortened(part)]


def _shortened(part: list[Word]) -> list[list[Word]]:
    if len(part) < 2 or part[-1].end - part[0].start <= _LONGEST_SEGMENT:
        return [part]
    middle = (part[0].start + part[-1].end) / 2
    # The widest gap; of gaps about as wide the one nearest to the middle.
    gaps = [
        (after.start - before.end) - 0.02 * abs((after.start + before.end) / 2 - middle)
        for before, after in pairwise(part)
    ]
    cut = gaps.index(max(gaps)) + 1
    return _shortened(part[:cut]) + _shortened(part[cut:])


def _segment(words: Sequence[Word]) -> Segment:
    sure = sum(word.confidence for word in words) / len(words)
    text = " ".join(word.word for word in words)
    return Segment(words[0].start, words[-1].end, text, tuple(words), round(sure, 4))
