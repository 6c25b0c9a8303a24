"""Layouts with times: ELAN, Praat, SRT and WebVTT; and what a flipped byte in them may do."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstwords.data.corpora import Imported
from firstwords.data.corpora.elan import parse_eaf
from firstwords.data.corpora.subtitles import parse_subtitles
from firstwords.data.corpora.textgrid import parse_textgrid
from firstwords.errors import CorpusError, FirstwordsError

Tree = Callable[..., Path]
Take = Callable[..., Imported]

EAF = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="" DATE="2024-01-01T00:00:00+00:00" FORMAT="3.0" VERSION="3.0"
 xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">
    <MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/Users/ana/talk.mp4" MIME_TYPE="video/mp4"
      RELATIVE_MEDIA_URL="./talk.mp4"/>
    <MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/Users/ana/talk.wav" MIME_TYPE="audio/x-wav"
      RELATIVE_MEDIA_URL="{media}" {origin}/>
  </HEADER>
  <TIME_ORDER>
    <TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="500"/>
    <TIME_SLOT TIME_SLOT_ID="ts2"/>
    <TIME_SLOT TIME_SLOT_ID="ts3"/>
    <TIME_SLOT TIME_SLOT_ID="ts4" TIME_VALUE="2000"/>
    <TIME_SLOT TIME_SLOT_ID="ts5" TIME_VALUE="3000"/>
    <TIME_SLOT TIME_SLOT_ID="ts6"/>
  </TIME_ORDER>
  <TIER TIER_ID="ref@A" LINGUISTIC_TYPE_REF="ref" PARTICIPANT="Amina" LANG_REF="swh">
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts4">
      <ANNOTATION_VALUE>Habari &amp; ya  leo</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a2" TIME_SLOT_REF1="ts4" TIME_SLOT_REF2="ts5">
      <ANNOTATION_VALUE></ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a3" TIME_SLOT_REF1="ts5" TIME_SLOT_REF2="ts6">
      <ANNOTATION_VALUE>no end</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
  </TIER>
  <TIER TIER_ID="words@A" LINGUISTIC_TYPE_REF="words" PARENT_REF="ref@A">
    <ANNOTATION><REF_ANNOTATION ANNOTATION_ID="w2" ANNOTATION_REF="a1" PREVIOUS_ANNOTATION="w1">
      <ANNOTATION_VALUE>ya leo</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>
    <ANNOTATION><REF_ANNOTATION ANNOTATION_ID="w1" ANNOTATION_REF="a1">
      <ANNOTATION_VALUE>habari</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>
  </TIER>
  <TIER TIER_ID="gloss@A" LINGUISTIC_TYPE_REF="gloss" PARENT_REF="words@A">
    <ANNOTATION><REF_ANNOTATION ANNOTATION_ID="g1" ANNOTATION_REF="w1">
      <ANNOTATION_VALUE>news</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>
  </TIER>
  <TIER TIER_ID="parts@A" LINGUISTIC_TYPE_REF="parts" PARENT_REF="ref@A">
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="p1" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2">
      <ANNOTATION_VALUE>ha</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="p2" TIME_SLOT_REF1="ts2" TIME_SLOT_REF2="ts3">
      <ANNOTATION_VALUE>ba</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
  </TIER>
  <LINGUISTIC_TYPE LINGUISTIC_TYPE_ID="ref" TIME_ALIGNABLE="true"/>
  <LANGUAGE LANG_DEF="http://cdb.iso.org/lg/CDB-00138502-001" LANG_ID="swh" LANG_LABEL="Swahili"/>
</ANNOTATION_DOCUMENT>
"""


def eaf(media: str = "./talk.wav", origin: str = "") -> str:
    return EAF.replace("{media}", media).replace("{origin}", origin)


