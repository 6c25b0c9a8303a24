"""A tokenizer made of somebody else's piece list (icefall's tokens.txt): its ids stay as they are.

Ids -> text is exact. Text -> ids takes the fewest pieces that spell the text; the list has no scores, so
where several pieces spell a word it can choose others than the tool that made the list. For transcribing that
does not matter; for fine-tuning, train a tokenizer of your own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self, final

from firstwords.errors import TextError
from firstwords.text.pieces import BYTES, SPACE, check_pieces, join_pieces, load_pieces, save_pieces, utf8
from firstwords.text.tokenizer import BLANK, Tokenizer

_BLANKS = ("<blk>", "<blank>", "<eps>", "<pad>", "[PAD]", "_")
_SILENT = ("<sos/eos>", "<sos>", "<eos>", "<s>", "</s>", "<unk>", "[UNK]")  # never text


def is_id(text: str) -> bool:
    """Whether a word is the id of a piece: a few plain digits."""
    return text.isascii() and text.isdigit() and len(text) < 10


@final
class GivenTokenizer(Tokenizer):
    """Text <-> ids of a given list.

    Args:
        pieces: id -> piece; a space is ▁, the first is <blank>.
    """

    def __init__(self, pieces: Sequence[str]) -> None:
        self.pieces = check_pieces(pieces, source="the piece list")
        no_text = {BLANK, *BYTES, *_SILENT}
        self._id_of = {p: i for i, p in enumerate(self.pieces) if p not in no_text}
        self._byte_ids = {p: i for i, p in enumerate(self.pieces) if p in BYTES}
        self._shown = tuple("" if p in _SILENT else p for p in self.pieces)
        self._longest = max(map(len, self._id_of), default=0)
        # Pieces such as ▁the begin a word, the first word too; a ▁ alone only parts words.
        self._begins = SPACE if any(len(p) > 1 and p.startswith(SPACE) for p in self._id_of) else ""

    @classmethod
    def read(cls, path: Path) -> Self:
        """tokens.txt, "piece id" a line -> tokenizer; id 0 must be a blank under any of its names."""
        try:
            lines = path.read_bytes().decode("utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise TextError(f"'{path}' cannot be read: {error}.", mend="Check the path.") from None
        found: dict[int, str] = {}
        for number, line in enumerate(lines, start=1):
            parts = line.rstrip("\r").rsplit(maxsplit=1)
            if not parts:
                continue
            if len(parts) != 2 or not is_id(parts[1]) or int(parts[1]) in found:
                raise TextError(
                    f"line {number} of '{path}' is not 'piece id' with an id of its own: {line!r}.",
                    mend="Give the tokens.txt that belongs to the checkpoint.",
                )
            found[int(parts[1])] = parts[0]
        missing = next((i for i in range(len(found)) if i not in found), None)
        if not found or missing is not None or found[0] not in _BLANKS:
            what = f"id 0 is {found.get(0)!r}, no blank" if missing is None else f"id {missing} is missing"
            raise TextError(f"'{path}': {what}.", mend="Give the tokens.txt that belongs to the checkpoint.")
        return cls([BLANK, *(found[i] for i in range(1, len(found)))])

    @property
    def silent(self) -> tuple[int, ...]:
        """Ids of ``<unk>``, ``<s>`` and the like."""
        return tuple(i for i, piece in enumerate(self.pieces) if piece in _SILENT)

    def encode(self, text: str) -> list[int]:
        """Text -> the fewest ids that spell it, bytes only where no piece does."""
        if not text:
            return []
        utf8(text)
        spelled = self._begins + text.replace(" ", SPACE)
        costs: list[float] = [0.0]
        steps: list[tuple[int, list[int]]] = [(0, [])]  # place -> (where the last piece began, its ids)
        for end in range(1, len(spelled) + 1):
            best: tuple[float, int, list[int]] = (float("inf"), end, [])
            for start in range(max(0, end - self._longest), end):
                token = self._id_of.get(spelled[start:end])
                if token is not None and costs[start] + 1 < best[0]:
                    best = (costs[start] + 1, start, [token])
            if spelled[end - 1] != SPACE:
                names = [BYTES[value] for value in spelled[end - 1].encode()]
                ids = [self._byte_ids[n] for n in names if n in self._byte_ids]
                if len(ids) == len(names) and costs[end - 1] + 100 < best[0]:
                    best = (costs[end - 1] + 100, end - 1, ids)
            costs.append(best[0])
            steps.append(best[1:])
        if costs[-1] == float("inf"):
            bad = next(i for i, cost in enumerate(costs) if cost == float("inf")) - 1
            letter = spelled[bad].replace(SPACE, " ")
            raise TextError(
                f"'{letter}' (U+{ord(letter):04X}) in '{text[:40]}' cannot be spelled with these "
                f"{len(self.pieces)} pieces.",
                mend="Check case and normalizer against the list, or train a tokenizer of your own.",
            )
        tokens: list[int] = []
        end = len(spelled)
        while end:
            end, ids = steps[end]
            tokens += reversed(ids)
        return tokens[::-1]

    def decode(self, tokens: Iterable[int]) -> str:
        """Ids -> text; blanks and marks such as <unk> are skipped."""
        text = join_pieces(self._shown, tokens)
        return text.removeprefix(" ") if self._begins else text

    def save(self, folder: Path) -> None:
        """Write ``pieces.txt`` and ``tokenizer.toml``."""
        save_pieces(folder, "given", self.pieces)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what ``save`` wrote."""
        return cls(load_pieces(folder, "given"))
