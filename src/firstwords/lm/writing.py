"""Do a language model and a recogniser write alike? Their units, pieces and normalizers, compared."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from firstwords.errors import CheckpointError
from firstwords.lm.ngram import SPECIAL
from firstwords.lm.ngram_text import Unit
from firstwords.text.graphemes import graphemes
from firstwords.text.normalize import Normalizer, normalizer
from firstwords.text.pieces import BYTES, SPACE
from firstwords.text.tokenizer import Tokenizer

_MANY = 0.25  # letters that are missing: a larger share is that of another language, or of another field
_MANY_WORDS = 0.5  # small texts of the same language hold that many
_SHOWN = 5


def check_pieces(tokenizer: Tokenizer, unit: Unit, pieces: str, name: str) -> None:
    """Refuse a tokenizer whose pieces cannot be units of the model ``name``.

    Args:
        pieces: the hash of the pieces it was made for; unit = "piece" only.
    """
    anew = "Make it anew: 'firstwords lm train TEXT --to LM --unit piece --tokenizer MODEL'."
    if unit == "word":
        raise CheckpointError(f"{name} knows whole words; token by token it cannot be asked.", mend=anew)
    if unit == "piece" and pieces != tokenizer.piece_hash:
        raise CheckpointError(
            f"{name} was made for the pieces of another tokenizer (their fingerprints differ).", mend=anew
        )
    if unit == "char":
        text = (p for p in tokenizer.pieces[1:] if p not in BYTES and p not in SPECIAL)
        long = next((p for p in text if len(graphemes(p)) > 1), None)
        if long is not None:
            raise CheckpointError(
                f"{name} knows single letters, this tokenizer has pieces of several ('{long}').", mend=anew
            )


def check_normalizer(used: str, header: str, unit: Unit, words: Iterable[str], name: str) -> None:
    """Refuse a model whose words, text of normalizer ``header``, are not what ``used`` writes."""
    if used == header:
        return
    why = ""
    if unit != "piece":
        normalize = normalizer(used)
        words = [w for w in words if w != SPACE]
        changed = [w for w in words if _changed(normalize, w, unit)]
        if not changed:
            return
        why = f" ({len(changed):,} of its words would be written otherwise, '{changed[0]}' for one)"
    raise CheckpointError(
        f"{name} was made from text of normalizer '{header}', '{used}' is used here{why}.",
        mend=f"Make it anew: 'firstwords lm train TEXT --to LM --normalizer {used}'.",
    )


def check_written_letters(used: str, header: str, tokenizer: Tokenizer, name: str) -> None:
    """Refuse a model whose text, of normalizer ``header``, can never hold letters that the recogniser writes.

    Its own words may all be such as ``used`` writes ("o" where the recogniser also says "ọ̀").
    """
    if used == header:
        return
    normalize = normalizer(header)
    letters = pieces_with_letters(tokenizer).values()
    if lost := [letter for letter in letters if _changed(normalize, letter, "char")]:
        raise CheckpointError(
            f"{name} was made from text of normalizer '{header}', '{used}' is used here ({len(lost)} pieces "
            f"of the recogniser, '{lost[0]}' for one, cannot stand in it).",
            mend=f"Make it anew: 'firstwords lm train TEXT --to LM --normalizer {used}'.",
        )


class Missing(NamedTuple):
    """What is not known, of how many things, and a sentence on it with {count} and {total}."""

    what: Sequence[str]
    total: int
    words: str
    most: float = _MANY  # share of the total of which nobody need hear


def unknown_words(model: Collection[str], words: Collection[str]) -> Missing:
    """The words of a model, and words that a recogniser writes -> those that the model does not know."""
    strange = sorted(word for word in words if word not in model)
    known = "it does not know {count} of {total} words that this recogniser has to write"
    return Missing(strange, len(words), known, _MANY_WORDS)


def unseen_pieces(tokenizer: Tokenizer, seen: Collection[int]) -> Missing:
    """A recogniser's tokenizer, and which of its ids stand in a language model -> the letters that do not."""
    written = pieces_with_letters(tokenizer)
    return Missing(
        [piece for number, piece in written.items() if number not in seen],
        len(written),
        "it has never seen {count} of the {total} pieces with letters that this recogniser writes",
    )


def pieces_with_letters(tokenizer: Tokenizer) -> dict[int, str]:
    """Id -> piece; bytes are none."""
    pieces = {n: p for n, p in enumerate(tokenizer.pieces) if n and p not in BYTES and p not in SPECIAL}
    return {n: p for n, p in pieces.items() if any(c.isalpha() for c in p)}


def doubts(name: str, missing: Iterable[Missing]) -> list[str]:
    """What a user must be told of a model and a recogniser that hardly know each other's words; or nothing.

    One that has no word at all of the other is refused where it is opened.
    """
    said: list[str] = []
    for one in missing:
        if len(one.what) > one.most * one.total:
            shown = ", ".join(f"'{what}'" for what in one.what[:_SHOWN])
            more = ", ..." if len(one.what) > _SHOWN else ""
            counts = one.words.format(count=f"{len(one.what):,}", total=f"{one.total:,}")
            said.append(f"{counts} ({shown}{more})")
    whole = "; ".join(said)
    return [f"Is {name} of this recogniser's language? {whole[:1].upper()}{whole[1:]}."] if said else []


def word_check(
    unit: Unit, normalizer_name: str, tokenizer: Tokenizer | None = None
) -> Callable[[str], str | None]:
    """The function word of an imported file -> why it cannot be one of such a model, or None."""
    normalize = normalizer(normalizer_name)
    pieces = frozenset(() if tokenizer is None else tokenizer.pieces[1:])

    def check(word: str) -> str | None:
        if unit == "piece":
            return None if word in pieces else f"'{word}' is no piece of the tokenizer."
        if unit == "char" and len(graphemes(word)) > 1:
            return f"'{word}' is more than one letter, but the unit is char (a space is written {SPACE})."
        if word != SPACE and _changed(normalize, word, unit):
            better = normalize(word)
            return f"'{word}' is not text of normalizer '{normalizer_name}', which writes '{better}'."
        return None

    return check


def _changed(normalize: Normalizer, word: str, unit: Unit) -> bool:
    """Whether a word cannot stand in normalized text; a letter stands between others."""
    return normalize(f"a{word}a") != f"a{word}a" if unit == "char" else normalize(word) != word
