"""Corpora as they must not be: named cases, each a folder, and what 'firstwords import' is to make of it.

Every folder holds three good recordings (``a.wav``, ``b.wav``, ``c.wav``) unless the case says otherwise;
what is wrong is the transcripts around them.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Files = Mapping[str, str | bytes | float]

SECONDS = 1.5
AUDIO: Files = {"a.wav": SECONDS, "b.wav": SECONDS, "c.wav": SECONDS}


@dataclass(frozen=True)
class CorpusCase:
    """One malformed source.

    Args:
        files: name -> text, bytes, or seconds of a tone.
        utterances: how many are imported; None: the import is refused with exit code 1.
        says: words that stand in what was printed or in import.json.
        options: of the command line.
    """

    name: str
    files: Callable[[], Files]
    utterances: int | None
    says: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def table(*rows: str, header: str = "file\ttext", name: str = "list.tsv") -> Files:
    return {**AUDIO, name: "\n".join([header, *rows]) + "\n"}


def lines(name: str, *records: Any) -> Files:
    text = "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records)
    return {**AUDIO, name: text}


def nemo(*records: Any) -> Files:
    return lines("manifest.json", {"audio_filepath": "a.wav", "duration": SECONDS, "text": "one"}, *records)


def ours(*records: Any) -> Files:
    good = {"id": "a", "audio": "a.wav", "duration": SECONDS, "text": "one"}
    return lines("manifest.jsonl", good, *records)


def kaldi(**files: str) -> Files:
    known = {"wav.scp": "u1 a.wav\nu2 b.wav\n", "text": "u1 one\nu2 two\n"}
    return {**AUDIO, **known, **{k.replace("_scp", ".scp"): v for k, v in files.items()}}


def eaf(body: str = "", *, head: str = '<?xml version="1.0" encoding="UTF-8"?>', slots: str = "") -> Files:
    text = (
        f'{head}<ANNOTATION_DOCUMENT><HEADER TIME_UNITS="milliseconds"><MEDIA_DESCRIPTOR MEDIA_URL="a.wav"/>'
        '</HEADER><TIME_ORDER><TIME_SLOT TIME_SLOT_ID="t1" TIME_VALUE="0"/>'
        f'<TIME_SLOT TIME_SLOT_ID="t2" TIME_VALUE="900"/>{slots}</TIME_ORDER><TIER TIER_ID="words">'
        + annotation("n1", "t1", "t2", "moja")
        + body
        + "</TIER></ANNOTATION_DOCUMENT>"
    )
    return {**AUDIO, "a.eaf": text}


def annotation(name: str, first: str, last: str, text: str) -> str:
    return (
        f'<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="{name}" TIME_SLOT_REF1="{first}" '
        f'TIME_SLOT_REF2="{last}"><ANNOTATION_VALUE>{text}</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION>'
        "</ANNOTATION>"
    )


def textgrid(tiers: str = '"IntervalTier" "words" 0 1.5 1 0 1.5 "moja"', count: str = "1") -> str:
    return f'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n1.5\n<exists>\n{count}\n{tiers}\n'


def srt(*cues: str) -> Files:
    return {**AUDIO, "a.srt": "\n\n".join(["1\n00:00:00,000 --> 00:00:01,000\nmoja", *cues]) + "\n"}


def cuts(*records: Any) -> Files:
    recording = {
        "id": "r",
        "sources": [{"type": "file", "channels": [0], "source": "a.wav"}],
        "sampling_rate": 8000,
        "num_samples": 12000,
        "duration": SECONDS,
        "channel_ids": [0],
    }
    part = {"id": "s", "recording_id": "r", "start": 0.0, "duration": 1.0, "channel": 0, "text": "moja"}
    good = {
        "id": "c",
        "start": 0.0,
        "duration": SECONDS,
        "channel": 0,
        "supervisions": [part],
        "recording": recording,
        "type": "MonoCut",
    }
    changed = [
        r | {"x": 1} if isinstance(r, dict) else r for r in (f(good) if callable(f) else f for f in records)
    ]
    return lines("cuts.jsonl", good, *changed)


def with_(record: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return record | fields


GOOD_ROWS = ("a.wav\tone", "b.wav\ttwo")
HUGE = "9" * 5000

CASES = [
    # tables
    CorpusCase("table with latin-1 letters", lambda: {**AUDIO, "list.tsv":
        "file\ttext\na.wav\tgr\xfc\xdfe\n".encode("latin-1")}, None, ("list.tsv", "UTF-8")),
    CorpusCase("table in utf-16", lambda: {**AUDIO, "list.tsv": "file\ttext\na.wav\tẹ̀\n"
        .encode("utf-16")}, 1),
    CorpusCase("table with one broken letter", lambda: {**AUDIO, "list.tsv": b"file\ttext\n" + b"".join(
        b"%b.wav\tone\n" % n for n in (b"a", b"b")) + b"c.wav\tgr\xfc\n" + b"a.wav\tagain\n" * 20}, 22,
        ("line 4 of list.tsv", "letters lost")),
    CorpusCase("table with a NUL", lambda: table("a.wav\tone\0", *GOOD_ROWS), 3),
    CorpusCase("table with an open quote", lambda: table("a.wav,\"one", "b.wav,two", "c.wav,three",
        header="file,text", name="list.csv"), None, ("list.csv", "quote")),
    CorpusCase("table with a cell of 200 kB", lambda: table("a.wav\t" + "x" * 200_000, *GOOD_ROWS,
        ), None, ("list.tsv", "field")),
    CorpusCase("table with too many cells", lambda: table(*GOOD_ROWS, "c.wav\tthree\t4\t5"), 2,
        ("line 4 of list.tsv", "4 cells")),
    CorpusCase("table with too few cells", lambda: table(*GOOD_ROWS, "c.wav"), 2, ("line 4 of list.tsv",)),
    CorpusCase("table of a header alone", lambda: table(), None, ("list.tsv",)),
    CorpusCase("empty table", lambda: {**AUDIO, "list.tsv": b""}, None, ()),
    CorpusCase("table with missing recordings", lambda: table(*GOOD_ROWS, "zzz.wav\tthree"), 2,
        ("line 4 of list.tsv", "'zzz.wav' does not exist")),
    CorpusCase("table with a path outside", lambda: table(*GOOD_ROWS, "../../../../etc/passwd\tthree"), 2,
        ("line 4 of list.tsv", "passwd")),
    CorpusCase("table with a name of 5000 letters", lambda: table(*GOOD_ROWS, "x" * 5000 + ".wav\tthree"), 2,
        ("line 4 of list.tsv",)),
    CorpusCase("table with a NUL in a name", lambda: table(*GOOD_ROWS, "c\0.wav\tthree"), 2,
        ("line 4 of list.tsv",)),
    CorpusCase("table with a web address", lambda: table(*GOOD_ROWS, "https://x.org/c.wav\tthree"), 2,
        ("line 4 of list.tsv", "web address")),
    CorpusCase("table with times that are none", lambda: table("a.wav\tone\t0\t1", "b.wav\ttwo\tx\t1",
        "c.wav\tthree\t0\tnan", "c.wav\tfour\t-1\t1", "c.wav\tfive\t1e999\t2", f"c.wav\tsix\t{HUGE}\t1",
        "c.wav\tseven\t1\t0.5", "c.wav\teight\t700\t701", header="file\ttext\tstart\tend"), 1,
        tuple(f"line {n} of list.tsv" for n in range(3, 10))),
    CorpusCase("table with ids that stand twice", lambda: table("a.wav\tone\tx", "b.wav\ttwo\tx",
        header="file\ttext\tid"), 1, ("line 3 of list.tsv", "'x' stands twice")),
    CorpusCase("table with markup of the terminal in it", lambda: table("a.wav\t[/bold] [link=x] one\t[/]",
        "zzz[/red].wav\ttwo\t[red]", header="file\ttext\tid"), 1, ("zzz[/red].wav",)),
    CorpusCase("table with an id of a path", lambda: table("a.wav\tone\t../../../evil",
        "b.wav\ttwo\tC:\\evil", header="file\ttext\tid"), 2),
    CorpusCase("table with columns nobody knows", lambda: table("a.wav\tone", header="foo\tbar"), None,
        ("list.tsv",), ("--layout", "table")),
    CorpusCase("table with return alone at line ends", lambda: {**AUDIO, "list.tsv":
        b"file\ttext\ra.wav\tone\rb.wav\ttwo\r"}, 2),
    # manifests
    CorpusCase("manifest with broken lines", lambda: ours("{", "[]", "null", '"x"', "{}", "nonsense"), 1,
        tuple(f"line {n} of manifest.jsonl" for n in range(2, 8))),
    CorpusCase("manifest with a deep line", lambda: ours("[" * 100_000), 1, ("line 2 of manifest.jsonl",)),
    CorpusCase("manifest with numbers that are none", lambda: ours(*(
        f'{{"id": "x{i}", "audio": "b.wav", "duration": {v}, "text": "t"}}' for i, v in enumerate(
            ("NaN", "Infinity", "-1", "1e999", "true", "[]", HUGE, '"2"', "null"))
        )), 3, tuple(f"line {n} of manifest.jsonl" for n in range(2, 9))),  # quoted is read, null: to the end
    CorpusCase("manifest with an id that stands twice", lambda: ours(
        {"id": "a", "audio": "b.wav", "duration": 1, "text": "two"}), 1, ("'a' stands twice",)),
    CorpusCase("manifest with half characters", lambda: ours(
        '{"id": "x", "audio": "b.wav", "duration": 1, "text": "\\ud800"}'), 1, ("line 2", "surrogate")),
    CorpusCase("manifest with a start behind the end", lambda: ours(
        {"id": "x", "audio": "b.wav", "start": 100, "duration": 1, "text": "two"}), 1,
        ("line 2", "only 1.5")),
    CorpusCase("manifest that is not UTF-8", lambda: {**AUDIO, "manifest.jsonl":
        b'{"id": "a", "audio": "a.wav", "duration": 1, "text": "\xff"}\n'}, None, ("manifest.jsonl",),
        ("--layout", "manifest")),
    CorpusCase("manifest of nothing but faults", lambda: {**AUDIO, "manifest.jsonl": "{\n[\n"}, None,
        ("manifest.jsonl",), ("--layout", "manifest")),
    CorpusCase("nemo with lines of all kinds", lambda: nemo("{", {"audio_filepath": 7, "text": "x"},
        {"audio_filepath": "", "duration": 1}, {"audio_filepath": "b.wav", "duration": "x", "text": "two"},
        {"audio_filepath": "b.wav", "duration": 1, "offset": -3, "text": "two"},
        {"audio_filepath": ["b.wav"], "duration": 1, "text": "two"}), 1,
        tuple(f"line {n} of manifest.json" for n in range(2, 8))),
    CorpusCase("gzip that is none", lambda: {**AUDIO, "cuts.jsonl.gz": b"\x1f\x8b nonsense"}, None,
        ("cuts.jsonl.gz",), ("--layout", "lhotse")),
    CorpusCase("gzip cut short", lambda: {**AUDIO, "cuts.jsonl.gz":
        gzip.compress(str(cuts()["cuts.jsonl"]).encode() * 50)[:-30]}, None, ("cuts.jsonl.gz",)),
    CorpusCase("gzip bomb", lambda: {**AUDIO, "cuts.jsonl.gz":
        gzip.compress(str(cuts()["cuts.jsonl"]).encode() + (b"x" * 1000 + b"\n") * 20_000)}, None,
        ("cuts.jsonl.gz", "times")),
    CorpusCase("gzip of blank lines", lambda: {**AUDIO, "cuts.jsonl.gz":
        gzip.compress(str(cuts()["cuts.jsonl"]).encode() + b"\n" * 20_000_000)}, None,
        ("cuts.jsonl.gz", "blank lines")),
    CorpusCase("gzip with a line without an end", lambda: {**AUDIO, "cuts.jsonl.gz":
        gzip.compress(str(cuts()["cuts.jsonl"]).encode() + b" " * 50_000_000)}, None, ("cuts.jsonl.gz",)),
    # lhotse
    CorpusCase("lhotse with lines of all kinds", lambda: cuts("{", "7",
        lambda g: with_(g, recording=None), lambda g: with_(g, supervisions="x"),
        lambda g: with_(g, supervisions=[7]), lambda g: with_(g, start="x"),
        lambda g: with_(g, type="MixedCut", tracks=[]),
        lambda g: with_(g, recording=g["recording"] | {"sources": []}),
        lambda g: with_(g, recording=g["recording"] | {"sources": [{"type": "command", "source": "ls"}]}),
        lambda g: with_(g, recording=g["recording"] | {"sources": [{"type": "url", "source": "http://x"}]}),
        ), 1, ("line 2 of cuts.jsonl", "line 3 of cuts.jsonl", "line 10 of cuts.jsonl")),
    # Kaldi
    CorpusCase("kaldi with commands", lambda: kaldi(wav_scp="u1 a.wav\nu2 sh -c 'touch evil' |\n"), 1,
        ("wav.scp entry u2", "command")),
    CorpusCase("kaldi with an archive", lambda: kaldi(wav_scp="u1 a.wav\nu2 x.ark:17\n"), 1, ("entry u2",)),
    CorpusCase("kaldi without text", lambda: {k: v for k, v in kaldi().items() if k != "text"}, 2,
        ("without transcripts",)),
    CorpusCase("kaldi with torn segments", lambda: kaldi(
        segments="s1 u1 0 1\ns2 u1\ns3 u1 x y\ns4 u9 0 1\ns5 u1 5 6\ns6 u1 nan nan\ns7 u2 0 1 1\n",
        text="s1 one\ns2 two\ns3 x\ns4 x\ns5 x\ns6 x\ns7 x\n"), 1,
        ("s2 of segments", "s3 of segments", "s4 of segments", "s5 of segments", "s6 of segments",
         "s7 of segments")),
    CorpusCase("kaldi with lines that stand twice", lambda: kaldi(text="u1 one\nu1 uno\nu2 two\n"), 2,
        ("line 2 of text",)),
    CorpusCase("kaldi with an empty wav.scp", lambda: kaldi(wav_scp=""), None, ("u1 of text",)),
    # ELAN
    CorpusCase("elan cut short", lambda: {**AUDIO, "a.eaf": str(eaf()["a.eaf"])[:300]}, None, ("a.eaf",)),
    CorpusCase("elan of another root", lambda: {**AUDIO, "a.eaf": "<html/>"}, None, ("a.eaf", "<html>")),
    CorpusCase("elan with entities", lambda: eaf(head='<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa">'
        + "".join(f'<!ENTITY {n} "{f"&{p};" * 10}">' for p, n in zip("abcdefgh", "bcdefghi", strict=True))
        + "]>"), None, ("a.eaf",)),
    CorpusCase("elan that reads a foreign file", lambda: eaf(head='<?xml version="1.0"?><!DOCTYPE x '
        '[<!ENTITY a SYSTEM "file:///etc/passwd">]>'), None, ("a.eaf",)),
    CorpusCase("elan with annotations without times", lambda: eaf(annotation("n2", "t8", "t9", "mbili")), 1,
        ("annotation n2 of a.eaf",)),
    CorpusCase("elan with references in a circle", lambda: eaf("".join(
        f'<ANNOTATION><REF_ANNOTATION ANNOTATION_ID="r{i}" ANNOTATION_REF="r{1 - i}"><ANNOTATION_VALUE>x'
        "</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>" for i in (0, 1))), 1, ("annotation r0",)),
    CorpusCase("elan with times of 300 digits", lambda: eaf(annotation("n2", "t1", "t3", "mbili"),
        slots=f'<TIME_SLOT TIME_SLOT_ID="t3" TIME_VALUE="{"9" * 300}"/>'), 1, ("annotation n2",)),
    CorpusCase("elan in an unknown encoding", lambda: eaf(head='<?xml version="1.0" encoding="x-klingon"?>'),
        None, ("a.eaf",)),
    CorpusCase("elan nested 100 000 deep", lambda: {**AUDIO, "a.eaf": "<A>" * 100_000}, None, ("a.eaf",)),
    # Praat
    CorpusCase("textgrid cut short", lambda: {**AUDIO, "a.TextGrid": textgrid()[:-20]}, None,
        ("a.TextGrid",)),
    CorpusCase("textgrid that promises a billion tiers", lambda: {**AUDIO, "a.TextGrid": textgrid(
        count="1000000000")}, None, ("a.TextGrid",)),
    CorpusCase("textgrid that promises 1e999 intervals", lambda: {**AUDIO, "a.TextGrid": textgrid(
        '"IntervalTier" "words" 0 1.5 1e999 0 1.5 "moja"')}, None, ("a.TextGrid",)),
    CorpusCase("textgrid that promises -1e999 tiers", lambda: {**AUDIO, "a.TextGrid": textgrid(
        count="-1e999")}, None, ("a.TextGrid",)),
    CorpusCase("textgrid of a billion points", lambda: {**AUDIO, "a.TextGrid": textgrid(
        '"TextTier" "words" 0 1.5 1000000000')}, None, ("a.TextGrid",)),
    CorpusCase("textgrid with times backwards", lambda: {**AUDIO, "a.TextGrid": textgrid(
        '"IntervalTier" "words" 0 1.5 2 0 1 "moja" 1 0.5 "mbili"')}, 1, ("interval 2 of tier 'words'",)),
    CorpusCase("textgrid in binary", lambda: {**AUDIO, "a.TextGrid": b"ooBinaryFile\x08TextGrid" + bytes(90)},
        None, ("a.TextGrid", "binary")),
    CorpusCase("textgrid with a flag instead of a count", lambda: {**AUDIO, "a.TextGrid": textgrid(
        count="<absent>")}, None, ("a.TextGrid",)),
    # subtitles, labels
    CorpusCase("subtitles with times that are none", lambda: srt(
        "2\n00:00:99999,000 --> x\nmbili", "3\n00:00:01,000 --> 00:00:00,500\ntatu",
        "4\n99:99:99,999 --> 99:99:99,999\nnne"), 1,
        ("line 6 of a.srt", "line 10 of a.srt", "line 14 of a.srt")),
    CorpusCase("subtitles without a cue", lambda: {**AUDIO, "a.srt": "hello\n"}, None, ("a.srt",)),
    CorpusCase("subtitles of binary", lambda: {**AUDIO, "a.srt": bytes(range(256)) * 40}, None, ("a.srt",)),
    CorpusCase("labels with times that are none", lambda: {**AUDIO, "a.txt":
        "0.0\t0.4\tmoja\n1e999\t2\tmbili\nnan\tnan\ttatu\n0.5\t0.9\tnne\n1.0\t1.2\ttano\n7\n"}, 3,
        ("line 2 of a.txt", "line 3 of a.txt", "line 6 of a.txt")),
    # folders
    CorpusCase("transcript that is not UTF-8", lambda: {**AUDIO, "a.txt": "one", "b.txt": b"\xff\xfe\xfd"}, 1,
        ("b.txt",)),
    CorpusCase("transcript of 500 kB", lambda: {**AUDIO, "a.txt": "one", "b.txt": "word " * 100_000}, 2),
    CorpusCase("transcripts without recordings", lambda: {"a.txt": "one", "b.wav": SECONDS,
        "b.txt": "two"}, 1, ("a.txt",)),
    CorpusCase("recordings without transcripts", lambda: {**AUDIO, "a.txt": "one"}, 1, ("b.wav", "c.wav")),
    CorpusCase("nothing", lambda: {".keep": ""}, None, ("no files",)),
    CorpusCase("an archive", lambda: {"all.zip": b"PK\x03\x04" + bytes(50)}, None, ("Unpack",)),
    CorpusCase("only recordings", lambda: AUDIO, None, (".wav",)),
    CorpusCase("names with marks of the terminal", lambda: {"[red]x[/red].wav": SECONDS,
        "[red]x[/red].txt": "a", "[/bold].wav": b"RIFF", "[/bold].txt": "b"}, 1, ("[/bold].wav",)),
    CorpusCase("names with line breaks and tabs", lambda: {"x\ny.wav": SECONDS, "x\ny.txt": "a",
        "p\tq.wav": SECONDS, "p\tq.txt": "b"}, 2),
    CorpusCase("names of 250 letters", lambda: {"n" * 250 + ".wav": SECONDS, "n" * 250 + ".txt": "a"}, 1),
    CorpusCase("names that differ in case", lambda: {"x.wav": SECONDS, "X.wav": SECONDS, "x.txt": "a"}, 1,
        ("X.wav",)),
]  # fmt: skip
