"""``firstwords lm``: language models from text: train, measure, tune, and the way to other tools and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firstwords.cli import lm_mix, lm_tune
from firstwords.cli.group import PlainGroup
from firstwords.cli.leak_options import LeakOptions
from firstwords.cli.lm_neural import NeuralOptions, train_neural
from firstwords.cli.lm_ngram import train_ngram
from firstwords.cli.lm_options import ONE, UNIT_NAMES, Lm, Text, To, WritingOptions, ngram_header, refuse
from firstwords.cli.option_group import grouped
from firstwords.cli.terminal import plain_console, reading_bar
from firstwords.data.manifest import MANIFEST
from firstwords.errors import UsageError

if TYPE_CHECKING:
    from firstwords.lm.language_model import NgramLanguageModel

app = typer.Typer(
    help="Language models: train, measure, tune, mix, import and export ARPA.",
    no_args_is_help=True,
    cls=PlainGroup,
)

_Kind = Annotated[
    str | None, typer.Option("--kind", help="ngram (the default), lstm or transformer.", show_default=False)
]
_Order = Annotated[
    int | None, typer.Option("--order", help="Longest n-gram; 4 if not given.", show_default=False)
]
_UnitToTrain = Annotated[
    str | None,
    typer.Option(
        "--unit",
        help="char, piece (of --tokenizer) or word. Not given: word; LSTM and Transformer: char, "
        "or piece with --tokenizer.",
        show_default=False,
    ),
]
_UnitToImport = Annotated[str, typer.Option("--unit", help="char, piece (of --tokenizer) or word.")]
_Prune = Annotated[
    str | None,
    typer.Option("--prune", help="Leave out n-grams seen so often or less, per order: '0 0 1'."),
]


_LEAST_MASS, _MOST_MASS = 0.5, 1.1  # of unigrams that are probabilities; words left out, rounding


@app.command("train")
@grouped
def train(
    text: Text,
    to: To,
    *,
    kind: _Kind = None,
    order: _Order = None,
    unit: _UnitToTrain = None,
    writing: WritingOptions,
    prune: _Prune = None,
    neural: NeuralOptions,
    leaks: LeakOptions,
) -> None:
    """Estimate an n-gram model (modified Kneser-Ney) from text, or train an LSTM or a Transformer on it.

    A training saves when interrupted, and the same command goes on.
    """
    leaks.check()
    corpora = [*text, *([neural.dev] if neural.dev is not None else [])]
    if not leaks.measured and not any((path / MANIFEST).is_file() for path in corpora):
        typer.echo(
            "No corpus was named (--exclude CORPUS): the text was not compared with any dev or test.",
            err=True,
        )
    if kind in (None, "ngram") and neural.recipe is None:
        neural.refuse_all()
        train_ngram(
            text,
            to,
            order=4 if order is None else order,
            unit=unit or "word",
            writing=writing,
            prune=prune or "0",
            leaks=leaks,
        )
        return
    if kind == "ngram":
        raise UsageError("--kind ngram and --recipe contradict each other.", mend="Leave one away.")
    refuse({"--order": order, "--prune": prune}, "only an n-gram model has one.", "Leave it away.")
    train_neural(text, to, kind=kind, unit=unit, writing=writing, options=neural, leaks=leaks)


@app.command("perplexity")
def perplexity(lm: Lm, text: Text) -> None:
    """Measure how well a language model foresees a text it was not made from."""
    from firstwords.lm.compared import comparison_words
    from firstwords.lm.language_model import kind_of, load_language_model
    from firstwords.lm.ngram_text import read_lines, text_files
    from firstwords.lm.perplexity import measure_perplexity

    console = plain_console()
    files = text_files(text)
    if (kind := kind_of(lm)) == "ngram":
        model = load_language_model(lm)
    elif kind == "mixture":
        raise UsageError(
            f"{lm} is a mixture: its scores are no probabilities, so it has no perplexity.",
            mend=f"Measure its parts, for example {lm / '1'}, or what they bring: firstwords lm tune.",
        )
    else:
        from firstwords.lm.neural.folder import load_neural

        model = load_neural(lm)
    with reading_bar(console, "measuring", files) as told:
        found = measure_perplexity(model, read_lines(files), progress=told)
    name = UNIT_NAMES[model.header.unit]
    letters = "" if model.header.unit == "char" else f", {found.letters:,} letters"
    console.print(f"{found.sentences:,} sentences, {found.units:,} {name}{letters}.")
    console.print(f"unknown {name}: {found.unknown:,} ({100 * found.unknown_rate:.2f} %)")
    console.print(f"perplexity per {ONE[model.header.unit]} and end: {found.perplexity:.4f}")
    console.print(f"  without the unknown: {found.perplexity_known:.4f}")
    if model.header.unit != "word":
        console.print(f"perplexity per word and end: {found.perplexity_per_word:.4f}")
    console.print(f"bits per letter: {found.bits_per_letter:.4f}")
    console.print(comparison_words(lm))


@app.command("export")
def export(
    lm: Lm,
    arpa: Annotated[Path, typer.Option("--arpa", help="ARPA file to write; .gz compresses it.")],
) -> None:
    """Write a language model as an ARPA file, for other tools."""
    from firstwords.lm.language_model import load_language_model
    from firstwords.lm.ngram_arpa import write_arpa

    console = plain_console()
    model = load_language_model(lm)
    write_arpa(arpa, model.model)
    console.print(f"Wrote {arpa}: {_counts(model)}.")


@app.command("import")
@grouped
def import_arpa(
    arpa: Annotated[Path, typer.Argument(help="ARPA file, .gz too.", show_default=False)],
    to: To,
    *,
    unit: _UnitToImport = "word",
    writing: WritingOptions,
) -> None:
    """Read an ARPA file of another tool, such as KenLM; its words must be text of the normalizer."""
    from firstwords.lm.language_model import (
        NgramLanguageModel,
        refuse_others,
        save_language_model,
    )
    from firstwords.lm.ngram_arpa import read_arpa, unigram_mass
    from firstwords.lm.writing import word_check
    from firstwords.text.pieces import SPACE

    console = plain_console()
    refuse_others(to)
    header, pieces = ngram_header(unit, 1, writing)
    model = read_arpa(arpa, check_word=word_check(header.unit, header.normalizer, pieces))
    found = NgramLanguageModel(header.with_(order=model.order), model, pieces)
    save_language_model(to, found)
    console.print(f"Read {_counts(found)}. Wrote {to}.")
    if unit == "char" and SPACE not in model.id_of:
        console.print(
            f"It has no {SPACE}, which is a space among letters: every space counts as unknown. Tools that "
            f"write '|' or '<space>' for it: write {SPACE} in their file."
        )
    if not _LEAST_MASS < (mass := unigram_mass(model)) < _MOST_MASS:
        console.print(
            f"The probabilities of its 1-grams add up to {mass:.3g}, not to 1. Are its weights log10? "
            "Natural logarithms are to be multiplied by 0.4343."
        )


app.command("tune")(lm_tune.run)
app.command("mix")(lm_mix.run)


def _counts(lm: NgramLanguageModel) -> str:
    return ", ".join(f"{count:,} {n}-grams" for n, count in enumerate(lm.model.counts, start=1))
