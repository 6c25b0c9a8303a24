"""The parity gate: does a bundle read what its model reads, in every engine?

    engines     PyTorch, onnxruntime, firstwords' own runtime, sherpa-onnx where it is installed
    variants    fp32, int8 where there is one
    rates       the model's own; with --check or --corpus 8, 16, 44.1 and 48 kHz, too, from the same sounds

Passed if all engines give PyTorch's tokens at the model's own rate in fp32, and eight bits cost at most one
point of CER (against the transcripts of a corpus; without one, against PyTorch's reading). Other rates are
shown and decide nothing: each engine has its own resampler.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from firstwords.audio.resampling import resample
from firstwords.audio.waveform import channel_policy, read
from firstwords.data.manifest import load_corpus
from firstwords.errors import AudioError, CheckpointError, CorpusError
from firstwords.export.bundle import BUNDLE, CARD, PARITY
from firstwords.export.card import write_bundle_card
from firstwords.export.decode import (
    OnnxReader,
    Reader,
    RuntimeReader,
    Tokens,
    TorchReader,
    tail_samples,
)
from firstwords.export.make import Made
from firstwords.export.sherpa import Said, has_sherpa, read_with_sherpa, shown
from firstwords.files import write_atomically
from firstwords.model.recipe import Recipe
from firstwords.model.selfcheck import synthetic_clip
from firstwords.scoring.error_rate import ErrorRate, grapheme_errors, sequence_errors
from firstwords.text.normalize import normalizer
from firstwords.text.pieces import BYTES

Samples = npt.NDArray[np.float32]
RATES = (8000, 16000, 44100, 48000)
UTTERANCES = 20  # the fewest that a card is written after
INT8_LOSS = 0.01  # CER
_LONGEST = 30.0  # seconds of an utterance that is compared
Sherpa = Literal["compared", "not installed", "cannot run it"]
_UNTRIED: dict[Sherpa, str] = {
    "compared": "",
    "not installed": "\nsherpa-onnx was not compared: it was not installed.\n",
    "cannot run it": "\nsherpa-onnx was not compared: it cannot run this bundle.\n",
}


@dataclass(frozen=True)
class Clip:
    """A recording at the model's rate; ``text`` where a person wrote down what is said."""

    samples: Samples
    text: str | None


@dataclass(frozen=True)
class Row:
    """One engine, variant and rate against PyTorch at the model's own rate."""

    engine: str
    variant: str
    rate: int
    differing: int  # utterances with other tokens
    tokens: ErrorRate
    cer: float  # against the transcripts, else against PyTorch's reading


@dataclass(frozen=True)
class Gate:
    """What was compared, and whether the bundle passed."""

    utterances: int
    tokens: int
    with_texts: bool
    rate: int
    rows: tuple[Row, ...]
    faults: tuple[str, ...]
    sherpa: Sherpa = "compared"

    def as_json(self) -> dict[str, Any]:
        """The content of parity.json."""
        rows = [
            {
                "engine": row.engine,
                "variant": row.variant,
                "sample_rate": row.rate,
                "differing_utterances": row.differing,
                "token_errors": row.tokens.errors,
                "cer": round(row.cer, 5),
            }
            for row in self.rows
        ]
        return {
            "passed": not self.faults,
            "faults": list(self.faults),
            "utterances": self.utterances,
            "tokens": self.tokens,
            "cer_against": "transcripts" if self.with_texts else "PyTorch, fp32",
            "sample_rate": self.rate,
            "sherpa_onnx": self.sherpa,
            "rows": rows,
        }

    def as_markdown(self) -> str:
        """The same as a table for people."""
        lines = [
            "| engine | variant | sample rate | utterances that differ | tokens that differ | CER |",
            "|---|---|---:|---:|---:|---:|",
        ]
        for row in self.rows:
            lines.append(
                f"| {row.engine} | {row.variant} | {row.rate} | {row.differing} of {self.utterances} | "
                f"{row.tokens.errors} of {self.tokens} | {100 * row.cer:.2f} % |"
            )
        against = "the transcripts" if self.with_texts else "what PyTorch reads (no transcripts given)"
        return "\n".join(lines) + f"\n\nCER against {against}.\n" + _UNTRIED[self.sherpa]