class TestElan:
    def test_time_aligned_annotations(self, tree: Tree, take: Take) -> None:
        imported = take(tree({"talk.eaf": eaf(), "talk.wav": 5.0}), "elan", tiers=("ref@A",))
        (utterance,) = imported.utterances
        assert (utterance.start, utterance.duration, utterance.text) == (0.5, 1.5, "Habari & ya leo")
        assert (utterance.speaker, utterance.language) == ("Amina", "swh")
        assert utterance.id == "talk-0000500-0002000"
        assert any("1 annotations are blank" in note for note in imported.notes)
        assert [s.where for s in imported.skipped] == ["annotation a3 of talk.eaf"]

    def test_annotations_that_refer_to_others_take_their_times_and_are_joined_in_order(
        self, tree: Tree, take: Take
    ) -> None:
        root = tree({"talk.eaf": eaf(), "talk.wav": 5.0})
        (words,) = take(root, "elan", tiers=("words@A",)).utterances
        assert (words.start, words.duration, words.text, words.speaker) == (
            0.5,
            1.5,
            "habari ya leo",
            "Amina",
        )
        (gloss,) = take(root, "elan", tiers=("type:gloss",)).utterances
        assert (gloss.start, gloss.text, gloss.speaker) == (0.5, "news", "Amina")

    def test_slots_without_a_time_lie_evenly_between_their_neighbours(self, tree: Tree, take: Take) -> None:
        imported = take(tree({"talk.eaf": eaf(), "talk.wav": 5.0}), "elan", tiers=("parts@A",))
        assert [(u.start, u.duration) for u in imported.utterances] == [(0.5, 0.5), (1.0, 0.5)]

    def test_without_a_tier_all_are_listed_with_counts_and_examples(self, tree: Tree, take: Take) -> None:
        root = tree({"talk.eaf": eaf(), "talk.wav": 5.0})
        with pytest.raises(CorpusError) as caught:
            take(root, "elan")
        for words in (
            "ref@A: 1 with text (2 s) in 1 file, type ref, for example 'Habari & ya leo'",
            "words@A: 1 with text",
            "parts@A: 2 with text (1 s)",
        ):
            assert words in caught.value.what
        assert "--tier" in caught.value.mend
        with pytest.raises(CorpusError, match=r"--tier orth: no file has such a tier(.|\n)*gloss@A"):
            take(root, "elan", tiers=("orth",))

    def test_several_tiers_and_patterns(self, tree: Tree, take: Take) -> None:
        second = eaf().replace("@A", "@B").replace("Amina", "")
        root = tree({"talk.eaf": eaf(), "talk.wav": 5.0, "b/talk2.eaf": second, "b/talk.wav": 5.0})
        imported = take(root, "elan", tiers=("ref@*",))
        assert {(u.speaker, u.labels["tier"]) for u in imported.utterances} == {
            ("Amina", "ref@A"),
            ("ref@B", "ref@B"),
        }

    def test_the_only_tier_with_text_is_taken_and_that_is_said(self, tree: Tree, take: Take) -> None:
        only = eaf().split("<TIER ")
        content = only[0] + "<TIER " + only[1] + only[-1][only[-1].index("<LINGUISTIC_TYPE") :]
        imported = take(tree({"talk.eaf": content, "talk.wav": 5.0}), "elan")
        assert len(imported.utterances) == 1
        assert any("Read the tier 'ref@A', the only one" in note for note in imported.notes)

    @pytest.mark.parametrize(
        ("files", "media"),
        [
            (("sub/sound.wav",), "sub/sound.wav"),
            (("with space/tälk.wav",), "file:./with%20space/t%C3%A4lk.wav"),
            (("talk.wav",), "../elsewhere/talk.wav"),
            (("other/place/rec1.wav",), "./gone/rec1.wav"),
            (("interview.wav",), "./lost.wav"),
            (("interview.mp4",), "./lost.wav"),
        ],
    )
    def test_media_are_found_where_they_are(
        self, files: tuple[str, ...], media: str, tree: Tree, take: Take
    ) -> None:
        root = tree({"interview.eaf": eaf(media)} | {"template.wav": 5.0})
        for name in files:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes((root / "template.wav").read_bytes())
        imported = take(root, "elan", tiers=("ref@A",))
        assert imported.utterances[0].audio == root / files[0]

    def test_a_time_origin_moves_the_annotations(self, tree: Tree, take: Take) -> None:
        root = tree({"talk.eaf": eaf(origin='TIME_ORIGIN="1250"'), "talk.wav": 5.0})
        assert take(root, "elan", tiers=("ref@A",)).utterances[0].start == 1.75

    def test_missing_media_and_broken_files_are_named_and_the_rest_goes_on(
        self, tree: Tree, take: Take
    ) -> None:
        root = tree(
            {
                "a/talk.eaf": eaf(),
                "a/talk.wav": 5.0,
                "b/lost.eaf": eaf("./nowhere.wav").replace("talk", "nothing"),
                "c/broken.eaf": eaf()[:900],
                "c/frames.eaf": eaf().replace("milliseconds", "PAL-frames"),
                "c/page.eaf": "<html/>",
                "c/other.eaf": eaf("../a/talk.wav").replace("ref@A", "xyz@A"),
            }
        )
        imported = take(root, "elan", tiers=("ref@A",))
        assert len(imported.utterances) == 1
        found = {s.where: s.reason for s in imported.skipped}
        assert "nowhere.wav' does not exist" in found["b/lost.eaf"]
        assert "not readable XML" in found["c/broken.eaf"]
        assert "PAL-frames" in found["c/frames.eaf"]
        assert "<html>" in found["c/page.eaf"]
        assert "none of the chosen tiers" in found["c/other.eaf"]

    def test_a_file_that_cannot_be_opened_is_named_and_the_rest_goes_on(
        self, tree: Tree, take: Take, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = tree({"talk.eaf": eaf(), "talk.wav": 5.0, "shut.eaf": eaf()})
        opened = Path.read_bytes

        def refuse(path: Path) -> bytes:
            if path.name == "shut.eaf":
                raise PermissionError(13, "Permission denied", str(path))
            return opened(path)

        monkeypatch.setattr(Path, "read_bytes", refuse)
        imported = take(root, "elan", tiers=("ref@A",))
        assert len(imported.utterances) == 1
        assert "Permission denied" in imported.skipped[0].reason

    def test_xml_bombs_and_outside_files_are_refused(self) -> None:
        lol = "".join(f'<!ENTITY l{n + 1} "{f"&l{n};" * 10}">' for n in range(9))
        root = "<ANNOTATION_DOCUMENT>&{};</ANNOTATION_DOCUMENT>"
        bomb = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY l0 "lol">{lol}]>' + root.format("l9")
        outside = '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]>' + root.format("e")
        small = '<!DOCTYPE x [<!ENTITY e "one word">]>' + root.format("e")  # expat alone would read it
        for text in (bomb, outside, small):
            with pytest.raises(CorpusError, match="Forbidden"):
                parse_eaf(text.encode(), "bomb.eaf")

    def test_references_that_go_in_circles_end(self) -> None:
        knot = (
            '<TIER TIER_ID="t" PARENT_REF="t">'
            '<ANNOTATION><REF_ANNOTATION ANNOTATION_ID="x" ANNOTATION_REF="y" '
            'PREVIOUS_ANNOTATION="z"/></ANNOTATION><ANNOTATION><REF_ANNOTATION ANNOTATION_ID="z" '
            'ANNOTATION_REF="y" PREVIOUS_ANNOTATION="x"/></ANNOTATION><ANNOTATION><REF_ANNOTATION '
            'ANNOTATION_ID="y" ANNOTATION_REF="x"/></ANNOTATION></TIER>'
        )
        (tier,) = parse_eaf(f"<ANNOTATION_DOCUMENT>{knot}</ANNOTATION_DOCUMENT>".encode(), "knot.eaf").tiers
        assert tier.annotations == ()
        assert len(tier.faults) == 2

    def test_it_reads_what_pympi_writes(self, tree: Tree, take: Take) -> None:
        elan = pytest.importorskip("pympi.Elan")
        root = tree({"talk.wav": 5.0})
        document = elan.Eaf()
        document.add_linked_file(str(root / "talk.wav"), relpath="talk.wav", mimetype="audio/x-wav")
        document.remove_tier("default")
        document.add_tier("orth", part="Juma")
        expected = [(0, 1000, "moja"), (1000, 2250, 'mbili <&> "tatu"'), (3000, 4000, "ọ̀rọ̀")]
        for begin, end, text in expected:
            document.add_annotation("orth", begin, end, text)
        document.to_file(str(root / "talk.eaf"))
        imported = take(root, "elan")
        assert [(u.start, u.start + u.duration, u.text) for u in imported.utterances] == [
            (begin / 1000, pytest.approx(end / 1000), text) for begin, end, text in expected
        ]
        assert {u.speaker for u in imported.utterances} == {"Juma"}


LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 3.5
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 3.5
        intervals: size = 3
        intervals [1]:
            xmin = 0
            xmax = 0.5
            text = ""
        intervals [2]:
            xmin = 0.5
            xmax = 1.75
            text = "alisema ""njoo"" 3 <exists> !
leo"
        intervals [3]:
            xmin = 1.75
            xmax = 3.5
            text = "sawa"
    item [2]:
        class = "TextTier"
        name = "clicks"
        xmin = 0
        xmax = 3.5
        points: size = 1
        points [1]:
            number = 1.25
            mark = "x"
    item [3]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 3.5
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 3.5
            text = "s a w a"
"""
# Praat itself leaves a blank at the end of these lines
LONG = re.sub(r"(?<=[0-9\"\]>:])$", " ", LONG, flags=re.MULTILINE)
SHORT = """"ooTextFile"
"TextGrid"

0
3.5
<exists>
3
"IntervalTier"
"words"
0
3.5
3
0
0.5
""
0.5
1.75
"alisema ""njoo"" 3 <exists> !
leo"
1.75
3.5
"sawa"
"TextTier"
"clicks"
0
3.5
1
1.25
"x"
"IntervalTier" "phones" 0 3.5 1 ! all on one line
0 3.5 "s a w a"
"""


class TestTextGrid:
    @pytest.mark.parametrize("form", [LONG, SHORT], ids=["long", "short"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
    @pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
    def test_forms_and_encodings(
        self, form: str, encoding: str, newline: str, tree: Tree, take: Take
    ) -> None:
        content = form.replace("\n", newline).encode(encoding)
        root = tree({"talk.TextGrid": content, "talk.wav": 3.5})
        imported = take(root, "textgrid", tiers=("words",))
        assert [(u.start, u.duration, u.text) for u in imported.utterances] == [
            (0.5, 1.25, 'alisema "njoo" 3 <exists> ! leo'),
            (1.75, 1.75, "sawa"),
        ]

    def test_tiers_are_listed_and_points_are_no_utterances(self, tree: Tree, take: Take) -> None:
        root = tree({"talk.TextGrid": LONG, "talk.wav": 3.5})
        with pytest.raises(CorpusError) as caught:
            take(root, "textgrid")
        assert 'words: 2 with text (3 s) in 1 file, for example \'alisema "njoo"' in caught.value.what
        assert "clicks: 0 with text" in caught.value.what
        with pytest.raises(CorpusError, match="point tier"):
            take(root, "textgrid", tiers=("clicks",))

    def test_broken_files_are_named_and_the_rest_goes_on(self, tree: Tree, take: Take) -> None:
        root = tree(
            {
                "good.TextGrid": LONG,
                "good.wav": 3.5,
                "torn.TextGrid": LONG[:500],
                "torn.wav": 3.5,
                "binary.TextGrid": b"ooBinaryFile\x08TextGrid\x00\x01",
                "binary.wav": 3.5,
                "pitch.TextGrid": LONG.replace('"TextGrid"', '"PitchTier"'),
                "many.TextGrid": LONG.replace("size = 3 ", "size = 99999999 "),
                "silent.TextGrid": LONG,
            }
        )
        imported = take(root, "textgrid", tiers=("words",))
        assert {u.audio.name for u in imported.utterances} == {"good.wav"}
        found = {s.where: s.reason for s in imported.skipped}
        assert "ends too early" in found["torn.TextGrid"]
        assert "binary" in found["binary.TextGrid"]
        assert "PitchTier" in found["pitch.TextGrid"]
        assert "no count" in found["many.TextGrid"]
        assert "does not exist" in found["silent.TextGrid"]

    @pytest.mark.parametrize("form", ["long_textgrid", "short_textgrid"])
    def test_it_reads_what_praatio_writes(self, form: str, tree: Tree, take: Take) -> None:
        textgrid = pytest.importorskip("praatio.textgrid")
        root = tree({"talk.wav": 5.0})
        entries = [(0.25, 1.0, "moja"), (1.5, 2.125, 'say "two"'), (3.0, 4.0, "ọ̀rọ̀")]
        grid = textgrid.Textgrid()
        grid.addTier(textgrid.IntervalTier("orth", entries, 0, 5))
        grid.save(str(root / "talk.TextGrid"), format=form, includeBlankSpaces=True)
        imported = take(root, "textgrid")
        assert [(u.start, u.start + u.duration, u.text) for u in imported.utterances] == entries


SRT = """1
00:00:00,500 --> 00:00:01,750
<i>Habari</i> ya
asubuhi

