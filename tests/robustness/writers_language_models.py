"""Writers of language models and what is tuned beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from firstwords.lm.language_model import save_language_model
from firstwords.search.language_models import language_model_fingerprint
from firstwords.search.spotted import SpottedFile, SpottedPhrase, read_spotted, write_spotted
from firstwords.search.tuned import TunedSetting, add_tuned, check_source, read_tuned
from robustness.writer import Writer, nothing
from small_ngrams import train


def two_language_models(folder: Path) -> list[Path]:
    folders = [folder / str(order) for order in (2, 3)]
    for order, one in zip((2, 3), folders, strict=True):
        save_language_model(one, train(["ab a", "b ba"], "char", order))
    return folders


def mixes(home: Path, folders: list[Path]) -> None:
    from firstwords.lm.mixture import mix_language_models

    mix_language_models(folders, home / "mix")


def is_mixed(home: Path, _: Any) -> None:
    from firstwords.lm.language_model import load_language_model
    from firstwords.lm.mixture import read_mixture

    for part, share in read_mixture(home / "mix"):
        load_language_model(part)
        assert share == 0.5


SPOTTED = SpottedFile(
    model="m",
    threshold=3.0,
    share=0.5,
    false_alarms=0.01,
    phrases=(SpottedPhrase(text="ọmọ ní", mean=-9.0, deviation=2.5),),
)


TUNED = TunedSetting(model="m", lm="l", search="greedy", weight=0.5)


def a_source_model(folder: Path) -> Path:
    save_language_model(folder / "source", train(["a e i", "o u"], "char", 2))
    return folder / "source"


def taking_off(source: Path) -> TunedSetting:
    return TUNED.with_(source=language_model_fingerprint(source), source_weight=0.25)


LANGUAGE_MODELS = [
    Writer(
        "weights of a language model",
        nothing,
        lambda home, _: add_tuned(home, TUNED.with_(weight=0.7)),
        lambda home, _: read_tuned(home).tuned == (TUNED.with_(weight=0.7),),
        lambda home, _: add_tuned(home, TUNED),
    ),
    Writer(
        "weights of a language model that take another one off",
        a_source_model,
        lambda home, source: add_tuned(home, taking_off(source), source),
        lambda home, source: (
            check_source(home, read_tuned(home).tuned[0]) == home / "sources" / taking_off(source).source
        ),
        lambda home, _: add_tuned(home, TUNED),
        may_stay=lambda path, source: path.read_bytes() == (source / path.name).read_bytes(),
    ),
    Writer(
        "phrases to be spotted",
        nothing,
        lambda home, _: write_spotted(home / "names", SPOTTED),
        lambda home, _: read_spotted(home / "names") == SPOTTED,
        lambda home, _: write_spotted(home / "names", SPOTTED.with_(threshold=9.0)),
    ),
    Writer("mixture of language models", two_language_models, mixes, is_mixed),
]
