"""Models fine-tuned from one start, merged: the soup against its parents; strangers are told apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from firstwords.model.checkpoint import load_model
from firstwords.model.merging import STRANGERS, average, merge_weights, read_parent
from firstwords.model.recipe import Recipe
from firstwords.training.merge import merge_models
from firstwords.training.progress import Progress
from firstwords.training.run import train_corpus
from tone_corpus import make_tone_corpus, tone_recipe

LEARN = {"optimizer": "adamw", "schedule": {"kind": "cosine", "lr": 0.003}}


def fit(corpus: Path, folder: Path, recipe: Recipe, start: Path | None = None) -> Path:
    said = Progress(quiet=True)
    train_corpus(corpus, folder, recipe=recipe, start_from=start, device="cpu", threads=1, progress=said)
    return folder


@pytest.mark.slow
def test_a_soup_of_three_seeds_is_as_good_as_the_best_of_them(tmp_path: Path) -> None:
    corpus = make_tone_corpus(tmp_path / "corpus", train=48, dev=24)
    begun = tone_recipe(steps=90, validate_every=45, workers=0, **LEARN)
    start = fit(corpus, tmp_path / "start", begun)
    gentle = {"optimizer": "adamw", "schedule": {"kind": "cosine", "lr": 0.001}}
    tuning = tone_recipe(steps=30, validate_every=15, workers=0, **gentle)
    seeds = [fit(corpus, tmp_path / f"s{n}", tuning.with_(seed=n), start) for n in (1, 2, 3)]
    parents = [read_parent(folder) for folder in seeds]
    whole = merge_models(average(parents), tmp_path / "mean", how="average", corpus=corpus, device="cpu")
    soup = merge_models(
        average(parents), tmp_path / "soup", how="greedy", greedy=True, corpus=corpus, device="cpu"
    )
    assert min(whole.likeness) > 0.9
    assert whole.validation is not None
    assert soup.validation is not None
    best = soup.steps[0].error
    print(
        f"best of three {best:.4f}, average {whole.validation.objective:.4f}, "
        f"soup {soup.validation.objective:.4f}"
    )
    assert soup.validation.objective <= best
    assert whole.validation.objective <= best + 0.02
    assert load_model(tmp_path / "soup", device="cpu", check=True).speech_gate.threshold > 0
    # Two starts of their own: as good each, and strangers to each other.
    other = fit(corpus, tmp_path / "other", begun.with_(seed=9))
    assert merge_weights(average([parents[0], read_parent(other)])).likeness[1] < STRANGERS
