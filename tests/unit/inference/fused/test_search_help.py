"""Language models and phrases from folders and files take part in a recogniser's search."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from firstwords.data.manifest import Corpus
from firstwords.errors import ConfigError, UsageError
from firstwords.inference.fused import SearchHelp, add_help, of_kind, with_beam
from firstwords.inference.recognizer import Recognizer
from firstwords.lm.language_model import save_language_model
from firstwords.search.interface import (
    SEARCHES,
    AttentionBeamConfig,
    CtcBeamConfig,
    GreedyConfig,
    LanguageModelConfig,
    RescoringConfig,
    SearchConfig,
    TransducerBeamConfig,
    TransducerGreedyConfig,
    narrowness,
)
from firstwords.search.language_models import language_model_fingerprint
from firstwords.search.speech_gate import SpeechGate
from firstwords.search.tuned import TunedSetting, add_tuned
from other_heads import TRANSDUCER, other_model
from small_ngrams import train


def test_a_search_other_than_the_recipes(model: Path, corpus: Corpus) -> None:
    audio = corpus.split("dev")[0].audio
    plain = Recognizer.load(model, device="cpu")
    wide = Recognizer.load(model, device="cpu", search=CtcBeamConfig(beam=3))
    assert plain.search_config == GreedyConfig()
    assert wide.search_config == CtcBeamConfig(beam=3)
    assert len(wide.readings(audio)) == 3
    assert len(plain.readings(audio)) == 1
    changed = {name for name, value in wide.identity.items() if value != plain.identity[name]}
    assert changed == {"search"}
    with pytest.raises(ConfigError, match=r"needs heads\.transducer"):
        Recognizer.load(model, device="cpu", search=TransducerGreedyConfig())
    with pytest.raises(ConfigError, match=r"needs heads\.attention"):
        plain.use(RescoringConfig(), plain.scorers)
    assert plain.search_config == GreedyConfig()  # what was refused has changed nothing


@pytest.mark.parametrize(
    ("config", "beam", "wanted"),
    [
        (GreedyConfig(), 1, GreedyConfig()),
        (GreedyConfig(), 5, CtcBeamConfig(beam=5, n_best=5)),
        (CtcBeamConfig(beam=10, blank_penalty=1.0), 4, CtcBeamConfig(beam=4, n_best=4, blank_penalty=1.0)),
        (CtcBeamConfig(beam=10, n_best=3), 1, GreedyConfig()),
        (CtcBeamConfig(beam=4, n_best=2), 20, CtcBeamConfig(beam=20, n_best=2)),
        (TransducerGreedyConfig(), 1, TransducerGreedyConfig()),
        (TransducerGreedyConfig(), 6, TransducerBeamConfig(beam=6, n_best=6)),
        (AttentionBeamConfig(), 2, AttentionBeamConfig(beam=2, n_best=2)),
    ],
    ids=lambda value: getattr(value, "kind", value),
)
def test_a_beam_makes_a_beam_search(config: SearchConfig, beam: int, wanted: SearchConfig) -> None:
    weights = LanguageModelConfig(weight=0.7, bonus=1.0)
    assert with_beam(config, beam) == wanted
    kept = with_beam(config.with_(language_model=weights), beam)
    assert kept.language_model == weights


def test_a_kind_of_search_keeps_the_weights_and_the_recipes_own_settings(tmp_path: Path) -> None:
    weights = LanguageModelConfig(weight=0.7, bonus=1.0)
    for kind, config in SEARCHES.items():
        made = of_kind(GreedyConfig(language_model=weights), kind)
        assert made == config(language_model=weights)
        assert made.kind == kind
    own = CtcBeamConfig(beam=3, n_best=2)
    assert of_kind(own, "ctc_beam") == own
    heads = {"ctc": {"kind": "ctc"}, "transducer": TRANSDUCER}
    recognizer = Recognizer.load(other_model(tmp_path / "m", heads, {"kind": "greedy"}), device="cpu")
    add_help(recognizer, SearchHelp(search="transducer_beam", beam=2))
    assert recognizer.search_config == TransducerBeamConfig(beam=2, n_best=2)
    with pytest.raises(ConfigError, match=r"needs heads\.attention"):
        add_help(recognizer, SearchHelp(search="rescoring"))
    with pytest.raises(UsageError, match="no such search") as refused:
        add_help(recognizer, SearchHelp(search="magic"))
    assert "transducer_beam" in refused.value.mend
    with pytest.raises(UsageError, match="read by transducer_greedy"):
        add_help(recognizer, SearchHelp(search="transducer_beam"), stream=True)
    assert recognizer.search_config == TransducerBeamConfig(beam=2, n_best=2)  # nothing was changed
    add_help(recognizer, SearchHelp(search="greedy"), stream=True)
    assert recognizer.search_config == GreedyConfig()


def test_what_was_tuned_for_greedy_is_found_with_a_beam_of_1(recognizer: Recognizer, lm: Path) -> None:
    """Also where the recipe has a beam search."""
    mark = language_model_fingerprint(lm)
    narrow = narrowness(GreedyConfig())
    add_tuned(
        lm,
        TunedSetting(
            model=recognizer.weights, lm=mark, search="greedy", narrow=narrow, weight=0.75, bonus=1.5
        ),
    )
    recognizer.use(CtcBeamConfig(), recognizer.scorers)
    (line,) = add_help(recognizer, SearchHelp(language_model=lm, beam=1))
    assert "in greedy: weight 0.75, bonus 1.5 (tuned on dev:" in line


@pytest.mark.parametrize("narrow", ["", "beam 9, threshold 0.02, margin 3, settled 4"])
def test_what_was_tuned_for_another_greedy_search_is_not_used(
    recognizer: Recognizer, lm: Path, narrow: str
) -> None:
    """Its beam was another one, or was not written down."""
    mark = language_model_fingerprint(lm)
    old = TunedSetting(model=recognizer.weights, lm=mark, search="greedy", narrow=narrow, weight=0.75)
    add_tuned(lm, old)
    add_tuned(lm, old.with_(search="ctc_beam", narrow="", beam=8))
    (line,) = add_help(recognizer, SearchHelp(language_model=lm))
    assert "in greedy: weight 0.3, bonus 0 (not tuned: " in line
    assert "tuned for another search; run 'firstwords lm tune' again" in line
    (line,) = add_help(recognizer, SearchHelp(language_model=lm, beam=8))
    assert "weight 0.75" in line
    recognizer.use(GreedyConfig(), recognizer.scorers)
    add_tuned(lm, old.with_(narrow="beam 4, threshold 0.02, margin 3, settled 4"))  # NARROW
    (line,) = add_help(recognizer, SearchHelp(language_model=lm))
    assert "weight 0.75" in line


def test_weights_come_from_the_caller_the_file_or_the_recipe(recognizer: Recognizer, lm: Path) -> None:
    def said(**wanted: Any) -> str:
        recognizer.use(GreedyConfig(), recognizer.scorers)
        (line,) = add_help(recognizer, SearchHelp(language_model=lm, **wanted))
        return line

    assert "weight 0.3, bonus 0 (not tuned: 'firstwords lm tune" in said()
    mark = language_model_fingerprint(lm)
    beam = TunedSetting(model=recognizer.weights, lm=mark, search="ctc_beam", beam=8, weight=0.75, bonus=1.5)
    add_tuned(lm, beam.with_(model="another"))
    assert "tuned.toml there is for another recogniser" in said()
    add_tuned(lm, beam)
    assert "weight 0.3" in said()
    assert "tuned.toml there is for ctc_beam (--beam 8) alone" in said()
    assert "ctc_beam, beam 8: weight 0.75, bonus 1.5 (tuned on dev:" in said(beam=8)
    assert recognizer.search_config.language_model == LanguageModelConfig(weight=0.75, bonus=1.5)
    assert "beam 9: weight 0.75, bonus 1.5 (tuned on dev with a beam of 8:" in said(beam=9)
    assert "weight 0.1, bonus -1 (as given)" in said(beam=8, weight=0.1, bonus=-1.0)
    assert "weight 0.1, bonus 1.5 (weight as given, bonus tuned on dev)" in said(beam=8, weight=0.1)
    assert "weight 0.75, bonus -1 (bonus as given, weight tuned on dev)" in said(beam=8, bonus=-1.0)
    assert "weight 0.1, bonus 0 (weight as given, bonus of the recipe)" in said(weight=0.1)
    assert "weight 0.3, bonus -1 (bonus as given, weight of the recipe)" in said(bonus=-1.0)
    save_language_model(lm, train(["a e i", "o u"], "char", 2))
    assert "tuned.toml there is for another state of this language model" in said(beam=8)


def test_identity_follows_contents_weights_and_phrases(
    model: Path, recognizer: Recognizer, lm: Path, tmp_path: Path
) -> None:
    phrases = tmp_path / "phrases.txt"
    phrases.write_text("ae\n", encoding="utf-8")

    def identity(**wanted: Any) -> dict[str, str]:
        recognizer.use(GreedyConfig(), recognizer.scorers)
        add_help(recognizer, SearchHelp(**wanted))
        return recognizer.identity

    plain = recognizer.identity
    first = identity(language_model=lm)
    assert first == identity(language_model=lm) != plain
    assert identity(language_model=shutil.copytree(lm, tmp_path / "copy")) == first
    known = [first, plain]
    for other in (
        identity(language_model=lm, weight=0.4),
        identity(language_model=lm, beam=4),
        identity(language_model=lm, source=lm),
        identity(language_model=lm, source=lm, source_weight=0.3),
        identity(language_model=lm, phrases=phrases),
        identity(phrases=phrases),
    ):
        assert other not in known
        assert other["model"] == plain["model"]
        known.append(other)
    phrases.write_text("ae\t2\n", encoding="utf-8")
    assert identity(phrases=phrases) not in known
    save_language_model(lm, train(["a e i", "o u"], "char", 2))
    assert identity(language_model=lm) not in known


@pytest.mark.parametrize("config", [GreedyConfig(), CtcBeamConfig()], ids=lambda config: config.kind)
def test_a_second_pass_needs_a_beam(recognizer: Recognizer, config: SearchConfig) -> None:
    recognizer.use(config, recognizer.scorers)
    with pytest.raises(UsageError, match="A beam of 1 finds one reading"):
        add_help(recognizer, SearchHelp(beam=1), n_best=True)
    assert recognizer.search_config == config
    assert add_help(recognizer, SearchHelp(beam=2), n_best=True) == []
    assert recognizer.search_config == CtcBeamConfig(beam=2, n_best=2)


def test_a_foreign_language_model_is_told_and_used(recognizer: Recognizer, lm: Path, tmp_path: Path) -> None:
    """The recogniser writes a e i o u."""
    save_language_model(tmp_path / "foreign", train(["strength a", "rhythm"], "char", 2))
    told = add_help(recognizer, SearchHelp(language_model=tmp_path / "foreign", source=lm))
    asked = (
        f"Is language model '{tmp_path / 'foreign'}' of this recogniser's language? It has never seen 3 of"
    )
    assert [line for line in told if "never seen" in line] == [
        f"{asked} the 5 pieces with letters that this recogniser writes ('i', 'o', 'u')."
    ]
    assert recognizer.scorers.language_model is not None
    told = add_help(recognizer, SearchHelp(language_model=lm, source=tmp_path / "foreign"))
    assert [line for line in told if line.startswith(asked)]


def test_few_words_that_a_word_model_lacks_are_told(
    recognizer: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a recogniser has few words, all known, and the model is of others in the same letters."""
    closed = SpeechGate(0.0, frozenset({"ae", "ei", "ouo"}))
    monkeypatch.setattr(recognizer, "speech_gate", closed)
    save_language_model(tmp_path / "words", train(["aa ee", "iaou"], "word", 2))
    told = add_help(recognizer, SearchHelp(language_model=tmp_path / "words"))
    assert "does not know 3 of 3 words that this recogniser has to write ('ae', 'ei', 'ouo')." in told[0]


def test_phrases_alone_are_boosted(recognizer: Recognizer, corpus: Corpus, tmp_path: Path) -> None:
    audio = corpus.split("dev")[1].audio
    before = recognizer.transcribe(audio).text
    phrases = tmp_path / "phrases.txt"
    phrases.write_text("ouo\t500\n", encoding="utf-8")
    assert "ouo" not in before.split()
    assert add_help(recognizer, SearchHelp(phrases=phrases, beam=4)) == []
    assert "ouo" in recognizer.transcribe(audio).text.split()
