"""A small model learns one batch by heart: its curves fall, and the log shows what was said and heard."""

from __future__ import annotations

import importlib.util
import itertools
from dataclasses import replace
from pathlib import Path

from firstwords.data.manifest import load_corpus, write_manifest
from firstwords.model.recipe import Recipe
from firstwords.training.log import read_log
from firstwords.training.progress import Progress
from firstwords.training.run import train_corpus
from tone_corpus import make_tone_corpus, tone_recipe

STEPS, EVERY = 30, 10  # while blanks win, a model reads now a little more, now less: results lie apart


def plain_recipe() -> Recipe:
    """Nothing is drawn anew: every step sees the same frames through the same network."""
    schedule = {"kind": "cosine", "lr": 0.005}
    values = tone_recipe(
        steps=STEPS, validate_every=EVERY, optimizer="adamw", schedule=schedule, average_share=0.0
    ).model_dump()
    values["encoder"] = {"kind": "lstm", "hidden": 48, "layers": 1, "dropout": 0.0}
    never = {"probability": 0.0}
    values["data"] |= {
        "speeds": [1.0],
        "negative_share": 0.0,
        "joined_share": 0.0,
        "augment": {"room": never, "noise": never, "gain": never},
    }
    values["training"] |= {"processes": 1, "workers": 0}
    return Recipe.model_validate(values)


def test_the_loss_of_one_batch_falls_at_every_step(tmp_path: Path) -> None:
    corpus = make_tone_corpus(tmp_path / "corpus", train=4, dev=0, test=0)
    heard = load_corpus(corpus).utterances
    known = [replace(u, id=f"again-{u.id}", split="dev") for u in heard]
    write_manifest(corpus / "manifest.jsonl", [*heard, *known])
    result = train_corpus(
        corpus,
        tmp_path / "run",
        recipe=plain_recipe(),
        device="cpu",
        threads=1,
        progress=Progress(quiet=True),
    )
    assert result.finished
    log = read_log(tmp_path / "run" / "resume" / "log.jsonl")
    losses = [line["loss"] for line in log if line["kind"] == "train"]
    assert len(losses) == STEPS
    assert all(after < before for before, after in itertools.pairwise(losses)), losses
    assert losses[-1] < 0.05 * losses[0]

    results = [line for line in log if line["kind"] == "dev"]
    assert [line["step"] for line in results] == list(range(EVERY, STEPS + 1, EVERY))
    for rate in ("cer", "wer"):
        rates = [line[rate] for line in results]
        assert rates == sorted(rates, reverse=True), rates
        assert rates[-1] == 0
        assert rates[0] > 0.5
    texts = {utterance.id: utterance.text for utterance in known}
    for line in results:  # every result with a few utterances, as they were said and heard
        assert line["samples"]
        assert all(sample["reference"] == texts[sample["id"]] for sample in line["samples"])
    assert all(sample["hypothesis"] == sample["reference"] for sample in results[-1]["samples"])
    if importlib.util.find_spec("tensorboard") is not None:
        (curves,) = (tmp_path / "run" / "resume" / "curves").glob("events*")
        assert curves.stat().st_size > 1000
