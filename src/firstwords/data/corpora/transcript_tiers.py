"""Which of several tiers looks most like the transcript: a guess, to be shown and never acted upon.

Names of tiers and of ELAN's types follow customs of the field (tx, ft, gl, ps, ge), and the texts
tell: glosses are full of hyphens and capitals (1SG.PST), references are numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from firstwords.data.marks import DRAFT

_TRANSCRIPTS = """
    tx txt text texts transcript transcripts transcription transcrip trs utt utterance utterances sentence
    sentences phrase phrases orth ort ortho orthography orthographic original baseline speech po
"""
_WORDS = "word words wd wrd token tokens mot mots palabras"
_NUMBERS, _SOUNDS = "numbers of utterances", "sounds"
_OTHER = {
    "glosses": "gl gls glo gloss glosses glossing ge gn ger mgl interlinear",
    "a translation": "ft fte fts ftg translation translations trad traduction traduccion uebersetzung "
    "translit en eng english fr fra fre french es spa spanish pt por de deu ger german ru rus russian lit",
    "parts of speech": "ps pos msa cat morphosyntax",
    "morphemes": "mb mp morph morphs morpheme morphemes mc lemma lemmas stem",
    _NUMBERS: "ref refind segnum num number id ids",
    "notes": "note notes nt comment comments cmt com remark remarks",
    _SOUNDS: "ph phon phones phone phoneme phonemes phonetic ipa segment segments syll syllable syllables",
    "no words": "gesture gestures gaze hand hands head pause pauses noise music event events code codes",
}
_CUSTOMARY = frozenset(" ".join([_TRANSCRIPTS, _WORDS, *_OTHER.values()]).split())
_MEANING = {word: meaning for meaning, words in _OTHER.items() for word in words.split()}
_GLOSS = re.compile(r"\b[123](SG|PL|DU|S|P)?\b|\b[A-Z]{2,}\b|\w[-=]\w+[-=.]\w|\w\.\w")
_NUMBER = re.compile(r"[\w.:-]*\d[\w.:-]*")
_SAMPLE = 200  # annotations that are looked at


@dataclass(frozen=True)
class Look:
    """How much a tier looks like a transcript (higher is more), and in words what it looks like otherwise."""

    score: int
    otherwise: str = ""


def look_of(
    name: str,
    kind: str,
    texts: Sequence[str],
    *,
    below: bool = False,
    language: str = "",
    wanted: str | None = None,
) -> Look:
    """Name, type and texts of a tier -> how it looks.

    Args:
        below: it refers to another tier, as words and glosses refer to a sentence.
        language: that the tier is said to be in.
        wanted: that the user wants to import.
    """
    score, otherwise = (0 if below else 1), ""
    seen = [text for text in texts[:_SAMPLE] if text.strip()]
    numbers = _share(_NUMBER, seen, whole=True)
    own = (wanted or "").casefold().partition("-")[0]
    named = [word for word in (*_words_of(name), *_words_of(kind)) if word != own]
    if seen and numbers < 0.2:  # 'ref' holds numbers in Toolbox, and sentences elsewhere
        named = [word for word in named if _MEANING.get(word) != _NUMBERS]
    single = _share(re.compile(r"\s"), seen) < 0.1
    if seen and not single:  # 'segments' are sounds in one project and sentences in another
        named = [word for word in named if _MEANING.get(word) != _SOUNDS]
    if name.startswith(DRAFT):
        score, otherwise = score - 2, "drafts of a model"
    elif meaning := next((_MEANING[word] for word in named if word in _MEANING), ""):
        score, otherwise = score - 4, meaning
    elif not set(_TRANSCRIPTS.split()).isdisjoint(named):
        score += 3
    elif not set(_WORDS.split()).isdisjoint(named):
        score, otherwise = (score - 1, "single words") if seen and single else (score + 2, otherwise)
    if numbers > 0.5:
        score, otherwise = score - 4, otherwise or _NUMBERS
    elif _share(_GLOSS, [text for text in seen if not text.isupper()]) > 0.4:
        score, otherwise = score - 3, otherwise or "glosses or morphemes"
    if language and wanted and not _same(language, wanted):
        score, otherwise = score - 3, otherwise or f"another language ({language})"
    elif language and wanted:
        score += 1
    return Look(score, otherwise)


def names_nobody(name: str) -> bool:
    """Whether the name of a tier says what is in it ('utt', 'segments'), and so is no speaker's."""
    words = _words_of(name)
    return name.startswith(DRAFT) or ("@" not in name and bool(words) and _CUSTOMARY.issuperset(words))


def _words_of(name: str) -> list[str]:
    """'A_Transcription-txt' or 'tx@Amina' -> its words in small letters; a speaker behind '@' is none."""
    own = re.sub(r"([a-z])([A-Z])", r"\1 \2", name.partition("@")[0])
    return re.findall(r"[^\W\d_]+", own.casefold())


def _share(sign: re.Pattern[str], texts: Sequence[str], *, whole: bool = False) -> float:
    find = sign.fullmatch if whole else sign.search
    return sum(find(text.strip()) is not None for text in texts) / max(1, len(texts))


def _same(one: str, other: str) -> bool:
    """Languages by their first part; of codes with two and three letters the first two count."""
    a, b = (tag.casefold().partition("-")[0] for tag in (one, other))
    return a == b if len(a) == len(b) else a[:2] == b[:2]
