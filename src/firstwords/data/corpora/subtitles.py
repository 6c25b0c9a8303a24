"""Subtitles beside long recordings: talk.srt or talk.vtt (or talk.sw.srt) next to talk.mp3.

One utterance per cue. Markup (<i>, {\\an8}, karaoke times) is no speech and is taken out; a WebVTT voice tag
<v Amina> names the speaker.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from pathlib import Path

from firstwords.data.corpora.imported import Collector, Found, Imported, Options
from firstwords.data.corpora.source import Source, decode_text
from firstwords.errors import CorpusError

_TIME = r"(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})[,.](\d{1,3})"
_ARROW = re.compile(rf"^\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?$")
_VOICE = re.compile(r"<v(?:\.[^\s<>]{1,100})?\s{1,9}([^<>\n]{1,200})>")
_TAG = re.compile(r"<[^<>\n]{1,200}>|\{\\[^}\n]{1,200}\}")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")


@dataclass(frozen=True)
class Cue:
    """Text between two times, in seconds; ``line`` is where its times stand."""

    start: float
    end: float
    text: str
    speaker: str
    line: int


def detect(source: Source) -> str | None:
    """Files named *.srt or *.vtt."""
    files = source.with_suffix(".srt", ".vtt")
    return f"{len(files)} subtitle file{'s' if len(files) > 1 else ''} (.srt, .vtt)" if files else None


def read(path: Path, options: Options) -> Imported:
    """Cues -> utterances. Two subtitle files for one recording: the one in --language, else neither."""
    source = Source.of(path)
    collector = Collector(source, options)
    claims: dict[Path, list[tuple[Path, str]]] = {}
    for file in source.with_suffix(".srt", ".vtt"):
        try:
            audio, language = _recording(file, source)
            claims.setdefault(audio, []).append((file, language))
        except CorpusError as error:
            collector.skip(source.named(file), error)
    blank = 0
    for audio, files in claims.items():
        if len(files) > 1:
            fitting = [f for f in files if options.language and f[1] == options.language]
            if len(fitting) != 1:
                names = ", ".join(source.named(f) for f, _ in files)
                reason = f"'{audio.name}' has several subtitle files ({names}): name one, or its --language"
                collector.skip(source.named(files[0][0]), reason)
                continue
            files = fitting
        file, language = files[0]
        try:
            cues, faults = parse_subtitles(file.read_bytes(), source.named(file))
        except (CorpusError, OSError) as error:
            collector.skip(source.named(file), error if isinstance(error, CorpusError) else str(error))
            continue
        for line, reason in faults:
            collector.skip(f"line {line} of {source.named(file)}", reason)
        for cue in cues:
            if not cue.text:
                blank += 1
                continue
            collector.add(
                Found(
                    where=f"line {cue.line} of {source.named(file)}",
                    audio=audio,
                    text=cue.text,
                    start=cue.start,
                    end=cue.end,
                    speaker=cue.speaker,
                    language=language,
                )
            )
    if blank:
        collector.note(f"{blank} cues hold no text and were left out.")
    return collector.finish(beside="srt")


def _recording(file: Path, source: Source) -> tuple[Path, str]:
    """The recording a subtitle belongs to, and the language its name ends in (talk.sw.srt), if any."""
    try:
        return source.audio_of(file), ""
    except CorpusError as error:
        stem, _, language = file.stem.rpartition(".")
        if not stem or not _LANGUAGE.fullmatch(language):
            raise error
        return source.audio_of(file, stem=stem), language


def parse_subtitles(data: bytes, name: str) -> tuple[list[Cue], list[tuple[int, str]]]:
    """Bytes of an SRT or WebVTT file -> cues, and (line, reason) for arrows that are no times."""
    lines = decode_text(data, name).split("\n")
    cues: list[Cue] = []
    faults: list[tuple[int, str]] = []
    arrows = [i for i, line in enumerate(lines) if "-->" in line]
    if not arrows:
        raise CorpusError(f"'{name}' holds no cue: no line reads '00:00:01,000 --> 00:00:02,500'")
    is_vtt = lines[0].lstrip("\ufeff").startswith("WEBVTT")
    for index in arrows:
        match = _ARROW.match(lines[index])
        if match is None:
            faults.append((index + 1, f"'{lines[index].strip()[:60]}' are no times"))
            continue
        body: list[str] = []
        for at in range(index + 1, len(lines)):
            # a cue ends at a blank line; one that lacks it ends at the number before the next cue's times
            if not lines[at].strip() or "-->" in lines[at]:
                break
            follows = at + 1 < len(lines) and "-->" in lines[at + 1]
            if follows and lines[at].strip().isdigit():
                break
            body.append(lines[at])
        text, speaker = _plain("\n".join(body), is_vtt=is_vtt)
        start, end = (_seconds(match.groups()[i : i + 4]) for i in (0, 4))
        cues.append(Cue(start, end, text, speaker, index + 1))
    return cues, faults


def _seconds(parts: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, fraction = (part or "0" for part in parts)
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds) + int(fraction) / 10 ** len(fraction)


def _plain(text: str, *, is_vtt: bool) -> tuple[str, str]:
    voices = {voice.strip() for voice in _VOICE.findall(text)}
    text = _TAG.sub("", text)
    if is_vtt or re.search(r"&(amp|lt|gt|nbsp|quot);", text):
        text = html.unescape(text)
    # two voices in one cue: nobody knows who said which word
    return " ".join(text.split()), html.unescape(voices.pop()) if len(voices) == 1 else ""
