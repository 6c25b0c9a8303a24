"""The manifest: what is written comes back, and each broken line is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstwords.data.manifest import (
    FIELDS,
    Utterance,
    load_corpus,
    parse_utterance,
    read_manifest,
    read_quarantine,
    to_record,
    with_splits,
    write_manifest,
    write_quarantine,
)
from firstwords.errors import FirstwordsError, ManifestError

LINE = {"id": "a", "audio": "audio/a.wav", "duration": 1.5}
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def write(folder: Path, *records: object) -> Path:
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return path


def test_a_line_becomes_an_utterance_and_unknown_fields_labels(tmp_path: Path) -> None:
    path = write(tmp_path, LINE | {"text": "hujambo", "speaker": "s1", "accent": "coast", "fold": 3})
    (utterance,) = read_manifest(path)
    assert utterance == Utterance(
        id="a",
        audio=tmp_path / "audio/a.wav",
        duration=1.5,
        text="hujambo",
        speaker="s1",
        labels={"accent": "coast", "fold": "3"},
    )


def test_audio_inside_the_folder_is_relative_and_outside_absolute(tmp_path: Path) -> None:
    inside = Utterance(id="in", audio=tmp_path / "c" / "audio" / "x.wav", duration=1)
    outside = Utterance(id="out", audio=tmp_path / "y.wav", duration=1, start=2.25)
    write_manifest(tmp_path / "c" / "manifest.jsonl", [inside, outside])
    records = [json.loads(line) for line in (tmp_path / "c/manifest.jsonl").read_text().splitlines()]
    assert records[0] == {"id": "in", "audio": "audio/x.wav", "duration": 1}
    assert records[1]["audio"] == (tmp_path / "y.wav").as_posix()
    assert tuple(read_manifest(tmp_path / "c" / "manifest.jsonl")) == (inside, outside)


@given(text=words, speaker=words, label=words, start=st.floats(0, 1e5), duration=st.floats(0, 1e5))
def test_any_text_survives_writing_and_reading(
    text: str,
    speaker: str,
    label: str,
    start: float,
    duration: float,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("round")
    utterance = Utterance(
        id="a",
        audio=folder / "a.wav",
        text=text,
        speaker=speaker,
        start=round(start, 6),
        duration=round(duration, 6),
        labels={"note": label},
    )
    write_manifest(folder / "manifest.jsonl", [utterance])
    assert tuple(read_manifest(folder / "manifest.jsonl")) == (utterance,)


def test_line_separators_inside_a_text_do_not_cut_the_line(tmp_path: Path) -> None:
    text = "a\u2028b\u2029c\x85d\x0be\x1cf"
    write_manifest(
        tmp_path / "manifest.jsonl", [Utterance(id="a", audio=tmp_path / "a.wav", duration=1, text=text)]
    )
    (back,) = read_manifest(tmp_path / "manifest.jsonl")
    assert back.text == text
    write_quarantine(tmp_path, {"a": text})
    assert read_quarantine(tmp_path) == {"a": text}


def test_a_byte_order_mark_of_a_windows_editor_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_text(json.dumps(LINE), encoding="utf-8-sig")
    assert [u.id for u in read_manifest(path)] == ["a"]


@pytest.mark.parametrize(
    ("record", "named"),
    [
        ({"audio": "a.wav", "duration": 1}, "'id' is missing"),
        ({"id": "a", "duration": 1}, "'audio' is missing"),
        ({"id": "a", "audio": "a.wav"}, "'duration' must be a number"),
        (LINE | {"duration": True}, "'duration'"),
        (LINE | {"duration": "1.5"}, "'duration'"),
        (LINE | {"duration": -1}, "'duration'"),
        (LINE | {"duration": float("nan")}, "'duration'"),
        (LINE | {"duration": float("inf")}, "'duration'"),
        (LINE | {"duration": 10**400}, "'duration'"),
        (LINE | {"start": None}, "'start'"),
        (LINE | {"text": 7}, "'text' must be text"),
        (["a", "a.wav"], "not a JSON object"),
    ],
)
def test_a_broken_line_is_named_with_its_number_and_a_mend(
    record: object, named: str, tmp_path: Path
) -> None:
    path = write(tmp_path, LINE | {"id": "first"}, record)
    with pytest.raises(ManifestError) as caught:
        list(read_manifest(path))
    assert "line 2 of manifest.jsonl" in caught.value.what
    assert named in caught.value.what
    assert caught.value.mend


@pytest.mark.parametrize("line", ["{", "[" * 100_000, '{"id": NULL}', "9" * 5000, "\x00"])
def test_what_is_no_json_is_a_manifest_error(line: str, tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_text(line, encoding="utf-8")
    with pytest.raises(ManifestError, match="line 1"):
        list(read_manifest(path))


def test_an_id_that_stands_twice_names_both_lines(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="lines 1 and 2"):
        list(read_manifest(write(tmp_path, LINE, LINE)))


def test_all_broken_lines_are_named_in_one_error(tmp_path: Path) -> None:
    broken = LINE | {"duration": "x"}
    path = write(tmp_path, LINE, broken, LINE | {"id": "b"}, *[broken] * 12)
    with pytest.raises(ManifestError, match="line 2 ") as caught:
        list(read_manifest(path))
    assert "4, 5, 6, 7, 8, 9, 10, 11, 12, 13 and 2 more (13 in all)" in caught.value.what
    assert "firstwords import" in caught.value.mend
    with pytest.raises(ManifestError) as caught:
        list(read_manifest(write(tmp_path, broken)))
    assert "in all" not in caught.value.what


def test_a_missing_or_unreadable_manifest_says_so(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="does not exist"):
        list(read_manifest(tmp_path / "manifest.jsonl"))
    (tmp_path / "manifest.jsonl").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ManifestError, match="not UTF-8"):
        list(read_manifest(tmp_path / "manifest.jsonl"))


def test_a_folder_without_manifest_lists_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "talk.eaf").touch()
    with pytest.raises(ManifestError, match=r"talk\.eaf") as caught:
        load_corpus(tmp_path)
    assert "firstwords import" in caught.value.mend


def test_quarantined_utterances_are_not_usable(tmp_path: Path) -> None:
    write(tmp_path, LINE | {"split": "train"}, LINE | {"id": "b", "split": "train"}, LINE | {"id": "c"})
    write_quarantine(tmp_path, {"b": "clipped"})
    corpus = load_corpus(tmp_path)
    assert [u.id for u in corpus.utterances] == ["a", "b", "c"]
    assert [u.id for u in corpus.usable] == ["a", "c"]
    assert [u.id for u in corpus.split("train")] == ["a"]
    assert corpus.splits == ("train",)
    assert load_corpus(tmp_path / "manifest.jsonl") == corpus


@pytest.mark.parametrize("line", ["{", "[]", "7", '{"id": "a"}'])
def test_a_quarantine_edited_wrongly_names_its_line(line: str, tmp_path: Path) -> None:
    (tmp_path / "quarantine.jsonl").write_text('{"id": "a", "reason": "x"}\n' + line, encoding="utf-8")
    with pytest.raises(ManifestError, match="line 2"):
        read_quarantine(tmp_path)


def test_splits_are_set_by_id(tmp_path: Path) -> None:
    utterances = tuple(Utterance(id=n, audio=tmp_path / n, duration=1) for n in "ab")
    assert [u.split for u in with_splits(utterances, {"a": "dev", "b": "test"})] == ["dev", "test"]
    assert all(u.split is None for u in utterances)


def test_an_interrupted_write_leaves_the_old_manifest(tmp_path: Path) -> None:
    path = write(tmp_path, LINE)
    before = path.read_bytes()
    broken = Utterance(id="b", audio=tmp_path / "b", duration=1, text="\ud800")
    with pytest.raises(UnicodeEncodeError):
        write_manifest(path, [broken])
    assert path.read_bytes() == before


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)


@given(record=st.dictionaries(st.sampled_from([*FIELDS, "accent"]), json_values))
def test_any_json_object_gives_an_utterance_or_a_firstwords_error(record: dict[str, object]) -> None:
    folder = Path("corpus").absolute()
    try:
        utterance = parse_utterance(record, folder=folder, where="line 1")
    except FirstwordsError:
        return
    assert parse_utterance(to_record(utterance, folder=folder), folder=folder, where="again") is not None


def test_a_corpus_leaves_broken_lines_out_and_counts_them(tmp_path: Path) -> None:
    good = [json.dumps({"id": f"u{n}", "audio": f"{n}.wav", "duration": 1.0}) for n in range(3)]
    lines = [good[0], "{broken", good[1], json.dumps({"id": "u9"}), good[0], good[2]]
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    corpus = load_corpus(tmp_path)
    assert [u.id for u in corpus.utterances] == ["u0", "u1", "u2"]
    assert list(corpus.broken) == [2, 4, 5]
    assert corpus.broken_note.startswith("3 lines of manifest.jsonl left out as no utterance: line 2")
    (tmp_path / "manifest.jsonl").write_text("{broken\n", encoding="utf-8")
    with pytest.raises(ManifestError, match="line 1"):
        load_corpus(tmp_path)
