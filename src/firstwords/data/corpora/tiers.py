"""Tiers of annotations (ELAN, Praat): choosing by name, listing with counts when nobody chose."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from firstwords.data.corpora.imported import Options
from firstwords.errors import CorpusError


@dataclass(frozen=True)
class Annotation:
    """What was said between two times, in seconds; ``where`` names it within its file."""

    start: float
    end: float
    text: str
    where: str


@dataclass(frozen=True)
class Tier:
    """A named row of annotations; ``kind`` is ELAN's linguistic type."""

    name: str
    annotations: tuple[Annotation, ...]
    kind: str = ""
    speaker: str = ""
    language: str = ""
    faults: tuple[tuple[str, str], ...] = field(default=())

    @property
    def filled(self) -> tuple[Annotation, ...]:
        return tuple(a for a in self.annotations if a.text.strip())


def matches(tier: Tier, wanted: str) -> bool:
    """Whether 'orth', '*_orth' or 'type:orthography' means this tier."""
    if wanted.startswith("type:"):
        return fnmatchcase(tier.kind, wanted.removeprefix("type:"))
    return tier.name == wanted or fnmatchcase(tier.name, wanted)


def choose_tiers(files: Iterable[Sequence[Tier]], options: Options) -> tuple[set[str], str]:
    """Names of the tiers to read, and the sentence that says how they were chosen.

    Nobody named one: if only one tier name holds any text it is taken; otherwise all are listed with their
    counts and an example each, as an error, since a tier of glosses looks like a transcript to a machine.
    """
    tiers = [tier for file in files for tier in file]
    if options.tiers:
        chosen = {t.name for t in tiers if any(matches(t, wanted) for wanted in options.tiers)}
        for wanted in options.tiers:
            if not any(matches(t, wanted) for t in tiers):
                raise CorpusError(
                    f"--tier {wanted}: no file has such a tier. The tiers are:\n{list_tiers(tiers)}",
                    mend="Name one of them; '*_orth' and 'type:NAME' (ELAN's linguistic type) work too.",
                )
        return chosen, f"Read the tier{'s' if len(chosen) > 1 else ''} {_names(chosen)}."
    names = {t.name for t in tiers if t.filled}
    if len(names) == 1:
        return names, f"Read the tier {_names(names)}, the only one that holds text."
    if not names:
        raise CorpusError(
            "No tier holds any text." + (f" The tiers are:\n{list_tiers(tiers)}" if tiers else ""),
            mend="Transcribe the recordings first, or name another source.",
        )
    kinds = sorted({t.kind for t in tiers if t.kind and t.filled})
    also = f" or --tier 'type:{kinds[0]}'" if kinds else ""
    raise CorpusError(
        f"Several tiers hold text, and only you know which is the transcript:\n{list_tiers(tiers)}",
        mend=f"Name it (or several): --tier '{_largest(tiers)}'{also}",
    )


def list_tiers(tiers: Sequence[Tier]) -> str:
    """A line per tier name: files, annotations with text, seconds, type, an example."""
    lines: list[str] = []
    for name in sorted({t.name for t in tiers}, key=lambda n: -_filled(tiers, n)):
        same = [t for t in tiers if t.name == name]
        filled = [a for t in same for a in t.filled]
        kind = f", type {same[0].kind}" if same[0].kind else ""
        example = f", for example '{' '.join(filled[0].text.split())[:50]}'" if filled else ""
        seconds = sum(a.end - a.start for a in filled)
        files = f"{len(same)} file{'s' if len(same) > 1 else ''}"
        lines.append(f"    {name}: {len(filled)} with text ({seconds:.0f} s) in {files}{kind}{example}")
    return "\n".join(lines[:30]) + (f"\n    ... and {len(lines) - 30} more" if len(lines) > 30 else "")


def _filled(tiers: Sequence[Tier], name: str) -> int:
    return sum(len(t.filled) for t in tiers if t.name == name)


def _largest(tiers: Sequence[Tier]) -> str:
    return max((t.name for t in tiers), key=lambda name: _filled(tiers, name))


def _names(names: Iterable[str]) -> str:
    shown = sorted(names)
    return ", ".join(f"'{n}'" for n in shown[:6]) + (f" and {len(shown) - 6} more" if len(shown) > 6 else "")
