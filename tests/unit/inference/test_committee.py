"""Several models read together: what each proposes is weighed by all of them."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner, Result

from firstwords.cli.main import app
from firstwords.data.manifest import load_corpus
from firstwords.errors import UsageError
from firstwords.inference.committee import _weighed, log_likelihoods
from firstwords.inference.fused import SearchHelp, add_help
from firstwords.inference.recognizer import Recognizer
from firstwords.inference.together import convene
from firstwords.model.checkpoint import save_model
from firstwords.model.speech_model import SpeechModel
from firstwords.scoring.error_rate import ErrorRate, grapheme_errors
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.interface import CtcBeamConfig, TransducerGreedyConfig
from firstwords.search.speech_gate import SpeechGate
from firstwords.search.tuned import add_tuned, read_tuned
from firstwords.tensors import Padded
from firstwords.text.characters import GraphemeTokenizer
from firstwords.text.normalize import normalizer
from nonsense_model import CARD, make_nonsense_model
from tone_bundle import make_tone_bundle
from tone_corpus import RATE, make_tone_corpus, random_text, sing, tone_recipe


def frames(rows: list[list[float]]) -> Padded:
    values = torch.tensor([rows], dtype=torch.float64).log()
    return Padded(values, torch.tensor([len(rows)]))


def collapse(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(label for label, _ in itertools.groupby(path) if label)


def test_likelihoods_are_sums_over_all_alignments() -> None:
    table = np.random.default_rng(0).dirichlet(np.ones(3), size=5)
    readings = [(), (1,), (2, 1), (1, 1), (1, 2, 1), (1, 1, 1, 1)]
    found = log_likelihoods(frames(table.tolist()), readings)
    for tokens, log_prob in zip(readings, found, strict=True):
        paths = (p for p in itertools.product(range(3), repeat=5) if collapse(p) == tokens)
        total = sum(float(np.prod([table[t, label] for t, label in enumerate(p)])) for p in paths)
        assert np.exp(log_prob) == pytest.approx(total, abs=1e-7)


A, B, C = (1,), (2,), (3,)
FIRST = frames([[0.05, 0.60, 0.05, 0.30]])  # A, then C, hardly B
SECOND = frames([[0.05, 0.05, 0.60, 0.30]])  # B, then C, hardly A


def reading(tokens: tuple[int, ...], ctc: float = -1.0, lm: float | None = None) -> Hypothesis:
    parts = {"ctc": ctc} if lm is None else {"ctc": ctc, "language_model": lm}
    return Hypothesis(tokens, sum(parts.values()), parts)


def test_what_all_find_likely_is_read() -> None:
    best, *rest = _weighed([[reading(A), reading(C)], [reading(B), reading(C)]], [FIRST, SECOND])
    assert best.tokens == C
    assert best.score == pytest.approx(np.log(0.3))
    assert best.parts == {"ctc": pytest.approx(np.log(0.3))}
    assert [one.tokens for one in rest] == [A, B]
    assert [one.score for one in rest] == [pytest.approx(np.log(0.6 * 0.05) / 2)] * 2


def test_a_language_model_keeps_its_say() -> None:
    """A and B are as likely to the ear; the share that a language model gave B outweighs what C is ahead."""
    proposed = [[reading(A, lm=-3.0)], [reading(B, lm=-0.5), reading(C, lm=-3.0)]]
    best = _weighed(proposed, [FIRST, SECOND])[0]
    assert best.tokens == B
    assert best.score == pytest.approx(np.log(0.6 * 0.05) / 2 - 0.5)
    assert best.parts["language_model"] == -0.5


def test_most_decide_whether_anybody_speaks() -> None:
    said: list[Hypothesis] = [reading(A)]
    assert _weighed([[], said], [FIRST, SECOND]) == []
    assert _weighed([said, []], [FIRST, SECOND])[0].tokens == A
    assert _weighed([said, [], []], [FIRST, SECOND, SECOND]) == []
    assert _weighed([[], said, said], [FIRST, SECOND, SECOND])[0].tokens == A


# ---- models ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three of one kind, with other weights each."""
    home = tmp_path_factory.mktemp("models")
    return [make_nonsense_model(home / f"m{seed}", seed=seed) for seed in (3, 4, 5)]


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = np.random.default_rng(2)
    path = tmp_path_factory.mktemp("talks") / "talk.flac"
    soundfile.write(path, sing(random_text(generator, 9), generator), RATE)
    return path


def together(first: Path, *others: Path, beam: int = 1) -> Recognizer:
    recognizer = Recognizer.load(first, device="cpu")
    if beam > 1:
        recognizer.use(CtcBeamConfig(beam=beam, n_best=1), recognizer.scorers)
    convene(recognizer, others)
    return recognizer


