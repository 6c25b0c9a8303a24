"""Tiers of annotations (ELAN, Praat): choosing by name, listing with counts when nobody chose."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from firstwords.data.corpora.imported import Options
from firstwords.data.corpora.transcript_tiers import Look, look_of, names_nobody
from firstwords.data.marks import DRAFT
from firstwords.errors import CorpusError

NO_WISHES = Options()


@dataclass(frozen=True)
class Annotation:
    """What was said between two times, in seconds; ``where`` names it within its file."""

    start: float
    end: float
    text: str
    where: str


@dataclass(frozen=True)
class Tier:
    """A named row of annotations; ``kind`` is ELAN's linguistic type, ``parent`` the tier it refers to."""

    name: str
    annotations: tuple[Annotation, ...]
    kind: str = ""
    speaker: str = ""
    language: str = ""
    parent: str = ""
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
    counts and an example each, as an error, since a tier of glosses looks like a transcript to a machine. The
    one that is named in the example is the likeliest.
    """
    tiers = [tier for file in files for tier in file]
    if options.tiers:
        chosen = {t.name for t in tiers if any(matches(t, wanted) for wanted in options.tiers)}
        for wanted in options.tiers:
            if not any(matches(t, wanted) for t in tiers):
                raise CorpusError(
                    f"--tier {wanted}: no file has such a tier. The tiers are:\n{list_tiers(tiers, options)}",
                    mend="Name one of them; '*_orth' and 'type:NAME' (ELAN's linguistic type) work too.",
                )
        return chosen, f"Read the tier{'s' if len(chosen) > 1 else ''} {_names(chosen)}."
    names = {t.name for t in tiers if t.filled}
    if len(names) == 1:
        return names, f"Read the tier {_names(names)}, the only one that holds text."
    if not names:
        raise CorpusError(
            "No tier holds any text." + (f" The tiers are:\n{list_tiers(tiers, options)}" if tiers else ""),
            mend="Transcribe the recordings first, or name another source.",
        )
    raise CorpusError(
        f"Several tiers hold text, and only you know which is the transcript:\n{list_tiers(tiers, options)}",
        mend=f"Name it (or several), for example: {_suggestion(tiers, options)}",
    )


def voices_of(files: Iterable[Sequence[Tier]], chosen: AbstractSet[str]) -> frozenset[str]:
    """Chosen tiers whose name stands for a speaker, where no participant is stated.

    With several, a tier is usually a speaker. A name that only says what is in the tier ('utt') is one beside
    another chosen tier of the same file, and a draft of ours never.
    """
    if len(chosen) < 2:
        return frozenset()
    beside: set[str] = set()
    for file in files:
        filled = {t.name for t in file if t.name in chosen and t.filled and not t.name.startswith(DRAFT)}
        beside |= filled if len(filled) > 1 else set[str]()
    return frozenset(name for name in chosen if name in beside or not names_nobody(name))


def note_drafts(files: Iterable[Sequence[Tier]], chosen: AbstractSet[str]) -> str:
    """What to tell of chosen tiers that a model wrote: nobody knows whether they were corrected."""
    drafts = annotations = twice = 0
    for file in files:
        mine = [t for t in file if t.name in chosen and t.filled]
        found = [t for t in mine if t.name.startswith(DRAFT)]
        drafts += bool(found)
        annotations += sum(len(t.filled) for t in found)
        twice += bool(found) and len(found) < len(mine)
    if not drafts:
        return ""
    note = (
        f"{annotations} annotations in {drafts} files are of tiers that 'firstwords transcribe' wrote: a "
        "model learns nothing from its own drafts, so they must have been corrected."
    )
    if twice:
        note += (
            f" In {twice} of these files another chosen tier holds text, too, so what was said there is "
            "imported twice: delete one of the two tiers."
        )
    return note


def list_tiers(tiers: Sequence[Tier], options: Options = NO_WISHES) -> str:
    """A line per tier name, the likeliest transcript first: files, annotations, seconds, type, an example."""
    lines: list[str] = []
    for name in _by_likelihood(tiers, options):
        same = [t for t in tiers if t.name == name]
        filled = [a for t in same for a in t.filled]
        kind = f", type {same[0].kind}" if same[0].kind else ""
        example = f", for example '{' '.join(filled[0].text.split())[:50]}'" if filled else ""
        seconds = sum(a.end - a.start for a in filled)
        files = f"{len(same)} file{'s' if len(same) > 1 else ''}"
        otherwise = _look(same, options).otherwise
        example += f" (looks like {otherwise})" if otherwise and filled else ""
        lines.append(f"    {name}: {len(filled)} with text ({seconds:.0f} s) in {files}{kind}{example}")
    return "\n".join(lines[:30]) + (f"\n    ... and {len(lines) - 30} more" if len(lines) > 30 else "")


def _by_likelihood(tiers: Sequence[Tier], options: Options) -> list[str]:
    """Names of tiers: those with text first, by how much they look like a transcript, then by size."""
    groups: dict[str, list[Tier]] = {}
    for tier in tiers:
        groups.setdefault(tier.name, []).append(tier)

    def worth(name: str) -> tuple[bool, int, int]:
        filled = sum(len(t.filled) for t in groups[name])
        return filled > 0, _look(groups[name], options).score, filled

    return sorted(groups, key=worth, reverse=True)


def _look(same: Sequence[Tier], options: Options) -> Look:
    first = max(same, key=lambda tier: len(tier.filled))
    return look_of(
        first.name,
        first.kind,
        [a.text for a in first.filled],
        below=bool(first.parent),
        language=first.language,
        wanted=options.language,
    )


def _suggestion(tiers: Sequence[Tier], options: Options) -> str:
    """The likeliest tier by its name, those of all speakers by a pattern; and its type."""
    best = _by_likelihood(tiers, options)[0]
    head, sign, _ = best.partition("@")
    speakers = {t.name for t in tiers if sign and t.filled and t.name.startswith(head + sign)}
    words = f"--tier '{head}@*'" if len(speakers) > 1 else f"--tier '{best}'"
    kind = next((t.kind for t in tiers if t.name == best), "")
    return words + (f" or --tier 'type:{kind}'" if kind else "")


def _names(names: Iterable[str]) -> str:
    shown = sorted(names)
    return ", ".join(f"'{n}'" for n in shown[:6]) + (f" and {len(shown) - 6} more" if len(shown) > 6 else "")
