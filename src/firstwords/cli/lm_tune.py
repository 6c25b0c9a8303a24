"""``firstwords lm tune``: how much a language model shall say in the search, chosen on dev."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from firstwords.cli.search_options import Others
from firstwords.cli.second_pass import (
    Prompt,
    RescoreUrl,
    SecondPassOptions,
    weight_options,
)
from firstwords.errors import UsageError, quoted

if TYPE_CHECKING:
    from rich.console import Console

    from firstwords.inference.recognizer import Recognizer
    from firstwords.inference.tuning import Choice, Progress
    from firstwords.search.rescore import TunedRescoring
    from firstwords.search.tuning import Tuned

_PLAIN_EVERY = 60.0  # seconds between lines where nothing can be redrawn


def run(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    lm: Annotated[Path, typer.Argument(help="Folder of a language model.", show_default=False)],
    corpus: Annotated[
        Path, typer.Option("--corpus", help="Corpus folder with transcripts.", show_default=False)
    ],
    split: Annotated[str, typer.Option("--split", help="Which part of the corpus; never test.")] = "dev",
    any_split: Annotated[
        bool, typer.Option("--any-split", help="Tune on --split although it is not called dev.")
    ] = False,
    by: Annotated[str, typer.Option("--by", help="What shall be least: wer or cer.")] = "wer",
    beam: Annotated[
        int | None, typer.Option("--beam", help="Tune the beam search of this width alone.", min=1)
    ] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Tune the greedy search alone.")] = False,
    rescore: Annotated[
        str | None,
        typer.Option(
            "--rescore",
            help="Then choose the --rescore-weight, -bonus and -length of this language model, too.",
            metavar="LLM",
        ),
    ] = None,
    rescore_url: RescoreUrl = None,
    prompt: Prompt = None,
    others: Others = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Choose weight and bonus of a language model on dev, for greedy and for beam search.

    They are written beside the language model, where --lm finds them.
    """
    from rich.console import Console

    from firstwords.data.manifest import load_corpus
    from firstwords.inference.tuning import searches_to_tune, tune_language_model, tune_second_pass
    from firstwords.lm.compared import comparison_words
    from firstwords.lm.language_model import kind_of
    from firstwords.lm.mixture import KIND as MIXTURE
    from firstwords.lm.mixture import read_mixture
    from firstwords.report.evaluate_model import utterances_of
    from firstwords.search.tuned import add_tuned, read_tuned
    from firstwords.search.tuning import check_split

    console = Console(highlight=False, markup=False, soft_wrap=True)
    what = _measure(by)
    if greedy and beam is not None and beam > 1:
        raise UsageError(f"--greedy and --beam {beam} exclude each other.", mend="Give one, or neither.")
    second = SecondPassOptions(llm=rescore, url=rescore_url, prompt=prompt)
    second.check(stream=False)
    if second.given and (greedy or beam == 1):
        narrow = "--greedy" if greedy else "--beam 1"
        raise UsageError(
            f"{narrow} finds one reading: --rescore has nothing to choose from.",
            mend="Leave one out: the second pass is tuned behind a beam search.",
        )
    check_split(split, any_split=any_split)
    utterances = utterances_of(load_corpus(corpus), split)
    read_tuned(lm)  # what is wrong with it is said before minutes of searching, not after
    with_others = tuple(others or ())
    recognizer = _load(model, device, with_others, console.print)
    searches = searches_to_tune(
        recognizer.search_config, beam=beam, greedy=greedy, together=bool(with_others)
    )
    started = time.monotonic()
    if source := recognizer.search_config.language_model.source_weight:
        left = f"search.language_model.source_weight = {source:g}"
        if second.given:
            raise UsageError(
                f"{left}: a second pass cannot be tuned beside a model of the training texts.",
                mend="Leave --rescore out.",
            )
        console.print(f"{left} of the recipe is left out here; with --lm this model needs --source-lm, too.")

    def chosen(choice: Choice) -> None:
        _print_choice(choice, what.upper(), console)
        add_tuned(lm, choice.setting)

    with _shown(console) as told:
        found = tune_language_model(
            recognizer,
            lm,
            utterances,
            searches,
            split=split,
            corpus=corpus.resolve().name,
            by=what,
            any_split=any_split,
            progress=told,
            chosen=chosen,
        )
    for name, why in found.failures.items():
        console.print(f"Left out: {name}: {why}")
    console.print(
        f"\n{found.utterances:,} utterances of {split}, {found.seconds / 60:.1f} min of audio, "
        f"in {time.monotonic() - started:.0f} s."
    )
    last = found.choices[-1]
    behind = ""
    if second.given:
        recognizer = _load(model, device, with_others)

        def tuned() -> TunedRescoring:
            with _shown(console) as told:
                return tune_second_pass(
                    recognizer, utterances, split=split, by=what, any_split=any_split, progress=told
                )

        behind = _tune_rescoring(recognizer, lm, second, last, tuned, what, device, console)
    for part in [path for path, _ in read_mixture(lm)] if kind_of(lm) == MIXTURE else [lm]:
        console.print(f"{part}: {comparison_words(part)}")
    together = "".join(f" --with {quoted(other)}" for other in with_others)
    _print_end(model, corpus, lm, last, together + behind, console)


