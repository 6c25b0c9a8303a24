"""The runtime's searches against those over tensors, on the same log-probabilities."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch

from firstwords.errors import CheckpointError, SearchError, TextError, UsageError
from firstwords.export.bundle import BundleFacts, GateFacts
from firstwords.export.graphs import JoinerGraph, TokenReader
from firstwords.export.runtime_help import BonusRows, Part, RowCompanion
from firstwords.export.runtime_language_model import open_help
from firstwords.export.runtime_search import TransducerSteps, greedy_reading, read_ctc, read_transducer
from firstwords.export.runtime_stream import TransducerStream
from firstwords.export.runtime_words import Judge, open_phrases
from firstwords.heads.head import FrameHead
from firstwords.heads.transducer.head import TransducerConfig, TransducerHead
from firstwords.lm.language_model import load_language_model, save_language_model
from firstwords.lm.ngram_arpa import write_arpa
from firstwords.lm.ngram_scorer import NgramScorer
from firstwords.lm.tensors_file import parse_tensors
from firstwords.search.biasing import phrase_scorer
from firstwords.search.closed import ClosedStream, ClosedVocabulary
from firstwords.search.ctc_beam import CtcBeamSearch
from firstwords.search.ctc_streams import CtcGreedyStream
from firstwords.search.fusion import Scorers, weigh
from firstwords.search.greedy import greedy_search
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.interface import (
    NARROW,
    CtcBeamConfig,
    GreedyConfig,
    LanguageModelConfig,
    TransducerGreedyConfig,
)
from firstwords.search.known_words import spelled_once
from firstwords.search.language_models import Speaks, open_language_model
from firstwords.search.transducer_greedy import TransducerGreedySearch
from firstwords.tensors import Padded, pad
from firstwords.text.given import GivenTokenizer
from firstwords.text.pieces import BYTES
from small_ngrams import train

FRAME = 0.04
TOKENIZER = GivenTokenizer(["<blank>", "▁", *"abcdé", *BYTES[:4]])
V = len(TOKENIZER.pieces)
TEXTS = ["abba cab", "bad dad", "cab é", "a bad cab", "dé ab"] * 3


def utterances(seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    logits = [generator.normal(0, 2.5, (length, V)) for length in (1, 17, 40)]
    for values in logits:
        values[:, 0] += 1.5
    return [torch.from_numpy(v).float().log_softmax(-1).numpy() for v in logits]


def batch(values: list[np.ndarray]) -> Padded:
    return pad([torch.from_numpy(v) for v in values])


def same(found: Hypothesis, wanted: Hypothesis, *, close: float = 1e-6) -> None:
    assert found.tokens == wanted.tokens
    assert found.times == wanted.times
    assert found.ends == wanted.ends
    assert found.score == pytest.approx(wanted.score, abs=1e-4)
    np.testing.assert_allclose(found.confidences or (), wanted.confidences or (), atol=close)
    assert set(found.parts) == set(wanted.parts)
    for name, part in wanted.parts.items():
        assert found.parts[name] == pytest.approx(part, abs=1e-4)


def test_greedy_ctc_is_the_search_over_tensors() -> None:
    values = utterances()
    for found, wanted in zip(
        read_ctc(values, GreedyConfig(), FRAME, None), greedy_search(batch(values), frame_seconds=FRAME),
        strict=True,
    ):  # fmt: skip
        same(found[0], wanted)


@pytest.fixture(scope="module")
def lm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lm") / "lm"
    save_language_model(folder, train(TEXTS, "char"))
    return folder


@pytest.mark.parametrize("beam", [1, 2, 8])
@pytest.mark.parametrize(("weight", "bonus"), [(0.0, 0.0), (0.7, 0.0), (0.4, 1.2), (0.0, -0.5)])
def test_beam_search_with_a_language_model_is_that_over_tensors(
    beam: int, weight: float, bonus: float, lm_folder: Path
) -> None:
    weights = LanguageModelConfig(weight=weight, bonus=bonus)
    config = CtcBeamConfig(beam=beam, n_best=min(4, beam), language_model=weights)
    scorer = NgramScorer(load_language_model(lm_folder), TOKENIZER)
    scorers = weigh(Scorers(language_model=scorer), weights, V)
    values = utterances(beam)
    wanted = CtcBeamSearch(config, FRAME, scorers)(batch(values))
    helped = open_help(lm_folder, TOKENIZER, "default", weights).beside
    assert (helped is None) == (not scorers)
    found = read_ctc(values, config, FRAME, helped)
    for mine, theirs in zip(found, wanted, strict=True):
        assert len(mine) == len(theirs)
        for one, other in zip(mine, theirs, strict=True):
            same(one, other)


def test_greedy_search_with_a_language_model_is_a_narrow_beam(lm_folder: Path) -> None:
    helped = open_help(lm_folder, TOKENIZER, "default", LanguageModelConfig(weight=0.5)).beside
    values = utterances(9)
    greedy = read_ctc(values, GreedyConfig(), FRAME, helped)
    assert greedy == read_ctc(values, NARROW, FRAME, helped)


def test_an_arpa_file_gives_what_the_folder_gives(lm_folder: Path, tmp_path: Path) -> None:
    model = train(TEXTS, "char").model
    for name in ("lm.arpa", "lm.arpa.gz"):
        write_arpa(tmp_path / name, model)
        rows = open_help(tmp_path / name, TOKENIZER, "default").parts[0].rows
        folder = open_help(lm_folder, TOKENIZER, "default").parts[0].rows
        a, b = rows.start(), folder.start()
        for token in (2, 3, 1, 6, 4, 7):
            np.testing.assert_allclose(rows.row(a), folder.row(b), atol=1e-5)
            a, b = rows.after(a, token), folder.after(b, token)


def test_words_are_searched_letter_by_letter(tmp_path: Path) -> None:
    lm = train(TEXTS, "word")
    save_language_model(tmp_path / "words", lm)
    write_arpa(tmp_path / "words.arpa", lm.model)
    weights = LanguageModelConfig(weight=0.6)
    scorer = open_language_model(tmp_path / "words", Speaks(TOKENIZER, "default"))
    config = CtcBeamConfig(beam=6, n_best=3, language_model=weights)
    values = utterances(3)
    wanted = CtcBeamSearch(config, FRAME, weigh(Scorers(language_model=scorer), weights, V))(batch(values))
    for name in ("words", "words.arpa"):
        found = read_ctc(
            values, config, FRAME, open_help(tmp_path / name, TOKENIZER, "default", weights).beside
        )
        for mine, theirs in zip(found, wanted, strict=True):
            for one, other in zip(mine, theirs, strict=True):
                same(one, other)


def test_phrases_are_those_over_tensors(tmp_path: Path, lm_folder: Path) -> None:
    path = tmp_path / "phrases.txt"
    path.write_text("Bad Cab\t2\nabba\n", encoding="utf-8")
    phrases = open_phrases(path, TOKENIZER, "default")
    scorer = phrase_scorer({"bad cab": 2.0, "abba": None}, TOKENIZER)
    config = CtcBeamConfig(beam=6, n_best=3, language_model=LanguageModelConfig(weight=0.4))
    values = utterances(4)
    plain = read_ctc(values, config, FRAME, None)
    for scorers, helped in (
        (Scorers(phrases=scorer), phrases),
        (
            Scorers(NgramScorer(load_language_model(lm_folder), TOKENIZER), phrases=scorer),
            phrases.joined(open_help(lm_folder, TOKENIZER, "default", config.language_model)),
        ),
    ):
        wanted = CtcBeamSearch(config, FRAME, weigh(scorers, config.language_model, V))(batch(values))
        found = read_ctc(values, config, FRAME, helped.beside)
        assert [r[0].tokens for r in found] != [r[0].tokens for r in plain]
        for mine, theirs in zip(found, wanted, strict=True):
            for one, other in zip(mine, theirs, strict=True):
                same(one, other)


def test_pieces_of_several_letters_are_not_guessed(tmp_path: Path) -> None:
    pieces = GivenTokenizer(["<blank>", "▁ab", *"abcd"])
    (tmp_path / "phrases.txt").write_text("bad\n", encoding="utf-8")
    with pytest.raises(UsageError, match="several letters \\('▁ab'\\)"):
        open_phrases(tmp_path / "phrases.txt", pieces, "default")
    save_language_model(tmp_path / "words", train(TEXTS, "word"))
    with pytest.raises(UsageError, match="several letters"):
        open_help(tmp_path / "words", pieces, "default")


def parts_of_a_stream_are_read_alike(judge: Judge, words: list[str], values: list[np.ndarray]) -> None:
    """Finals of one token less than was read, so that some of a part belongs to the next."""
    head = cast("FrameHead", SimpleNamespace(log_probs=lambda encoded: encoded))
    theirs = ClosedStream(ClosedVocabulary(head, words, TOKENIZER, FRAME), FRAME)
    mine, search = judge.held_frames(), CtcGreedyStream(lambda frames: frames, FRAME)
    changed = 0
    for place, part in enumerate([*values, *values]):
        theirs.score(batch([part]))
        mine.hear(part)
        search.advance(part)
        reading = search.commit(max(0, len(search.best().tokens) - 1))
        going_on = search.best().times
        until = going_on[0] if going_on else search.seconds
        found, wanted = (own.mend(reading, until, is_speech=place != 1) for own in (mine, theirs))
        same(found, wanted)
        changed += found.tokens != reading.tokens
    assert changed


@pytest.mark.parametrize("words", [["abba", "cab", "bad"], ["é", "dé", "ab"]])
def test_a_closed_vocabulary_is_that_over_tensors(words: list[str]) -> None:
    facts = BundleFacts(
        format=1, kind="ctc", streaming=False, name="m", sample_rate=16000, mels=80, subsampling=4,
        frame_shift_ms=10.0, vocabulary=V, variants={"fp32": {"model": "model.onnx"}}, files={},
        speech_gate=GateFacts(threshold=0.0, words=tuple(words)), known_words=spelled_once(words, TOKENIZER),
    )  # fmt: skip
    judge = Judge(facts, TOKENIZER)
    values = utterances(6)
    parts_of_a_stream_are_read_alike(judge, words, values)
    first = read_ctc(values, GreedyConfig(), FRAME, None)
    head = cast("FrameHead", SimpleNamespace(log_probs=lambda encoded: encoded))
    wanted = ClosedVocabulary(head, words, TOKENIZER, FRAME).mend(batch(values), first)
    found = [judge.shown(v, list(r), closed=True) for v, r in zip(values, first, strict=True)]
    assert any(len(readings) == 2 for readings in found)  # some were replaced
    for mine, theirs in zip(found, wanted, strict=True):
        assert len(mine) == len(theirs)
        for one, other in zip(mine, theirs, strict=True):
            same(one, other)
    assert [judge.shown(v, list(r), closed=False) for v, r in zip(values, first, strict=True)] == first


def test_language_models_that_cannot_help_say_why(tmp_path: Path) -> None:
    save_language_model(tmp_path / "strange", train(["xyz zyx"], "char"))
    with pytest.raises(CheckpointError, match="another vocabulary"):
        open_help(tmp_path / "strange", GivenTokenizer(["<blank>", "a", "b"]), "default")
    save_language_model(tmp_path / "pieces", train(TEXTS, "piece", tokenizer=TOKENIZER))
    with pytest.raises(CheckpointError, match="fingerprints"):
        open_help(tmp_path / "pieces", GivenTokenizer(["<blank>", *"abcd"]), "default")
    with pytest.raises(CheckpointError, match="is no language model"):
        open_help(tmp_path / "nowhere", TOKENIZER, "default")
    # Bytes could spell any word; a recogniser of Latin letters never writes them so.
    latin = GivenTokenizer(["<blank>", "▁", *"abcd", *BYTES])
    save_language_model(tmp_path / "other", train(["да нет", "нет"], "word"))
    with pytest.raises(
        CheckpointError, match=r"no word in the letters of this recogniser \(not 'да', for one"
    ):
        open_help(tmp_path / "other", latin, "default")
    with pytest.raises(CheckpointError, match="another vocabulary"):
        open_language_model(tmp_path / "other", Speaks(latin, "default"))
    save_language_model(tmp_path / "loan", train(["да cab", "нет"], "word"))
    open_help(tmp_path / "loan", latin, "default")
    told: list[str] = []
    open_help(tmp_path / "loan", latin, "default", told=told.append)
    assert told == [
        f"Is language model '{tmp_path / 'loan'}' of this recogniser's language? 2 of its 3 words have "
        "letters that this recogniser does not write ('да', 'нет')."
    ]
    bytes_alone = GivenTokenizer(["<blank>", "▁", *BYTES])
    open_help(tmp_path / "other", bytes_alone, "default")


@pytest.mark.parametrize(
    ("unit", "old", "new", "says"),
    [
        ("word", "bad", "BAD", "'BAD' is not text of normalizer 'default', which writes 'bad'"),
        ("word", "dé", "de\u0301", "which writes 'dé'"),
        ("word", "bad", "bad,", "which writes 'bad'"),
        ("char", "b", "B", "which writes 'b'"),
        ("char", "é", "É", "which writes 'é'"),
    ],
)
def test_an_arpa_file_of_another_normalization_is_named_with_its_line(
    unit: str, old: str, new: str, says: str, tmp_path: Path
) -> None:
    write_arpa(tmp_path / "good.arpa", train(TEXTS, unit).model)
    lines = (tmp_path / "good.arpa").read_text(encoding="utf-8").split("\n")
    parted = [line.replace(" ", "\t").split("\t") for line in lines]
    changed = ["\t".join(new if field == old else field for field in fields) for fields in parted]
    changed[1 : lines.index("")] = lines[1 : lines.index("")]
    number = next(n for n, fields in enumerate(parted, start=1) if old in fields)
    (tmp_path / "bad.arpa").write_text("\n".join(changed), encoding="utf-8")
    open_help(tmp_path / "good.arpa", TOKENIZER, "default")
    open_help(tmp_path / "bad.arpa", TOKENIZER, "none")
    with pytest.raises(TextError, match=rf"^line {number} of .*bad\.arpa.*{re.escape(says)}"):
        open_help(tmp_path / "bad.arpa", TOKENIZER, "default")


def test_pieces_of_an_arpa_file_need_not_be_words(tmp_path: Path) -> None:
    """The pieces of a bundle are what its model writes, whatever the normalizer makes of them alone."""
    pieces = GivenTokenizer(["<blank>", "▁a", "b▁", "C"])
    text = "\\data\\\nngram 1=5\n\n\\1-grams:\n-9\t<s>\n-1\t</s>\n-1\t▁a\n-1\tb▁\n-1\tC\n\n\\end\\\n"
    (tmp_path / "x.arpa").write_text(text, encoding="utf-8")
    open_help(tmp_path / "x.arpa", pieces, "default")


def test_a_companion_counts_from_a_slot_on(lm_folder: Path) -> None:
    rows = open_help(lm_folder, TOKENIZER, "default").parts[0].rows
    companion = RowCompanion([Part("language_model", 0.5, rows), Part("bonus", 1.0, BonusRows(V))])
    zero = np.zeros(1, np.int64)
    companion.move(np.zeros(2, np.int64), np.array([2, 3]))
    before = companion.totals()
    companion.rebase(0)
    assert companion.totals() == pytest.approx(before - before[0])
    state = rows.after(rows.start(), 2)
    companion.move(zero, np.array([4]))
    assert companion.totals()[0] == pytest.approx(0.5 * rows.row(state)[4] + 1.0)


class HeadSteps:
    """Decoder and joiner of a head as two engines: the modules that are exported."""

    def __init__(self, head: TransducerHead) -> None:
        self._decoder, self._joiner = TokenReader(head), JoinerGraph(head.joiner)

    @torch.no_grad()
    def decoder(self, tokens: np.ndarray) -> list[np.ndarray]:
        return [self._decoder(torch.from_numpy(tokens)).numpy()]

    @torch.no_grad()
    def joiner(self, encoded: np.ndarray, decoded: np.ndarray) -> list[np.ndarray]:
        return [self._joiner(torch.from_numpy(encoded), torch.from_numpy(decoded)).numpy()]


@pytest.fixture(scope="module")
def head() -> TransducerHead:
    torch.manual_seed(5)
    head = TransducerHead(TransducerConfig(joiner_dim=12), 10, V).eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.mul_(3.0)
    return head


def test_greedy_transducer_is_the_search_over_tensors(head: TransducerHead) -> None:
    generator = torch.Generator().manual_seed(1)
    encoded = [3 * torch.randn(length, 10, generator=generator) for length in (1, 33, 80, 5)]
    wanted = TransducerGreedySearch(TransducerGreedyConfig(), head, FRAME)(pad(encoded))
    engines = HeadSteps(head)
    context = head.predictor.context  # type: ignore[union-attr]
    steps = TransducerSteps(engines.decoder, engines.joiner, context)  # type: ignore[arg-type]
    with torch.no_grad():
        frames = [head.joiner.encoder_proj(one).numpy() for one in encoded]
    found = read_transducer(frames, steps, FRAME)
    assert sum(len(readings[0].tokens) for readings in wanted) > 20
    for mine, theirs in zip(found, wanted, strict=True):
        same(mine[0], theirs[0], close=1e-4)


def test_what_is_no_number_is_no_silence(head: TransducerHead) -> None:
    (_, values, _) = utterances()
    values[5, 3] = np.nan
    with pytest.raises(SearchError, match="not numbers") as caught:
        greedy_reading(values, FRAME)
    assert "diverged" in caught.value.mend
    with pytest.raises(SearchError, match=r"stream from 0.0 s on.* not numbers"):
        CtcGreedyStream(lambda frames: frames, FRAME).advance(values.astype(np.float64))
    engines = HeadSteps(head)
    steps = TransducerSteps(engines.decoder, engines.joiner, 2)  # type: ignore[arg-type]
    frames = np.zeros((4, 12), np.float32)
    frames[2] = np.nan
    with pytest.raises(SearchError, match="not numbers"):
        read_transducer([frames], steps, FRAME)


def test_answers_of_the_decoder_are_kept_by_threads_beside_each_other(
    head: TransducerHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one thread asks the decoder, another drops what both have kept."""
    monkeypatch.setattr("firstwords.export.runtime_search._KEPT", 3)
    engines, asked = HeadSteps(head), Event()

    def decoder(tokens: np.ndarray) -> list[np.ndarray]:
        if not asked.is_set():
            asked.set()
            with ThreadPoolExecutor(1) as other:
                other.submit(steps.after, [(3, 3), (4, 4), (5, 5)]).result(timeout=10)
        return engines.decoder(tokens)

    steps = TransducerSteps(engines.decoder, engines.joiner, 2)  # type: ignore[arg-type]
    wanted = steps.after([(1, 1), (2, 2)])
    steps._decoder = decoder  # type: ignore[assignment]
    steps._known = {key: steps._known[key] for key in [(1, 1)]}
    np.testing.assert_allclose(steps.after([(1, 1), (2, 2)]), wanted, atol=1e-6)


