r"""ARPA files: the n-gram format all toolkits share, read strictly and written.

    \data\
    ngram 1=5
    ngram 2=7

    \1-grams:
    -1.0     <unk>   0          log10 P, words, log10 of the backoff (0 where there is none)
    ...
    \2-grams:
    -0.30    <s> a
    ...
    \end\

Read as KenLM reads it: <unk> may be called <UNK>, and where it is missing its log10 P is -100; <s> and </s>
must be there; any order of lines; the highest order may have backoffs of 0. Lines before \data\, in which
tools tell where a model comes from, are passed over, and so is a byte-order mark. Everything else that is no
ARPA is named with its line. Compressed files are known by their first bytes; where the name ends in .gz the
file is written compressed.
"""

from __future__ import annotations

import gzip
import math
import re
import unicodedata
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from firstwords.errors import TextError
from firstwords.files import written_aside
from firstwords.lm.ngram import BEGIN, SPECIAL, NgramModel, grow
from firstwords.lm.ngram_estimate import LONGEST
from firstwords.lm.text_file import byte_lines

if TYPE_CHECKING:  # models are queried without it, too
    from jaxtyping import Float64

LOG10 = math.log(10)
_LEAST = -100.0 * LOG10  # what KenLM gives an <unk> that is not there
_LARGEST = 1e30  # of a weight: numbers are kept as float32, and several are added
_MOST = 99.0  # log10 of a backoff; above 0 they are in order (Katz), but -99 stands for never
_REMARKS = 1000  # lines before \data\, at most
_BETWEEN = frozenset(" \t\n\r\v\f")  # parts the fields of a line
_MEND = "Write the ARPA file again with the tool that made it, or mend that line."

WordCheck = Callable[[str], str | None]


def read_arpa(path: Path, *, check_word: WordCheck | None = None) -> NgramModel:
    """ARPA file -> model; what is wrong is a TextError that names the line.

    Args:
        check_word: word -> why it cannot belong to this model, or None; not asked about <s>, </s>, <unk>.
    """
    return _Reader(path, check_word).read()


def unigram_mass(model: NgramModel) -> float:
    """Probabilities of the unigrams but <s>, added up: about 1, of logarithms to another base far from it."""
    log_prob = model.level(1).log_prob
    return float(np.exp(np.delete(log_prob, BEGIN).astype(np.float64)).sum())


def write_arpa(path: Path, model: NgramModel) -> None:
    """Model -> ARPA file; seven digits, contexts before what follows them."""
    if split := [word for word in model.words if not _BETWEEN.isdisjoint(word)]:
        raise TextError(
            f"The word {split[0]!r} of this model holds white space: in an ARPA file it would be two.",
            mend="Make the model anew from its text: 'firstwords lm train'.",
        )
    with written_aside(path) as new:
        if path.suffix == ".gz":
            with new.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as file:
                for part in _parts(model):
                    file.write(part.encode())
        else:
            with new.open("wb") as file:
                for part in _parts(model):
                    file.write(part.encode())


def _parts(model: NgramModel) -> Iterator[str]:
    counts = "".join(f"ngram {n}={count}\n" for n, count in enumerate(model.counts, start=1))
    yield f"\\data\\\n{counts}"
    texts: list[str] = [""]
    for order in range(1, model.order + 1):
        level = model.level(order)
        words = [model.words[i] for i in level.word.tolist()]
        if order > 1:
            words = [f"{texts[p]} {w}" for p, w in zip(level.parent.tolist(), words, strict=True)]
        texts = words
        scores = (level.log_prob / LOG10).tolist()
        if order < model.order:
            weights = (level.backoff / LOG10).tolist()
            lines = [f"{s:.7g}\t{t}\t{b:.7g}\n" for s, t, b in zip(scores, texts, weights, strict=True)]
        else:
            lines = [f"{s:.7g}\t{t}\n" for s, t in zip(scores, texts, strict=True)]
        yield f"\n\\{order}-grams:\n"
        yield "".join(lines)
    yield "\n\\end\\\n"


