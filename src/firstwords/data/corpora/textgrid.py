"""Praat TextGrids, long and short text form: one utterance per filled interval of the chosen tiers.

Praat itself reads such a file as a row of free-standing numbers, quoted strings and flags and passes over
all other words ("xmin =", "intervals [1]:"), so one reader serves both forms. A double quote inside a
string is written twice. Encodings: UTF-8 and UTF-16, with or without mark.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from firstwords.data.corpora.imported import Collector, Found, Imported, Options
from firstwords.data.corpora.source import Source, decode_text
from firstwords.data.corpora.tiers import Annotation, Tier, choose_tiers, note_drafts, voices_of
from firstwords.errors import CorpusError

_TOKEN = re.compile(r'"((?:[^"]|"")*)"|<(exists|absent)>|![^\n]*|([^\s"!<]\S*|<\S*)')
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def detect(source: Source) -> str | None:
    """Files named *.TextGrid."""
    files = source.with_suffix(".textgrid")
    return f"{len(files)} Praat TextGrid{'s' if len(files) > 1 else ''}" if files else None


def read(path: Path, options: Options) -> Imported:
    """Filled intervals of the chosen tiers -> utterances; blank intervals are the gaps between them."""
    source = Source.of(path)
    collector = Collector(source, options)
    parsed: dict[Path, list[Tier]] = {}
    for file in source.with_suffix(".textgrid"):
        try:
            parsed[file] = parse_textgrid(file.read_bytes(), source.named(file))
        except (CorpusError, OSError) as error:
            collector.skip(source.named(file), error if isinstance(error, CorpusError) else str(error))
    if not parsed:
        return collector.finish()
    chosen, how = choose_tiers(parsed.values(), options)
    collector.note(how)
    voices = voices_of(parsed.values(), chosen)
    if drafts := note_drafts(parsed.values(), chosen):
        collector.note(drafts)
    for file, tiers in parsed.items():
        mine = [t for t in tiers if t.name in chosen]
        if not mine:
            collector.skip(source.named(file), "has none of the chosen tiers")
            continue
        try:
            audio = source.audio_of(file)
        except CorpusError as error:
            collector.skip(source.named(file), error)
            continue
        for tier in mine:
            for where, reason in tier.faults:
                collector.skip(f"{where} of {source.named(file)}", reason)
            for annotation in tier.filled:
                collector.add(
                    Found(
                        where=f"{annotation.where} of {source.named(file)}",
                        audio=audio,
                        text=annotation.text,
                        start=annotation.start,
                        end=annotation.end,
                        speaker=tier.name if tier.name in voices else None,
                        labels={"tier": tier.name} if len(chosen) > 1 else {},
                    )
                )
    return collector.finish(beside="textgrid")


def parse_textgrid(data: bytes, name: str) -> list[Tier]:
    """Bytes of a TextGrid -> its tiers; a point tier comes without annotations and says so as a fault."""
    if data.startswith(b"ooBinaryFile"):
        raise CorpusError(
            f"'{name}' is a binary TextGrid", mend="In Praat: Save as text file, then import again."
        )
    text = decode_text(data, name)
    tokens = _tokens(text)
    try:
        kind, subject = _string(tokens), _string(tokens)
        if kind != "ooTextFile" or subject != "TextGrid":
            raise CorpusError(f"'{name}' is no TextGrid: it starts with '{kind[:30]}', '{subject[:30]}'")
        _pass_times(tokens)  # of the whole
        if next(tokens) != ("flag", "exists"):
            return []
        return [_tier(tokens, name) for _ in range(_count(tokens, text))]
    except StopIteration:
        raise CorpusError(f"'{name}' ends too early: is the copy complete?") from None
    except _Unexpected as error:
        raise CorpusError(f"'{name}' is no readable TextGrid: {error}") from None


class _Unexpected(Exception):
    """Another kind of token was needed."""


Tokens = Iterator[tuple[str, str]]


def _tokens(text: str) -> Tokens:
    for match in _TOKEN.finditer(text):
        quoted, flag, word = match.groups()
        if quoted is not None:
            yield "string", quoted.replace('""', '"')
        elif flag is not None:
            yield "flag", flag
        elif word is not None and _NUMBER.fullmatch(word):
            yield "number", word


def _need(tokens: Tokens, kind: str) -> str:
    found, value = next(tokens)
    if found != kind:
        raise _Unexpected(f"a {kind} was expected, got {found} '{value[:30]}'")
    return value


def _string(tokens: Tokens) -> str:
    return _need(tokens, "string")


def _number(tokens: Tokens) -> float:
    return float(_need(tokens, "number"))


def _pass_times(tokens: Tokens) -> None:
    for _ in ("start", "end"):
        _number(tokens)


def _count(tokens: Tokens, text: str) -> int:
    value = _number(tokens)
    if not 0 <= value <= len(text) or value != int(value):
        raise _Unexpected(f"'{value}' is no count")
    return int(value)


def _tier(tokens: Tokens, file: str) -> Tier:
    kind, name = _string(tokens), _string(tokens)
    _pass_times(tokens)
    count = _number(tokens)
    if not 0 <= count <= 1e9:
        raise _Unexpected(f"'{count}' is no count")
    if kind == "TextTier":
        for _ in range(int(count)):
            _number(tokens)
            _string(tokens)
        points = (f"tier '{name}'", f"is a point tier ({int(count)} points): points have no duration")
        return Tier(name, (), kind="points", faults=(points,))
    if kind != "IntervalTier":
        raise _Unexpected(f"tier '{name}' is a '{kind[:30]}'")
    found: list[Annotation] = []
    for number in range(1, int(count) + 1):
        start, end = _number(tokens), _number(tokens)
        found.append(Annotation(start, end, _string(tokens), f"interval {number} of tier '{name}'"))
    return Tier(name, tuple(found))
