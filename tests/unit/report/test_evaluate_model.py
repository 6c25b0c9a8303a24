"""A model evaluated on a corpus: fake recognisers that fail, labels, splits, comparison with a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from firstwords.data.manifest import Corpus, Utterance
from firstwords.errors import AudioError, CorpusError
from firstwords.report.evaluate_model import piece_labels, transcribe_all, utterances_of
from firstwords.text.characters import GraphemeConfig, GraphemeTokenizer
from firstwords.text.normalize import normalizer


@dataclass
class Heard:
    text: str


def utterance(name: str, text: str) -> Utterance:
    return Utterance(id=name, text=text, audio=Path(f"{name}.wav"), duration=4.0, split="test")


class Fake:
    """Transcribes in batches of three and fails a batch with bad audio in it."""

    def __init__(self, bad: set[str]) -> None:
        self.bad = bad

    def transcribe_many(self, utterances: Iterable[Utterance]) -> Iterator[Heard]:
        rows = list(utterances)
        for start in range(0, len(rows), 3):
            batch = rows[start : start + 3]
            for row in batch:
                if row.id in self.bad:
                    raise AudioError(f"'{row.audio}' is empty.")
            yield from (Heard(row.id) for row in batch)


@pytest.mark.parametrize("bad", [set(), {"0"}, {"4"}, {"4", "5", "10"}, {str(i) for i in range(11)}])
def test_bad_audio_is_skipped_and_named(bad: set[str]) -> None:
    rows = [utterance(str(i), "x") for i in range(11)]
    seen: list[tuple[int, int]] = []
    texts, failures = transcribe_all(Fake(bad), rows, lambda done, total: seen.append((done, total)))
    assert texts == [None if r.id in bad else r.id for r in rows]
    assert set(failures) == bad
    assert seen == [(i + 1, 11) for i in range(11)]


def test_piece_labels_without_bytes_keep_what_has_no_piece() -> None:
    tokenizer = GraphemeTokenizer.train(["abc"], GraphemeConfig(bytes=False))
    labels = piece_labels(tokenizer, normalizer("default"))
    assert labels("A!b") == [*tokenizer.encode("a"), 1, *tokenizer.encode("b")]
    assert labels("aξ") == [*tokenizer.encode("a"), "ξ"]


def test_an_unknown_split_lists_the_known_ones(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, tuple(utterance(str(i), "x") for i in range(6)), {})
    with pytest.raises(CorpusError, match=r"Splits: test \(6\)"):
        utterances_of(corpus, "dev")