class _Reader:
    """One pass over the lines of one file."""

    def __init__(self, path: Path, check_word: WordCheck | None) -> None:
        self.path = path
        self.check_word = check_word
        self.number = 0
        self.lines = self._lines()
        self.again = b""  # a line read too early
        self.ids: dict[bytes, int] = {}

    def read(self) -> NgramModel:
        sizes = self._header()
        grams: list[np.ndarray] = []
        log_probs: list[np.ndarray] = []
        backoffs: list[np.ndarray] = []
        for order, size in enumerate(sizes, start=1):
            table, log_prob, backoff = self._section(order, size, last=order == len(sizes))
            if order == 1:
                log_prob, backoff = self._complete(log_prob, backoff)
                table = np.arange(len(log_prob))[:, None]
            grams.append(table)
            log_probs.append(log_prob)
            backoffs.append(backoff)
        line = self._next(rf"'\end\' after the {len(sizes)}-grams")
        if line != rb"\end\ ".strip():
            raise self._fault(rf"expected '\end\', found {_shown(line)}")
        # <unk>, <s>, </s> first, the others as the file has them
        first = [self.ids[name.encode()] for name in SPECIAL]
        by_old = [*first, *(i for i in range(len(self.ids)) if i not in first)]
        new = np.empty(len(by_old), dtype=np.int64)
        new[by_old] = np.arange(len(by_old))
        names = list(self.ids)
        words = [names[i].decode() for i in by_old]
        return grow(words, [new[table] for table in grams], log_probs, backoffs)

    def _header(self) -> list[int]:
        self._pass_over_remarks()
        sizes: list[int] = []
        while True:
            line = self._next("the counts 'ngram N=...'")
            if line.startswith(b"\\"):
                self.again = line
                break
            found = re.fullmatch(rb"ngram\s+(\d{1,3})\s*=\s*(\d{1,15})", line)
            if found is None:
                raise self._fault(f"expected 'ngram {len(sizes) + 1}=COUNT', found {_shown(line)}")
            if int(found[1]) != len(sizes) + 1:
                raise self._fault(
                    f"the count of {int(found[1])}-grams stands where that of {len(sizes) + 1}-grams "
                    "belongs: an order is missing"
                )
            sizes.append(int(found[2]))
        if not sizes:
            raise self._fault("no order is counted ('ngram 1=...' is missing)")
        if len(sizes) > LONGEST:
            raise self._fault(f"{len(sizes)} orders; up to {LONGEST} can be read")
        return sizes

    def _pass_over_remarks(self) -> None:
        r"""Up to \data\, the first line that counts; without it the file's own first line is named."""
        first: tuple[int, bytes] | None = None
        for line in self.lines:
            if line == rb"\data\ ".strip():
                return
            if line and first is None:
                first = self.number, line
            if self.number >= _REMARKS:
                break
        if not self.number:
            raise TextError(f"'{self.path}' is empty.", mend="Copy the file again; was the copy interrupted?")
        if first is None:
            raise self._fault(r"the file ends where '\data\' was expected: it was cut off")
        self.number, line = first
        raise self._fault(rf"expected '\data\', found {_shown(line)}; this is no ARPA file")

    def _section(self, order: int, size: int, *, last: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Word ids (n, order), log P and backoffs of the next section."""
        head = f"\\{order}-grams:"
        line = self._next(f"'{head}'")
        if line != head.encode():
            raise self._fault(f"expected '{head}', found {_shown(line)}: the {order}-grams are missing")
        flat: list[int] = []
        scores: list[float] = []
        weights: list[float] = []
        seen: dict[tuple[int, ...], int] = {}
        while True:
            line = self._next(f"the rest of the {order}-grams, or '\\end\\'")
            if line.startswith(b"\\") and (line.endswith(b"-grams:") or line == rb"\end\ ".strip()):
                self.again = line
                break
            fields = line.split()
            if b"  " in line or b"\t " in line:
                self._check_spaces(line)
            if last and len(fields) == order + 2 and _is_zero(fields[-1]):
                fields.pop()  # KenLM passes over it, too
            if not order < len(fields) <= order + (1 if last else 2):
                raise self._fault(
                    f"a {order}-gram reads 'log10 P', {order} word{'s' if order > 1 else ''}"
                    f"{'' if last else ', backoff'}; found {_shown(line)}"
                )
            score = self._weight(fields[0], "log10 probability")
            if score > 0:
                raise self._fault(f"the log10 probability {fields[0].decode(errors='replace')} is above 0")
            if order == 1:
                flat.append(self._word(fields[1]))
            else:
                gram = tuple(self._known(word) for word in fields[1 : order + 1])
                if gram in seen:
                    raise self._fault(f"this {order}-gram stands in line {seen[gram]} already")
                seen[gram] = self.number
                flat += gram
            scores.append(score)
            weights.append(self._backoff(fields[-1]) if len(fields) == order + 2 else 0.0)
        if len(scores) != size:
            raise self._fault(f"{len(scores)} {order}-grams, but the head of the file counts {size}")
        table = np.array(flat, dtype=np.int64).reshape(len(scores), order)
        return table, np.array(scores) * LOG10, np.array(weights) * LOG10

    def _complete(
        self, log_prob: Float64[np.ndarray, " words"], backoff: Float64[np.ndarray, " words"]
    ) -> tuple[Float64[np.ndarray, " words"], Float64[np.ndarray, " words"]]:
        """The unigrams with an <unk>, after a look for <s> and </s>."""
        if b"<unk>" not in self.ids:
            self.ids[b"<unk>"] = len(self.ids)
            log_prob, backoff = np.append(log_prob, _LEAST), np.append(backoff, 0.0)
        for name in SPECIAL[1:]:
            if name.encode() not in self.ids:
                raise self._fault(f"the unigrams, which end here, have no {name}")
        return log_prob, backoff

    def _word(self, word: bytes) -> int:
        """A unigram -> its id."""
        if word == b"<UNK>":
            word = b"<unk>"
        if word in self.ids:
            raise self._fault(f"the word {_shown(word)} stands among the unigrams already")
        try:
            text = word.decode()
        except UnicodeDecodeError as error:
            raise self._fault(f"{_shown(word)} is not UTF-8 ({error.reason})") from None
        if self.check_word is not None and text not in SPECIAL and (why := self.check_word(text)):
            raise TextError(
                f"line {self.number} of '{self.path}': {why}",
                mend="Give the normalizer, unit and tokenizer this model was made with, or make it anew from "
                "text: 'firstwords lm train'.",
            )
        self.ids[word] = len(self.ids)
        return self.ids[word]

    def _known(self, word: bytes) -> int:
        found = self.ids.get(word)
        if found is None:
            found = self.ids.get(b"<unk>") if word == b"<UNK>" else None
            if found is None:
                raise self._fault(f"the word {_shown(word)} is none of the unigrams")
        return found

    def _weight(self, field: bytes, what: str) -> float:
        try:
            value = float(field)
        except ValueError:
            raise self._fault(f"expected a {what}, found {_shown(field)}") from None
        if not math.isfinite(value):
            raise self._fault(f"the {what} is {field.decode()}, which is not finite")
        if abs(value) > _LARGEST:
            raise self._fault(f"the {what} is {field.decode()}, which is too large to be one")
        return value

    def _backoff(self, field: bytes) -> float:
        value = self._weight(field, "backoff")
        if value > _MOST:
            raise self._fault(
                f"the backoff is {field.decode()}: a probability times 10 to that power is none any more"
            )
        return value

    def _check_spaces(self, line: bytes) -> None:
        """A letter that is a mark on a space looks like a mark alone: two spaces, or one behind a tab."""
        words = line.split(b"\t")[1:2]
        for before, after in pairwise(words[0].split(b" ") if words else ()):
            if not before and after and unicodedata.category(after.decode(errors="replace")[0])[0] == "M":
                raise self._fault(f"the word {_shown(b' ' + after)} holds a space")

    def _next(self, what: str) -> bytes:
        """The next line that is not empty."""
        if self.again:
            line, self.again = self.again, b""
            return line
        for line in self.lines:
            if line:
                return line
        raise self._fault(f"the file ends where {what} was expected: it was cut off")

    def _lines(self) -> Iterator[bytes]:
        for number, line in enumerate(byte_lines(self.path), start=1):
            self.number = number
            yield line.strip(b" \t\r\n")

    def _fault(self, what: str) -> TextError:
        return TextError(f"line {self.number} of '{self.path}': {what}.", mend=_MEND)


def _is_zero(field: bytes) -> bool:
    try:
        return float(field) == 0
    except ValueError:
        return False


def _shown(text: bytes) -> str:
    return repr(text[:60].decode(errors="replace"))
