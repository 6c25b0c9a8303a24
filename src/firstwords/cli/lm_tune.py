"""``firstwords lm tune``: how much a language model shall say in the search, chosen on dev."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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

    from firstwords.data.manifest import Utterance
    from firstwords.inference.recognizer import Recognizer
    from firstwords.inference.tuning import Choice
    from firstwords.search.interface import SearchConfig


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
    source_lm: Annotated[
        Path | None,
        typer.Option(
            "--source-lm",
            help="A language model of the training transcripts: choose how much of it is taken off, too.",
            metavar="LM",
        ),
    ] = None,
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
    """Choose weights and bonus of a language model on dev, for greedy and for beam search.

    They are written beside the language model, where --lm finds them.
    """
    from rich.console import Console

    from firstwords.cli.lm_tune_report import print_end, print_plan
    from firstwords.data.manifest import load_corpus
    from firstwords.inference.heard import gives_one_reading
    from firstwords.inference.rescored import check_several
    from firstwords.inference.tuning import searches_to_tune
    from firstwords.report.evaluate_model import utterances_of
    from firstwords.search.tuned import read_tuned
    from firstwords.search.tuning import check_split

    console = Console(highlight=False, markup=False, soft_wrap=True)
    job = _Job(model, lm, source_lm, corpus, split, any_split, _measure(by), tuple(others or ()), device)
    second = SecondPassOptions(llm=rescore, url=rescore_url, prompt=prompt)
    _check_together(second, greedy=greedy, beam=beam)
    check_split(split, any_split=any_split)
    utterances = utterances_of(load_corpus(corpus), split)
    read_tuned(lm)  # what is wrong with it is said before minutes of searching, not after
    recognizer = job.load(console.print)
    config = recognizer.search_config
    if second.given:
        check_several(recognizer)
    searches = searches_to_tune(
        config,
        beam=beam,
        greedy=greedy,
        together=bool(job.others),
        one_reading=gives_one_reading(recognizer),
    )
    if source_lm is None and config.language_model.source_weight:
        _leave_source_out(config.language_model.source_weight, second, console)
    print_plan(searches, source=source_lm is not None, console=console)
    last = _tune_first_pass(job, recognizer, utterances, searches, console)
    rest = "".join(f" --with {quoted(other)}" for other in job.others)
    if second.given:
        rest += _tune_second_pass(job, second, utterances, last, console)
    _say_compared(lm, console)
    print_end(model, corpus, lm, last, rest, console)


@dataclass(frozen=True)
class _Job:
    """What is tuned, and on what."""

    model: Path
    lm: Path
    source: Path | None
    corpus: Path
    split: str
    any_split: bool
    by: Literal["wer", "cer"]
    others: tuple[Path, ...]
    device: str

    def load(self, say: Callable[[str], None] = lambda _: None) -> Recognizer:
        """The recogniser, with the models that read along."""
        from firstwords.inference.recognizer import Recognizer
        from firstwords.inference.together import convene

        recognizer = Recognizer.load(self.model, device=self.device)
        for line in convene(recognizer, self.others) if self.others else ():
            say(line)
        return recognizer


def _tune_first_pass(
    job: _Job,
    recognizer: Recognizer,
    utterances: Sequence[Utterance],
    searches: Sequence[SearchConfig],
    console: Console,
) -> Choice:
    """Each search in turn, each choice shown and written down at once -> the last."""
    from firstwords.cli.lm_tune_report import print_choice, shown
    from firstwords.inference.tuning import tune_language_model
    from firstwords.search.tuned import add_tuned

    def chosen(choice: Choice) -> None:
        print_choice(choice, job.by.upper(), job.source, console)
        add_tuned(job.lm, choice.setting, job.source)

    started = time.monotonic()
    with shown(console) as told:
        found = tune_language_model(
            recognizer,
            job.lm,
            utterances,
            searches,
            split=job.split,
            source=job.source,
            corpus=job.corpus.resolve().name,
            by=job.by,
            any_split=job.any_split,
            progress=told,
            chosen=chosen,
            warned=console.print,
        )
    for name, why in found.failures.items():
        console.print(f"Left out: {name}: {why}")
    console.print(
        f"\n{found.utterances:,} utterances of {job.split}, {found.seconds / 60:.1f} min of audio, "
        f"in {time.monotonic() - started:.0f} s."
    )
    return found.choices[-1]


def _tune_second_pass(
    job: _Job,
    second: SecondPassOptions,
    utterances: Sequence[Utterance],
    first: Choice,
    console: Console,
) -> str:
    """The options of a second pass over what the search finds with the weights just chosen."""
    from firstwords.cli.lm_tune_report import shown
    from firstwords.inference.fused import SearchHelp, add_help
    from firstwords.inference.second_pass_tuning import tune_second_pass
    from firstwords.search.search import search_words

    recognizer = job.load()
    beam = first.setting.beam if first.setting.beam > 1 else None
    for line in add_help(recognizer, SearchHelp(language_model=job.lm, beam=beam), n_best=True):
        console.print(line)
    second.apply(recognizer, job.device, console.print)
    with shown(console) as told:
        found = tune_second_pass(
            recognizer, utterances, split=job.split, by=job.by, any_split=job.any_split, progress=told
        )
    second.tell(recognizer, console.print)
    chosen = weight_options(found.config)
    rates = [100 * rate.rate for rate in (found.before, found.errors, found.oracle)]
    console.print(
        f"{second.named} among the readings of {search_words(recognizer.search_config)}: {chosen}; "
        f"{job.by.upper()} {rates[0]:.2f} % without it, {rates[1]:.2f} % with it "
        f"({rates[2]:.2f} % if the best reading were always chosen)."
    )
    return f" {second.as_typed} {chosen}"


def _check_together(second: SecondPassOptions, *, greedy: bool, beam: int | None) -> None:
    """Which options go together."""
    if greedy and beam is not None and beam > 1:
        raise UsageError(f"--greedy and --beam {beam} exclude each other.", mend="Give one, or neither.")
    second.check(stream=False)
    if second.given and (greedy or beam == 1):
        narrow = "--greedy" if greedy else "--beam 1"
        raise UsageError(
            f"{narrow} finds one reading: --rescore has nothing to choose from.",
            mend="Leave one out: the second pass is tuned behind a beam search.",
        )


def _leave_source_out(weight: float, second: SecondPassOptions, console: Console) -> None:
    """A model of the training texts that the recipe takes off, where none was named."""
    left = f"search.language_model.source_weight = {weight:g}"
    if second.given:
        raise UsageError(
            f"{left}: a second pass cannot be tuned beside a model of the training texts that is not named.",
            mend="Name it with --source-lm, or leave --rescore out.",
        )
    console.print(
        f"{left} of the recipe is left out here; with --lm this model needs --source-lm, too. Given here, "
        "its weight is chosen as well."
    )


def _say_compared(lm: Path, console: Console) -> None:
    """With which dev and test the text of each language model was compared."""
    from firstwords.lm.compared import comparison_words
    from firstwords.lm.language_model import kind_of
    from firstwords.lm.mixture import KIND as MIXTURE
    from firstwords.lm.mixture import read_mixture

    for part in [path for path, _ in read_mixture(lm)] if kind_of(lm) == MIXTURE else [lm]:
        console.print(f"{part}: {comparison_words(part)}")


def _measure(by: str) -> Literal["wer", "cer"]:
    if by == "wer" or by == "cer":
        return by
    raise UsageError(f"--by {by}: no such measure.", mend="Known: wer, cer.")
