"""What a recogniser or another language model knows of text is taken off: tuned, kept and used."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from firstwords.data.manifest import Corpus
from firstwords.errors import CheckpointError, SearchError, UsageError
from firstwords.inference.fused import SearchHelp, add_help, speaks
from firstwords.inference.recognizer import Recognizer
from firstwords.inference.tuning import grid_for, searches_to_tune, tune_language_model
from firstwords.lm.language_model import save_language_model
from firstwords.scoring.error_rate import ErrorRate, grapheme_errors
from firstwords.search.fusion import Scorers
from firstwords.search.interface import (
    AttentionBeamConfig,
    GreedyConfig,
    LanguageModelConfig,
    SearchConfig,
    TransducerBeamConfig,
    narrowness,
)
from firstwords.search.language_models import language_model_fingerprint, open_language_model
from firstwords.search.search import internal_model
from firstwords.search.trials import sentence_log_probs
from firstwords.search.tuned import TunedSetting, add_tuned
from firstwords.text.normalize import normalizer
from other_heads import TRANSDUCER, other_model
from small_ngrams import train


def test_a_source_model_is_taken_off(recognizer: Recognizer, lm: Path) -> None:
    told = add_help(recognizer, SearchHelp(language_model=lm, source=lm, weight=0.5))
    assert told[1].endswith("is taken off: weight 0.2.")
    assert recognizer.search_config.language_model.source_weight == 0.2
    assert recognizer.scorers.source is not None


ATTENTION: dict[str, Any] = {
    "ctc": {"kind": "ctc"},
    "attention": {"kind": "transformer_decoder", "width": 16, "heads": 2},
}


@pytest.mark.parametrize(
    ("heads", "search"),
    [
        ({"transducer": TRANSDUCER}, TransducerBeamConfig(beam=3, n_best=3, length_normalized=False)),
        (ATTENTION, AttentionBeamConfig(beam=3, n_best=3, max_length=0.2)),
    ],
    ids=["transducer", "attention"],
)
def test_what_a_recogniser_knows_of_text_is_tuned_as_its_search_takes_it_off(
    heads: dict[str, Any], search: SearchConfig, corpus: Corpus, lm: Path, tmp_path: Path
) -> None:
    folder = other_model(tmp_path / "model", heads, search.model_dump())
    own = Recognizer.load(folder, device="cpu")
    searches = searches_to_tune(own.search_config)
    grid = grid_for(searches[0], source=False)
    assert list(grid.taken_off) == ["internal_weight"]
    dev = corpus.split("dev")
    found = tune_language_model(own, lm, dev, searches, split="dev", by="cer")
    (choice,) = found.choices
    assert choice.setting.internal_weight == choice.tuned.setting.internal_weight
    assert choice.setting.source_weight is None
    assert any(setting.internal_weight for setting in choice.tuned.tried)
    # Of each reading the search says what the tuning has counted with.
    model = internal_model(search, dict(own.model.named_heads()), own.model.encoder.dim)
    assert model is not None
    weighed = search.with_(language_model=LanguageModelConfig(weight=0.5, internal_weight=0.4))
    scorer = open_language_model(lm, speaks(own))
    reading = Recognizer.load(folder, device="cpu", search=weighed, scorers=Scorers(scorer))
    for one in reading.readings(dev[0].audio):
        (said,) = sentence_log_probs(model, [one.tokens])
        assert one.parts["internal"] == pytest.approx(-0.4 * said / one.divisor, abs=1e-4)
    # What is written down is used without further words.
    add_tuned(lm, choice.setting.with_(internal_weight=0.25))
    plain = Recognizer.load(folder, device="cpu")
    told = add_help(plain, SearchHelp(language_model=lm))
    assert plain.search_config.language_model.internal_weight == 0.25
    assert told[-1] == "What the recogniser itself knows of text is taken off: weight 0.25."
    add_tuned(lm, choice.setting.with_(internal_weight=0.0))
    assert len(add_help(plain, SearchHelp(language_model=lm))) == 1
    assert plain.search_config.language_model.internal_weight == 0


@pytest.mark.parametrize("beam", [None, 3], ids=["greedy", "beam"])
def test_a_source_model_is_tuned_kept_and_used(
    recognizer: Recognizer, corpus: Corpus, lm: Path, source: Path, tmp_path: Path, beam: int | None
) -> None:
    dev = corpus.split("dev")
    searches = searches_to_tune(recognizer.search_config, beam=beam or 1)
    found = tune_language_model(
        recognizer, lm, dev, searches, split="dev", by="cer", corpus="tones", source=source
    )
    (choice,) = found.choices
    tried = choice.tuned.tried
    assert choice.setting.source == language_model_fingerprint(source)
    assert choice.setting.source_weight == choice.tuned.setting.source_weight
    assert choice.setting.internal_weight is None
    assert (choice.gain_off is not None) == (choice.tuned.setting.source_weight > 0)
    assert choice.tuned.rate.errors <= tried[choice.tuned.untouched].errors
    # The best of those that take something off, as if it were the best of all: what was measured is what
    # transcribe reads, without a word about the source model, wherever the folder of the language model is.
    some = min((s for s in tried if s.source_weight), key=lambda s: tried[s].errors)
    setting = choice.setting.with_(**some._asdict(), best=tried[some].rate)
    setting = setting.with_(internal_weight=None)
    mark = language_model_fingerprint(lm)
    add_tuned(lm, setting, source)
    assert language_model_fingerprint(lm) == mark
    elsewhere = tmp_path / "elsewhere"
    shutil.move(lm, elsewhere)
    own = Recognizer.load(recognizer.folder, device="cpu")
    told = add_help(own, SearchHelp(language_model=elsewhere, beam=beam))
    kept = elsewhere / "sources" / language_model_fingerprint(source)
    weight = f"weight {some.source_weight:g} (tuned on dev)."
    assert told[1] == f"Language model {kept} of the training texts is taken off: {weight}"
    score = normalizer(own.recipe.text.scoring)
    texts = [t.text for t in own.transcribe_many(dev)]
    assert tried[some] == ErrorRate.total(
        grapheme_errors(score(u.text or ""), score(t)) for u, t in zip(dev, texts, strict=True)
    )
    # The same, named: it is the same help, and its weight is the tuned one.
    named = Recognizer.load(recognizer.folder, device="cpu")
    add_help(named, SearchHelp(language_model=elsewhere, beam=beam, source=source))
    assert named.identity == own.identity
    add_help(named, SearchHelp(language_model=elsewhere, beam=beam, source=source, source_weight=0.05))
    assert named.search_config.language_model.source_weight == 0.05
    # Another one was not tuned with; who says both weights takes nothing of what was tuned.
    told = add_help(own, SearchHelp(language_model=elsewhere, beam=beam, source=elsewhere))
    assert told[1].endswith("(the other weights were tuned with another one).")
    plain = Recognizer.load(recognizer.folder, device="cpu")
    told = add_help(plain, SearchHelp(language_model=elsewhere, beam=beam, weight=0.5, bonus=0.0))
    assert len(told) == 1
    assert plain.scorers.source is None
    # It belongs to the folder: one that is gone or another by now is an error that says so.
    save_language_model(kept, train(["a"], "char", 2))
    with pytest.raises(CheckpointError, match="has changed: the model of the training transcripts"):
        add_help(plain, SearchHelp(language_model=elsewhere, beam=beam))
    add_tuned(elsewhere, setting, source)  # again
    assert add_help(plain, SearchHelp(language_model=elsewhere, beam=beam))[1].endswith("(tuned on dev).")
    shutil.rmtree(kept)
    with pytest.raises(CheckpointError, match="is missing"):
        add_help(plain, SearchHelp(language_model=elsewhere, beam=beam))


def test_a_source_model_that_does_not_help_is_named_as_such(
    recognizer: Recognizer, lm: Path, source: Path
) -> None:
    """Nothing is copied; whoever names it gets what was tuned; and a recipe's own weight is set to 0."""
    mark, narrow = language_model_fingerprint(lm), narrowness(GreedyConfig())
    setting = TunedSetting(model=recognizer.weights, lm=mark, search="greedy", narrow=narrow, weight=0.5)
    add_tuned(lm, setting.with_(source=language_model_fingerprint(source), source_weight=0.0), source)
    assert not (lm / "sources").exists()
    recognizer.use(GreedyConfig(language_model=LanguageModelConfig(source_weight=0.2)), recognizer.scorers)
    assert len(add_help(recognizer, SearchHelp(language_model=lm))) == 1
    assert recognizer.scorers.source is None
    told = add_help(recognizer, SearchHelp(language_model=lm, source=source))
    assert told[1].endswith("is taken off: weight 0 (tuned on dev).")
    add_tuned(lm, setting)  # not looked for: what the recipe says holds
    recognizer.use(GreedyConfig(language_model=LanguageModelConfig(source_weight=0.2)), recognizer.scorers)
    with pytest.raises(SearchError, match=r"source_weight = 0\.2, but there is no language model"):
        add_help(recognizer, SearchHelp(language_model=lm))


def test_an_internal_weight_is_that_of_the_caller_or_the_recipe(
    recognizer: Recognizer, corpus: Corpus, lm: Path, tmp_path: Path
) -> None:
    search = {"kind": "transducer_greedy", "language_model": {"internal_weight": 0.2}}
    own = Recognizer.load(other_model(tmp_path / "model", {"transducer": TRANSDUCER}, search), device="cpu")
    add_help(own, SearchHelp(language_model=lm))
    assert own.search_config.language_model.internal_weight == 0.2
    told = add_help(own, SearchHelp(language_model=lm, weight=0.5, internal_weight=0.4))
    assert told[-1] == "What the recogniser itself knows of text is taken off: weight 0.4."
    assert own.search_config.language_model.internal_weight == 0.4
    assert "internal" in own.readings(corpus.split("dev")[0].audio)[0].parts
    add_help(own, SearchHelp(language_model=lm, weight=0.5, internal_weight=0.0))
    assert "internal" not in own.readings(corpus.split("dev")[0].audio)[0].parts
    with pytest.raises(UsageError, match="--internal-weight does nothing in greedy"):
        add_help(recognizer, SearchHelp(language_model=lm, internal_weight=0.4))
    assert recognizer.scorers.language_model is None  # what was refused has changed nothing
