"""Readers of recordings, corpora and corpus folders, with valid files to begin from (see fuzzing.py)."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from firstwords.errors import FirstwordsError
from fuzzing import Reader, texts

# --- recordings ------------------------------------------------------------------------------------------


def _sounds(*kinds: str) -> Callable[[], list[bytes]]:
    def make() -> list[bytes]:
        from malformed_audio import SOUND, encoded

        return [encoded(*kind.split("/", 1), samples=SOUND[:6000]) for kind in kinds]

    return make


def _wavs() -> list[bytes]:
    from malformed_audio import SOUND, encoded, s16, wav

    more = [encoded("WAV", kind, SOUND[:3000]) for kind in ("PCM_24", "FLOAT", "ULAW", "IMA_ADPCM", "PCM_U8")]
    return [wav(s16(SOUND[:3000])), wav(s16(SOUND[:3000]), before=b"LIST\x04\0\0\0INFO"), *more]


def _spheres() -> list[bytes]:
    from malformed_audio import SOUND, s16, sphere

    return [sphere(s16(SOUND[:3000])), sphere(s16(SOUND[:3000]), sample_count="")]


def _foreign() -> list[bytes]:
    """Containers for ffmpeg, or for its absence."""
    return [
        b"\0\0\0\x18ftypM4A \0\0\0\0M4A mp42isom" + bytes(300),
        b"\x1aE\xdf\xa3" + bytes(range(200)),
        b"#!AMR\n" + bytes(200),
        b"\xff\xf1\x50\x80" + bytes(200),
    ]


def _listen(folder: Path) -> None:
    import numpy as np

    from firstwords.audio.waveform import probe, read, read_blocks

    path = folder / "a.wav"
    try:
        info = probe(path)
        assert info.duration >= 0
        assert math.isfinite(info.duration)
    except FirstwordsError as error:
        if path.name not in error.what:
            raise AssertionError("the message does not name the file") from error
    wave = read(path, sample_rate=None)
    assert np.isfinite(wave.samples).all()
    total = sum(len(block) for block in read_blocks(path, sample_rate=None, block_seconds=0.5))
    assert total == len(wave.samples)
    read(path, start=0.05, duration=0.1)


# --- layouts ---------------------------------------------------------------------------------------------


def _tones(folder: Path) -> None:
    import numpy as np
    import soundfile

    for name in ("a", "b", "1272-1-0000"):
        soundfile.write(folder / f"{name}.wav", 0.1 * np.sin(np.arange(12000) / 7), 8000)


def _import(layout: str, file: str = "") -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        from firstwords.data.corpora import LAYOUTS, Options, detect_layout
        from firstwords.data.manifest import parse_utterance, to_record

        with suppress(FirstwordsError):
            detect_layout(folder)
        imported = LAYOUTS[layout].read(folder / file, Options())
        for utterance in imported.utterances:
            line = json.dumps(to_record(utterance, folder=folder), ensure_ascii=False).encode()
            again = parse_utterance(json.loads(line), folder=folder, where="line 1")
            assert again.id == utterance.id
            assert again.text == utterance.text
            assert 0 < again.duration < 2
            assert 0 <= again.start < 2
        for skipped in imported.skipped:
            assert skipped.where
            assert skipped.reason

    return read


def _with(**files: str) -> Callable[[Path], None]:
    """Tones, and text files (two underscores stand for a dot)."""

    def prepare(folder: Path) -> None:
        _tones(folder)
        for name, content in files.items():
            (folder / name.replace("__", ".")).write_text(content, encoding="utf-8")

    return prepare


_SCP, _TEXT = "u1 a.wav\nu2 b.wav\n", "u1 moja mbili\nu2 tatu\n"
_SEGMENTS = "s1 u1 0.0 0.5\ns2 u1 0.5 -1\ns3 u2 0.1 1.2\n"
_TABLE = "file\ttext\tspeaker\tstart\tend\na.wav\tmoja\tx\t0.1\t0.9\nb.wav\tmbili, tatu\ty\t0\t1:00.5\n"
_CV = (
    "client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccents\tlocale\n"
    'c1\ta.wav\tMoja "mbili" tatu\t2\t0\ttwenties\tmale\t\tsw\nc2\tb.wav\tNne.\t2\t1\t\t\t\tsw\n'
)
_FLEURS = (
    "1\ta.wav\tMoja, mbili.\tmoja mbili\tm|o|j|a\t12000\tMALE\n2\tb.wav\tTatu\ttatu\tt|a|t|u\t12000\tFEMALE\n"
)
_MANIFEST = (
    '{"id": "a", "audio": "a.wav", "duration": 1.5, "text": "moja", "speaker": "x", "split": "train"}\n'
    '{"id": "b", "audio": "b.wav", "start": 0.25, "duration": 1.0, "text": "ẹ̀", "accent": "n"}\n'
)
_NEMO = (
    '{"audio_filepath": "a.wav", "duration": 1.5, "text": "moja"}\n'
    '{"audio_filepath": "b.wav", "duration": "0.5", "offset": 0.25, "text": "mbili", "speaker": 7}\n'
)


def _recording(name: str) -> dict[str, Any]:
    source = {"type": "file", "channels": [0], "source": f"{name}.wav"}
    return {"id": name, "sources": [source], "sampling_rate": 8000, "num_samples": 12000, "duration": 1.5}


def _supervision(name: str) -> dict[str, Any]:
    part = {"id": f"s-{name}", "recording_id": name, "start": 0.1, "duration": 1.0, "channel": 0}
    return part | {"text": "moja", "speaker": "x", "custom": {"accent": "n"}}


def _json_lines(*records: dict[str, Any]) -> str:
    return "".join(json.dumps(r) + "\n" for r in records)


def _cut_of(name: str) -> dict[str, Any]:
    cut = {"id": f"c-{name}", "start": 0.0, "duration": 1.5, "channel": 0, "type": "MonoCut"}
    return cut | {"supervisions": [_supervision(name)], "recording": _recording(name)}


_CUTS = _json_lines(_cut_of("a"), _cut_of("b"))
_RECORDINGS = _json_lines(_recording("a"), _recording("b"))
_SUPERVISIONS = _json_lines(_supervision("a"), _supervision("b"))
_EAF = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT><HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">
<MEDIA_DESCRIPTOR MEDIA_URL="file:///a.wav" MIME_TYPE="audio/x-wav"
RELATIVE_MEDIA_URL="./a.wav" TIME_ORIGIN="10"/>
</HEADER><TIME_ORDER><TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="0"/><TIME_SLOT TIME_SLOT_ID="ts2"/>
<TIME_SLOT TIME_SLOT_ID="ts3" TIME_VALUE="900"/></TIME_ORDER>
<TIER LINGUISTIC_TYPE_REF="default-lt" PARTICIPANT="x" LANG_REF="swa" TIER_ID="words"><ANNOTATION>
<ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2"><ANNOTATION_VALUE>moja
</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION><ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a2"
TIME_SLOT_REF1="ts2" TIME_SLOT_REF2="ts3"><ANNOTATION_VALUE>mbili</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION>
</ANNOTATION></TIER><TIER LINGUISTIC_TYPE_REF="sub" PARENT_REF="words" TIER_ID="gloss"><ANNOTATION>
<REF_ANNOTATION ANNOTATION_ID="a3" ANNOTATION_REF="a1"><ANNOTATION_VALUE></ANNOTATION_VALUE></REF_ANNOTATION>
</ANNOTATION></TIER><LINGUISTIC_TYPE LINGUISTIC_TYPE_ID="default-lt" TIME_ALIGNABLE="true"/>
<LANGUAGE LANG_ID="swa" LANG_LABEL="Swahili (swa)"/></ANNOTATION_DOCUMENT>
"""
_GRID = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 1.5
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 1.5
        intervals: size = 2
        intervals [1]:
            xmin = 0
            xmax = 0.7
            text = "moja ""mbili"" tatu"
        intervals [2]:
            xmin = 0.7
            xmax = 1.5
            text = ""
    item [2]:
        class = "TextTier"
        name = "points"
        xmin = 0
        xmax = 1.5
        points: size = 1
        points [1]:
            number = 0.5
            mark = "x"