def _load(
    model: Path, device: str, others: tuple[Path, ...], say: Callable[[str], None] = lambda _: None
) -> Recognizer:
    """The recogniser, with the models that read along."""
    from firstwords.inference.recognizer import Recognizer
    from firstwords.inference.together import convene

    recognizer = Recognizer.load(model, device=device)
    for line in convene(recognizer, others) if others else ():
        say(line)
    return recognizer


def _tune_rescoring(
    recognizer: Recognizer,
    lm: Path,
    second: SecondPassOptions,
    choice: Choice,
    tuned: Callable[[], TunedRescoring],
    by: Literal["wer", "cer"],
    device: str,
    console: Console,
) -> str:
    """The options of a second pass over what the search finds with the weights just chosen."""
    from firstwords.inference.fused import SearchHelp, add_help
    from firstwords.search.search import search_words

    beam = choice.setting.beam if choice.setting.beam > 1 else None
    for line in add_help(recognizer, SearchHelp(language_model=lm, beam=beam), n_best=True):
        console.print(line)
    second.apply(recognizer, device, console.print)
    found = tuned()
    second.tell(recognizer, console.print)
    chosen = weight_options(found.config)
    rates = [100 * rate.rate for rate in (found.before, found.errors, found.oracle)]
    console.print(
        f"{second.named} among the readings of {search_words(recognizer.search_config)}: {chosen}; "
        f"{by.upper()} {rates[0]:.2f} % without it, {rates[1]:.2f} % with it "
        f"({rates[2]:.2f} % if the best reading were always chosen)."
    )
    return f" {second.as_typed} {chosen}"


def _measure(by: str) -> Literal["wer", "cer"]:
    if by == "wer" or by == "cer":
        return by
    raise UsageError(f"--by {by}: no such measure.", mend="Known: wer, cer.")


def _print_choice(choice: Choice, name: str, console: Console) -> None:
    """A table of what was tried, and what it brought."""
    from firstwords.inference.tuning import is_approximate
    from firstwords.search.search import search_words

    console.print(
        f"\n{search_words(choice.search)}: {name} in % by weight (rows) and bonus (columns), * the best"
    )
    for line in _grid(choice.tuned):
        console.print(line)
    setting, before, after = choice.tuned.setting, choice.tuned.without, choice.tuned.rate
    line = (
        f"{search_words(choice.search)}: weight {setting.weight:g}, bonus {setting.bonus:g}; {name} "
        f"{100 * before.rate:.2f} % without the language model, {100 * after.rate:.2f} % with it"
    )
    if before.errors:
        gain, low, high = 1 - after.errors / before.errors, choice.gain.low, choice.gain.high
        line += (
            f": {100 * gain:.1f} % fewer errors ({100 * choice.gain.level:.0f} % interval {100 * low:.1f} to "
            f"{100 * high:.1f} %, bootstrap over {choice.gain.groups} {choice.gain.unit}s)"
        )
    if not setting.weight:
        line += "; the language model does not help here"
    if how := is_approximate(choice):
        line += f"; {how}"
    console.print(f"{line}.")


def _grid(tuned: Tuned) -> list[str]:
    """What was tried as lines of a table; places that were not are empty."""
    weights = sorted({setting.weight for setting in tuned.tried})
    bonuses = sorted({setting.bonus for setting in tuned.tried})
    rows = [["", *(f"{bonus:g}" for bonus in bonuses)]]
    for weight in weights:
        row = [f"{weight:g}"]
        for bonus in bonuses:
            rate = tuned.tried.get(tuned.setting._replace(weight=weight, bonus=bonus))
            best = tuned.setting == (weight, bonus)
            row.append("" if rate is None else f"{100 * rate.rate:.2f}{'*' if best else ' '}")
        rows.append(row)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        " ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _print_end(model: Path, corpus: Path, lm: Path, last: Choice, rest: str, console: Console) -> None:
    beam = f" --beam {last.setting.beam}" if last.setting.beam > 1 else ""
    console.print(
        "They were chosen on these utterances, so these figures are a little too good; what they are worth "
        "is measured on others."
    )
    console.print(
        f"Written to {lm / 'tuned.toml'}.\n"
        f"Next: firstwords evaluate {quoted(model)} {quoted(corpus)} --lm {quoted(lm)}{beam}{rest}"
    )


@contextmanager
def _shown(
    console: Console, clock: Callable[[], float] = time.monotonic
) -> Generator[Callable[[Progress], None]]:
    """A bar with the time that is left, or a line a minute where there is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks: dict[str, int] = {}
        begun: dict[str, float] = {}
        said = clock()

        def told(progress: Progress) -> None:
            nonlocal said
            if progress.what not in tasks:
                tasks[progress.what] = bar.add_task(progress.what, total=progress.total)
                begun[progress.what] = clock()
            bar.update(tasks[progress.what], completed=progress.done, total=progress.total)  # pyright: ignore[reportArgumentType]
            if not console.is_terminal and clock() - said >= _PLAIN_EVERY and progress.done:
                said = clock()
                left = (said - begun[progress.what]) / progress.done * (progress.total - progress.done)
                console.print(
                    f"{progress.what}: {progress.done} of about {progress.total}, {left / 60:.0f} min left"
                )

        yield told
