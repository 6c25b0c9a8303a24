"""What 'firstwords lm tune' prints of its choice and of the time that is left."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from firstwords.cli.lm_tune_report import print_choice, print_plan, shown
from firstwords.inference.tuning import Choice, Progress
from firstwords.scoring.error_rate import ErrorRate
from firstwords.scoring.significance import Interval
from firstwords.search.interface import CtcBeamConfig, GreedyConfig, SearchConfig, TransducerBeamConfig
from firstwords.search.tuned import TunedSetting
from firstwords.search.tuning import PLAIN, Setting, Tuned


def console() -> Console:
    return Console(file=io.StringIO(), highlight=False, markup=False, soft_wrap=True)


def text(printed: Console) -> str:
    assert isinstance(printed.file, io.StringIO)
    return printed.file.getvalue()


def choice(search: SearchConfig, errors: dict[Setting, int], chosen: Setting, **record: float) -> Choice:
    """Of a hundred words so many wrong with each setting."""
    tried = {
        setting: ErrorRate(substitutions=count, reference_length=100) for setting, count in errors.items()
    }
    gain = Interval(low=0.05, high=0.5, level=0.95, unit="speaker", groups=7, replicates=10)
    return Choice(
        search=search,
        tuned=Tuned(chosen, tried[chosen], tried),
        gain=gain,
        gain_off=gain if chosen.taken_off else None,
        exact=True,
        setting=TunedSetting(model="m", lm="l", search=search.kind, weight=chosen.weight).with_(**record),
    )


def test_a_choice_that_takes_something_off() -> None:
    errors = {
        PLAIN: 40,
        Setting(0.5): 30,
        Setting(0.5, 1.0): 32,
        Setting(0.5, 0.0, 0.2): 31,
        Setting(0.7, 0.0, 0.2): 24,
        Setting(0.5, 0.0, 0.0, 0.3): 35,
    }
    printed, best = console(), Setting(0.7, 0.0, 0.2)
    made = choice(CtcBeamConfig(beam=10), errors, best, source_weight=0.2, internal_weight=0.0, beam=10)
    print_choice(made, "WER", Path("texts"), printed)
    lines = text(printed).replace("ctc_beam, beam 10: ", "").splitlines()
    assert lines[1:] == [
        "WER in % by weight (rows) and bonus (columns), nothing taken off, * the best",
        "         0      1",
        "  0 40.00",
        "0.5 30.00* 32.00",
        "WER in % by weight (rows) and bonus (columns), source weight 0.2, internal weight 0, * the best",
        "         0",
        "0.5 31.00",
        "0.7 24.00*",
        "WER in % by source weight, whatever the others; * the best",
        "     0    0.2",
        "30.00  24.00*",
        "WER in % by internal weight, whatever the others; * the best",
        "     0    0.3",
        "24.00* 35.00",
        "weight 0.7, bonus 0, source weight 0.2, internal weight 0; WER 40.00 % without "
        "the language model, 24.00 % with it: 40.0 % fewer errors (95 % interval 5.0 to 50.0 %, bootstrap "
        "over 7 speakers).",
        "what the recogniser itself knows of text is not taken off: that does not help here.",
        "language model texts taken off; WER 30.00 % at best where nothing is, 24.00 % so: "
        "20.0 % fewer errors (95 % interval 5.0 to 50.0 %, bootstrap over 7 speakers).",
    ]


def test_a_choice_of_nothing() -> None:
    printed = console()
    print_choice(choice(GreedyConfig(), {PLAIN: 40, Setting(0.5): 50}, PLAIN), "CER", None, printed)
    assert text(printed).splitlines()[1:] == [
        "greedy: CER in % by weight (rows) and bonus (columns), * the best",
        "         0",
        "  0 40.00*",
        "0.5 50.00",
        "greedy: weight 0, bonus 0; CER 40.00 % without the language model, 40.00 % with it: 0.0 % fewer "
        "errors (95 % interval 5.0 to 50.0 %, bootstrap over 7 speakers); the language model does not "
        "help here.",
    ]


def test_the_plan_counts_what_each_search_can_take_off() -> None:
    printed = console()
    print_plan([GreedyConfig(), TransducerBeamConfig()], source=True, console=printed)
    assert text(printed).splitlines() == [
        "greedy: of 504 combinations of weight, bonus, source weight about 100 are tried.",
        "transducer_beam, beam 4: of 3,528 combinations of weight, bonus, source weight, internal weight "
        "about 100 are tried.",
    ]


def test_the_time_that_is_left_is_said_once_a_minute() -> None:
    printed, now = console(), [0.0]
    with shown(printed, lambda: now[0]) as told:
        for done, second in ((0, 0.0), (10, 30.0), (20, 60.0), (30, 90.0), (40, 120.0)):
            now[0] = second
            told(Progress("greedy", done, 100))
    assert text(printed).splitlines() == [
        "greedy: 20 of about 100, 4 min left",
        "greedy: 40 of about 100, 3 min left",
    ]
