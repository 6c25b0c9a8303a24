"""Language models and phrases from folders and files take part in a recogniser's search; tuned weights."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from firstwords.data.manifest import Corpus, load_corpus
from firstwords.errors import CheckpointError, ConfigError, SearchError, UsageError
from firstwords.inference.fused import SearchHelp, add_help, of_kind, speaks, with_beam
from firstwords.inference.recognizer import Recognizer
from firstwords.inference.tuning import (
    Progress,
    grid_for,
    is_approximate,
    searches_to_tune,
    tune_language_model,
)
from firstwords.lm.language_model import save_language_model
from firstwords.model.checkpoint import save_model
from firstwords.model.recipe import Recipe
from firstwords.model.speech_model import SpeechModel
from firstwords.scoring.error_rate import ErrorRate, grapheme_errors, word_errors
from firstwords.search.fusion import Scorers
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
from firstwords.search.language_models import language_model_fingerprint, open_language_model
from firstwords.search.search import internal_model
from firstwords.search.speech_gate import SpeechGate
from firstwords.search.trials import sentence_log_probs
from firstwords.search.tuned import TunedSetting, add_tuned
from firstwords.search.tuning import Setting
from firstwords.text.characters import GraphemeTokenizer
from firstwords.text.normalize import normalizer
from nonsense_model import CARD, make_nonsense_model
from small_ngrams import train
from tone_corpus import make_tone_corpus, tone_recipe
from toy_scorers import TrigramScorer, sentence_score

TRANSDUCER: dict[str, Any] = {
    "kind": "transducer",
    "predictor": {"kind": "stateless", "dim": 32},
    "joiner_dim": 32,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return load_corpus(make_tone_corpus(tmp_path_factory.mktemp("tones") / "c", train=30, dev=4, test=1))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_nonsense_model(tmp_path_factory.mktemp("models") / "nonsense")


@pytest.fixture
def recognizer(model: Path) -> Recognizer:
    return Recognizer.load(model, device="cpu")


@pytest.fixture
def lm(tmp_path: Path, corpus: Corpus) -> Path:
    save_language_model(tmp_path / "lm", train([u.text or "" for u in corpus.split("train")], "char", 3))
    return tmp_path / "lm"


def other_model(folder: Path, heads: dict[str, Any], search: dict[str, Any]) -> Path:
    """An untrained model with other heads."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        tokenizer = GraphemeTokenizer(["<blank>", "▁", *"aeiou"])
        recipe = Recipe.model_validate(tone_recipe().model_dump() | {"heads": heads, "search": search})
        made = SpeechModel(recipe, len(tokenizer.pieces)).eval()
        with torch.no_grad():
            for head in made.heads.parameters():
                head.add_(0.3 * torch.randn_like(head))
    save_model(folder, made, tokenizer, card=CARD)
    return folder


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


def test_phrases_alone_are_boosted(recognizer: Recognizer, corpus: Corpus, tmp_path: Path) -> None:
    audio = corpus.split("dev")[1].audio
    before = recognizer.transcribe(audio).text
    phrases = tmp_path / "phrases.txt"
    phrases.write_text("ouo\t500\n", encoding="utf-8")
    assert "ouo" not in before.split()
    assert add_help(recognizer, SearchHelp(phrases=phrases, beam=4)) == []
    assert "ouo" in recognizer.transcribe(audio).text.split()


def test_a_source_model_is_taken_off(recognizer: Recognizer, lm: Path) -> None:
    told = add_help(recognizer, SearchHelp(language_model=lm, source=lm, weight=0.5))
    assert told[1].endswith("is taken off: weight 0.2.")
    assert recognizer.search_config.language_model.source_weight == 0.2
    assert recognizer.scorers.source is not None


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
        ({"transducer": TRANSDUCER}, {"kind": "transducer_greedy"}, "transducer_beam"),
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


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A model of transcripts."""
    save_language_model(tmp_path / "source", train(["ae ei", "ouo a", "e i o u"], "char", 2))
    return tmp_path / "source"


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


def test_a_transducer_with_durations_cannot_be_tuned(corpus: Corpus, lm: Path, tmp_path: Path) -> None:
    heads = {"transducer": TRANSDUCER | {"durations": [0, 1, 2], "loss": "full"}}
    own = Recognizer.load(other_model(tmp_path / "model", heads, {"kind": "transducer_greedy"}), device="cpu")
    searches = searches_to_tune(own.search_config)
    with pytest.raises(UsageError, match="gives one reading"):
        tune_language_model(own, lm, corpus.split("dev"), searches, split="dev")


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
