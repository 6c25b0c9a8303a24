"""Do a language model and a recogniser write alike? Their units, pieces and normalizers, compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from firstwords.errors import CheckpointError
from firstwords.lm.ngram import SPECIAL
from firstwords.lm.ngram_text import Unit
from firstwords.text.graphemes import graphemes
from firstwords.text.normalize import Normalizer, normalizer
from firstwords.text.pieces import BYTES, SPACE
from firstwords.text.tokenizer import Tokenizer


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
    letters = [p for p in tokenizer.pieces[1:] if p not in BYTES and p not in SPECIAL]
    letters = [p for p in letters if any(character.isalpha() for character in p)]
    if lost := [letter for letter in letters if _changed(normalize, letter, "char")]:
        raise CheckpointError(
            f"{name} was made from text of normalizer '{header}', '{used}' is used here ({len(lost)} pieces "
            f"of the recogniser, '{lost[0]}' for one, cannot stand in it).",
            mend=f"Make it anew: 'firstwords lm train TEXT --to LM --normalizer {used}'.",
        )


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
