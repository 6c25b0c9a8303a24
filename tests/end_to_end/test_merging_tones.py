"""Models fine-tuned from one start, merged: the soup against its parents; strangers are told apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from firstwords.model.checkpoint import load_model
from firstwords.model.merging import STRANGERS, average, read_parent
from firstwords.model.recipe import Recipe
from firstwords.training.merge import merge_models
from firstwords.training.progress import Progress
from firstwords.training.run import train_corpus
from tone_corpus import LEARN, make_tone_corpus, tone_recipe


def fit(corpus: Path, folder: Path, recipe: Recipe, start: Path | None = None) -> Path:
    said = Progress(quiet=True)
    train_corpus(corpus, folder, recipe=recipe, start_from=start, device="cpu", threads=1, progress=said)
    return folder


@pytest.mark.slow
def test_a_greedy_soup_is_no_worse_than_the_best_and_strangers_are_told_apart(tmp_path: Path) -> None:
    corpus = make_tone_corpus(tmp_path / "corpus", train=48, dev=24)
    begun = tone_recipe(steps=200, validate_every=200, workers=0, **LEARN)
    start = fit(corpus, tmp_path / "start", begun)
    gentle = {"optimizer": "adamw", "schedule": {"kind": "cosine", "lr": 0.001}}
    tuning = tone_recipe(steps=40, validate_every=40, workers=0, **gentle)
    seeds = [fit(corpus, tmp_path / f"s{n}", tuning.with_(seed=n), start) for n in (1, 2, 3)]
    parents = [read_parent(folder) for folder in seeds]
    whole = merge_models(average(parents), tmp_path / "mean", how="average", corpus=corpus, device="cpu")
    soup = merge_models(
        average(parents), tmp_path / "soup", how="greedy", greedy=True, corpus=corpus, device="cpu"
    )
    assert min(whole.likeness) > 0.9
    assert whole.validation is not None
    assert soup.validation is not None
    # Two starts of their own: strangers to each other, and so is their average to speech.
    short = tone_recipe(steps=40, validate_every=40, workers=0, **LEARN).with_(seed=9)
    other = read_parent(fit(corpus, tmp_path / "other", short))
    strangers = merge_models(
        average([parents[0], other]), tmp_path / "strangers", how="average", corpus=corpus, device="cpu"
    )
    assert strangers.validation is not None
    assert strangers.likeness[1] < STRANGERS
    assert any("one start" in note for note in strangers.notes)
    best, mean = soup.steps[0].error, whole.validation.objective
    print(
        f"CER: best of three {best:.3f}, greedy {soup.validation.objective:.3f}, all {mean:.3f}, "
        f"strangers {strangers.validation.objective:.3f}; cosines {whole.likeness}, {strangers.likeness}"
    )
    assert soup.validation.objective <= best
    assert mean < strangers.validation.objective
    load_model(tmp_path / "soup", device="cpu", check=True)