"""
_SHORT_GRID = '"ooTextFile"\n"TextGrid"\n0\n1.5\n<exists>\n1\n"IntervalTier"\n"w"\n0\n1.5\n1\n0\n1\n"moja"\n'
_SRT = "1\n00:00:00,000 --> 00:00:00,700\n<i>Moja</i>\n\n2\n00:00:00,800 --> 00:00:01,400\n- Mbili\n- Tatu\n"
_VTT = "WEBVTT\n\nNOTE x\n\n00:00.000 --> 00:00.700 align:start\n<v Amina>Moja &amp; mbili</v>\n\n"
_RECORDS = r"""\_sh v3.0  400  Text
\tx moja
mbili
\aud a.wav 0.1 0,9
\tx tatu
\ELANBegin 0.5
\ELANEnd 0:00:01
\ELANParticipant Amina
"""
_LABELS = "0.0\t0.7\tmoja\n\\\t100\t200\n0.8\t1.4\tmbili\n1.45\t1.45\tpoint\n"


def _cuts_packed() -> list[bytes]:
    return [gzip.compress(_CUTS.encode(), mtime=0)]


def _metadata_lines() -> list[bytes]:
    return [_json_lines({"file_name": "a.wav", "text": "moja"}, {"file_name": "b.wav", "text": 7}).encode()]


# --- corpus folders --------------------------------------------------------------------------------------


def _load_corpus(folder: Path) -> None:
    from firstwords.data.decisions import decide, read_allowed
    from firstwords.data.manifest import load_corpus

    corpus = load_corpus(folder)
    assert len(corpus.usable) <= len(corpus.utterances)
    assert all(0 <= u.duration < 1e12 for u in corpus.utterances)
    read_allowed(folder)
    decide(folder, {"a": "audio-silent: x"})


def _add_tier(folder: Path) -> None:
    """The writer of tiers reads the linguist's own file first."""
    from firstwords.data.corpora.elan import parse_eaf
    from firstwords.inference.elan_writer import add_tier
    from firstwords.inference.transcript import Segment, Transcript

    transcript = Transcript("x", (Segment(0.0, 0.5, "x", (), 1.0),), "sw", 1.0, "a.wav")
    data = (folder / "a.eaf").read_bytes()
    grown = add_tier(data, transcript, "m", source="'a.eaf'")
    assert len(grown) > len(data)
    parse_eaf(grown, "a.eaf")


