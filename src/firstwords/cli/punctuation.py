"""``firstwords punctuation``: models of marks and capitals, from formatted text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firstwords.cli.group import PlainGroup
from firstwords.cli.leak_options import LeakOptions
from firstwords.cli.option_group import grouped
from firstwords.cli.shared_options import Device
from firstwords.cli.terminal import plain_console, reading_bar
from firstwords.data.manifest import MANIFEST
from firstwords.errors import UsageError, quoted

if TYPE_CHECKING:
    from rich.console import Console

    from firstwords.formatting.punctuation_text import Tally
    from firstwords.text.normalize import Normalizer
    from firstwords.training.tasks.punctuation import TaughtText

app = typer.Typer(
    help="Marks and capitals: train a model of formatted text, measure it.",
    no_args_is_help=True,
    cls=PlainGroup,
)

_Text = Annotated[
    list[Path],
    typer.Argument(
        help="Text as people write it (a sentence a line; .txt, .txt.gz), folders of it, or corpus folders.",
        show_default=False,
    ),
]


_Language = Annotated[str, typer.Option("--language", help="BCP 47, written into the model.")]
_Normalizer = Annotated[
    str, typer.Option("--normalizer", help="Normalizer of the recogniser whose words it will get.")
]
_Steps = Annotated[int | None, typer.Option("--steps", help="Default: twelve passes over the text.", min=1)]
_Seed = Annotated[int, typer.Option("--seed", help="Of weights and batches.", min=0)]


@app.command("train")
@grouped
def train(
    text: _Text,
    to: Annotated[Path, typer.Option("--to", help="Folder of the model.", show_default=False)],
    *,
    language: _Language = "und",
    normalizer: _Normalizer = "default",
    steps: _Steps = None,
    seed: _Seed = 1,
    device: Device = "cpu",
    leaks: LeakOptions,
) -> None:
    """Train a model of marks and capitals; the same command goes on where it was stopped."""
    from firstwords.text.normalize import normalizer as named
    from firstwords.training.punctuation import check_folder, train_punctuation

    console = plain_console()
    leaks.check()
    check_folder(to)  # before all the text is read
    taught = _read(text, to, named(normalizer), leaks, console)
    result = train_punctuation(
        taught,
        to,
        language=language,
        normalizer_name=normalizer,
        steps=steps,
        seed=seed,
        device=device,
        console=console,
    )
    if result.tally is None:
        console.print("The same command goes on from here.")
        raise typer.Exit(130)
    console.print(f"\nOn the {result.tally.words:,} held-out words:")
    _show(result.tally, console)
    console.print(f"Wrote {to}.\nNext: firstwords transcribe MODEL FILES --post punctuation={quoted(to)}")


def _read(
    text: Sequence[Path], to: Path, normalize: Normalizer, leaks: LeakOptions, console: Console
) -> TaughtText:
    """All the text, without lines that must not be learned from; says how many these were."""
    from firstwords.lm.ngram_text import (
        Leaks,
        counted,
        held_out,
        leave_out,
        measured_corpora,
        read_lines,
        text_files,
    )
    from firstwords.training.punctuation import RESUME
    from firstwords.training.tasks.punctuation import read_taught

    files = text_files(text)
    held = held_out(measured_corpora(files, leaks.measured), normalize)
    found = Leaks()
    # versions before --allow-leak kept these lines, and a run goes on with the text it was begun with
    besides = f"A run in '{to}' that an earlier version began goes on with --allow-leak."
    with reading_bar(console, "reading", files) as told:
        lines = leave_out(
            counted(read_lines(files), told),
            found,
            held=held,
            normalize=normalize,
            leaks=leaks.fate,
            besides=besides if (to / RESUME).is_dir() else "",
        )
        taught = read_taught(((line.text, line.size) for line in lines), normalize)
    for line in found.told(leaks.fate):
        console.print(line)
    return taught


@app.command("measure")
def measure(
    model: Annotated[Path, typer.Argument(help="Folder of a punctuation model.", show_default=False)],
    text: _Text,
    split: Annotated[
        str | None, typer.Option("--split", help="Which part of corpus folders; default dev.")
    ] = None,
) -> None:
    """Precision, recall and F1 of each mark and case on text the model was not made from."""
    from firstwords.lm.ngram_text import text_files
    from firstwords.training.punctuation import measure_punctuation

    console = plain_console()
    files = text_files(text)
    if split is not None and not any(path.name == MANIFEST for path in files):
        raise UsageError(
            f"--split {split}: a text file has no splits, and no corpus was named.",
            mend="Leave --split out, or give a corpus folder.",
        )
    with reading_bar(console, "reading", files) as told:
        tally = measure_punctuation(model, _lines(files, split or "dev"), told=told)
    console.print(f"{tally.words:,} words:")
    _show(tally, console)


def _lines(files: Iterable[Path], split: str) -> Iterator[tuple[str, int]]:
    """Lines of text files and transcripts of one split of corpora, with their sizes in bytes."""
    from firstwords.data.manifest import load_corpus
    from firstwords.lm.ngram_text import read_lines
    from firstwords.report.evaluate_model import utterances_of

    for path in files:
        if path.name != MANIFEST:
            yield from ((line.text, line.size) for line in read_lines([path]))
            continue
        spoken = utterances_of(load_corpus(path), split)
        size = path.stat().st_size // len(spoken)
        yield from ((utterance.text or "", size) for utterance in spoken)


def _show(tally: Tally, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for name in ("", "precision", "recall", "F1", "in the text"):
        table.add_column(name, justify="right" if name else "left")
    rows = [(f"mark {mark}", counts) for mark, counts in sorted(tally.marks.items())]
    rows += [("all marks", tally.all_marks)]
    rows += [(f"case: {case}", counts) for case, counts in sorted(tally.cases.items())]
    for name, found in rows:
        wanted, put = found.hits + found.misses, found.hits + found.false_alarms
        shares = ((found.precision, put), (found.recall, wanted), (found.f1, wanted + put))
        cells = (f"{100 * share:.1f} %" if of else "–" for share, of in shares)  # of nothing: no share
        table.add_row(Text(name), *cells, f"{wanted:,}")
    console.print(table)
