"""LibriSpeech (Panayotov et al., 2015): subset/speaker/chapter/speaker-chapter.trans.txt beside the flacs.

Each line of a .trans.txt reads ``1272-128104-0000 MISTER QUILTER IS ...``. The speaker is the first part of
the id; subsets become splits (train-clean-100 -> train) and stay as the label ``subset``.
"""

from __future__ import annotations

from pathlib import Path

from firstwords.data.corpora.imported import Collector, Found, Imported, Options
from firstwords.data.corpora.source import Source, read_text
from firstwords.data.split import split_in_name
from firstwords.errors import CorpusError


def detect(source: Source) -> str | None:
    """Files named *.trans.txt."""
    files = source.with_suffix(".trans.txt")
    return f"{len(files)} LibriSpeech transcript files (*.trans.txt)" if files else None


def read(path: Path, options: Options) -> Imported:
    """Lines of the transcript files -> utterances."""
    source = Source.of(path)
    collector = Collector(source, options)
    for transcripts in source.with_suffix(".trans.txt"):
        try:
            lines = read_text(transcripts, lenient=True).split("\n")
        except CorpusError as error:
            collector.skip(source.named(transcripts), error)
            continue
        subset = _subset(transcripts, source)
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"line {number} of {source.named(transcripts)}"
            name, *words = line.split(maxsplit=1)
            try:
                audio = source.find_audio(name, transcripts.parent)
            except CorpusError as error:
                collector.skip(where, error)
                continue
            collector.add(
                Found(
                    where=where,
                    audio=audio,
                    text=words[0] if words else "",
                    id=name,
                    speaker=name.split("-")[0],
                    split=split_in_name(subset) if subset else None,
                    labels={"subset": subset} if subset else {},
                )
            )
    return collector.finish()


def _subset(transcripts: Path, source: Source) -> str:
    """The nearest folder above that names a split (the source itself may be one)."""
    for above in transcripts.parents:
        if split_in_name(above.name):
            return above.name
        if above == source.root:
            break
    return ""
