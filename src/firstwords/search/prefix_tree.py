"""The prefixes of a search as nodes of a tree, so that none is ever copied."""

from __future__ import annotations

from typing import final

from firstwords.search.ctc_common import BLANK


@final
class PrefixTree:
    """Node 0 is the empty prefix, or what follows a text that was handed out already.

    Args:
        before: the last tokens of that text.
    """

    def __init__(self, before: tuple[int, ...] = ()) -> None:
        self.before = before
        self.tokens: list[int] = [before[-1] if before else BLANK]  # node -> its last token
        self.parents: list[int] = [-1]  # node -> the node without that token
        self._children: dict[tuple[int, int], int] = {}
        self._endings: dict[tuple[int, int], tuple[int, ...]] = {}

    def child(self, node: int, token: int) -> int:
        """The node of a grown prefix; a prefix that was dropped and comes back is the same node again."""
        found = self._children.get((node, token))
        if found is None:
            found = len(self.tokens)
            self._children[node, token] = found
            self.tokens.append(token)
            self.parents.append(node)
        return found

    def known_child(self, node: int, token: int) -> int:
        """The same; -1 where it has never been a prefix."""
        return self._children.get((node, token), -1)

    def spell(self, node: int) -> tuple[int, ...]:
        """The tokens of a prefix."""
        tokens: list[int] = []
        while node > 0:
            tokens.append(self.tokens[node])
            node = self.parents[node]
        return tuple(reversed(tokens))

    def ending(self, node: int, token: int, count: int) -> tuple[int, ...]:
        """The last ``count`` tokens, last first, of a prefix grown by a token unless that is below 1."""
        found = self._endings.get((node, count))
        if found is None:
            tokens: list[int] = []
            at = node
            while at > 0 and len(tokens) < count:
                tokens.append(self.tokens[at])
                at = self.parents[at]
            found = self._endings[node, count] = (*tokens, *reversed(self.before))[:count]
        return (token, *found[: count - 1]) if token > 0 else found