def firstwords(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_a_model_agrees_with_itself(models: list[Path], talk: Path) -> None:
    alone = Recognizer.load(models[0], device="cpu")
    assert together(models[0], models[0]).transcribe(talk) == alone.transcribe(talk)


def test_one_of_the_proposals_is_taken_whoever_comes_first(models: list[Path], talk: Path) -> None:
    each = [Recognizer.load(folder, device="cpu").transcribe(talk).text for folder in models]
    assert len(set(each)) == 3
    orders = [together(*order).transcribe(talk).text for order in itertools.permutations(models)]
    assert len(set(orders)) == 1
    assert orders[0] in each


def test_the_likeliest_on_average_is_taken(models: list[Path], talk: Path) -> None:
    """Asked with a beam: as likely as any that the members propose, by their own log-probabilities."""
    committee = together(*models, beam=4)
    samples = soundfile.read(talk, dtype="float32")[0]
    members = [Recognizer.load(folder, device="cpu") for folder in models]
    for member in members:
        member.use(CtcBeamConfig(beam=4, n_best=4), member.scorers)
    proposed = [reading.tokens for member in members for reading in member.readings(talk)]
    heard = [torch.from_numpy(member.log_probs(talk))[None] for member in members]
    table = [log_likelihoods(Padded(one, torch.tensor([one.shape[1]])), proposed) for one in heard]
    means = np.mean(table, axis=0)
    best = committee.tokenizer.decode(proposed[int(means.argmax())])
    assert committee.transcribe_samples(samples, RATE).text == " ".join(best.split())
    ((first, *_),) = [committee.readings(talk)]
    assert first.score == pytest.approx(means.max(), rel=1e-4)


def test_alone_and_among_others(models: list[Path], tmp_path: Path) -> None:
    corpus = load_corpus(make_tone_corpus(tmp_path / "c", train=1, dev=1, test=6))
    committee = together(*models[:2], beam=3)
    clips = list(corpus.split("test"))
    many = [made.text for made in committee.transcribe_many(clips)]
    assert many == [committee.transcribe(u.audio, start=u.start, duration=u.duration).text for u in clips]


def test_everyone_searches_alike_from_then_on(models: list[Path], talk: Path) -> None:
    committee = together(*models[:2])
    before = committee.transcribe(talk).text
    committee.use(CtcBeamConfig(beam=5, n_best=5), committee.scorers)
    assert committee.transcribe(talk).text == together(*models[:2], beam=5).transcribe(talk).text
    assert len(committee.readings(talk)) > 5
    assert before
    with pytest.raises(UsageError, match="not by transducer_greedy"):
        committee.committee.use(TransducerGreedyConfig(), committee.scorers)  # type: ignore[union-attr]


def test_silence_is_the_choice_of_most(models: list[Path], talk: Path) -> None:
    committee = together(*models)
    for other in committee.committee._others:  # type: ignore[union-attr]
        other.speech_gate = SpeechGate(1.1)
        other.use(other.search_config, other.scorers)
    assert committee.transcribe(talk).text == ""


def test_who_reads_along_is_known(models: list[Path]) -> None:
    key = "choice of models that read along"
    alone = Recognizer.load(models[0], device="cpu")
    assert alone.identity[key] == ""
    one, other = together(models[0], models[1]), together(models[0], models[2])
    assert one.identity == alone.identity | {key: one.identity[key]}
    assert len({alone.identity[key], one.identity[key], other.identity[key]}) == 3


def test_who_cannot_read_along(models: list[Path], tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = GraphemeTokenizer.train(["xyz"] * 9)
    stranger = SpeechModel(tone_recipe(), len(tokenizer.pieces))
    save_model(tmp_path / "stranger", stranger, tokenizer, card=CARD)
    with pytest.raises(UsageError, match="other pieces"):
        together(models[0], tmp_path / "stranger")

    known = Recognizer.load(models[0], device="cpu").tokenizer
    deep = tone_recipe()
    deep = deep.model_copy(
        update={
            "data": deep.data.with_(sample_rate=8000),
            "features": deep.features.with_(sample_rate=8000),
        }
    )
    save_model(tmp_path / "deep", SpeechModel(deep, len(known.pieces)), known, card=CARD)
    with pytest.raises(UsageError, match="8000 Hz"):
        together(models[0], tmp_path / "deep")

    head = {
        "kind": "transducer",
        "predictor": {"kind": "stateless", "dim": 32},
        "joiner_dim": 32,
    }
    values = tone_recipe().model_dump() | {
        "heads": {"transducer": head},
        "search": {"kind": "transducer_greedy"},
    }
    other = type(deep).model_validate(values)
    save_model(tmp_path / "joint", SpeechModel(other, len(known.pieces)), known, card=CARD)
    with pytest.raises(UsageError, match="no CTC head"):
        together(models[0], tmp_path / "joint")


# ---- the command line -----------------------------------------------------------------------------------


def test_transcribing_and_evaluating_with_several(models: list[Path], talk: Path, tmp_path: Path) -> None:
    made = firstwords("transcribe", models[0], talk, "--with", models[1], "--with", models[2])
    assert made.exit_code == 0, made.output
    assert together(*models).transcribe(talk).text in made.stdout
    assert "3 models read together" in made.output

    corpus = make_tone_corpus(tmp_path / "c", train=1, dev=1, test=3)
    found = firstwords(
        "evaluate", models[0], corpus, "--with", models[1], "--beam", "3", "--out", tmp_path / "report"
    )
    assert found.exit_code == 0, found.output
    assert "2 models read together" in " ".join(found.output.split())


def test_results_of_fewer_models_are_named(models: list[Path], talk: Path, tmp_path: Path) -> None:
    assert firstwords("transcribe", models[0], talk, "--out", tmp_path).exit_code == 0
    again = firstwords("transcribe", models[0], talk, "--out", tmp_path, "--with", models[1])
    assert "made with another choice of models that read along" in again.output


def test_streams_and_bundles_are_read_by_one(models: list[Path], talk: Path, tmp_path: Path) -> None:
    stream = firstwords("transcribe", models[0], "--stream", "--with", models[1])
    assert isinstance(stream.exception, UsageError)
    assert "--with needs whole utterances" in stream.exception.what
    make_tone_bundle(tmp_path / "bundle")
    bundle = firstwords("transcribe", tmp_path / "bundle", talk, "--with", models[1])
    assert isinstance(bundle.exception, UsageError)
    assert "--with cannot be used with a bundle" in bundle.exception.what


# ---- with a language model -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lm(models: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("lms")
    generator = np.random.default_rng(4)
    (home / "text.txt").write_text(
        "".join(f"{random_text(generator, 9)}\n" for _ in range(80)), encoding="utf-8"
    )
    made = firstwords("lm", "train", home / "text.txt", "--to", home / "lm", "--unit", "char", "--order", 3)
    assert made.exit_code == 0, made.output
    return home / "lm"


def test_weights_are_tuned_for_all_and_found_again(
    models: list[Path], lm: Path, talk: Path, tmp_path: Path
) -> None:
    """What is measured without the language model is what all read; the choice is for them alone."""
    folder = make_tone_corpus(tmp_path / "c", train=1, dev=3, test=1)
    options = ("--corpus", folder, "--by", "cer", "--beam", 3, "--device", "cpu", "--with", models[1])
    tuned = firstwords("lm", "tune", models[0], lm, *options)
    assert tuned.exit_code == 0, tuned.output
    said = " ".join(tuned.output.split())
    assert "2 models read together" in said
    assert "chosen among the 3 best readings of each model, not by searching anew" in said
    assert f"--lm {lm} --beam 3 --with {models[1]}" in said.replace('"', "").replace("'", "")

    (setting,) = read_tuned(lm).tuned
    committee = together(*models[:2], beam=3)
    assert committee.committee is not None
    assert setting.together == committee.committee.identity
    dev = load_corpus(folder).split("dev")
    score = normalizer(committee.recipe.text.scoring)
    texts = [t.text for t in committee.transcribe_many(dev)]
    rate = ErrorRate.total(
        grapheme_errors(score(u.text or ""), score(t)) for u, t in zip(dev, texts, strict=True)
    )
    assert setting.without == rate.rate
    assert setting.best <= setting.without

    wanted = SearchHelp(language_model=lm, beam=3)
    (line,) = add_help(committee, wanted)
    assert f"weight {setting.weight:g}, bonus {setting.bonus:g} (tuned on dev of c: " in line
    (line,) = add_help(Recognizer.load(models[0], device="cpu"), wanted)
    assert "not tuned: tuned.toml there is for this recogniser together with others" in line
    (line,) = add_help(together(models[0], models[2]), wanted)
    assert "for this recogniser together with others" in line

    add_tuned(lm, setting.with_(together="", weight=0.25))
    assert len(read_tuned(lm).tuned) == 2
    (line,) = add_help(together(models[0], models[2]), wanted)
    assert "weight 0.25" in line
    assert "tuned on dev of c for the first model alone: " in line
    heard = firstwords("transcribe", models[0], talk, "--lm", lm, "--beam", 3, "--with", models[1])
    assert f"weight {setting.weight:g}, bonus {setting.bonus:g} (tuned on dev of c: " in " ".join(
        heard.output.split()
    )


@pytest.mark.parametrize("narrow", [("--greedy",), ("--beam", 1)])
def test_together_one_reading_cannot_be_tuned(
    narrow: tuple[object, ...], models: list[Path], lm: Path, tmp_path: Path
) -> None:
    folder = make_tone_corpus(tmp_path / "c", train=1, dev=1, test=1)
    refused = firstwords("lm", "tune", models[0], lm, "--corpus", folder, "--with", models[1], *narrow)
    assert isinstance(refused.exception, UsageError)
    option = " ".join(map(str, narrow))
    assert f"{option}: what several models read together is tuned on its n-best" in refused.exception.what