def check_bundle_of(
    made: Made,
    clips: Sequence[Clip] | None = None,
    *,
    long: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> Gate:
    """Run the gate on a written bundle; parity.json, and card.md if it is passed.

    Args:
        clips: what is read; not given: made-up sounds. Too few give no card.
        long: at other sample rates, too.

    Raises:
        CheckpointError: the gate is not passed; bundle and parity.json stay, without a card.
    """
    rate = made.loaded.recipe.features.sample_rate
    given = clips is not None
    clips = clips if clips is not None else material(made.loaded.recipe, None)
    rates = tuple(sorted({*RATES, rate})) if long else (rate,)
    gate = compare(made, clips, rates, report)
    (made.folder / CARD).unlink(missing_ok=True)  # of an earlier comparison
    write_atomically(made.folder / PARITY, json.dumps(gate.as_json(), indent=1))
    report(gate.as_markdown())
    if gate.sherpa == "not installed":
        report("Install it with 'pip install \"firstwords[export]\"', and export again.")
    if gate.faults:
        raise CheckpointError(
            f"the bundle '{made.folder}' does not read what the model reads: {'; '.join(gate.faults)}. "
            f"It has no {CARD}.",
            mend=f"See {PARITY} beside it."
            + ("" if given else " Compare real speech: --check --corpus CORPUS.")
            + " The fp32 graphs alone: export without --int8.",
        )
    if gate.utterances < UTTERANCES:
        report(f"{gate.utterances} utterances are too few for a {CARD}: {UTTERANCES} are needed.")
        return gate
    heard = f"{gate.utterances} " + ("recordings" if gate.with_texts else "sounds without transcripts")
    engines = tuple(dict.fromkeys(row.engine for row in gate.rows))
    write_atomically(made.folder / CARD, write_bundle_card(made, engines, heard, gate.as_markdown()))
    return gate


def material(recipe: Recipe, corpus: Path | None, count: int = UTTERANCES) -> list[Clip]:
    """Utterances of a corpus (dev, else test, else train), or pieces of the self-check's clip."""
    rate = recipe.features.sample_rate
    if corpus is None:
        return [Clip(samples, None) for samples in _variations(rate, count)]
    found = load_corpus(corpus)
    tidy = normalizer(recipe.text.scoring)
    clips: list[Clip] = []
    for utterance in (*found.split("dev"), *found.split("test"), *found.split("train")):
        if len(clips) == count:
            break
        if utterance.duration > _LONGEST:
            continue
        try:
            audio = read(
                utterance.audio,
                sample_rate=rate,
                channels=channel_policy(recipe.data.channels),
                start=utterance.start,
                duration=utterance.duration,
            )
        except AudioError:
            continue  # 'firstwords check' is the place for its reasons
        clips.append(Clip(audio.samples, None if utterance.text is None else tidy(utterance.text)))
    if len(clips) < count:
        raise CorpusError(
            f"'{corpus}' has {len(clips)} readable utterances of at most {_LONGEST:g} s; "
            f"{count} are compared.",
            mend="Give a larger corpus, or leave --corpus out: made-up sounds are compared then.",
        )
    return clips


def _variations(rate: int, count: int) -> Iterable[Samples]:
    """The clip at several speeds, from several places on, in several noises; the same ones always."""
    generator = np.random.default_rng(7)
    clip = synthetic_clip(rate)
    for number in range(count):
        speed = 1.0 if number == 0 else generator.uniform(0.6, 1.6)
        samples = resample(clip, rate, round(rate / speed))
        samples = samples[int(generator.integers(len(samples) // 3)) if number else 0 :]
        noise = 0.0 if number == 0 else 10 ** generator.uniform(-4, -1.5)
        samples = samples + noise * generator.standard_normal(len(samples))
        yield samples.astype(np.float32)


def compare(made: Made, clips: Sequence[Clip], rates: Sequence[int], report: Callable[[str], None]) -> Gate:
    """Every engine, variant and rate against PyTorch at the model's own rate."""
    facts = json.loads((made.folder / BUNDLE).read_text(encoding="utf-8"))
    pieces, rate = made.loaded.tokenizer.pieces, int(facts["sample_rate"])
    sounds = {r: [_at(clip.samples, rate, r) for clip in clips] for r in rates}
    torch_reader = TorchReader(facts, made.loaded.model, made.loaded.tokenizer.silent)
    report("reading with PyTorch")
    expected = _read(torch_reader, sounds[rate], rate)
    installed: Sherpa = "compared" if has_sherpa() else "not installed"
    sherpa: Sherpa = installed if facts["sherpa_onnx"] else "cannot run it"
    rows: list[Row] = []
    spelled: set[str] = set()  # texts of sherpa-onnx that are not those of their tokens

    def add(engine: str, variant: str, at: int, tokens: Sequence[Tokens], pairs: Sequence[Any]) -> None:
        errors = sum((sequence_errors(a, b) for a, b in pairs), ErrorRate())
        differing = sum(a != b for a, b in pairs)
        rows.append(Row(engine, variant, at, differing, errors, _cer(made, clips, expected, tokens)))

    for at in rates:
        found = expected if at == rate else _read(torch_reader, sounds[at], at)
        add("PyTorch", "fp32", at, found, list(zip(expected, found, strict=True)))
    for variant in facts["variants"]:
        for reader in _readers(facts, made.folder, variant):
            report(f"reading with {reader.name}, {variant}")
            for at in rates:
                found = _read(reader, sounds[at], at)
                add(reader.name, variant, at, found, list(zip(expected, found, strict=True)))
        if sherpa == "compared":
            report(f"reading with sherpa-onnx, {variant}")
            wanted = [shown(pieces, tokens) for tokens in expected]
            for at, said in _sherpa(made.folder, facts, variant, sounds).items():
                tokens = [_ids(pieces, one.pieces) for one in said]
                found = [one.pieces for one in said]
                add("sherpa-onnx", variant, at, tokens, list(zip(wanted, found, strict=True)))
                spelled |= {
                    one.text
                    for one, pieces_of, ids in zip(said, wanted, expected, strict=True)
                    if one.pieces == pieces_of and not _same_text(made, ids, one.text)
                }
    with_texts = all(clip.text is not None for clip in clips)
    faults = tuple(_faults(rows, rate))
    if not any(expected):
        faults += ("the model reads nothing in these sounds, so nothing was compared: give --corpus",)
    if spelled:
        faults += (f"sherpa-onnx writes other letters than its tokens have: '{sorted(spelled)[0][:60]}'",)
    return Gate(len(clips), sum(map(len, expected)), with_texts, rate, tuple(rows), faults, sherpa)


def _faults(rows: Sequence[Row], rate: int) -> Iterable[str]:
    own = [row for row in rows if row.rate == rate]
    plain = {row.engine: row.cer for row in own if row.variant == "fp32"}
    for row in own:
        if row.variant == "fp32" and row.differing:
            yield f"{row.engine}, fp32: {row.differing} utterances have other tokens than PyTorch gives"
        if row.variant == "int8" and row.cer - plain[row.engine] > INT8_LOSS:
            yield (
                f"{row.engine}, int8: a CER of {100 * row.cer:.2f} % where fp32 has "
                f"{100 * plain[row.engine]:.2f} %, more than one point"
            )


def _at(samples: Samples, own: int, rate: int) -> Samples:
    return samples if rate == own else resample(samples, own, rate)


def _read(reader: Reader, sounds: Sequence[Samples], rate: int) -> list[Tokens]:
    return [reader.read(samples, rate) for samples in sounds]


def _readers(facts: Mapping[str, Any], folder: Path, variant: str) -> Iterable[Reader]:
    yield OnnxReader(facts, folder, variant)
    yield RuntimeReader(facts, folder, variant)


def _sherpa(
    folder: Path, facts: Mapping[str, Any], variant: str, sounds: Mapping[int, Sequence[Samples]]
) -> dict[int, list[Said]]:
    recordings = [(samples, rate) for rate, of_rate in sounds.items() for samples in of_rate]
    tail = tail_samples(facts) if facts["streaming"] else 0
    said = iter(read_with_sherpa(folder, facts, variant, recordings, tail=tail))
    return {rate: [next(said) for _ in of_rate] for rate, of_rate in sounds.items()}


def _same_text(made: Made, tokens: Tokens, text: str) -> bool:
    """The same letters; spaces are each engine's own, and some versions of sherpa-onnx misread bytes."""
    if any(made.loaded.tokenizer.pieces[token] in BYTES for token in tokens):
        return True
    return "".join(made.loaded.tokenizer.decode(tokens).split()) == "".join(text.split())


def _ids(pieces: Sequence[str], said: Sequence[str]) -> Tokens:
    """What sherpa-onnx shows -> ids; the first piece that is shown so."""
    places: dict[str, int] = {}
    for place in range(1, len(pieces)):
        places.setdefault(shown(pieces, [place])[0], place)
    return tuple(places.get(piece, 0) for piece in said)


def _cer(made: Made, clips: Sequence[Clip], expected: Sequence[Tokens], found: Sequence[Tokens]) -> float:
    tidy, decode = normalizer(made.loaded.recipe.text.scoring), made.loaded.tokenizer.decode
    total = ErrorRate()
    for clip, first, tokens in zip(clips, expected, found, strict=True):
        reference = tidy(decode(first)) if clip.text is None else clip.text
        total += grapheme_errors(reference, tidy(decode(tokens)))
    return total.rate
