"""Layouts that are tables: CSV/TSV, Common Voice, FLEURS, Hugging Face audiofolder."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstwords.data.corpora import LAYOUTS, Imported, Options, detect_layout
from firstwords.data.corpora.source import Source
from firstwords.data.corpora.tables import known_columns, looks_like_table, parse_seconds, read_table
from firstwords.errors import CorpusError, FirstwordsError, UsageError

Tree = Callable[..., Path]
Take = Callable[..., Imported]


def rows_of(imported: Imported) -> list[tuple[str, str | None]]:
    return [(u.id, u.text) for u in imported.utterances]


class TestTable:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("t.csv", 'file,text\na.wav,habari yako\nb.wav,"moja, mbili"\n'),
            ("t.csv", "Datei;file;text\nx;a.wav;habari yako\ny;b.wav;moja, mbili\n"),
            ("t.csv", "text\tfilename\nhabari yako\ta.wav\nmoja, mbili\tb.wav\n"),
            ("t.tsv", "path\tsentence\r\na.wav\thabari yako\r\n\r\nb.wav\tmoja, mbili\r\n"),
            ("t.tsv", "File Name\tTranscript\na\thabari yako\nb\tmoja, mbili"),
            ("t.psv", "wav|transcription\na.wav|habari yako\nb.wav|moja, mbili\n"),
        ],
    )
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
    def test_delimiters_headers_and_encodings(
        self, name: str, text: str, encoding: str, tree: Tree, take: Take
    ) -> None:
        root = tree({"a.wav": 1, "b.wav": 1, name: text.encode(encoding)})
        assert rows_of(take(root, "table")) == [("a", "habari yako"), ("b", "moja, mbili")]
        assert rows_of(take(root / name, "table")) == [("a", "habari yako"), ("b", "moja, mbili")]

    def test_columns_in_another_language_are_suggested_by_what_they_hold(
        self, tree: Tree, take: Take
    ) -> None:
        rows = "".join(
            f'{n};ses{n % 2}.wav;"habari ya {n}, leo";Juma;{n // 2},50;{n // 2},95\r\n' for n in range(8)
        )
        table = f"\ufeffn;archivo;transcripción;hablante;inicio;fin\r\n{rows}"
        root = tree({"ses0.wav": 5.0, "ses1.wav": 5.0, "datos.csv": table})
        with pytest.raises(CorpusError) as caught:
            take(root, "table")
        assert caught.value.mend.endswith("--column audio=archivo --column text=transcripción")
        columns = {"audio": "archivo", "text": "transcripción"}
        imported = LAYOUTS["table"].read(root, Options(columns=columns))
        (note,) = [n for n in imported.notes if "rows share" in n]
        assert note.startswith("'datos.csv': 8 rows share their recording with others")
        assert "--column start=inicio --column end=fin (or" in note  # 'n' is a number, too
        times = LAYOUTS["table"].read(root, Options(columns={**columns, "start": "inicio", "end": "fin"}))
        assert not any("rows share" in n for n in times.notes)
        assert [(u.start, u.text) for u in times.utterances][:2] == [
            (0.5, "habari ya 0, leo"),
            (0.5, "habari ya 1, leo"),
        ]

    def test_clips_that_are_said_twice_are_no_passages(self, tree: Tree, take: Take) -> None:
        root = tree(
            {"a.wav": 1, "b.wav": 1, "t.csv": "file,text,n\na.wav,moja,1\na.wav,moja,2\nb.wav,mbili,3\n"}
        )
        assert not any("rows share" in n for n in take(root, "table").notes)

    def test_all_known_fields_and_labels(self, tree: Tree, take: Take) -> None:
        header = "utt_id,audio,start,end,text,speaker_id,lang,subset,accent,duration"
        root = tree(
            {
                "clips/long.wav": 10.0,
                "t.csv": f"{header}\nu 1,long.wav,1.5,0:00:03.25,habari,amina,sw,train,pwani,99\n"
                'u2,long.wav,"4,5",,nzuri,juma,sw,dev,,"2,5"\n',
            }
        )
        first, second = take(root, "table").utterances
        assert (first.id, first.start, first.duration) == ("u_1", 1.5, 1.75)
        assert (first.speaker, first.language, first.split) == ("amina", "sw", "train")
        assert first.labels == {"accent": "pwani"}
        assert (second.start, second.duration, second.labels) == (4.5, 2.5, {})

    def test_milliseconds(self, tree: Tree, take: Take) -> None:
        root = tree({"a.wav": 3.0, "t.csv": "file,text,start_ms,end_ms\na.wav,x,500,1250\n"})
        (utterance,) = take(root, "table").utterances
        assert (utterance.start, utterance.duration) == (0.5, 0.75)

    def test_unknown_columns_are_listed_with_the_known_names(self, tree: Tree) -> None:
        root = tree({"a.wav": 1, "t.csv": "Datei,Satz\na.wav,x\n"})
        with pytest.raises(CorpusError) as caught:
            LAYOUTS[detect_layout(root).name].read(root, Options(columns={"audio": "Datei"}))
        assert "'Datei', 'Satz'" in caught.value.what
        assert "sentence" in caught.value.what
        assert "--column text=Satz" in caught.value.mend

    def test_columns_named_by_the_user(self, tree: Tree, take: Take) -> None:
        root = tree({"a.wav": 1, "t.csv": "Datei,Satz,text\na.wav,x,notes\n"})
        imported = take(root, "table", columns={"audio": "datei", "text": "Satz"})
        assert rows_of(imported) == [("a", "x")]
        assert imported.utterances[0].labels == {"source_text": "notes"}
        with pytest.raises(CorpusError, match="no such column"):
            take(root, "table", columns={"text": "Sätze"})
        with pytest.raises(UsageError, match="no such field"):
            take(root, "table", columns={"words": "Satz"})

    def test_two_columns_for_one_field_are_said(self, tree: Tree, take: Take) -> None:
        root = tree({"a.wav": 1, "t.csv": "file,sentence,raw_transcription\na.wav,Moja.,moja\n"})
        imported = take(root, "table")
        assert rows_of(imported) == [("a", "Moja.")]
        assert any("'sentence' as text" in n and "raw_transcription" in n for n in imported.notes)

    def test_tables_named_like_splits_are_read_together_and_others_are_not(
        self, tree: Tree, take: Take
    ) -> None:
        head = "id,file,text\n"
        files = {f"{n}.wav": 1 for n in "abc"}
        root = tree(files | {"train.csv": head + "0,a.wav,x\n1,b.wav,y\n", "valid.csv": head + "0,c.wav,z\n"})
        imported = take(root, "table")
        assert {u.id: u.split for u in imported.utterances} == {"a": "train", "b": "train", "c": "dev"}
        assert imported.utterances[0].labels == {"source_id": "0"}  # a row number is no name
        (root / "more.csv").write_text(head)
        with pytest.raises(CorpusError, match=r"several tables: more\.csv, train\.csv, valid\.csv"):
            take(root, "table")

    def test_a_table_without_header_is_read_if_its_first_column_leads_to_audio(
        self, tree: Tree, take: Take
    ) -> None:
        lines = 'LJ001-0001|In 1465, "Sweynheim" began|In fourteen sixty-five\nLJ001-0002|Second|Second\n'
        root = tree({"wavs/LJ001-0001.wav": 1, "wavs/LJ001-0002.wav": 1, "metadata.csv": lines})
        imported = take(root, "table")
        assert rows_of(imported)[0] == ("wavs-LJ001-0001", 'In 1465, "Sweynheim" began')
        assert any("no header line" in note for note in imported.notes)
        assert imported.utterances[0].labels == {"column 3": "In fourteen sixty-five"}

    def test_bad_rows_are_named_and_the_rest_goes_on(self, tree: Tree, take: Take) -> None:
        root = tree(
            {
                "a.wav": 1.0,
                "b.wav": b"no audio at all",
                "x/same.wav": 1.0,
                "y/same.wav": 1.0,
                "t.csv": "id,file,text,start,end\n"
                "one,a.wav,good,,\n"
                "two,gone.wav,x,,\n"
                "three,b.wav,x,,\n"
                "four,a.wav,x,soon,\n"
                "five,a.wav,x,2.0,3.0\n"
                "six,a.wav,x,,,,,,\n"
                "seven\n"
                "one,a.wav,again,,\n"
                "eight,same.wav,x,,\n"
                "nine,https://example.org/a.wav,x,,\n"
                "ten,,x,,\n"
                "eleven,a.wav,end,0.5,nan\n"
                "twelve,a.wav,late,1.5,\n",
            }
        )
        imported = take(root, "table")
        assert rows_of(imported) == [("one", "good")]
        found = {s.where.removeprefix("line ").removesuffix(" of t.csv"): s.reason for s in imported.skipped}
        assert sorted(found, key=int) == [str(n) for n in range(3, 15)]
        for line, words in {
            "3": "'gone.wav' does not exist",
            "4": "b.wav",
            "5": "'soon' is no time",
            "6": "only 1.000 s long",
            "7": "has 9 cells, the header has 5",
            "8": "has 1 cells",
            "9": "id 'one' stands twice (first: line 2 of t.csv)",
            "10": "could be any of 2 files: x/same.wav, y/same.wav",
            "11": "web address",
            "12": "no audio file is named",
            "13": "no times",
            "14": "starts at 1.500 s",
        }.items():
            assert words in found[line], (line, found[line])

    def test_paths_of_another_machine_are_found_by_name_and_that_is_said(
        self, tree: Tree, take: Take
    ) -> None:
        table = "file\ttext\nC:\\Users\\ana\\rec\\a.wav\tx\n/home/ana/b.wav\ty\nrec\\b.wav\tz\n"
        root = tree({"rec/a.wav": 1, "rec/b.wav": 1, "t.tsv": table})
        imported = take(root, "table")
        assert [u.audio.name for u in imported.utterances] == ["a.wav", "b.wav", "b.wav"]
        assert [u.id for u in imported.utterances] == ["rec-a", "rec-b", "rec-b-2"]
        assert any("2 recordings do not lie where" in note for note in imported.notes)

    def test_quotes_in_tab_files_are_text_unless_a_writer_made_them(self, tree: Tree, take: Take) -> None:
        plain = 'file\ttext\na.wav\t"Njoo," alisema\nb.wav\t"Nenda\n'
        root = tree({"a.wav": 1, "b.wav": 1, "plain.tsv": plain})
        assert rows_of(take(root, "table")) == [("a", '"Njoo," alisema'), ("b", '"Nenda')]
        (root / "plain.tsv").write_text('file\ttext\na.wav\t"""Njoo,"" alisema"\nb.wav\tNenda\n')
        assert rows_of(take(root, "table")) == [("a", '"Njoo," alisema'), ("b", "Nenda")]

    def test_times_beyond_the_end_are_cut_and_that_is_said(self, tree: Tree, take: Take) -> None:
        table = "file,text,start,end\na.wav,x,1.0,3.5\na.wav,y,2.9,9\na.wav,z,0,3.1\n"
        imported = take(tree({"a.wav": 3.0, "t.csv": table}), "table")
        assert [(u.start, u.duration) for u in imported.utterances] == [(1.0, 2.0), (0.0, 3.0)]
        assert any("cut at its end" in note and "0.50 s" in note for note in imported.notes)

    def test_an_unclosed_quote_does_not_swallow_lines_in_silence(self, tree: Tree, take: Take) -> None:
        files: dict[str, Any] = {f"{n}.wav": 1 for n in "abcd"}
        root = tree(files | {"t.csv": 'file,text\na.wav,x\nb.wav,"y\nc.wav,z\nd.wav,end"\n'})
        imported = take(root, "table")
        assert rows_of(imported) == [("a", "x")]
        assert "took in 2 more lines" in imported.skipped[0].reason
        (root / "t.csv").write_text('file,text\na.wav,"two\nlines"\nb.wav,y\n')
        assert rows_of(take(root, "table")) == [("a", "two lines"), ("b", "y")]

    def test_a_duration_without_start_only_describes_the_file(self, tree: Tree, take: Take) -> None:
        (utterance,) = take(
            tree({"a.wav": 2.0, "t.csv": "file,text,length\na.wav,x,57\n"}), "table"
        ).utterances
        assert (utterance.start, utterance.duration) == (0, 2.0)

    def test_the_hint_line_of_excel_is_no_header(self, tree: Tree, take: Take) -> None:
        root = tree({"a.wav": 2.0, "t.csv": "sep=;\nfile;text\na.wav;x, y\n"})
        assert rows_of(take(root / "t.csv", "table")) == [("a", "x, y")]

    def test_half_characters_are_refused(self, tree: Tree, take: Take) -> None:
        root = tree({"a.wav": 1, "b.wav": 1, "metadata.jsonl": ""})
        lines = [{"file_name": "a.wav", "text": "good"}, {"file_name": "b.wav", "text": "\ud800"}]
        (root / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        imported = take(root, "audiofolder")
        assert rows_of(imported) == [("a", "good")]
        assert "half a character" in imported.skipped[0].reason


CV_HEAD = "client_id\tpath\tsentence_id\tsentence\tup_votes\tage\tgender\taccents\tlocale\n"


def cv_line(client: str, clip: str, sentence: str) -> str:
    return f"{client}\t{clip}\ts1\t{sentence}\t2\ttwenties\tfemale\t\tsw\n"


class TestCommonVoice:
    def files(self) -> dict[str, Any]:
        clips: dict[str, Any] = {f"cv/sw/clips/c{n}.mp3.wav": 1 for n in range(4)}
        lines = [cv_line(f"{n:064d}", f"c{n}.mp3", text) for n, text in enumerate(['"Njoo', "b", "c", "d"])]
        return clips | {
            "cv/sw/train.tsv": CV_HEAD + lines[0] + lines[1],
            "cv/sw/dev.tsv": CV_HEAD + lines[2],
            "cv/sw/test.tsv": CV_HEAD + lines[3],
            "cv/sw/validated.tsv": CV_HEAD + "".join(lines),
            "cv/sw/invalidated.tsv": CV_HEAD,
            "cv/sw/reported.tsv": "sentence_id\tsentence\tlocale\treason\n",
        }

    def test_official_splits_are_taken_without_quoting(self, tree: Tree, take: Take) -> None:
        imported = take(tree(self.files()), "common_voice")
        assert [(u.text, u.split) for u in imported.utterances] == [
            ('"Njoo', "train"),
            ("b", "train"),
            ("c", "dev"),
            ("d", "test"),
        ]
        first = imported.utterances[0]
        assert (first.speaker, first.language) == ("0" * 16, "sw")
        assert first.labels == {"age": "twenties", "gender": "female"}
        assert any("validated.tsv was not read" in note for note in imported.notes)

    def test_validated_alone_and_a_table_named_outright_have_no_splits(self, tree: Tree, take: Take) -> None:
        root = tree(self.files())
        assert {u.split for u in take(root / "cv/sw/train.tsv", "common_voice").utterances} == {None}
        for name in ("train", "dev", "test"):
            (root / f"cv/sw/{name}.tsv").unlink()
        imported = take(root / "cv/sw", "common_voice")
        assert [u.split for u in imported.utterances] == [None] * 4

    def test_a_clip_that_is_missing_costs_one_line(self, tree: Tree, take: Take) -> None:
        root = tree(self.files())
        (root / "cv/sw/clips/c1.mp3.wav").unlink()
        imported = take(root, "common_voice")
        assert len(imported.utterances) == 3
        assert imported.skipped[0].where == "line 3 of cv/sw/train.tsv"


class TestFleurs:
    LINE = "1685\t{}.wav\tHabari, yako\thabari yako\th a b | y a k o |\t16000\tFEMALE\n"

    def test_tables_without_header(self, tree: Tree, take: Take) -> None:
        root = tree(
            {
                "train.tsv": self.LINE.format("11") + self.LINE.format("12"),
                "dev.tsv": self.LINE.format("21"),
                "audio/train/11.wav": 1,
                "audio/train/12.wav": 1,
                "audio/dev/21.wav": 1,
                "audio/train/21.wav": 2,
            }
        )
        imported = take(root, "fleurs")
        found = {u.audio.relative_to(root).as_posix(): u for u in imported.utterances}
        assert {name: u.split for name, u in found.items()} == {
            "audio/train/11.wav": "train",
            "audio/train/12.wav": "train",
            "audio/dev/21.wav": "dev",
        }
        assert found["audio/dev/21.wav"].text == "Habari, yako"
        assert found["audio/dev/21.wav"].labels == {
            "sentence_number": "1685",
            "normalized": "habari yako",
            "gender": "FEMALE",
        }

    def test_packed_audio_says_unpack(self, tree: Tree, take: Take) -> None:
        root = tree({"train.tsv": self.LINE.format("11"), "audio/train.tar.gz": b"x"})
        with pytest.raises(CorpusError) as caught:
            take(root, "fleurs")
        assert "Unpack" in caught.value.mend


class TestAudiofolder:
    @pytest.mark.parametrize("form", ["csv", "jsonl"])
    def test_one_metadata_file_at_the_top(self, form: str, tree: Tree, take: Take) -> None:
        rows = [("train/a.wav", "moja", "s1"), ("validation/b.wav", "mbili, tatu", "s2")]
        if form == "csv":
            lines = "file_name,transcription,speaker_id\n"
            lines += "".join(f'{name},"{text}",{who}\n' for name, text, who in rows)
        else:
            records = [{"file_name": n, "transcription": t, "speaker_id": w, "age": 30} for n, t, w in rows]
            lines = "".join(json.dumps(r) + "\n" for r in records) + "{broken\n" + '{"transcription": "x"}\n'
        root = tree({"train/a.wav": 1, "validation/b.wav": 1, f"metadata.{form}": lines})
        imported = take(root, "audiofolder")
        assert [(u.text, u.split, u.speaker) for u in imported.utterances] == [
            ("moja", "train", "s1"),
            ("mbili, tatu", "dev", "s2"),
        ]
        if form == "jsonl":
            assert imported.utterances[0].labels == {"age": "30"}
            assert [s.where for s in imported.skipped] == [
                "line 3 of metadata.jsonl",
                "line 4 of metadata.jsonl",
            ]

    def test_a_metadata_file_per_split(self, tree: Tree, take: Take) -> None:
        root = tree(
            {
                "data/train/a.wav": 1,
                "data/train/metadata.csv": "file_name,text\na.wav,moja\n",
                "data/test/a.wav": 1,
                "data/test/metadata.csv": "file_name,text\na.wav,mbili\n",
            }
        )
        imported = take(root, "audiofolder")
        assert {u.id: (u.text, u.split) for u in imported.utterances} == {
            "data-train-a": ("moja", "train"),
            "data-test-a": ("mbili", "test"),
        }

    def test_keys_that_name_no_text_are_listed(self, tree: Tree, take: Take) -> None:
        root = tree({"a.wav": 1, "metadata.jsonl": '{"file_name": "a.wav", "satz": "x"}\n'})
        with pytest.raises(CorpusError, match="file_name, satz"):
            take(root, "audiofolder")
        assert rows_of(take(root, "audiofolder", columns={"text": "satz"})) == [("a", "x")]


@pytest.mark.parametrize(
    ("cell", "seconds"), [("1.5", 1.5), ("1,5", 1.5), ("0:01:02.5", 62.5), ("-1", -1), (" 2 ", 2)]
)
def test_times(cell: str, seconds: float) -> None:
    assert parse_seconds(cell) == seconds


def test_the_surer_name_wins() -> None:
    assert known_columns(["path", "audio", "label"]) == {"audio": 1}
    assert known_columns(["Client-ID", "File Name", "Sentence"]) == {"speaker": 0, "audio": 1, "text": 2}


SEED = b'file\ttext\tstart\na.wav\t"habari" yako\t0.5\nb.wav\tnzuri\t\n'


@settings(max_examples=300, deadline=None)
@given(
    cuts=st.lists(st.tuples(st.integers(0, len(SEED)), st.integers(0, 8), st.binary(max_size=8)), max_size=6),
    suffix=st.sampled_from(["csv", "tsv"]),
    mark=st.sampled_from([b"", b"\xef\xbb\xbf", b"\xff\xfe"]),
)
def test_mutated_tables_raise_nothing_but_our_errors(
    cuts: list[tuple[int, int, bytes]],
    suffix: str,
    mark: bytes,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    data = SEED
    for at, gone, new in cuts:
        data = data[:at] + new + data[at + gone :]
    folder = tmp_path_factory.mktemp("fuzz")
    path = folder / f"t.{suffix}"
    path.write_bytes(mark + data)
    source = Source.of(path)
    try:
        table = read_table(path, source=source)
    except FirstwordsError:
        return
    for row in table.rows:
        assert {"audio", "text"} <= row.fields.keys()


@pytest.mark.parametrize("ends", ["\r", "\r\n"])
def test_line_ends_of_other_systems(ends: str, tree: Tree, take: Take) -> None:
    root = tree(
        {"a.wav": 1.0, "b.wav": 1.0, "t.csv": ends.join(["file,text", "a.wav,moja", "b.wav,mbili", ""])}
    )
    assert [u.text for u in take(root, "table").utterances] == ["moja", "mbili"]


def test_unknown_columns_end_in_a_command_that_names_both(tree: Tree) -> None:
    root = tree({"a.wav": 1.0, "t.csv": "sound name,Satz\na.wav,moja\n"})
    with pytest.raises(CorpusError) as caught:
        LAYOUTS["table"].read(root, Options())
    assert '--column audio="sound name" --column text=Satz' in caught.value.mend


@pytest.mark.parametrize("content", ["|", ",,,\n;;\n", '""\n', "a" * 200_000, '"' + "a" * 200_000, "\0|"])
def test_tables_of_nothing_or_of_one_endless_cell(content: str, tmp_path: Path) -> None:
    """Found by benchmarks/fuzz_readers.py: both went past every check."""
    path = tmp_path / "table.csv"
    path.write_text(content, encoding="utf-8")
    assert not looks_like_table(path)
    with pytest.raises(CorpusError):
        read_table(path, source=Source(path, tmp_path))
    (tmp_path / "b.csv").write_text("path,sentence\n", encoding="utf-8")
    with pytest.raises(FirstwordsError):
        LAYOUTS["table"].read(tmp_path, Options())


exact_names = pytest.mark.skipif(sys.platform != "linux", reason="this file system finds them by itself")
NFC, NFD = (unicodedata.normalize(form, "kamaró_ñandú.wav") for form in ("NFC", "NFD"))


@exact_names
@pytest.mark.parametrize(("written", "real"), [(NFC, NFD), (NFD, NFC)])
def test_names_stored_another_way_are_matched_and_that_is_said(
    written: str, real: str, tree: Tree, take: Take
) -> None:
    table = f"file,text\namina/{written},habari\njuma/plain.wav,sawa\n"
    files = {"list.csv": table, f"amina/{real}": 1.0, f"juma/{real}": 1.0, "juma/plain.wav": 1.0}
    imported = take(tree(files), "table")
    assert not imported.skipped
    assert [u.audio.parent.name for u in imported.utterances] == ["amina", "juma"]
    (note,) = [n for n in imported.notes if "NFC" in n]
    assert note.startswith("1 recordings are named in the source with other capitals or accents")
    assert not any("found by their name" in n for n in imported.notes)


@exact_names
def test_capitals_of_a_suffix_are_matched_in_the_right_folder(tree: Tree, take: Take) -> None:
    table = "file,text\namina/1.wav,habari\njuma/1,sawa\n"
    imported = take(tree({"list.csv": table, "amina/1.WAV": 1.0, "juma/1.Wav": 1.0}), "table")
    assert not imported.skipped
    assert [u.audio.parent.name for u in imported.utterances] == ["amina", "juma"]
    assert any(
        n.startswith("2 recordings are named in the source with other capitals") for n in imported.notes
    )


@exact_names
def test_two_that_fit_are_not_guessed_among(tree: Tree, take: Take) -> None:
    files = {"list.csv": "file,text\na1.WAV,habari\nb.wav,sawa\n", "a1.wav": 1.0, "A1.wav": 1.0, "b.wav": 1.0}
    imported = take(tree(files), "table")
    assert [u.text for u in imported.utterances] == ["sawa"]
    assert "could be any of 2 files" in imported.skipped[0].reason


@exact_names
def test_texts_beside_recordings_may_store_their_accents_another_way(tree: Tree, take: Take) -> None:
    imported = take(tree({f"{NFD}": 1.0, NFC.replace(".wav", ".txt"): "habari"}), "folder")
    assert [u.text for u in imported.utterances] == ["habari"]
    assert any("NFC, NFD" in n for n in imported.notes)