@pytest.mark.parametrize("chunk", [1, 7, 50])
def test_a_transducer_stream_is_the_whole_in_pieces(head: TransducerHead, chunk: int) -> None:
    frames = head.joiner.encoder_proj(3 * torch.randn(83, 10, generator=torch.Generator().manual_seed(2)))
    values = frames.detach().numpy()
    engines = HeadSteps(head)
    context = head.predictor.context  # type: ignore[union-attr]
    steps = TransducerSteps(engines.decoder, engines.joiner, context)  # type: ignore[arg-type]
    ((whole,),) = read_transducer([values], steps, FRAME)
    stream = TransducerStream(steps, FRAME)
    handed: list[Hypothesis] = []
    for at in range(0, len(values), chunk):
        stream.advance(values[at : at + chunk])
        if len(stream.best().tokens) > 6:
            handed.append(stream.commit(5))
    handed.append(stream.commit(len(stream.best().tokens)))
    assert len(handed) > 1
    assert tuple(token for part in handed for token in part.tokens) == whole.tokens
    assert tuple(time for part in handed for time in part.times or ()) == whole.times
    assert sum(part.score for part in handed) == pytest.approx(whole.score, abs=1e-4)


def test_safetensors_are_read_as_their_package_reads_them() -> None:
    from safetensors.numpy import load, save

    tensors = {"a": np.arange(6, dtype=np.int64).reshape(2, 3), "b": np.ones(0, np.float32)}
    content = save(tensors, metadata={"x": "y"})
    found, remarks = parse_tensors(content)
    assert remarks == {"x": "y"}
    for name, value in load(content).items():
        np.testing.assert_array_equal(found[name], value)
    for broken in (
        b"",
        content[:6],
        content[:-1],
        content + b"\0",
        b"\xff" * 40,
        content.replace(b"I64", b"I65"),
    ):
        with pytest.raises(ValueError):
            parse_tensors(broken)
