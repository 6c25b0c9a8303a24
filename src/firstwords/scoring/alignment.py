"""Cheapest alignment of two sequences (Levenshtein: substitution, deletion and insertion cost 1 each).

kaldialign does the work in C++. Where several alignments are equally short its choice is kept: totals are the
same in every tool, the split into the three kinds is not.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

from firstwords.errors import DependencyError

SymbolT = TypeVar("SymbolT", bound=Hashable)
Pair = tuple[SymbolT | None, SymbolT | None]

_GAP = 0


def align(reference: Sequence[SymbolT], hypothesis: Sequence[SymbolT]) -> list[Pair[SymbolT]]:
    """Two sequences -> pairs (reference, hypothesis) in order; None marks what one side lacks.

    (a, a) is a hit, (a, b) a substitution, (a, None) a deletion, (None, b) an insertion.
    """
    symbols: list[SymbolT] = []
    number_of: dict[SymbolT, int] = {}
    for symbol in (*reference, *hypothesis):
        if symbol not in number_of:
            symbols.append(symbol)
            number_of[symbol] = len(symbols)
    # Numbers, since a gap written as a string could stand in the text.
    pairs = _pairs([number_of[s] for s in reference], [number_of[s] for s in hypothesis])
    return [(symbols[r - 1] if r else None, symbols[h - 1] if h else None) for r, h in pairs]


def _pairs(reference: list[int], hypothesis: list[int]) -> list[tuple[int, int]]:
    try:
        import kaldialign
    except ImportError:
        raise DependencyError(
            "Error rates need the package 'kaldialign'.", mend='pip install "firstwords[train]"'
        ) from None
    return kaldialign.align(reference, hypothesis, _GAP)
