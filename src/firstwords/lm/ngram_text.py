"""Text for a language model: files and corpora in, ids of words, letters or pieces out.

One sentence a line. A corpus folder gives the transcripts of its train split. What stands in dev or test is
found on the way: a language model that has read the answers makes every figure measured with it worthless.
Two texts are the same when they score as the same (normalizer score_default), as they stand or after the
normalizer of the model; a sentence inside a longer line is not found.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np

from firstwords.data.manifest import MANIFEST, Corpus, load_corpus
from firstwords.data.rules import is_evaluation, is_training
from firstwords.errors import TextError, UsageError
from firstwords.lm.ngram import BEGIN, END, SPECIAL
from firstwords.lm.ngram_estimate import number_words
from firstwords.lm.text_file import byte_lines
from firstwords.text.graphemes import graphemes
from firstwords.text.normalize import Normalizer, normalizer
from firstwords.text.pieces import SPACE
from firstwords.text.tokenizer import Tokenizer

if TYPE_CHECKING:  # models are queried without it, too
    from jaxtyping import Int32

Unit = Literal["char", "piece", "word"]
UNITS: tuple[Unit, ...] = get_args(Unit)
_ENDINGS = (".txt", ".txt.gz")
_SHOWN = 5


class Line(NamedTuple):
    """One sentence and where it stands; ``size`` bytes were read for it."""

    text: str
    where: str
    size: int


@dataclass
class Leaks:
    """Sentences that stand in dev or test: how many lines, the first of them, and what was read in all."""

    count: int = 0
    examples: list[str] = field(default_factory=list[str])

    def told(self, what: str) -> list[str]:
        """Lines for the user, where there are any; ``what`` was done with them: "drop" or "allow"."""
        done = "left out" if what == "drop" else "KEPT, as --allow-leak says"
        head = f"{self.count:,} lines that stand in dev or test: {done}."
        return [head, *(f"    {example}" for example in self.examples)] if self.count else []


@dataclass(frozen=True)
class TrainingText:
    """Sentences as one row of ids, from <s> to </s> each."""

    tokens: Int32[np.ndarray, " tokens"]
    words: list[str]
    sentences: int
    empty: int  # lines without text after normalization
    leaks: Leaks


def splitter(unit: Unit, tokenizer: Tokenizer | None = None) -> Callable[[str], list[str]]:
    """Unit -> the function normalized text -> its words, letters (space is ▁) or pieces."""
    if unit == "word":
        return str.split
    if unit == "char":
        return _letters
    if tokenizer is None:
        raise UsageError(
            "a language model of pieces needs the tokenizer they come from.",
            mend="Add --tokenizer MODEL, the folder of a trained model.",
        )
    pieces = tokenizer.pieces
    encode = tokenizer.encode
    return lambda text: [pieces[i] for i in encode(text)]


def _letters(text: str) -> list[str]:
    found: list[str] = []
    for cluster in graphemes(text):
        if cluster.isspace() or cluster < " ":
            found.append(SPACE)
        elif len(cluster) > 1 and any(map(str.isspace, cluster)):
            # A mark on a space: two units, as the recogniser's tokenizer has it, and none with a space in it.
            found += [SPACE if point.isspace() else point for point in cluster]
        else:
            found.append(cluster)
    return found


def text_files(sources: Sequence[Path]) -> list[Path]:
    """Files, folders and corpora -> files to read, each once; a corpus stands as its manifest."""
    found: list[Path] = []
    for source in sources:
        if (source / MANIFEST).is_file():
            found.append(source / MANIFEST)
        elif source.is_dir():
            inside = sorted(p for p in source.rglob("*") if p.is_file() and p.name.endswith(_ENDINGS))
            if not inside:
                raise TextError(
                    f"'{source}' holds no text: no {MANIFEST}, no file ending in {' or '.join(_ENDINGS)}.",
                    mend="Give a text file with one sentence a line.",
                )
            found += inside
        elif source.is_file():
            found.append(source)
        else:
            raise TextError(f"'{source}' does not exist.", mend="Check the path of the text.")
    return list(dict.fromkeys(path.absolute() for path in found))


def read_lines(files: Iterable[Path]) -> Iterator[Line]:
    """Text files and manifests -> their sentences, one by one."""
    for path in files:
        if path.name == MANIFEST:
            yield from _transcripts(path)
        else:
            yield from _file_lines(path)


def _transcripts(path: Path) -> Iterator[Line]:
    corpus = load_corpus(path)
    spoken = [u for u in corpus.usable if u.text is not None and is_training(u.split)]
    if not spoken:
        raise TextError(
            f"'{path.parent}' has no transcripts in a train split "
            f"(splits: {', '.join(corpus.splits) or 'none'}).",
            mend="Give text files, or a corpus with a train split.",
        )
    size = path.stat().st_size // len(spoken)
    for utterance in spoken:
        yield Line(utterance.text or "", f"utterance '{utterance.id}' of '{path.parent}'", size)


def _file_lines(path: Path) -> Iterator[Line]:
    for number, raw in enumerate(byte_lines(path), start=1):
        where = f"line {number} of '{path}'"
        try:
            yield Line(raw.rstrip(b"\r\n").decode(), where, len(raw))
        except UnicodeDecodeError as error:
            raise TextError(
                f"{where} is not UTF-8: {error.reason} (byte {error.start + 1}).",
                mend="Save the file as UTF-8.",
            ) from None


def scored(text: str, normalize: Normalizer) -> list[str]:
    """A text -> what it scores as, as it stands and normalized; nothing for a text without letters.

    Both, since normalizers such as turkic (I -> ı) and strip_diacritics change what a text scores as.
    """
    score = normalizer("score_default")
    return [form for form in dict.fromkeys((score(text), score(normalize(text)))) if form]


def held_out(corpora: Iterable[Corpus], normalize: Normalizer) -> dict[str, str]:
    """Corpora -> what their dev and test utterances score as, and the name of one that does.

    Args:
        normalize: the normalizer of the language model.
    """
    found: dict[str, str] = {}
    for corpus in corpora:
        for u in corpus.utterances:
            if u.text is not None and is_evaluation(u.split):
                for form in scored(u.text, normalize):
                    found.setdefault(form, f"'{u.id}' ({u.split} of '{corpus.folder}')")
    return found


def measured_corpora(files: Iterable[Path], exclude: Iterable[Path] = ()) -> list[Corpus]:
    """The corpora whose dev and test must not be read: those named, and those the text comes from.

    One that is named and has neither is refused: nothing would be compared with it.
    """
    own = [path.parent for path in files if path.name == MANIFEST]
    named = [path.absolute() for path in exclude]
    found = {folder: load_corpus(folder) for folder in dict.fromkeys([*own, *named])}
    for folder in named:
        if not any(u.text is not None and is_evaluation(u.split) for u in found[folder].utterances):
            raise TextError(
                f"'{folder}' has no transcripts in dev or test (splits: "
                f"{', '.join(found[folder].splits) or 'none'}): there is nothing to exclude.",
                mend="Name the corpus that recognisers are measured with, or leave this one out.",
            )
    return list(found.values())


def gather(
    lines: Iterable[Line],
    *,
    split: Callable[[str], list[str]],
    normalize: Normalizer,
    held: dict[str, str] | None = None,
    leaks: Literal["refuse", "drop", "allow"] = "refuse",
    progress: Callable[[int], None] | None = None,
) -> TrainingText:
    """Sentences -> ids; the vocabulary is what occurs.

    Args:
        split: normalized text -> units.
        held: what dev and test say (``held_out``); found in the text, it is refused, dropped or allowed.
        progress: told the number of bytes read since it was told last.
    """
    ids: dict[str, int] = {}
    tokens = array("i")
    found = Leaks()
    sentences = empty = 0
    for line in leave_out(counted(lines, progress), found, held=held or {}, normalize=normalize, leaks=leaks):
        text = normalize(line.text)
        units = split(text)
        if not units:
            empty += 1
            continue
        words = {*line.text.split(), *text.split(), *units}  # letters and pieces would spell a mark as text
        if mark := next((mark for mark in SPECIAL if mark in words), None):
            raise TextError(
                f"{line.where} holds {mark}, which marks sentences and unknown words in language models.",
                mend="Take it out: one sentence a line needs no marks.",
            )
        sentences += 1
        tokens.append(BEGIN)
        tokens.extend(ids.setdefault(unit, len(ids) + len(SPECIAL)) for unit in units)
        tokens.append(END)
    if not sentences:
        raise TextError(
            f"there is no text to make a language model from ({empty} empty lines).",
            mend="Give text files with one sentence a line; if all lines were dropped, other ones.",
        )
    words, new = number_words(list(ids))
    renumbered = np.concatenate([np.arange(len(SPECIAL), dtype=np.int32), new])
    return TrainingText(renumbered[np.frombuffer(tokens, dtype=np.int32)], words, sentences, empty, found)


def leave_out(
    lines: Iterable[Line],
    found: Leaks,
    *,
    held: dict[str, str],
    normalize: Normalizer,
    leaks: Literal["refuse", "drop", "allow"],
    besides: str = "",
) -> Iterator[Line]:
    """The lines without those of dev and test, which are noted in ``found``; TextError at the end if refused.

    Args:
        held: what dev and test say (``held_out``).
        besides: what else the error shall say of mending it.
    """
    for line in lines:
        whose = (
            next((held[form] for form in scored(line.text, normalize) if form in held), "") if held else ""
        )
        if whose:
            found.count += 1
            if len(found.examples) < _SHOWN:
                found.examples.append(f"{line.where}: '{normalize(line.text)[:60]}' is {whose}")
            if leaks != "allow":
                continue
        yield line
    if found.count and leaks == "refuse":
        raise _leaking(found, besides)


def counted(lines: Iterable[Line], progress: Callable[[int], None] | None) -> Iterator[Line]:
    """The lines; told the bytes of each as it is read, whatever becomes of it."""
    for line in lines:
        if progress is not None:
            progress(line.size)
        yield line


def _leaking(leaks: Leaks, besides: str) -> TextError:
    shown = "".join(f"\n    {example}" for example in leaks.examples)
    more = f"\n    ... and {leaks.count - len(leaks.examples)} more" if leaks.count > _SHOWN else ""
    lines = "line of the text stands" if leaks.count == 1 else "lines of the text stand"
    return TextError(
        f"{leaks.count} {lines} in dev or test:{shown}{more}",
        mend="Results measured with such a model look better than they are. --drop-leaks leaves these lines "
        "out, --allow-leak keeps them, as is right where a few sentences are said again and again (digits, "
        f"commands).{besides and f' {besides}'}",
    )
