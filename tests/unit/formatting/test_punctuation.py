"""Marks and capitals: what text teaches, the counts, the model's folder, the stage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from firstwords.cli.main import app
from firstwords.errors import CheckpointError, TextError, UsageError
from firstwords.formatting.punctuation import Punctuation
from firstwords.formatting.punctuation_model import (
    FORMS,
    HEADER,
    WEIGHTS,
    LoadedPunctuator,
    Punctuator,
    PunctuatorConfig,
    load_punctuator,
    save_punctuator,
)
from firstwords.formatting.punctuation_text import (
    CASES,
    Labelled,
    Tally,
    cased,
    common_forms,
    feature,
    grams_of,
    in_windows,
    known_marks,
    labelled,
)
from firstwords.formatting.stage import Formatter, Word
from firstwords.scoring.detection import Detections
from firstwords.text.normalize import normalizer

DEFAULT = normalizer("default")
AS_IS, CAPITAL, UPPER, OTHER = range(4)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Well, I know.", [("well", CAPITAL, ","), ("i", CAPITAL, ""), ("know", AS_IS, ".")]),
        ("NATO uses iPhones!", [("nato", UPPER, ""), ("uses", AS_IS, ""), ("iphones", OTHER, "!")]),
        ("“Why?” she said…", [("why", CAPITAL, "?"), ("she", AS_IS, ""), ("said", AS_IS, "…")]),
        ("Quoi ?", [("quoi", CAPITAL, "?")]),
        ("don’t stop", [("don't", AS_IS, ""), ("stop", AS_IS, "")]),
        ("Don't stop (now).", [("don't", CAPITAL, ""), ("stop", AS_IS, ""), ("now", AS_IS, ".")]),
        ("one—Two.", [("one", AS_IS, ""), ("two", CAPITAL, ".")]),
        ("well-known 5%", [("well-known", AS_IS, ""), ("5", AS_IS, "")]),
        ("क्या है।", [("क्या", AS_IS, ""), ("है", AS_IS, "।")]),
        ("كيف؟", [("كيف", AS_IS, "؟")]),
        ("— ... —", []),
        ("", []),
    ],
)
def test_what_a_line_teaches(line: str, expected: list[tuple[str, int, str]]) -> None:
    assert [(w.word, w.case, w.mark) for w in labelled(line, DEFAULT)] == expected


def test_what_is_learned_writes_the_line_again() -> None:
    for line in ("Well, I know Anna: NATO, iPhones and McDonald?", "Он сказал: Да!"):
        words = labelled(line, DEFAULT)
        forms = common_forms(words)
        assert " ".join(cased(w.word, w.case, forms.get(w.word)) + w.mark for w in words) == line


def test_the_commonest_form_is_kept() -> None:
    words = [Labelled("mcd", OTHER, "", form) for form in ("McD", "mCD", "McD")]
    assert common_forms(words) == {"mcd": "McD"}
    assert known_marks({".": 50, ",": 50, "": 999, "!": 9, "?": 70}) == ("?", ",", ".")


def test_counts_by_hand() -> None:
    tally = Tally()
    tally.add(
        [("", ""), (".", "."), (",", "."), ("", "."), (",", ","), ("?", "")],
        [("capital", "capital"), ("as is", "upper")],
    )
    assert tally.marks == {".": Detections(1, 0, 2), ",": Detections(1, 1, 0), "?": Detections(0, 1, 0)}
    assert tally.marks["."].precision == pytest.approx(1 / 3)
    assert tally.marks["."].recall == 1
    assert tally.marks["."].f1 == pytest.approx(0.5)
    assert tally.all_marks == Detections(2, 2, 2)
    assert tally.all_marks.f1 == 0.5
    assert tally.cases == {"capital": Detections(1, 0, 0), "upper": Detections(0, 0, 1)}
    assert tally.words == 6
    assert (Detections().f1, Detections().precision, Detections().recall) == (1, 1, 1)
    assert tally.numbers()["mark . f1"] == pytest.approx(0.5)


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 448, 449, 1000])
def test_windows_keep_every_word_once_with_words_around_it(count: int) -> None:
    kept: list[int] = []
    for start, end, first, last in in_windows(count, 256, 32):
        assert 0 <= start <= first < last <= end <= count
        assert end - start <= 256
        assert start == 0 or first - start >= 32
        assert end == count or end - last >= 32
        kept += range(first, last)
    assert kept == list(range(count))


def test_features() -> None:
    assert feature("$5.20", DEFAULT) == "$000"
    assert feature("Hello,", DEFAULT) == "hello"
    assert feature("?", DEFAULT) == "?"
    assert grams_of("ab") == ["=ab", "<a", "ab", "b>", "<ab", "ab>"]


def small(marks: tuple[str, ...] = (".", ",")) -> LoadedPunctuator:
    torch.manual_seed(2)
    model = Punctuator(PunctuatorConfig(marks=marks, buckets=64, dim=8, hidden=8, layers=2))
    with torch.no_grad():  # far from zero, so that decisions differ
        for parameter in model.parameters():
            parameter.mul_(4)
    return LoadedPunctuator(model.eval(), {"iphone": "iPhone"})


def test_a_row_gives_the_same_alone_and_in_a_batch() -> None:
    model = small().model
    rows = [["a", "house", "of", "cards"], ["b"], ["one", "more"]]
    together = model(model.bags(rows))
    for number, row in enumerate(rows):
        alone = model(model.bags([row]))
        torch.testing.assert_close(together.marks[number, : len(row)], alone.marks[0])
        torch.testing.assert_close(together.cases[number, : len(row)], alone.cases[0])


def test_the_embedding_is_the_mean_of_hashed_pieces() -> None:
    import zlib

    model = small().model
    bags = model.bags([["ab", "house"]])
    words = model.embedding(bags.pieces, bags.offsets)
    ids = [zlib.crc32(gram.encode()) % 64 for gram in ("=ab", "<a", "ab", "b>", "<ab", "ab>")]
    torch.testing.assert_close(words[0], model.embedding.weight[ids].mean(0))


def test_the_folder_gives_back_the_model(tmp_path: Path) -> None:
    loaded = small()
    save_punctuator(tmp_path / "m", loaded)
    first = {p.name: p.read_bytes() for p in (tmp_path / "m").iterdir()}
    again = load_punctuator(tmp_path / "m")
    assert again.forms == loaded.forms
    assert again.config == loaded.config
    words = "a house of cards and iphone".split()  # noqa: SIM905
    assert Punctuation(again).guesses(words) == Punctuation(loaded).guesses(words)
    save_punctuator(tmp_path / "m", again)
    assert {p.name: p.read_bytes() for p in (tmp_path / "m").iterdir()} == first


@pytest.mark.parametrize("fault", ["missing", "header", "forms", "cut", "kind", "nan", "key"])
def test_a_spoiled_folder_is_refused_in_words(tmp_path: Path, fault: str) -> None:
    folder = tmp_path / "m"
    loaded = small()
    if fault == "nan":
        with torch.no_grad():
            loaded.model.marks.bias[0] = float("nan")
    save_punctuator(folder, loaded)
    match fault:
        case "missing":
            (folder / HEADER).unlink()
        case "header":
            text = (folder / HEADER).read_text(encoding="utf-8")
            (folder / HEADER).write_text(text.replace("hidden = 8", "hidden = 9"), encoding="utf-8")
        case "forms":
            (folder / FORMS).write_text(json.dumps({"a": "A"}), encoding="utf-8")
        case "cut":
            (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])
        case "kind":
            (folder / HEADER).write_text('kind = "ngram"\n', encoding="utf-8")
        case "key":
            (folder / HEADER).write_text("marcs = []\n", encoding="utf-8")
        case _:
            pass
    with pytest.raises(CheckpointError):
        load_punctuator(folder)


def test_a_folder_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no such folder"):
        load_punctuator(tmp_path / "m")


def test_text_files_have_no_splits(tmp_path: Path) -> None:
    save_punctuator(tmp_path / "m", small())
    (tmp_path / "a.txt").write_text("A house.\n", encoding="utf-8")
    options = ["punctuation", "measure", str(tmp_path / "m"), str(tmp_path / "a.txt")]
    assert CliRunner().invoke(app, options).exit_code == 0
    refused = CliRunner().invoke(app, [*options, "--split", "dev"])
    assert isinstance(refused.exception, UsageError)
    assert "a text file has no splits" in str(refused.exception)


def test_the_stage_keeps_words_times_and_what_is_written_already() -> None:
    stage = Punctuation(small())
    texts = ["hello", "Anna", "paid", "$5.20", "p.m.", "yes,", "iphone", "x" * 300, "9"]
    words = [Word(w, n * 0.5, n * 0.5 + 0.3, 0.5) for n, w in enumerate(texts)]
    segments = [words[:4], [], words[4:]]
    found, changes = Formatter([stage]).format(segments)
    assert [len(s) for s in found] == [4, 0, 5]
    flat = [w for s in found for w in s]
    assert [(w.start, w.end, w.confidence) for w in flat] == [(w.start, w.end, w.confidence) for w in words]
    for before, after in zip(words, flat, strict=True):
        assert after.word.rstrip(".,").casefold() == before.word.rstrip(".,").casefold()
    assert [flat[n].word.rstrip(".,") for n in (1, 3)] == ["Anna", "$5.20"]
    assert [flat[n].word for n in (4, 5)] == ["p.m.", "yes,"]
    assert changes  # random weights of this size change something
    again, more = Formatter([stage]).format(found)
    assert again == found
    assert more == []
    assert Formatter([stage]).format([]) == ([], [])


def test_segments_do_not_change_what_is_said_of_words() -> None:
    stage = Punctuation(small())
    words = [Word(f"w{'abc'[n % 3]}", n * 0.5, n * 0.5 + 0.3, 0.5) for n in range(600)]
    whole, _ = Formatter([stage]).format([words])
    parts, _ = Formatter([stage]).format([words[:7], words[7:300], words[300:]])
    assert [w.word for s in parts for w in s] == [w.word for w in whole[0]]


def test_case_classes() -> None:
    assert CASES == ("as is", "capital", "upper", "other")
    assert [cased("ǆep", n) for n in range(4)] == ["ǆep", "ǅep", "ǄEP", "ǆep"]
    assert cased("iphone", OTHER, "iPhone") == "iPhone"
    assert cased("", CAPITAL) == ""


def test_an_unknown_normalizer_is_refused(tmp_path: Path) -> None:
    save_punctuator(tmp_path, small())
    header = (tmp_path / HEADER).read_text(encoding="utf-8")
    (tmp_path / HEADER).write_text(header.replace('"default"', '"defautl"'), encoding="utf-8")
    with pytest.raises((CheckpointError, TextError), match="default"):
        load_punctuator(tmp_path)


def test_the_identity_of_a_model_is_settings_forms_and_weights(tmp_path: Path) -> None:
    def stage(seed: int = 1, forms: dict[str, str] | None = None, language: str = "xx") -> Punctuation:
        torch.manual_seed(seed)
        config = PunctuatorConfig(
            language=language, marks=(".",), buckets=16, dim=4, hidden=4, layers=1, dropout=0
        )
        return Punctuation(LoadedPunctuator(Punctuator(config).eval(), forms or {}))

    one = stage()
    save_punctuator(tmp_path, one.loaded)
    assert Punctuation(load_punctuator(tmp_path)).identity == one.identity == stage().identity
    others = [stage(2), stage(forms={"iphone": "iPhone"}), stage(language="yy")]
    assert len({one.identity, *(other.identity for other in others)}) == 4
