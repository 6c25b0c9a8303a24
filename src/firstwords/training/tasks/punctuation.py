"""Marks and capitals learned from formatted text: the Task, and its batches as a pure function of (seed, n).

    train lines   one after the other, as running text; batch n draws windows of some words from them
    dev lines     a twentieth of the lines, chosen by what they say: equal lines are on one side

Windows begin and end in the middle of sentences as often as not: a recogniser's words do, and a model of
whole sentences would learn that text ends with a full stop.
"""

from __future__ import annotations

import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from firstwords.errors import TextError
from firstwords.formatting.punctuation_model import Punctuator
from firstwords.formatting.punctuation_text import (
    CASES,
    Labelled,
    Tally,
    common_forms,
    feature,
    in_windows,
    known_marks,
    labelled,
)
from firstwords.text.normalize import Normalizer
from firstwords.training.tasks.task import Advice, Loss, Task, Validation

_DEV_SHARE = 20  # one line in so many is held out
_WHOLE_LINES = 0.5  # share of windows that begin at a line, and of those that end at one
_SHORTEST, _LONGEST = 8, 96  # words of a window
_DEV_WINDOW, _DEV_MARGIN = 256, 32
_DEV_WORDS = 50_000  # at most, while training
_DRAWS = 11  # number of this use of random numbers (training/session.py uses 5)


class Window(NamedTuple):
    """Words in a row: as the model sees them, the mark behind each and its case, as numbers."""

    id: str
    words: tuple[str, ...]
    marks: tuple[int, ...]
    cases: tuple[int, ...]


Windows = tuple[Window, ...]


@dataclass(frozen=True)
class PunctuationText:
    """Formatted text, read: one entry a word; ``starts`` are the words where lines begin, and the end."""

    words: Sequence[str]
    marks: Sequence[int]
    cases: Sequence[int]
    starts: Sequence[int]

    def window(self, first: int, last: int) -> Window:
        """Words ``first`` to before ``last``."""
        part = slice(first, last)
        return Window(
            f"words {first + 1} to {last}",
            tuple(self.words[part]),
            tuple(self.marks[part]),
            tuple(self.cases[part]),
        )

    def in_order(self, most: int | None = None) -> list[Window]:
        """All words, or the first ``most``, in windows that do not overlap."""
        count = len(self.words) if most is None else min(most, len(self.words))
        return [self.window(at, min(count, at + _DEV_WINDOW)) for at in range(0, count, _DEV_WINDOW)]


@dataclass(frozen=True)
class TaughtText:
    """What a text teaches: both sides of it, the marks, forms of words with capitals inside."""

    train: PunctuationText
    dev: PunctuationText
    marks: tuple[str, ...]
    forms: Mapping[str, str]
    lines: int
    empty: int  # lines without a word


def read_taught(
    lines: Iterable[tuple[str, int]],
    normalize: Normalizer,
    *,
    progress: Callable[[int], None] | None = None,
) -> TaughtText:
    """Lines of formatted text and their sizes in bytes -> what they teach.

    The marks are those that stand often enough in the lines to train on.

    Args:
        progress: told the bytes of each line.
    """
    found, empty = _read(lines, normalize, progress)
    sides: tuple[list[list[Labelled]], list[list[Labelled]]] = ([], [])
    for words in found:
        held = zlib.crc32(" ".join(w.word for w in words).encode("utf-8", "replace")) % _DEV_SHARE == 0
        sides[held].append(words)
    train, dev = sides
    if train and not dev:  # a short text: its last lines that stand nowhere else
        last = train[-1]
        dev = [line for line in train if line == last]
        train = [line for line in train if line != last]
    if not train or not dev:
        raise TextError(
            f"There is too little text to learn marks from: {len(train) + len(dev)} lines with words, "
            f"{empty} without.",
            mend="Give text with capitals and punctuation, at least some hundred lines, one sentence a line.",
        )
    counts = Counter(word.mark for line in train for word in line)
    chosen = known_marks(counts)
    if not chosen and not any(word.case for line in train for word in line):
        raise TextError(
            "The text has neither capitals nor marks that stand often enough: there is nothing to learn.",
            mend="Give text as people write it, not the transcripts after a normalizer.",
        )
    forms = common_forms(word for line in train for word in line)
    return TaughtText(
        _numbered(train, chosen, normalize),
        _numbered(dev, chosen, normalize),
        chosen,
        forms,
        len(train) + len(dev),
        empty,
    )


def read_measured(
    lines: Iterable[tuple[str, int]],
    normalize: Normalizer,
    marks: tuple[str, ...],
    *,
    progress: Callable[[int], None] | None = None,
) -> PunctuationText:
    """Lines of formatted text -> all of their words; of marks, those named."""
    found, empty = _read(lines, normalize, progress)
    if not found:
        raise TextError(f"There is no text to measure with ({empty} lines without words).", mend="Give some.")
    return _numbered(found, marks, normalize)


def _read(
    lines: Iterable[tuple[str, int]], normalize: Normalizer, progress: Callable[[int], None] | None
) -> tuple[list[list[Labelled]], int]:
    """Lines -> those with words, and how many have none."""
    remembered = lru_cache(maxsize=1 << 16)(normalize)
    found: list[list[Labelled]] = []
    empty = 0
    for line, size in lines:
        if progress is not None:
            progress(size)
        words = labelled(line, remembered)
        if words:
            found.append(words)
        else:
            empty += 1
    return found, empty


def _numbered(
    lines: Sequence[Sequence[Labelled]], marks: Sequence[str], normalize: Normalizer
) -> PunctuationText:
    number = {"": 0} | {mark: place for place, mark in enumerate(marks, start=1)}
    known: dict[str, str] = {}
    starts = [0]
    words: list[str] = []
    for line in lines:
        for word in line:
            words.append(known.setdefault(word.word, feature(word.word, normalize)))
        starts.append(len(words))
    every = [word for line in lines for word in line]
    return PunctuationText(words, [number.get(w.mark, 0) for w in every], [w.case for w in every], starts)


