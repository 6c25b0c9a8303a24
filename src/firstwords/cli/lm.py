"""``firstwords lm``: language models from text: train, measure, tune, and the way to other tools and back."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from firstwords.cli import lm_mix, lm_tune
from firstwords.cli.group import PlainGroup
from firstwords.cli.shipped import find_recipe
from firstwords.data.manifest import MANIFEST
from firstwords.errors import TextError, UsageError, quoted

if TYPE_CHECKING:
    from rich.console import Console

    from firstwords.lm.language_model import NgramHeader, NgramLanguageModel
    from firstwords.text.tokenizer import Tokenizer

app = typer.Typer(
    help="Language models: train, measure, tune, mix, import and export ARPA.",
    no_args_is_help=True,
    cls=PlainGroup,
)

_Text = Annotated[
    list[Path],
    typer.Argument(
        help="Text files (one sentence a line; .txt, .txt.gz), folders of them, or corpus folders.",
        show_default=False,
    ),
]
_Lm = Annotated[Path, typer.Argument(help="Folder of a language model.", show_default=False)]
_Unit = Annotated[str, typer.Option("--unit", help="char, piece (of --tokenizer) or word.")]
_TokenizerOption = Annotated[
    Path | None,
    typer.Option("--tokenizer", help="Model folder (or its tokenizer) whose pieces and normalizer to use."),
]
_Normalizer = Annotated[
    str | None,
    typer.Option(
        "--normalizer", help="Normalizer of the text; that of --tokenizer's recipe, otherwise 'default'."
    ),
]

# Of every command that learns from text.
Exclude = Annotated[
    list[Path] | None,
    typer.Option("--exclude", help="Corpus whose dev and test must not be read. May be repeated."),
]
DropLeaks = Annotated[bool, typer.Option("--drop-leaks", help="Leave out lines that stand in dev or test.")]
AllowLeak = Annotated[bool, typer.Option("--allow-leak", help="Keep lines that stand in dev or test.")]


def what_of_leaks(*, drop: bool, allow: bool) -> Literal["drop", "allow", "refuse"]:
    """--drop-leaks and --allow-leak -> what becomes of lines that stand in dev or test."""
    if drop and allow:
        raise UsageError("--drop-leaks and --allow-leak exclude each other.", mend="Give one of them.")
    return "drop" if drop else "allow" if allow else "refuse"


@app.command("train")
def train(
    text: _Text,
    to: Annotated[Path, typer.Option("--to", help="Folder of the language model.", show_default=False)],
    kind: Annotated[
        str | None,
        typer.Option("--kind", help="ngram (the default), lstm or transformer.", show_default=False),
    ] = None,
    order: Annotated[
        int | None, typer.Option("--order", help="Longest n-gram; 4 if not given.", show_default=False)
    ] = None,
    unit: Annotated[
        str | None,
        typer.Option(
            "--unit",
            help="char, piece (of --tokenizer) or word. Not given: word; LSTM and Transformer: char, "
            "or piece with --tokenizer.",
            show_default=False,
        ),
    ] = None,
    tokenizer: _TokenizerOption = None,
    normalizer: _Normalizer = None,
    prune: Annotated[
        str | None,
        typer.Option("--prune", help="Leave out n-grams seen so often or less, per order: '0 0 1'."),
    ] = None,
    size: Annotated[
        str | None, typer.Option("--size", help="Of an LSTM or Transformer: tiny, small.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0.05, help="Time an LSTM or Transformer may train.")
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", help="TOML file of an LSTM or Transformer, or a name: lstm, transformer."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a setting of the recipe, for example training.epochs=5."),
    ] = None,
    dev: Annotated[
        Path | None,
        typer.Option(
            "--dev", help="Text or corpus (its dev split) to measure on; else some sentences are put aside."
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:1.", show_default=False)
    ] = None,
    exclude: Exclude = None,
    drop_leaks: DropLeaks = False,
    allow_leak: AllowLeak = False,
) -> None:
    """Estimate an n-gram model (modified Kneser-Ney) from text, or train an LSTM or a Transformer on it.

    A training saves when interrupted, and the same command goes on.
    """
    leaks = what_of_leaks(drop=drop_leaks, allow=allow_leak)
    if not exclude and not any((path / MANIFEST).is_file() for path in text):
        typer.echo(
            "No corpus was named (--exclude CORPUS): the text was not compared with any dev or test.",
            err=True,
        )
    neural = {"--size": size, "--minutes": minutes, "--recipe": recipe, "--set": set_, "--dev": dev}
    if kind in (None, "ngram") and recipe is None:
        _refuse(neural | {"--device": device}, "an n-gram model has none.", "Add --kind lstm or transformer.")
        _train_ngram(
            text,
            to,
            order=4 if order is None else order,
            unit=unit or "word",
            tokenizer=tokenizer,
            normalizer=normalizer,
            prune=prune or "0",
            exclude=exclude or [],
            leaks=leaks,
        )
        return
    if kind == "ngram":
        raise UsageError("--kind ngram and --recipe contradict each other.", mend="Leave one away.")
    _refuse({"--order": order, "--prune": prune}, "only an n-gram model has one.", "Leave it away.")
    from firstwords.cli.lm_neural import train_neural
    from firstwords.training.lm.recipe import LmWanted
    from firstwords.training.lm.texts import Sources

    source, named = _source(tokenizer, normalizer)
    own = find_recipe(recipe, below="lm") if recipe is not None else None
    if unit is None and recipe is None:
        unit = "piece" if source is not None else "char"
    train_neural(
        Sources(tuple(text), dev, tuple(exclude or ()), leaks),
        to,
        LmWanted(own, kind, size, unit, named, minutes, tuple(set_ or ())),
        tokenizer=source,
        device=device or "auto",
    )


def _refuse(options: Mapping[str, object], why: str, mend: str) -> None:
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"{name}: {why}", mend=mend)


def _train_ngram(
    text: list[Path],
    to: Path,
    *,
    order: int,
    unit: str,
    tokenizer: Path | None,
    normalizer: str | None,
    prune: str,
    exclude: list[Path],
    leaks: Literal["drop", "allow", "refuse"],
) -> None:
    from rich.console import Console

    from firstwords.lm.compared import compared_with
    from firstwords.lm.language_model import NgramLanguageModel, refuse_others, save_language_model
    from firstwords.lm.ngram_estimate import check_thresholds, estimate_ngram
    from firstwords.lm.ngram_text import gather, held_out, measured_corpora, read_lines, splitter, text_files
    from firstwords.text.normalize import normalizer as named

    console = Console(highlight=False, markup=False, soft_wrap=True)
    thresholds = _thresholds(prune)
    refuse_others(to)
    check_thresholds(order, thresholds)
    header, pieces = _header(unit, order, tokenizer, normalizer)
    files = text_files(text)
    measured = measured_corpora(files, exclude)
    normalize = named(header.normalizer)
    with _progress(console, "reading", files) as told:
        found = gather(
            read_lines(files),
            split=splitter(header.unit, pieces),
            normalize=normalize,
            held=held_out(measured, normalize),
            leaks=leaks,
            progress=told,
        )
    estimate = estimate_ngram(found.tokens, found.words, order, thresholds)
    compared = compared_with(measured, found.leaks.count, leaks)
    save_language_model(to, NgramLanguageModel(header, estimate.model, pieces), compared)
    units = len(found.tokens) - 2 * found.sentences
    console.print(f"Read {found.sentences:,} sentences, {units:,} {_UNIT_NAMES[header.unit]}.")
    if found.empty:
        console.print(f"{found.empty:,} lines without text after normalizer '{header.normalizer}'.")
    for line in found.leaks.told(leaks):
        console.print(line)
    kept = zip(estimate.model.counts, estimate.seen, estimate.discounts, strict=True)
    for n, (count, seen, discounts) in enumerate(kept, start=1):
        pruned = f" of {seen:,}" if n > 1 and seen != count else ""
        values = ", ".join(f"{value:.3g}" for value in discounts.values)
        why = " (fallback: too few counts to estimate them)" if discounts.fallback else ""
        console.print(f"{n}-grams: {count:,}{pruned}; discounts {values}{why}")
    console.print(f"Wrote {to}.\nNext: firstwords lm perplexity {quoted(to)} TEXT")


@app.command("perplexity")
def perplexity(lm: _Lm, text: _Text) -> None:
    """Measure how well a language model foresees a text it was not made from."""
    from rich.console import Console

    from firstwords.lm.compared import comparison_words
    from firstwords.lm.language_model import kind_of, load_language_model
    from firstwords.lm.ngram_text import read_lines, text_files
    from firstwords.lm.perplexity import measure_perplexity

    console = Console(highlight=False, markup=False, soft_wrap=True)
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
    with _progress(console, "measuring", files) as told:
        found = measure_perplexity(model, read_lines(files), progress=told)
    name = _UNIT_NAMES[model.header.unit]
    letters = "" if model.header.unit == "char" else f", {found.letters:,} letters"
    console.print(f"{found.sentences:,} sentences, {found.units:,} {name}{letters}.")
    console.print(f"unknown {name}: {found.unknown:,} ({100 * found.unknown_rate:.2f} %)")
    console.print(f"perplexity per {_ONE[model.header.unit]} and end: {found.perplexity:.4f}")
    console.print(f"  without the unknown: {found.perplexity_known:.4f}")
    if model.header.unit != "word":
        console.print(f"perplexity per word and end: {found.perplexity_per_word:.4f}")
    console.print(f"bits per letter: {found.bits_per_letter:.4f}")
    console.print(comparison_words(lm))


@app.command("export")
def export(
    lm: _Lm,
    arpa: Annotated[Path, typer.Option("--arpa", help="ARPA file to write; .gz compresses it.")],
) -> None:
    """Write a language model as an ARPA file, for other tools."""
    from rich.console import Console

    from firstwords.lm.language_model import load_language_model
    from firstwords.lm.ngram_arpa import write_arpa

    console = Console(highlight=False, markup=False, soft_wrap=True)
    model = load_language_model(lm)
    write_arpa(arpa, model.model)
    console.print(f"Wrote {arpa}: {_counts(model)}.")


@app.command("import")
def import_arpa(
    arpa: Annotated[Path, typer.Argument(help="ARPA file, .gz too.", show_default=False)],
    to: Annotated[Path, typer.Option("--to", help="Folder of the language model.", show_default=False)],
    unit: _Unit = "word",
    tokenizer: _TokenizerOption = None,
    normalizer: _Normalizer = None,
) -> None:
    """Read an ARPA file of another tool, such as KenLM; its words must be text of the normalizer."""
    from rich.console import Console

    from firstwords.lm.language_model import (
        NgramLanguageModel,
        refuse_others,
        save_language_model,
        word_check,
    )
    from firstwords.lm.ngram_arpa import read_arpa

    console = Console(highlight=False, markup=False, soft_wrap=True)
    refuse_others(to)
    header, pieces = _header(unit, 1, tokenizer, normalizer)
    model = read_arpa(arpa, check_word=word_check(header, pieces))
    found = NgramLanguageModel(header.with_(order=model.order), model, pieces)
    save_language_model(to, found)
    console.print(f"Read {_counts(found)}. Wrote {to}.")


app.command("tune")(lm_tune.run)
app.command("mix")(lm_mix.run)


_UNIT_NAMES = {"word": "words", "char": "letters", "piece": "pieces"}
_ONE = {"word": "word", "char": "letter", "piece": "piece"}


def _counts(lm: NgramLanguageModel) -> str:
    return ", ".join(f"{count:,} {n}-grams" for n, count in enumerate(lm.model.counts, start=1))


def _thresholds(text: str) -> list[int]:
    """'0 0 1' or '0,0,1' -> numbers."""
    parts = text.replace(",", " ").split()
    if not parts or not all(p.isascii() and p.isdigit() and len(p) < 10 for p in parts):
        raise UsageError(f"--prune '{text}': expected counts.", mend="For example --prune '0 0 1'.")
    return [int(p) for p in parts]


def _header(
    unit: str, order: int, source: Path | None, normalizer: str | None
) -> tuple[NgramHeader, Tokenizer | None]:
    """What the options say the model is, and the tokenizer where its pieces are the units."""
    from firstwords.lm.language_model import NgramHeader
    from firstwords.lm.ngram_text import UNITS
    from firstwords.text.normalize import normalizer as named

    if unit not in UNITS:
        raise UsageError(f"--unit {unit}: no such unit.", mend=f"Known: {', '.join(UNITS)}.")
    chosen = UNITS[UNITS.index(unit)]
    if chosen == "piece" and source is None:
        raise UsageError("--unit piece needs --tokenizer.", mend="Add --tokenizer MODEL, a model's folder.")
    pieces, named_there = _source(source, normalizer)
    normalizer = named_there or "default"
    named(normalizer)
    if chosen != "piece":
        pieces = None
    return (
        NgramHeader(
            unit=chosen,
            order=max(1, min(order, 20)),
            normalizer=normalizer,
            pieces=pieces.piece_hash if pieces else "",
        ),
        pieces,
    )


def _source(source: Path | None, normalizer: str | None) -> tuple[Tokenizer | None, str | None]:
    """A model's folder -> its tokenizer, and the normalizer of its recipe where none is named."""
    from firstwords.config import read_toml
    from firstwords.text.load import load_tokenizer

    if source is None:
        return None, normalizer
    if not source.is_dir():
        raise TextError(f"'{source}' is not a folder.", mend="Give --tokenizer the folder of a model.")
    pieces = load_tokenizer(source / "tokenizer" if (source / "tokenizer").is_dir() else source)
    if normalizer is None and (source / "recipe.toml").is_file():
        # one line of a resolved recipe; reading it as a Recipe would load every architecture
        settings = read_toml(source / "recipe.toml").get("text")
        named_there = settings.get("normalizer") if isinstance(settings, dict) else None
        normalizer = str(named_there) if named_there is not None else None
    return pieces, normalizer


@contextmanager
def _progress(console: Console, what: str, files: list[Path]) -> Generator[Callable[[int], None]]:
    """A bar over the bytes of the files, where somebody watches."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        # what a compressed file holds is not known beforehand
        known = not any(path.suffix == ".gz" for path in files)
        task = bar.add_task("", total=sum(p.stat().st_size for p in files) if known else None)
        done = waiting = 0

        def told(size: int) -> None:
            nonlocal done, waiting
            done, waiting = done + size, waiting + size
            if waiting > 1 << 18:  # redrawing for every line would take longer than reading it
                bar.update(task, completed=done)
                waiting = 0

        yield told
