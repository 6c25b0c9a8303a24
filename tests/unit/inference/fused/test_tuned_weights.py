"""Weights of a language model are tuned on dev for the search that reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firstwords.data.manifest import Corpus
from firstwords.errors import SearchError, UsageError
from firstwords.inference.fused import SearchHelp, add_help, with_beam
from firstwords.inference.heard import gives_one_reading, heard_together
from firstwords.inference.recognizer import Recognizer
from firstwords.inference.rescored import check_several
from firstwords.inference.tuning import Progress, is_approximate, searches_to_tune, tune_language_model
from firstwords.lm.language_model import save_language_model
from firstwords.model.checkpoint import save_model
from firstwords.scoring.error_rate import ErrorRate, grapheme_errors, word_errors
from firstwords.search.interface import (
    CtcBeamConfig,
    GreedyConfig,
    TransducerBeamConfig,
    TransducerGreedyConfig,
    narrowness,
)
from firstwords.search.speech_gate import SpeechGate
from firstwords.search.trials import sentence_log_probs
from firstwords.search.tuned import add_tuned
from firstwords.search.tuning import Setting
from firstwords.text.normalize import normalizer
from nonsense_model import CARD
from other_heads import TRANSDUCER, other_model
from small_ngrams import train
from toy_scorers import TrigramScorer, sentence_score


@pytest.mark.parametrize("by", ["wer", "cer"])
def test_what_was_tuned_is_what_is_transcribed(
    recognizer: Recognizer, corpus: Corpus, lm: Path, by: Any
) -> None:
    """The error rate of the best setting is that of the recogniser with it, greedy and with a beam."""
    dev = corpus.split("dev")
    shown: list[Progress] = []
    searches = searches_to_tune(recognizer.search_config, beam=None)
    assert [s.kind for s in searches] == ["greedy", "ctc_beam"]
    searches = [searches[0], with_beam(searches[1], 3)]
    found = tune_language_model(
        recognizer, lm, dev, searches, split="dev", corpus="tones", by=by, progress=shown.append
    )
    assert (found.utterances, found.failures) == (4, {})
    assert {p.what for p in shown} == {"listening", "greedy", "ctc_beam, beam 3"}
    score = normalizer(recognizer.recipe.text.scoring)
    errors = {"cer": grapheme_errors, "wer": word_errors}[by]
    for choice, beam in zip(found.choices, (None, 3), strict=True):
        assert choice.exact
        assert not is_approximate(choice)
        setting = choice.setting
        assert Setting(setting.weight, setting.bonus) == choice.tuned.setting
        assert setting.narrow == narrowness(choice.search)
        assert choice.tuned.rate.errors <= choice.tuned.without.errors
        assert choice.gain.low <= 1 - choice.tuned.rate.errors / choice.tuned.without.errors
        add_tuned(lm, setting)
        for language_model, expected in ((None, choice.tuned.without), (lm, choice.tuned.rate)):
            own = Recognizer.load(recognizer.folder, device="cpu")
            told = add_help(own, SearchHelp(language_model=language_model, beam=beam))
            assert all("tuned on dev of tones" in line for line in told)
            texts = [t.text for t in own.transcribe_many(dev)]
            rate = ErrorRate.total(
                errors(score(u.text or ""), score(t)) for u, t in zip(dev, texts, strict=True)
            )
            assert rate == expected
    if by == "cer":  # of the words of nonsense none is ever right
        assert found.choices[1].tuned.rate.errors < found.choices[1].tuned.without.errors


@pytest.mark.parametrize("threshold", [0.0, 0.95], ids=["closed", "gated"])
def test_tuning_starts_from_what_the_recogniser_reads(
    recognizer: Recognizer, corpus: Corpus, lm: Path, tmp_path: Path, threshold: float
) -> None:
    """A closed vocabulary and a gate count in the error rate without a language model."""
    dev = corpus.split("dev")
    words = frozenset({"auauauau"})  # near what is read
    gate = SpeechGate(threshold) if threshold else SpeechGate(0.0, words)
    folder = tmp_path / "gated"
    save_model(folder, recognizer.model, recognizer.tokenizer, card=CARD, speech_gate=gate)
    score = normalizer(recognizer.recipe.text.scoring)

    def rate(**wanted: Any) -> tuple[ErrorRate, list[str]]:
        own = Recognizer.load(folder, device="cpu")
        told = add_help(own, SearchHelp(**wanted))
        texts = [t.text for t in own.transcribe_many(dev)]
        pairs = zip(dev, texts, strict=True)
        return ErrorRate.total(grapheme_errors(score(u.text or ""), score(t)) for u, t in pairs), told

    plain, _ = rate()
    recipe = recognizer.transcribe_many(dev)
    bare = ErrorRate.total(
        grapheme_errors(score(u.text or ""), score(t.text)) for u, t in zip(dev, recipe, strict=True)
    )
    assert plain != bare  # what is added to the search matters here
    own = Recognizer.load(folder, device="cpu")
    searches = [GreedyConfig(), CtcBeamConfig(beam=2, n_best=2)]
    found = tune_language_model(own, lm, dev, searches, split="dev", by="cer")
    assert found.choices[0].tuned.without == plain
    assert found.choices[1].tuned.without == rate(beam=2)[0]
    tried = found.choices[0].tuned.tried
    assert rate(language_model=lm, weight=0.3, bonus=0.0)[0] == tried[Setting(0.3, 0.0)]
    # No weight, no change; and it is said when the closed vocabulary goes off.
    silent, told = rate(language_model=lm, weight=0.0, bonus=0.0)
    assert (silent, len(told)) == (plain, 1)
    _, told = rate(language_model=lm, weight=0.3, bonus=0.0)
    off = [
        line for line in told if line.startswith(f"The closed vocabulary of this model ({len(words)} words)")
    ]
    assert len(off) == (not threshold)


@pytest.mark.parametrize(
    ("heads", "search", "kind"),
    [
        ({"transducer": TRANSDUCER}, {"kind": "transducer_beam"}, "transducer_beam"),
        (
            {"ctc": {"kind": "ctc"}, "attention": {"kind": "transformer_decoder", "width": 16, "heads": 2}},
            {"kind": "attention_beam", "beam": 3, "max_length": 0.2},
            "attention_beam",
        ),
        (
            {"ctc": {"kind": "ctc"}, "attention": {"kind": "transformer_decoder", "width": 16, "heads": 2}},
            {"kind": "rescoring", "beam": 3},
            "rescoring",
        ),
    ],
    ids=["transducer", "attention", "rescoring"],
)
def test_other_searches_are_tuned_among_their_readings(
    heads: dict[str, Any], search: dict[str, Any], kind: str, corpus: Corpus, lm: Path, tmp_path: Path
) -> None:
    folder = other_model(tmp_path / "model", heads, search)
    own = Recognizer.load(folder, device="cpu")
    with pytest.raises(UsageError, match="--greedy: a search of kind"):
        searches_to_tune(own.search_config, greedy=True)
    searches = searches_to_tune(own.search_config, beam=3)
    assert [s.kind for s in searches] == [kind]
    dev = corpus.split("dev")[:2]
    found = tune_language_model(own, lm, dev, searches, split="dev", by="cer")
    (choice,) = found.choices
    assert not choice.exact
    assert is_approximate(choice).startswith("chosen among the 3 best readings")
    assert choice.setting.search == kind
    assert choice.tuned.rate.errors <= choice.tuned.without.errors
    plain = Recognizer.load(folder, device="cpu", search=searches[0])
    texts = [t.text for t in plain.transcribe_many(dev)]
    score = normalizer(own.recipe.text.scoring)
    assert choice.tuned.tried[Setting(0.0, 0.0)] == ErrorRate.total(
        grapheme_errors(score(u.text or ""), score(t)) for u, t in zip(dev, texts, strict=True)
    )
    add_tuned(lm, choice.setting)
    (line,) = add_help(plain, SearchHelp(language_model=lm, beam=3))
    assert f"{kind}, beam 3" in line
    assert "tuned on dev" in line
    next(iter(plain.transcribe_many(dev[:1])))  # it reads


@pytest.mark.parametrize("timed", [False, True], ids=["", "with durations"])
def test_a_greedy_transducer_is_tuned_by_searching(
    timed: bool, corpus: Corpus, lm: Path, tmp_path: Path
) -> None:
    """The error rate of the best setting is that of the recogniser with it, and it finds that setting."""
    heads = {"transducer": TRANSDUCER | ({"durations": [0, 1, 2], "loss": "full"} if timed else {})}
    folder = other_model(tmp_path / "model", heads, {"kind": "transducer_greedy"})
    own, dev = Recognizer.load(folder, device="cpu"), corpus.split("dev")
    assert gives_one_reading(own) == timed
    searches = searches_to_tune(own.search_config, one_reading=timed)
    assert [one.kind for one in searches] == ["transducer_greedy", "transducer_beam"][: 1 if timed else 2]
    assert searches_to_tune(own.search_config, greedy=True) == [own.search_config] == searches[:1]
    assert [one.kind for one in searches_to_tune(own.search_config, beam=3)] == ["transducer_beam"]
    found = tune_language_model(own, lm, dev, searches[:1], split="dev", by="cer")
    (choice,) = found.choices
    assert (choice.exact, is_approximate(choice)) == (True, "")
    assert choice.setting.search == "transducer_greedy"
    tried = choice.tuned.tried
    assert len({rate.errors for rate in tried.values()}) > 2  # weights do something here
    assert any(setting.internal_weight for setting in tried)
    score = normalizer(own.recipe.text.scoring)

    def rate(setting: Setting | None) -> ErrorRate:
        """Of whole transcriptions, by the recipe (None: with what the file says)."""
        reader = Recognizer.load(folder, device="cpu")
        if setting is None or setting.weight:
            weights = {} if setting is None else {"weight": setting.weight, "bonus": setting.bonus}
            told = add_help(reader, SearchHelp(language_model=lm, **weights))
            assert ("tuned on dev" in told[0]) == (setting is None)
        texts = [one.text for one in reader.transcribe_many(dev)]
        pairs = zip(dev, texts, strict=True)
        return ErrorRate.total(grapheme_errors(score(u.text or ""), score(text)) for u, text in pairs)

    assert rate(Setting()) == choice.tuned.without
    assert rate(Setting(0.3)) == tried[Setting(0.3)]
    add_tuned(lm, choice.setting)
    assert rate(None) == choice.tuned.rate


def test_a_transducer_with_durations_has_no_readings_to_choose_from(
    corpus: Corpus, lm: Path, tmp_path: Path
) -> None:
    heads = {"transducer": TRANSDUCER | {"durations": [0, 1, 2], "loss": "full"}}
    own = Recognizer.load(other_model(tmp_path / "model", heads, {"kind": "transducer_greedy"}), device="cpu")
    searches = searches_to_tune(own.search_config, beam=4)
    with pytest.raises(UsageError, match="gives one reading"):
        tune_language_model(own, lm, corpus.split("dev"), searches, split="dev")
    with pytest.raises(UsageError, match="gives one reading"):
        check_several(own)


def test_searches_that_one_listening_is_enough_for() -> None:
    greedy, beam, other = GreedyConfig(), CtcBeamConfig(), TransducerGreedyConfig()
    assert heard_together([greedy, beam]) == [[greedy, beam]]
    assert heard_together([other, TransducerBeamConfig()]) == [[other], [TransducerBeamConfig()]]
    assert heard_together([greedy, other, beam]) == [[greedy], [other], [beam]]
    assert heard_together([]) == []


def test_sentences_are_scored_together_as_alone() -> None:
    scorer = TrigramScorer(5, 0)
    spoken = [(1, 2, 3), (), (4,), (2, 2, 2, 2)]
    expected = [sentence_score(scorer, tokens) for tokens in spoken]
    assert sentence_log_probs(scorer, spoken) == pytest.approx(expected)
    assert sentence_log_probs(scorer, []) == []


def test_utterances_that_cannot_be_read_are_named(
    recognizer: Recognizer, corpus: Corpus, lm: Path, tmp_path: Path
) -> None:
    good, bad = corpus.split("dev")[0], replace(corpus.split("dev")[1], audio=tmp_path / "absent.wav")
    silent = replace(corpus.split("dev")[2], text="")
    found = tune_language_model(recognizer, lm, [bad, good, silent], [GreedyConfig()], split="dev")
    assert found.utterances == 1
    assert list(found.failures) == [bad.id]
    with pytest.raises(SearchError, match="None of the 1 utterances"):
        tune_language_model(recognizer, lm, [bad], [GreedyConfig()], split="dev")
    with pytest.raises(SearchError, match="no reference text"):
        tune_language_model(recognizer, lm, [silent], [GreedyConfig()], split="dev")
    with pytest.raises(SearchError, match="not tuned on 'test'"):
        tune_language_model(recognizer, lm, [good], [GreedyConfig()], split="test")
    assert np.isfinite(found.choices[0].gain.low)


def test_a_word_model_that_knows_nothing_of_what_dev_says_is_told(
    recognizer: Recognizer, corpus: Corpus, tmp_path: Path
) -> None:
    dev = corpus.split("dev")[:1]
    said = set((dev[0].text or "").split())
    searches = searches_to_tune(recognizer.search_config, greedy=True)
    for name, sentences, unknown in (
        ("own", [" ".join(said), "aeiou"], 0),
        ("other", ["aeiouaeiou"], len(said)),
    ):
        save_language_model(tmp_path / name, train(sentences, "word", 2))
        told: list[str] = []
        tune_language_model(recognizer, tmp_path / name, dev, searches, split="dev", warned=told.append)
        wanted = [f"It does not know {unknown} of {len(said)} words that this recogniser has to write"]
        assert [line.split("? ")[1].split(" (")[0] for line in told] == (wanted if unknown else [])