2
00:00:01,750 --> 00:00:02,500 X1:40 X2:600
{\\an8}- Nzuri &amp; wewe 5 < 6?

3
00:00:02,500 --> 00:00:02,400
backwards

4
00:00:xx,000 --> 00:00:03,000
no time

5
00:00:02,600 --> 00:00:03,000

6
00:00:03,000 --> 00:00:04,000
last without blank line
7
00:00:04,000 --> 00:00:04,500
end"""

VTT = """WEBVTT - a title

STYLE
::cue { color: red }

NOTE
a remark

intro
00:00.500 --> 00:01.750 align:start
<v.loud Amina>Habari <00:00:01.000><c>ya</c> asubuhi

00:00:01.750 --> 00:00:02.500
<v Juma>Sawa</v> &lt;3
"""


class TestSubtitles:
    def test_srt(self, tree: Tree, take: Take) -> None:
        imported = take(tree({"talk.srt": SRT.replace("\n", "\r\n"), "talk.wav": 5.0}), "subtitles")
        assert [(u.start, u.duration, u.text) for u in imported.utterances] == [
            (0.5, 1.25, "Habari ya asubuhi"),
            (1.75, 0.75, "- Nzuri & wewe 5 < 6?"),
            (3.0, 1.0, "last without blank line"),
            (4.0, 0.5, "end"),
        ]
        found = {s.where: s.reason for s in imported.skipped}
        assert "are no times" in found["line 15 of talk.srt"]
        assert "not after its start" in found["line 11 of talk.srt"]
        assert any("1 cues hold no text" in note for note in imported.notes)

    def test_vtt_with_voices(self, tree: Tree, take: Take) -> None:
        imported = take(tree({"talk.vtt": VTT, "talk.wav": 5.0}), "subtitles")
        assert [(u.start, u.text, u.speaker) for u in imported.utterances] == [
            (0.5, "Habari ya asubuhi", "Amina"),
            (1.75, "Sawa <3", "Juma"),
        ]

    def test_of_a_recording_in_two_forms_the_better_is_taken_and_that_is_said(
        self, tree: Tree, take: Take
    ) -> None:
        imported = take(tree({"talk.srt": SRT, "talk.wav": 5.0, "talk.mp4": b"video"}), "subtitles")
        assert {u.audio.name for u in imported.utterances} == {"talk.wav"}
        assert any("1 recordings lie there in several forms" in note for note in imported.notes)

    def test_languages_in_names(self, tree: Tree, take: Take) -> None:
        root = tree({"talk.sw.srt": SRT, "talk.wav": 5.0})
        assert take(root, "subtitles").utterances[0].language == "sw"
        (root / "talk.en.srt").write_text(SRT)
        with pytest.raises(CorpusError, match="several subtitle files"):
            take(root, "subtitles")
        assert {u.language for u in take(root, "subtitles", language="sw").utterances} == {"sw"}

    def test_a_file_without_recording_or_cues_is_named(self, tree: Tree, take: Take) -> None:
        root = tree({"a.srt": SRT, "a.wav": 5.0, "b.srt": SRT, "c.srt": "hello", "c.wav": 1})
        found = {s.where: s.reason for s in take(root, "subtitles").skipped}
        assert "does not exist" in found["b.srt"]
        assert "no cue" in found["c.srt"]


SEEDS = {
    "eaf": (parse_eaf, eaf().encode()),
    "long": (parse_textgrid, LONG.encode()),
    "short": (parse_textgrid, SHORT.encode("utf-16")),
    "srt": (parse_subtitles, SRT.encode()),
    "vtt": (parse_subtitles, VTT.encode()),
}


def attempt(kind: str, data: bytes) -> str:
    """What our error says, or nothing; any other exception goes through and fails the test."""
    parse, _ = SEEDS[kind]
    try:
        parse(data, "the-file")
    except FirstwordsError as error:
        return error.what
    return ""


NASTY = [b'"', b'""', b"<", b">", b"-->", b"1e999", b"-1", b"99999999999", b"\x00", b"]]>"]


@pytest.mark.parametrize("kind", SEEDS)
@settings(max_examples=120, deadline=None)
@given(
    edits=st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 40), st.binary(max_size=6) | st.sampled_from(NASTY)),
        min_size=1,
        max_size=8,
    )
)
def test_mutated_files_raise_nothing_but_our_errors(kind: str, edits: list[tuple[float, int, bytes]]) -> None:
    data = SEEDS[kind][1]
    for where, gone, new in edits:
        at = int(where * len(data))
        data = data[:at] + new + data[at + gone :]
    said = attempt(kind, data)
    assert not said or "the-file" in said


@pytest.mark.parametrize("kind", SEEDS)
def test_a_file_cut_off_anywhere_raises_nothing_but_our_errors(kind: str) -> None:
    data = SEEDS[kind][1]
    said = [attempt(kind, data[:length]) for length in range(0, len(data), 11)]
    assert said[0]
    assert all("the-file" in words for words in said if words)


@pytest.mark.parametrize("layout", ["elan", "table", "file", "subtitles"])
def test_recordings_without_transcript_are_counted_and_named(layout: str, tree: Tree, take: Take) -> None:
    files: dict[str, object] = {f"more/talk{n}.wav": 0.5 for n in range(4)}
    files |= {"more/talk.wav": 5.0, "more/talk.flac": 5.0, "more/notes.txt": "x"}
    match layout:
        case "elan":
            files["more/talk.eaf"] = eaf()
        case "subtitles":
            files["more/talk.srt"] = "1\n00:00:01,000 --> 00:00:02,000\nhabari\n"
        case _:
            files["more/list.csv"] = "file,text\ntalk.wav,habari\n"
    root = tree(files)
    source = root / "more" / "list.csv" if layout == "file" else root
    tiers = ("ref@A",) if layout == "elan" else ()
    imported = take(source, "table" if layout == "file" else layout, tiers=tiers)
    (note,) = [n for n in imported.notes if "without a transcript" in n]
    assert note.startswith("4 recordings lie there without a transcript")
    assert "talk0.wav" in note
    assert "..." in note
    suffix = {"elan": "eaf", "subtitles": "srt"}.get(layout, "textgrid")
    assert f"/talk0.wav --format {suffix} --out {root}" in note


def test_where_all_are_transcribed_nothing_is_said(tree: Tree, take: Take) -> None:
    imported = take(tree({"talk.eaf": eaf(), "talk.wav": 5.0, "talk.mp4": b"x"}), "elan", tiers=("ref@A",))
    assert not any("without a transcript" in n for n in imported.notes)