class PunctuationLoader:
    """Batch n is a function of (seed, n): windows drawn from running text."""

    def __init__(self, text: PunctuationText, *, seed: int, rows: int) -> None:
        self.text, self.seed, self.rows = text, seed, rows
        self.waited = 0.0
        self.skipped: dict[str, str] = {}
        self.repaired: dict[str, str] = {}

    @property
    def batches_in_epoch(self) -> float:
        """Batches that hold as many words as the text."""
        mean = (_SHORTEST + min(_LONGEST, max(_SHORTEST, len(self.text.words)))) / 2
        return max(1.0, len(self.text.words) / (self.rows * mean))

    def batch(self, number: int) -> Windows:
        """The windows of one batch."""
        generator = np.random.default_rng([self.seed, _DRAWS, number])
        return tuple(self._window(generator) for _ in range(self.rows))

    def _window(self, generator: np.random.Generator) -> Window:
        starts, count = self.text.starts, len(self.text.words)
        if generator.random() < _WHOLE_LINES:
            first = int(starts[int(generator.integers(len(starts) - 1))])
        else:
            first = int(generator.integers(count))
        last = min(count, first + int(generator.integers(_SHORTEST, _LONGEST + 1)))
        if generator.random() < _WHOLE_LINES:
            line = int(np.searchsorted(starts, last, side="right")) - 1
            last = int(starts[line]) if starts[line] > first else last
        return self.text.window(first, last)

    def batches(self, after: int = 0) -> Iterator[tuple[int, Windows | None]]:
        """Numbered batches without end."""
        number = after
        while True:
            began = time.monotonic()
            batch = self.batch(number)
            self.waited += time.monotonic() - began
            yield number, batch
            number += 1


class PunctuationDev:
    """The held-out words in order."""

    def __init__(self, text: PunctuationText, *, most: int = _DEV_WORDS) -> None:
        self.windows = text.in_order(most)
        self.seconds = 0.0
        self.skipped: dict[str, str] = {}

    def __iter__(self) -> Iterator[Windows]:
        yield tuple(self.windows)


class PunctuationTask(Task[Windows]):
    """Cross-entropy of the mark behind each word and of its case, added; objective: 1 - F1 of both."""

    item: ClassVar[str] = "window"
    size: ClassVar[str] = "words"
    remedy: ClassVar[str] = "Look at these words of the text, or give another --seed and another --to folder"
    has_settings: ClassVar[bool] = False

    def __init__(self, model: Punctuator) -> None:
        self.model = model
        self.punctuator = model

    def set_step(self, step: int, count: float) -> None:
        """Nothing depends on the step."""

    def loss(self, batch: Windows) -> Loss:
        scores = self.punctuator(self.punctuator.bags([window.words for window in batch]))
        marks = _per_window(scores.marks, [window.marks for window in batch])
        cases = _per_window(scores.cases, [window.cases for window in batch])
        each = marks + cases
        parts = {"marks": marks.detach().sum(), "cases": cases.detach().sum()}
        words = sum(len(window.words) for window in batch)
        return Loss(each.sum(), parts, float(words), each.detach())

    def validate(self, batches: Iterable[Windows]) -> Validation:
        training = self.model.training
        self.model.eval()
        tally = tally_of(self.punctuator, [window for batch in batches for window in batch])
        self.model.train(training)
        both = tally.all_marks + tally.all_cases
        marks, cases = (100 * found.f1 for found in (tally.all_marks, tally.all_cases))
        headline = f"dev F1 marks {marks:.1f} %, case {cases:.1f} %"
        return Validation(1.0 - both.f1, tally.numbers(), (), headline)

    def watch(self, step: int, progress: float, loss: float, means: Mapping[str, float]) -> Advice | None:
        return None

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        del state

    def names(self, batch: Windows) -> tuple[str, ...]:
        return tuple(window.id for window in batch)

    def halves(self, batch: Windows) -> tuple[Windows, Windows] | None:
        middle = len(batch) // 2
        return (batch[:middle], batch[middle:]) if middle else None

    def cost(self, batch: Windows) -> float:
        return float(sum(len(window.words) for window in batch))


def _per_window(logits: Tensor, labels: Sequence[Sequence[int]]) -> Tensor:
    """(B, L, K) logits and the labels of each row -> (B,) sums of cross-entropy."""
    rows = [torch.tensor(row, dtype=torch.int64, device=logits.device) for row in labels]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
    return cross_entropy(logits.transpose(1, 2).float(), padded, reduction="none").sum(1)


@torch.no_grad()
def tally_of(model: Punctuator, windows: Sequence[Window]) -> Tally:
    """Count what a model in evaluation mode finds in windows of words that follow one another."""
    marks = ("", *model.config.marks)
    words = [word for window in windows for word in window.words]
    wanted_marks = [mark for window in windows for mark in window.marks]
    wanted_cases = [case for window in windows for case in window.cases]
    tally = Tally()
    for start, end, first, last in in_windows(len(words), _DEV_WINDOW, _DEV_MARGIN):
        scores = model(model.bags([words[start:end]]))
        inner = slice(first - start, last - start)
        put_marks = scores.marks[0].argmax(1)[inner].tolist()
        put_cases = scores.cases[0].argmax(1)[inner].tolist()
        tally.add(
            [(marks[a], marks[b]) for a, b in zip(wanted_marks[first:last], put_marks, strict=True)],
            [(CASES[a], CASES[b]) for a, b in zip(wanted_cases[first:last], put_cases, strict=True)],
        )
    return tally