READERS: tuple[Reader, ...] = (
    Reader("audio wav", _wavs, "a.wav", _listen),
    Reader("audio flac", _sounds("FLAC/PCM_16"), "a.wav", _listen),
    Reader("audio ogg", _sounds("OGG/OPUS", "OGG/VORBIS"), "a.wav", _listen),
    Reader("audio mp3", _sounds("MP3/MPEG_LAYER_III"), "a.wav", _listen),
    Reader("audio sphere", _spheres, "a.wav", _listen),
    Reader(
        "audio rarer",
        _sounds("AIFF/PCM_16", "AU/PCM_16", "CAF/PCM_16", "W64/PCM_16", "RF64/PCM_16", "VOC/PCM_16"),
        "a.wav",
        _listen,
    ),
    Reader("audio foreign", _foreign, "a.wav", _listen),
    Reader("table tsv", texts(_TABLE), "t.tsv", _import("table"), _tones),
    Reader(
        "table csv",
        texts(_TABLE.replace("\t", ","), 'file,text\na.wav,"x, ""y"""\n'),
        "t.csv",
        _import("table", "t.csv"),
        _tones,
    ),
    Reader("common voice", texts(_CV), "train.tsv", _import("common_voice"), _tones),
    Reader("fleurs", texts(_FLEURS), "train.tsv", _import("fleurs"), _tones),
    Reader(
        "librispeech", texts("1272-1-0000 MOJA MBILI\n"), "1272-1.trans.txt", _import("librispeech"), _tones
    ),
    Reader("kaldi wav.scp", texts(_SCP), "wav.scp", _import("kaldi"), _with(text=_TEXT)),
    Reader("kaldi text", texts(_TEXT), "text", _import("kaldi"), _with(wav__scp=_SCP)),
    Reader("kaldi segments", texts(_SEGMENTS), "segments", _import("kaldi"), _with(wav__scp=_SCP)),
    Reader(
        "kaldi spk2utt", texts("amina u1 u2\n"), "spk2utt", _import("kaldi"), _with(wav__scp=_SCP, text=_TEXT)
    ),
    Reader(
        "audiofolder csv",
        texts("file_name,text\na.wav,moja\nb.wav,mbili\n"),
        "metadata.csv",
        _import("audiofolder"),
        _tones,
    ),
    Reader("audiofolder jsonl", _metadata_lines, "metadata.jsonl", _import("audiofolder"), _tones),
    Reader("lhotse cuts", texts(_CUTS), "cuts.jsonl", _import("lhotse"), _tones),
    Reader("lhotse packed", _cuts_packed, "cuts.jsonl.gz", _import("lhotse"), _tones),
    Reader(
        "lhotse recordings",
        texts(_RECORDINGS),
        "recordings.jsonl",
        _import("lhotse"),
        _with(supervisions__jsonl=_SUPERVISIONS),
    ),
    Reader(
        "lhotse supervisions",
        texts(_SUPERVISIONS),
        "supervisions.jsonl",
        _import("lhotse"),
        _with(recordings__jsonl=_RECORDINGS),
    ),
    Reader("manifest import", texts(_MANIFEST), "m.jsonl", _import("manifest", "m.jsonl"), _tones),
    Reader("nemo", texts(_NEMO), "m.json", _import("nemo", "m.json"), _tones),
    Reader("elan", texts(_EAF), "a.eaf", _import("elan"), _tones),
    Reader("elan new tier", texts(_EAF), "a.eaf", _add_tier),
    Reader("textgrid", texts(_GRID, _SHORT_GRID), "a.TextGrid", _import("textgrid"), _tones),
    Reader("srt", texts(_SRT), "a.srt", _import("subtitles"), _tones),
    Reader("vtt", texts(_VTT), "a.vtt", _import("subtitles"), _tones),
    Reader("toolbox", texts(_RECORDS), "a.txt", _import("toolbox"), _tones),
    Reader("audacity", texts(_LABELS), "a.txt", _import("audacity"), _tones),
    Reader("folder", texts("moja mbili\n"), "a.txt", _import("folder"), _tones),
    Reader("corpus manifest", texts(_MANIFEST), "manifest.jsonl", _load_corpus),
    Reader(
        "corpus quarantine",
        texts('{"id": "a", "reason": "hum"}\n{"id": "b", "reason": "x"}\n'),
        "quarantine.jsonl",
        _load_corpus,
        _with(manifest__jsonl=_MANIFEST),
    ),
    Reader("corpus allow", texts("# x\na\nb\n"), "allow.txt", _load_corpus, _with(manifest__jsonl=_MANIFEST)),
    Reader(
        "corpus memory",
        texts('{"a": "audio-silent: x", "b": "y: z"}\n'),
        "check/quarantine.json",
        _load_corpus,
        _with(manifest__jsonl=_MANIFEST),
    ),
)
