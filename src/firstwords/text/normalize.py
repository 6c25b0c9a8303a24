r"""Named text normalizers: the recipe names one for training and one for scoring.

Transcripts on disk are never edited: these run on the way into the tokenizer and into the scorer. All are
idempotent: ``f(f(t)) == f(t)``.

    none             nothing at all
    nfc              NFC (canonical composition) alone
    formatted        invisible characters out, white space collapsed, NFC; case and punctuation stay
    default          training: formatted + lower case + punctuation out. Tone marks and other diacritics stay
    keep_case        default without lower-casing (orthographies where a capital is another letter)
    turkic           default with Turkish and Azerbaijani case: I -> ı, İ -> i
    score_default    scoring: formatted + case folding + punctuation out, digits unchanged
    score_turkic     score_default with Turkish and Azerbaijani case
    strip_diacritics score_default + accents, tone marks, vowel points removed (a second figure beside CER)

Lower-casing helps little data, since a capital sounds like its small letter. Training uses ``str.lower``,
which keeps ß and the final sigma as the language writes them; scoring uses ``str.casefold``, which does
not care.

**Punctuation** (general category P) becomes a space, so that ``word—word`` is two words. Kept are the
apostrophe touching a letter, and the hyphen inside a word. ``default`` keeps the marks that spell a word
from inside (Catalan ``col·legi``, Hebrew geresh and gershayim); ``score_default`` drops those without
splitting the word. Symbols (category S: currency, plus, arrows, tone letters) are no punctuation.

**Apostrophes**: U+2019 ’, U+2018 ‘, U+201B ‛ and U+FF07 ＇ become ' (U+0027), since keyboards mix them within
one text; a pair of single quotation marks around words is removed first. The modifier letter apostrophe
U+02BC ʼ and the ʻokina U+02BB are letters of their orthographies and stay in training; scoring writes U+02BC
as ' too because the two look and sound the same. 'firstwords check' names look-alikes that a corpus mixes.

**Invisible characters**: zero-width joiner and non-joiner are spelling (Persian, Indic scripts) and stay.
Bidi controls, soft hyphen, zero-width space, byte order mark and control characters are removed. Lone
surrogates (broken UTF-16) too, as no file can hold them.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from firstwords.errors import TextError
from firstwords.text.graphemes import pattern

Normalizer = Callable[[str], str]

_INVISIBLE = (
    r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"  # controls that are no white space
    r"\u00AD\u061C\u180E\u200B\u200E\u200F\u202A-\u202E\u2060-\u2064\u2066-\u206F\uFEFF\p{Cs}]"
)
_WORD = r"[\p{L}\p{M}\p{N}\u200C\u200D]"
_INNER = r"\u00B7\u05F3\u05F4"  # middle dot, geresh, gershayim: spell a word from inside
_QUOTED = rf"(?<!{_WORD})[\u2018\u201A\u201B](.+?)[\u2019\u2018](?!{_WORD})"
_KEPT = rf"(?<={_WORD})[-{_INNER}](?={_WORD})|(?<={_WORD})'(?!')|(?<!')'(?={_WORD})"
_PUNCTUATION = rf"({_KEPT})|\p{{P}}"

# Marks that sit on letters of alphabets and abjads. The vowel signs of Indic scripts, the Japanese voicing
# marks and Thai vowels are no diacritics in this sense: without them the text is another one.
# Scripts whose words stand without spaces.
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]"
_DIACRITICS = (
    r"[\u0300-\u036F\u0483-\u0487\u1AB0-\u1AFF\u1DC0-\u1DFF\u20D0-\u20FF\uFE20-\uFE2F"  # Latin, Greek
    r"\u0591-\u05BD\u05BF\u05C1\u05C2\u05C4\u05C5\u05C7"  # Hebrew points
    r"\u0610-\u061A\u064B-\u065F\u0670\u06D6-\u06DC\u06DF-\u06E4\u06E7\u06E8\u06EA-\u06ED\u08CA-\u08FF\u0640"
    r"\u0711\u0730-\u074A\u07EB-\u07F3]"  # Arabic with tatweel (above), Syriac, N'Ko
)
_SAME_APOSTROPHE = str.maketrans({"\u2019": "'", "\u2018": "'", "\u201b": "'", "\uff07": "'"})
_SAME_HYPHEN = str.maketrans({"\u2010": "-", "\u2011": "-"})
_TURKIC_CAPITALS = str.maketrans({"I": "ı", "İ": "i"})


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _none(text: str) -> str:
    return text


def _formatted(text: str) -> str:
    visible = pattern(_INVISIBLE).sub("", text)
    return _nfc(" ".join(visible.split()))


def _without_punctuation(text: str) -> str:
    text = pattern(_QUOTED).sub(r" \1 ", text)
    text = text.translate(_SAME_APOSTROPHE).translate(_SAME_HYPHEN)
    return pattern(_PUNCTUATION).sub(lambda found: found[1] or " ", text)


def _keep_case(text: str) -> str:
    return _formatted(_without_punctuation(_formatted(text)))


def _default(text: str) -> str:
    return _formatted(_without_punctuation(_nfc(_formatted(text).lower())))


def _turkic(text: str) -> str:
    return _default(_formatted(text).translate(_TURKIC_CAPITALS))


def _score_default(text: str) -> str:
    folded = _nfc(_formatted(text).casefold()).replace("\u02bc", "'")
    inner = rf"(?<={_WORD})[{_INNER}](?={_WORD})"
    return _formatted(_without_punctuation(pattern(inner).sub("", folded)))


def _score_turkic(text: str) -> str:
    return _score_default(_formatted(text).translate(_TURKIC_CAPITALS))


def _strip_diacritics(text: str) -> str:
    bare = pattern(_DIACRITICS).sub("", unicodedata.normalize("NFD", _score_default(text)))
    return _score_default(bare)


NORMALIZERS: Mapping[str, Normalizer] = MappingProxyType(
    {
        "none": _none,
        "nfc": _nfc,
        "formatted": _formatted,
        "default": _default,
        "keep_case": _keep_case,
        "turkic": _turkic,
        "score_default": _score_default,
        "score_turkic": _score_turkic,
        "strip_diacritics": _strip_diacritics,
    }
)


def normalizer(name: str) -> Normalizer:
    """Name -> the function text -> text; a name that is none is refused with the nearest one."""
    if name in NORMALIZERS:
        return NORMALIZERS[name]
    near = difflib.get_close_matches(name, NORMALIZERS, n=1, cutoff=0.5)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    raise TextError(f"No normalizer is called '{name}'.", mend=f"{hint}Known: {', '.join(NORMALIZERS)}.")


def writes_spaces(texts: Iterable[str]) -> bool:
    """Do these texts put spaces between words? If there are none, it is told by the script."""
    unspaced = pattern(_UNSPACED)
    for text in texts:
        if " " in text:
            return True
        if unspaced.search(text):
            return False
    return True


def normalizers_for(language: str | None) -> tuple[str, str]:
    """BCP 47 language -> the names (for training, for scoring) that suit it."""
    primary = (language or "").replace("_", "-").split("-")[0].lower()
    if primary in ("tr", "az", "crh", "gag"):  # dotted and dotless i are two letters
        return "turkic", "score_turkic"
    return "default", "score_default"
