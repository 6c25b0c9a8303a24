"""Model folder and corpus -> Evaluation: transcribe a split, score it, compare with another system."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from firstwords.data.manifest import Corpus, Utterance
from firstwords.device import choose_device, machine_name
from firstwords.errors import CorpusError, FirstwordsError, RemoteError, TextError, UsageError
from firstwords.formatting.build import recipe_formatter
from firstwords.formatting.stage import Formatter
from firstwords.inference.second_pass import SecondPass
from firstwords.inference.transcript import Formatted, Transcript
from firstwords.model.recipe import read_recipe
from firstwords.report.evaluate import HasText, compare, evaluate
from firstwords.report.evaluate_formatted import score_formatted
from firstwords.report.evaluate_quality import score_quality
from firstwords.report.evaluation import Evaluation
from firstwords.report.evaluation_json import read_hypotheses
from firstwords.text.graphemes import graphemes
from firstwords.text.load import load_tokenizer
from firstwords.text.normalize import Normalizer, normalizer
from firstwords.text.tokenizer import Tokenizer

Progress = Callable[[int, int], None]


class Transcriber(Protocol):
    """What is evaluated: ``Recognizer``, or anything that gives one transcript an utterance, in order."""

    def transcribe_many(self, utterances: Iterable[Utterance]) -> Iterator[HasText]: ...


def evaluate_model(
    folder: Path,
    corpus: Corpus,
    split: str,
    *,
    device: str = "auto",
    recognizer: Transcriber | None = None,
    scoring: str | None = None,
    note: str = "",
    progress: Progress | None = None,
) -> Evaluation:
    """Model folder and one split of a corpus -> Evaluation.

    An utterance whose audio cannot be read is skipped, counted and named; so are the quarantined ones.

    Args:
        recognizer: use this one instead of loading the folder.
        scoring: name of the scoring normalizer; by default the one in the model's recipe.
        note: what a reader must know first.
        progress: called with (done, all) after each utterance.
    """
    utterances = utterances_of(corpus, split)
    if recognizer is None:
        recognizer = _load(folder, device)  # first: it says what is missing in a folder that is no model
    _formatter(recognizer)  # reads its files: what is wrong with them is said before minutes of transcribing
    recipe = read_recipe(folder / "recipe.toml")
    started = time.perf_counter()
    formatted: dict[str, Formatted] = {}
    confidences: dict[str, float] = {}
    second = _second_pass(recognizer)
    if second is not None:
        second.kept = {}  # the quality asks for the scores of what was chosen
    texts, failures = transcribe_all(recognizer, utterances, progress, formatted, confidences)
    seconds = time.perf_counter() - started
    tokenizer = load_tokenizer(folder / "tokenizer")
    evaluation = evaluate(
        utterances,
        texts,
        model=folder.resolve().name,
        corpus=corpus.folder.resolve().name,
        split=split,
        scoring=scoring or recipe.text.scoring,
        labels=piece_labels(tokenizer, normalizer(recipe.text.normalizer)),
        label_kind=f"pieces of the model's {len(tokenizer.pieces)}",
        training_texts=[u.text for u in corpus.split("train") if u.text],
        hardware=_hardware(device),
        seconds=seconds,
        failures=failures,
        note=note,
    )
    aside = {
        u.id: f"quarantined: {corpus.quarantine[u.id]}"
        for u in corpus.utterances
        if u.split == split and u.id in corpus.quarantine
    }
    broken = {f"line {number}": reason for number, reason in corpus.broken.items()}
    return replace(
        evaluation,
        made_from={"model": str(folder.resolve()), "corpus": str(corpus.folder.resolve())},
        skipped={**evaluation.skipped, **aside, **broken},
        formatting=score_formatted(evaluation, formatted, _hotwords(recognizer)),
        quality=None if second is None else score_quality(evaluation, second, confidences),
    )


def compare_with(
    evaluation: Evaluation,
    other: Path,
    corpus: Corpus,
    *,
    device: str = "auto",
    recognizer: Transcriber | None = None,
    progress: Progress | None = None,
) -> tuple[Evaluation, Evaluation]:
    """An evaluation and another system -> (the evaluation with its comparison, the other's evaluation).

    Args:
        other: a model folder, or a hypotheses.jsonl with "id" and "hypothesis" (of any recogniser).
    """
    if other.is_file():
        known = read_hypotheses(other)
        utterances = utterances_of(corpus, evaluation.split)
        before = evaluate(
            utterances,
            [known.get(u.id) for u in utterances],
            model=other.resolve().parent.name,
            corpus=evaluation.corpus,
            split=evaluation.split,
            scoring=evaluation.normalizer,
            training_texts=[u.text for u in corpus.split("train") if u.text],
            failures={u.id: f"not in {other.name}" for u in utterances if u.id not in known},
        )
    else:
        before = evaluate_model(
            other,
            corpus,
            evaluation.split,
            device=device,
            recognizer=recognizer,
            scoring=evaluation.normalizer,
            progress=progress,
        )
    return compare(before, evaluation), before


def check_other(other: Path, corpus: Corpus, split: str) -> None:
    """Refuse at once what ``compare_with`` would refuse only after the first system has been evaluated."""
    if other.is_file():
        known = read_hypotheses(other)
        if not any(u.id in known for u in utterances_of(corpus, split)):
            raise CorpusError(
                f"--against: '{other}' has no hypothesis for any utterance of split '{split}' (its first id: "
                f"'{next(iter(known))}').",
                mend="Choose the split it was made of with --split.",
            )
    elif not other.exists():
        raise UsageError(
            f"--against: '{other}' does not exist.",
            mend="Give a model folder, or a hypotheses.jsonl that 'firstwords evaluate' wrote.",
        )
    elif not (other / "recipe.toml").is_file():
        raise UsageError(
            f"--against: '{other}' is no model folder: recipe.toml is missing.",
            mend="Give a model folder, or a hypotheses.jsonl that 'firstwords evaluate' wrote.",
        )
    else:
        recipe = read_recipe(other / "recipe.toml")
        recipe_formatter(recipe.post, language=recipe.language, folder=other)  # reads the files of its stages


def utterances_of(corpus: Corpus, split: str) -> tuple[Utterance, ...]:
    """Usable utterances of a split; a split that is not there is refused with those that are."""
    utterances = corpus.split(split)
    if not utterances:
        known = ", ".join(f"{name} ({len(corpus.split(name))})" for name in corpus.splits) or "none"
        raise CorpusError(
            f"'{corpus.folder}' has no usable utterances in split '{split}'. Splits: {known}.",
            mend="Choose one with --split, or make splits with 'firstwords import'.",
        )
    return utterances


def transcribe_all(
    recognizer: Transcriber,
    utterances: Sequence[Utterance],
    progress: Progress | None = None,
    formatted: dict[str, Formatted] | None = None,
    confidences: dict[str, float] | None = None,
) -> tuple[list[str | None], dict[str, str]]:
    """Utterances -> (texts in order, None where it failed; id -> reason).

    Where a batch fails, its utterances are tried one by one until the culprit is found. ``formatted`` is
    given what stages of formatting wrote, ``confidences`` the mean over the words of each text, by id.
    """
    texts: list[str | None] = []
    failures: dict[str, str] = {}

    def add(heard: HasText | None) -> None:
        if formatted is not None and isinstance(heard, Transcript) and heard.formatted is not None:
            formatted[utterances[len(texts)].id] = heard.formatted
        if confidences is not None and isinstance(heard, Transcript) and (words := heard.words):
            sure = sum(word.confidence for word in words) / len(words)
            confidences[utterances[len(texts)].id] = sure
        texts.append(None if heard is None else heard.text)
        if progress:
            progress(len(texts), len(utterances))

    while len(texts) < len(utterances):
        before = len(texts)
        try:
            for transcript in recognizer.transcribe_many(utterances[before:]):
                add(transcript)
            if len(texts) != len(utterances):
                raise RuntimeError(f"{len(texts)} transcripts for {len(utterances)} utterances")
        except RemoteError:  # of no utterance: the next one would not fare better
            raise
        except FirstwordsError:
            for utterance in utterances[len(texts) :]:
                try:
                    add(next(iter(recognizer.transcribe_many([utterance]))))
                except FirstwordsError as error:
                    failures[utterance.id] = error.what
                    add(None)
                    break
    return texts, failures


def piece_labels(tokenizer: Tokenizer, normalize: Normalizer) -> Callable[[str], list[Hashable]]:
    """Tokenizer and training normalizer -> text -> its pieces; a letter without a piece is a label itself."""

    def labels(text: str) -> list[Hashable]:
        text = normalize(text)
        try:
            return [*tokenizer.encode(text)]
        except TextError:  # only a vocabulary without bytes: then every piece lies within one letter
            found: list[Hashable] = []
            for letter in graphemes(text):
                try:
                    found += tokenizer.encode(letter)
                except TextError:
                    found.append(letter)
            return found

    return labels


def _load(folder: Path, device: str) -> Transcriber:
    from firstwords.inference.recognizer import Recognizer

    return Recognizer.load(folder, device=device)


def _formatter(recognizer: Transcriber) -> Formatter | None:
    """The stages of a ``Recognizer``; none of any other transcriber."""
    from firstwords.inference.recognizer import Recognizer

    return recognizer.formatter if isinstance(recognizer, Recognizer) else None


def _second_pass(recognizer: Transcriber) -> SecondPass | None:
    """The language model that chooses for a ``Recognizer``; none of any other transcriber."""
    from firstwords.inference.recognizer import Recognizer

    return recognizer.second_pass if isinstance(recognizer, Recognizer) else None


def _hotwords(recognizer: Transcriber) -> tuple[str, ...]:
    """The phrases of the stage "hotwords", where there is one."""
    from firstwords.formatting.hotwords import Hotwords

    formatter = _formatter(recognizer)
    stages = formatter.stages if formatter is not None else ()
    return tuple(p for stage in stages if isinstance(stage, Hotwords) for p in stage.phrases)


def _hardware(device: str) -> str:
    place = choose_device(device)
    if place.type == "cuda":
        import torch

        return f"{torch.cuda.get_device_name(place)}, {machine_name()}"
    return machine_name()
