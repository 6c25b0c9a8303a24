"""Transcripts -> what is odd about them: empty, garbled, invisible, rare, or only looking alike.

Everything is judged within one language of the corpus, since what is odd in one is spelling in another.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from firstwords.data.manifest import Utterance
from firstwords.data.marks import EXAMPLE, find_marks
from firstwords.data.rules import Evidence, Hit, Rule, is_non_speech

RARE = 3  # seen fewer times than this: too rare to be learnt
_LARGE_SCRIPTS = ("CJK", "HANGUL", "YI", "NUSHU", "TANGUT", "EGYPTIAN", "CUNEIFORM")  # rare signs are normal

# Scripts whose letters are drawn alike; a word never mixes them on purpose.
_CONFUSABLE = ("LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC")
# (script, other) -> letters of the script that look like letters of the other
_ALIKE = {
    ("LATIN", "CYRILLIC"): "aceopxyijshABCEHIJKMOPSTXYəɛ",
    ("CYRILLIC", "LATIN"): "асеорхуіјѕһАВСЕНІЈКМОРЅТХУәԑ",
    ("LATIN", "GREEK"): "ovuABEZHIKMNOPTYXɛɣɩ",
    ("GREEK", "LATIN"): "ονυΑΒΕΖΗΙΚΜΝΟΡΤΥΧεγι",
}
_ROMAN_NUMERAL = re.compile("[IVXLCDM]+")
_MOJIBAKE_LEADS = frozenset("ÂÃÄÅÆÐÑ×ØÙàáâãäåæçèéêëìíðï")  # C2-C6, D0-D9, E0-EF: common scripts in UTF-8


@dataclass(frozen=True)
class LookAlikes:
    """Characters that look the same; the less used ones are findings up to ``most`` of all uses.

    Where two of them share the uses more evenly, the language most likely means both.
    """

    name: str
    members: str
    most: float = 0.2
    inside_words: bool = False  # count only where a letter stands on both sides


LOOK_ALIKES = (
    LookAlikes("apostrophe", "'’ʼ‘‛ʹ`´′ʾˈꞌ＇", most=0.5, inside_words=True),
    LookAlikes("turned apostrophe", "ʻ‘ʿ", most=0.5, inside_words=True),
    LookAlikes("hyphen", "-‐‑‒–−", most=0.5, inside_words=True),
    LookAlikes("schwa", "əǝә"),
    LookAlikes("open e", "ɛεԑ"),
    LookAlikes("open o", "ɔͻ"),
    LookAlikes("gamma", "ɣγ"),
    LookAlikes("iota", "ɩι"),
    LookAlikes("hooked v", "ʋυ"),
    LookAlikes("glottal stop", "ʔɂˀ"),
    LookAlikes("barred D", "ĐÐƉ"),
    LookAlikes("mark below (dot, line)", "\u0323\u0329"),
    LookAlikes("mark below (cedilla, comma)", "\u0327\u0326"),
    LookAlikes("mark above (macron, overline)", "\u0304\u0305"),
    LookAlikes("Arabic yeh", "ي\u06cc"),
    LookAlikes("Arabic kaf", "ك\u06a9"),
    LookAlikes("Arabic heh", "\u0647\u06c1"),
)

_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f"
    "\ufeff\ue000-\uf8ff\U000f0000-\U0010fffd\ud800-\udfff]"
)
_DIGITS = re.compile(r"\d+")
_WORD_BREAK = re.compile("[^\\w\u0300-\u036f]+|[0-9_]+")  # combining marks stand inside words


def describe(character: str) -> str:
    """Character -> how to name it without showing it: 'U+02BC MODIFIER LETTER APOSTROPHE'."""
    return f"U+{ord(character):04X} {unicodedata.name(character, 'without a name')}"


def code_points(cluster: str) -> str:
    """Grapheme cluster -> the names of all its code points."""
    return " + ".join(describe(c) for c in cluster)


@cache
def script(character: str) -> str | None:
    """Letter -> first word of its Unicode name (LATIN, CYRILLIC, CJK, ...); None for what is no letter.

    The standard library has no script property; names start with the script for all but the letters that
    belong to none (modifiers).
    """
    if not unicodedata.category(character).startswith("L"):
        return None
    first = unicodedata.name(character, "").split(" ")[0]
    return None if first in {"", "MODIFIER"} else first


def is_invisible(text: str) -> bool:
    """True where a character of the text spells nothing and cannot be seen."""
    return _CONTROLS.search(text) is not None


def by_language(utterances: Sequence[Utterance]) -> list[list[Utterance]]:
    """Utterances of each language, in order of appearance."""
    groups: defaultdict[str | None, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        groups[utterance.language].append(utterance)
    return list(groups.values())


def text_missing(evidence: Evidence) -> Iterator[Hit]:
    """No transcript at all, and no label that says so on purpose."""
    for utterance in evidence.utterances:
        if utterance.text is None and not is_non_speech(utterance):
            yield utterance.id, "has no transcript"


def text_empty(evidence: Evidence) -> Iterator[Hit]:
    """An empty transcript, and no label that says so on purpose."""
    for utterance in evidence.utterances:
        if utterance.text is None or is_non_speech(utterance):
            continue
        if not any(unicodedata.category(c)[0] in "LNMS" for c in utterance.text):
            bare = utterance.text.strip()
            yield utterance.id, f"the text is {bare!r}" if bare else "the text is empty"


def text_garbled(evidence: Evidence) -> Iterator[Hit]:
    """Text that was decoded with the wrong encoding: U+FFFD, or UTF-8 read as Windows-1252."""
    for utterance in evidence.spoken:
        text = utterance.text or ""
        if "\ufffd" in text:
            yield utterance.id, "U+FFFD stands where a character was lost"
        elif (mended := _undo_mojibake(text)) is not None:
            yield utterance.id, f"UTF-8 read as Windows-1252, probably meant: {mended}"


def _undo_mojibake(text: str) -> str | None:
    """The text as it was meant, where its bytes in Windows-1252 are UTF-8 by more than chance."""
    if not _MOJIBAKE_LEADS.intersection(text):
        return None
    try:
        raw = bytes(_one_byte(c) for c in text)
        mended = raw.decode("utf-8")
    except ValueError:  # includes both Unicode errors
        return None
    return mended if mended != text else None


def _one_byte(character: str) -> int:
    code = ord(character)
    return code if code < 256 else character.encode("cp1252")[0]


def text_controls(evidence: Evidence) -> Iterator[Hit]:
    """Invisible characters that spell nothing: controls, bidi marks, soft hyphens, private use."""
    for utterance in evidence.spoken:
        found = Counter(_CONTROLS.findall(utterance.text or ""))
        if found:
            yield utterance.id, ", ".join(f"{describe(c)} ({n} times)" for c, n in found.most_common(3))


def text_mixed_forms(evidence: Evidence) -> Iterator[Hit]:
    """The same letters stored composed (NFC) here and decomposed (NFD) there: the rarer form."""
    for group in by_language(evidence.spoken):
        forms: dict[str, str] = {}
        for utterance in group:
            text = utterance.text or ""
            composed = unicodedata.is_normalized("NFC", text)
            if composed and not unicodedata.is_normalized("NFD", text):
                forms[utterance.id] = "composed (NFC)"
            elif not composed:
                pure = unicodedata.is_normalized("NFD", text)
                forms[utterance.id] = "decomposed (NFD)" if pure else "partly composed"
        usual = Counter(forms.values()).most_common(1)
        if len(set(forms.values())) > 1:
            for name, form in forms.items():
                if form != usual[0][0]:
                    yield name, f"{form}, most of the corpus is {usual[0][0]}"


def text_rare_characters(evidence: Evidence) -> Iterator[Hit]:
    """Letters and signs seen fewer than three times in a language; scripts of thousands of signs excepted."""
    for group in by_language(evidence.spoken):
        texts = {u.id: unicodedata.normalize("NFC", u.text or "") for u in group}
        counts = Counter(c for text in texts.values() for c in text.lower())
        rare = {c for c, n in counts.items() if n < RARE and _is_sign(c)}
        signs = sum(_is_sign(c) for c in counts)
        if not rare or 3 * len(rare) > signs:  # in a handful of texts everything is rare
            continue
        for name, text in texts.items():
            found = sorted(set(text.lower()) & rare)
            if found:
                shown = ", ".join(
                    f"{describe(c)} ({c}) seen {'once' if counts[c] == 1 else 'twice'}" for c in found[:3]
                )
                yield name, shown + (f" and {len(found) - 3} more" if len(found) > 3 else "")


@cache
def _is_sign(character: str) -> bool:
    """Letters, marks and symbols of small scripts: what a rare one of is likely a slip."""
    if unicodedata.category(character)[0] not in "LMS" or _CONTROLS.match(character):
        return False
    return not unicodedata.name(character, "").startswith(_LARGE_SCRIPTS)


def text_mixed_scripts(evidence: Evidence) -> Iterator[Hit]:
    """One word with letters of two scripts that look alike: Latin 'a' in a Cyrillic word."""
    for utterance in evidence.spoken:
        for word in _WORD_BREAK.split(utterance.text or ""):
            found = Counter(s for c in word if (s := script(c)) in _CONFUSABLE)
            if len(found) > 1:
                around = Counter(script(c) for c in utterance.text or "")
                rarer = min(found, key=lambda s: (found[s], around[s]))
                odd = next(c for c in word if script(c) == rarer)
                yield utterance.id, f"'{word}' holds {describe(odd)}"
                break


def text_look_alikes(evidence: Evidence) -> Iterator[Hit]:
    """Characters that look like others the corpus uses more, and words of look-alikes of another script."""
    for group in by_language(evidence.spoken):
        odd = odd_look_alikes([u.text or "" for u in group])
        for utterance in group:
            text = unicodedata.normalize("NFD", utterance.text or "")
            found = [c for c in odd if _uses(text, c, _set_of(c).inside_words)]
            if found:
                c = found[0]
                yield utterance.id, f"{describe(c)} where most of the corpus has {describe(odd[c])}"
            elif foreign := _foreign_word(utterance.text or ""):
                yield utterance.id, foreign


def odd_look_alikes(texts: Sequence[str]) -> dict[str, str]:
    """Texts of one language -> rarer look-alike: the usual one it is probably meant to be."""
    counts: Counter[str] = Counter()
    watched = frozenset("".join(s.members for s in LOOK_ALIKES))
    for text in texts:
        decomposed = unicodedata.normalize("NFD", text)
        for c in set(decomposed) & watched:
            counts[c] += _uses(decomposed, c, _set_of(c).inside_words)
    odd: dict[str, str] = {}
    for group in LOOK_ALIKES:
        present = sorted((c for c in set(group.members) if counts[c]), key=lambda c: (-counts[c], c))
        total = sum(counts[c] for c in present)
        odd |= {c: present[0] for c in present[1:] if counts[c] <= group.most * total}
    return odd


@cache
def _set_of(character: str) -> LookAlikes:
    return next(s for s in LOOK_ALIKES if character in s.members)


def _uses(text: str, character: str, inside_words: bool) -> int:
    """How often a character stands in a text (in NFD), or between two letters of it."""
    if not inside_words:
        return text.count(character)
    at = text.find(character)
    count = 0
    while at >= 0:
        before, after = text[at - 1 : at], text[at + 1 : at + 2]
        count += bool(before and after and _in_word(before) and _in_word(after))
        at = text.find(character, at + 1)
    return count


def _in_word(character: str) -> bool:
    return unicodedata.category(character)[0] in "LM"


def _foreign_word(text: str) -> str | None:
    """A whole word in look-alikes of another script than the rest of its sentence."""
    words = [w for w in re.split(r"[^\w-]+", text) if w]  # 'e-книга' is one word, and means its e
    scripts: Mapping[str, int] = Counter(s for c in text if (s := script(c)) in _CONFUSABLE)
    if len(scripts) < 2:
        return None
    usual = max(scripts, key=lambda s: scripts[s])
    for word in words:
        own = {script(c) for c in word}
        alike = _ALIKE.get((str(own.pop()), usual), "") if len(own) == 1 else ""
        if alike and all(c in alike for c in word) and not _ROMAN_NUMERAL.fullmatch(word):
            return f"'{word}' is written in {script(word[0])} letters that look like {usual}"
    return None


def text_digits(evidence: Evidence) -> Iterator[Hit]:
    """Numbers as figures: nobody can tell from '13' what was said."""
    for utterance in evidence.spoken:
        if found := _DIGITS.search(utterance.text or ""):
            yield utterance.id, f"'{found[0]}' is written in figures"


def text_markup(evidence: Evidence) -> Iterator[Hit]:
    """Marks of the annotators among the words, with how often each stands in the whole corpus."""
    marks = {u.id: found for u in evidence.spoken if (found := find_marks(u.text or ""))}
    counts = Counter(mark for found in marks.values() for mark in found)
    for name, found in marks.items():
        own = dict.fromkeys(found)
        others = [mark for mark, _ in counts.most_common(6) if mark not in own]
        shown = ", ".join(f"'{mark}' ({_often(counts[mark])})" for mark in list(own)[:3])
        also = ", ".join(f"'{mark}' ({counts[mark]:,})" for mark in others[:3])
        yield name, shown + (f"; others are {also}" if also else "")


def _often(count: int) -> str:
    return "once in the corpus" if count == 1 else f"{count:,} times in the corpus"


RULES = (
    Rule("text-missing", "no transcript", "warning",
         "Training leaves it out; write one, or use the folder as data.noise_folders.", text_missing),
    Rule("text-empty", "an empty transcript", "quarantine",
         "Write what is said, or give the utterance a label 'kind': 'non-speech' if nothing is.", text_empty),
    Rule("text-garbled", "the text was read with the wrong encoding", "quarantine",
         "Save the source as UTF-8 and import again.", text_garbled),
    Rule("text-controls", "invisible characters that spell nothing", "warning",
         "Nothing to do for training, the normalizer removes them; better delete them at the source.",
         text_controls),
    Rule("text-mixed-forms", "composed and decomposed letters are mixed (NFC, NFD)", "warning",
         "Nothing to do for training, it composes (NFC); better keep to one form at the source.",
         text_mixed_forms),
    Rule("text-rare-characters", "characters seen fewer than 3 times", "warning",
         "Check for slips of the keyboard; a model cannot learn what it sees once.", text_rare_characters),
    Rule("text-mixed-scripts", "a word mixes scripts that look alike", "warning",
         "Replace the odd letter: to the model it is another letter.", text_mixed_scripts),
    Rule("text-look-alikes", "characters that look like others used more", "warning",
         "Keep to one character for one letter; to the model they are two.", text_look_alikes),
    Rule("text-markup", "annotators' marks among the words", "warning",
         f"The model would learn them as words. Import again with --remove-marks and what to take out, as in "
         f"'{EXAMPLE}'; better leave out speech that nobody understood.", text_markup),
    Rule("text-digits", "numbers written in figures", "warning",
         "Write numbers as they are spoken.", text_digits),
)  # fmt: skip
