"""Grapheme clusters: what a reader calls one letter (Unicode Standard Annex 29, extended clusters).

``ọ̀`` is three code points and one cluster, ``क्षि`` is one, a flag is one. The character error rate and
the default tokenizer count in these, so that a tone mark put on the wrong vowel is one fault in one letter.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from firstwords.errors import DependencyError

if TYPE_CHECKING:
    from regex import Pattern


@cache
def pattern(expression: str) -> Pattern[str]:
    r"""Expression of the ``regex`` package (``\X``, ``\p{...}``) -> compiled; imported here alone."""
    try:
        import regex
    except ImportError:  # decoding pieces to text needs no clusters: only this part asks for the package
        raise DependencyError(
            "Splitting text into letters needs the package 'regex'.", mend='pip install "firstwords[train]"'
        ) from None
    return regex.compile(expression)


def graphemes(text: str) -> list[str]:
    """Text -> its grapheme clusters, in order; joined again they are the text."""
    if text.isascii() and "\r" not in text:  # CR LF is the only ASCII cluster of two
        return list(text)
    return pattern(r"\X").findall(text)
