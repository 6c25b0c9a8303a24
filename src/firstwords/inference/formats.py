"""Transcript -> text of a file: txt, json, srt, vtt, ctm, TextGrid. (ELAN is in elan_writer.py.)

All but json write what people shall read (``Transcript.shown``); json holds both.

Sources: SubRip (de-facto), W3C WebVTT, NIST sclite's CTM, Praat manual "TextGrid file formats" (long form).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import PurePath

from firstwords.inference.transcript import Segment, Transcript, Word

_CUE_LETTERS = 84  # two lines of 42, the usual measure of subtitles
_CUE_SECONDS = 7.0
_CUE_LINGER = 0.3  # a cue stays a little after its last word, where the next one leaves room


def to_txt(transcript: Transcript) -> str:
    """One line per segment; an empty file where nothing was said."""
    return "".join(f"{segment.text}\n" for segment in transcript.shown.segments)


def to_json(transcript: Transcript) -> str:
    """Everything, as JSON; ``Transcript.from_record`` reads it back."""
    text = json.dumps(transcript.to_record(), ensure_ascii=False, indent=1) + "\n"
    # Bytes of a file's name that are no UTF-8 (lone surrogates) as JSON escapes them: \\udce9.
    return text.encode("utf-8", "backslashreplace").decode()


def to_srt(transcript: Transcript) -> str:
    """SubRip subtitles."""
    return "".join(
        f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{text}\n\n"
        for number, (start, end, text) in enumerate(_cues(transcript.shown), start=1)
    )


def to_vtt(transcript: Transcript) -> str:
    """WebVTT subtitles."""
    cues = "".join(
        f"{_clock(start, '.')} --> {_clock(end, '.')}\n{_escaped(text)}\n\n"
        for start, end, text in _cues(transcript.shown)
    )
    return f"WEBVTT\n\n{cues}"


def to_ctm(transcript: Transcript) -> str:
    """``recording channel start duration word confidence``, one word a line."""
    stem = PurePath(transcript.audio).stem.encode("utf-8", "replace").decode()  # it may be no UTF-8
    name = "_".join(stem.split()) or "audio"
    return "".join(
        f"{name} 1 {word.start:.3f} {word.end - word.start:.3f} {'_'.join(word.word.split())} "
        f"{word.confidence:.4f}\n"
        for word in transcript.shown.words
    )


def to_textgrid(transcript: Transcript) -> str:
    """Praat TextGrid, long form, with the interval tiers "segments" and "words" covering the recording."""
    transcript = transcript.shown
    end = max([transcript.duration, *(segment.end for segment in transcript.segments)])
    tiers = [
        ("segments", [(s.start, s.end, s.text) for s in transcript.segments]),
        ("words", [(w.start, w.end, w.word) for w in transcript.words]),
    ]
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0",
        f"xmax = {_number(end)}",
        "tiers? <exists>",
        f"size = {len(tiers)}",
        "item []:",
    ]
    for number, (name, intervals) in enumerate(tiers, start=1):
        whole = _without_holes(intervals, end)
        lines += [
            f"    item [{number}]:",
            '        class = "IntervalTier"',
            f'        name = "{name}"',
            "        xmin = 0",
            f"        xmax = {_number(end)}",
            f"        intervals: size = {len(whole)}",
        ]
        for place, (start, stop, text) in enumerate(whole, start=1):
            quoted = text.replace('"', '""')
            lines += [
                f"        intervals [{place}]:",
                f"            xmin = {_number(start)}",
                f"            xmax = {_number(stop)}",
                f'            text = "{quoted}"',
            ]
    return "\n".join(lines) + "\n"


# Format name -> (suffix, writer). "eaf" needs the recording's own .eaf and stands in elan_writer.py.
WRITERS: dict[str, tuple[str, Callable[[Transcript], str]]] = {
    "txt": (".txt", to_txt),
    "json": (".json", to_json),
    "srt": (".srt", to_srt),
    "vtt": (".vtt", to_vtt),
    "ctm": (".ctm", to_ctm),
    "textgrid": (".TextGrid", to_textgrid),
}


def _cues(transcript: Transcript) -> list[tuple[float, float, str]]:
    """Segments cut to the measure of subtitles; cues do not overlap."""
    cues = [cue for segment in transcript.segments for cue in _short_cues(segment)]
    ends = [min(a[-1].end + _CUE_LINGER, max(a[-1].end, b[0].start)) for a, b in pairwise(cues)]
    ends += [min(cue[-1].end + _CUE_LINGER, max(cue[-1].end, transcript.duration)) for cue in cues[-1:]]
    return [
        (cue[0].start, end, " ".join(word.word for word in cue)) for cue, end in zip(cues, ends, strict=True)
    ]


def _short_cues(segment: Segment) -> Iterator[list[Word]]:
    cue: list[Word] = []
    letters = 0
    for word in segment.words:
        longer = letters + 1 + len(word.word)
        if cue and (longer > _CUE_LETTERS or word.end - cue[0].start > _CUE_SECONDS):
            yield cue
            cue, longer = [], len(word.word)
        cue.append(word)
        letters = longer
    if cue:
        yield cue


def _clock(seconds: float, point: str) -> str:
    """Seconds -> 01:02:03,456."""
    whole = round(seconds * 1000)
    minutes, rest = divmod(whole, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _number(seconds: float) -> str:
    return f"{seconds:.3f}".rstrip("0").rstrip(".")


def _without_holes(intervals: list[tuple[float, float, str]], end: float) -> list[tuple[float, float, str]]:
    """Intervals -> the same with empty ones between, from 0 to ``end``."""
    whole: list[tuple[float, float, str]] = []
    at = 0.0
    for start, stop, text in intervals:
        if start > at:
            whole.append((at, start, ""))
        whole.append((start, stop, text))
        at = stop
    if at < end or not whole:
        whole.append((at, end, ""))
    return whole
