"""ARPA: equal to KenLM's scores, whole after a round trip, and every fault with its line."""

from __future__ import annotations

import gzip
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from firstwords.errors import TextError
from firstwords.lm.language_model import NgramHeader, NgramLanguageModel
from firstwords.lm.ngram import SPECIAL, Level, NgramModel
from firstwords.lm.ngram_arpa import read_arpa, unigram_mass, write_arpa
from firstwords.lm.ngram_text import Line, splitter
from firstwords.lm.perplexity import measure_perplexity, score_sentences
from firstwords.lm.writing import word_check
from small_ngrams import draw_text, estimate, prob, train

DATA = Path(__file__).parents[2] / "golden" / "data"
SMALL = r"""\data\
ngram 1=5
ngram 2=3
ngram 3=1

\1-grams:
-1.0	<unk>
-99	<s>	-0.5
-0.7	</s>
-0.6	a	-0.4
-0.9	b	-0.3

\2-grams:
-0.2	<s> a	-0.1
-0.5	a b	-0.2
-0.3	b </s>

\3-grams:
-0.1	<s> a b

\end\
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_equals_kenlm() -> None:
    """Word by word, the end and unknown words; 1e-5 is float32 on both sides."""
    model = read_arpa(DATA / "kenlm_small.arpa")
    lm = NgramLanguageModel(NgramHeader(unit="word", order=4, normalizer="none"), model)
    golden = json.loads((DATA / "kenlm_small.json").read_text(encoding="utf-8"))
    assert any(any(case["unknown"]) for case in golden)
    for case in golden:
        ids = model.word_ids(case["text"].split())
        assert (model.sentence(ids) / math.log(10)).tolist() == pytest.approx(case["log10"], abs=1e-5)
        assert [*(ids == 0), False] == case["unknown"]
        if case["text"]:
            found = measure_perplexity(lm, [Line(case["text"], "", 0)])
            assert found.perplexity == pytest.approx(case["perplexity"], rel=1e-5)
            assert found.unknown == sum(case["unknown"])
    together = score_sentences(model, [model.word_ids(case["text"].split()) for case in golden])
    for case, scores in zip(golden, together, strict=True):
        assert (scores / math.log(10)).tolist() == pytest.approx(case["log10"], abs=1e-5)


def test_estimates_read_by_kenlm_score_the_same(tmp_path: Path) -> None:
    """Runs where kenlm is installed; the golden values above stand in for it elsewhere."""
    kenlm = pytest.importorskip("kenlm")
    text = draw_text(3, "abcdefg", 80)
    model = estimate(text, 4, [0, 0, 1, 1]).model
    write_arpa(tmp_path / "x.arpa", model)
    theirs = kenlm.Model(str(tmp_path / "x.arpa"))
    for sentence in [*draw_text(4, "abcdefgxyz", 40), ""]:
        want = [score for score, _, _ in theirs.full_scores(sentence)]
        found = model.sentence(model.word_ids(sentence.split())) / math.log(10)
        assert found.tolist() == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize("name", ["x.arpa", "x.arpa.gz"])
def test_round_trip(tmp_path: Path, name: str) -> None:
    model = estimate(draw_text(1, "abcdé", 50), 4, [0, 0, 1]).model
    write_arpa(tmp_path / name, model)
    again = read_arpa(tmp_path / name)
    assert again.words == model.words
    assert again.counts == model.counts
    assert np.array_equal(again.parent, model.parent)
    assert np.array_equal(again.word, model.word)
    np.testing.assert_allclose(again.log_prob, model.log_prob, atol=1e-6)
    np.testing.assert_allclose(again.backoff, model.backoff, atol=1e-6)
    write_arpa(tmp_path / f"2{name}", model)
    assert (tmp_path / name).read_bytes() == (tmp_path / f"2{name}").read_bytes()
    if name.endswith(".gz"):
        assert gzip.decompress((tmp_path / name).read_bytes()).startswith(b"\\data\\\n")


def log10(model: NgramModel, context: str, word: str) -> float:
    return math.log10(prob(model, context.split(), word))


def test_weights_are_those_of_the_file(tmp_path: Path) -> None:
    model = read_arpa(write(tmp_path / "x.arpa", SMALL))
    assert log10(model, "<s> a", "b") == pytest.approx(-0.1, abs=1e-6)
    assert log10(model, "b a", "b") == pytest.approx(-0.5, abs=1e-6)
    assert log10(model, "<s> a", "a") == pytest.approx(-0.1 - 0.4 - 0.6, abs=1e-6)
    assert log10(model, "<s> a b", "</s>") == pytest.approx(-0.2 - 0.3, abs=1e-6)  # backoff of a b
    assert log10(model, "a", "never") == pytest.approx(-0.4 - 1.0, abs=1e-6)


def test_unknown_may_be_missing_or_in_capitals(tmp_path: Path) -> None:
    missing = SMALL.replace("-1.0\t<unk>\n", "").replace("1=5", "1=4")
    assert log10(read_arpa(write(tmp_path / "x.arpa", missing)), "", "x") == pytest.approx(-100, abs=1e-4)
    capitals = SMALL.replace("<unk>", "<UNK>")
    assert log10(read_arpa(write(tmp_path / "y.arpa", capitals)), "", "x") == pytest.approx(-1, abs=1e-6)


def test_contexts_that_were_pruned_away_change_nothing(tmp_path: Path) -> None:
    """SRILM leaves out "b a" and keeps "b a b"; put in, it has the weight of backing off."""
    text = SMALL.replace("-0.1\t<s> a b\n", "-0.15\tb a b\n-0.1\t<s> a b\n").replace("3=1", "3=2")
    model = read_arpa(write(tmp_path / "x.arpa", text))
    assert log10(model, "b a", "b") == pytest.approx(-0.15, abs=1e-6)
    assert log10(model, "b", "a") == pytest.approx(-0.3 - 0.6, abs=1e-6)
    assert log10(model, "b a", "a") == pytest.approx(-0.4 - 0.6, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "to", "line", "says"),
    [
        ("\\data\\", "hello", 1, "no ARPA file"),
        ("ngram 2=3\n", "", 3, "3-grams stands where that of 2-grams belongs: an order is missing"),
        ("ngram 2=3", "ngram two=3", 3, "expected 'ngram 2=COUNT'"),
        ("-0.2\t<s> a\t-0.1\n-0.5\ta b\t-0.2\n-0.3\tb </s>\n", "", 15, "0 2-grams, but the head"),
        ("\\2-grams:\n-0.2\t<s> a\t-0.1\n-0.5\ta b\t-0.2\n-0.3\tb </s>\n", "", 14, "2-grams are missing"),
        ("\\2-grams:", "\\4-grams:", 13, "2-grams are missing"),
        ("-0.5\ta b\t-0.2\n", "", 17, "2 2-grams, but the head of the file counts 3"),
        ("-0.5\ta b", "nan\ta b", 15, "log10 probability is nan, which is not finite"),
        ("a b\t-0.2", "a b\t-inf", 15, "backoff is -inf, which is not finite"),
        ("a b\t-0.2", "a b\t1e300", 15, "backoff is 1e300, which is too large"),
        ("a b\t-0.2", "a b\t-1e39", 15, "backoff is -1e39, which is too large"),
        ("a b\t-0.2", "a b\t150", 15, "backoff is 150: a probability times 10 to that power is none"),
        ("-0.5\ta b", "-1e39\ta b", 15, "log10 probability is -1e39, which is too large"),
        ("-0.9\tb", "-0.9\t \u0301", 11, "the word ' \u0301' holds a space"),
        ("-0.5\ta b", "-0.5\ta  \u0301", 15, "the word ' \u0301' holds a space"),
        ("-0.5\ta b", "0.5\ta b", 15, "above 0"),
        ("-0.5\ta b", "x\ta b", 15, "expected a log10 probability, found 'x'"),
        ("a b\t-0.2", "a c\t-0.2", 15, "'c' is none of the unigrams"),
        ("-0.5\ta b\t-0.2", "-0.5\ta b c d", 15, "found '-0.5\\ta b c d'"),
        ("-0.5\ta b\t-0.2", "-0.5\ta", 15, "a 2-gram reads 'log10 P', 2 words, backoff"),
        ("<s> a b", "<s> a b\t-0.2", 19, "a 3-gram reads 'log10 P', 3 words; found"),
        ("-0.5\ta b", "-0.5\t<s> a", 15, "stands in line 14 already"),
        ("-0.9\tb", "-0.9\ta", 11, "'a' stands among the unigrams already"),
        ("-0.7\t</s>\n", "-0.7\tz\n", 13, "have no </s>"),
        ("-99\t<s>\t-0.5\n", "-99\tz\t-0.5\n", 13, "have no <s>"),
        ("\n\\end\\\n", "", 19, "the file ends"),
    ],
)
def test_faults_are_named_with_their_line(tmp_path: Path, change: str, to: str, line: int, says: str) -> None:
    assert change in SMALL
    path = write(tmp_path / "bad.arpa", SMALL.replace(change, to, 1))
    with pytest.raises(TextError, match=rf"^line {line} of '.*bad\.arpa': .*{re.escape(says)}"):
        read_arpa(path)


def test_backoffs_above_0_are_in_order(tmp_path: Path) -> None:
    """Katz smoothing (SRILM) gives such where what is seen after a context is rarely seen elsewhere."""
    model = read_arpa(write(tmp_path / "x.arpa", SMALL.replace("a b\t-0.2", "a b\t0.2")))
    assert log10(model, "a b", "a") == pytest.approx(0.2 - 0.3 - 0.6, abs=1e-6)


def test_a_mark_on_a_space_is_two_letters(tmp_path: Path) -> None:
    """As the recogniser's tokenizer has it; as one it would be two words of the file, or another one."""
    text = "a \u0301b"
    assert splitter("char")(text) == ["a", "\u2581", "\u0301", "b"]
    assert splitter("char")("\u0600 a\r\n") == ["\u0600", "\u2581", "a", "\u2581"]
    model = train([text, "ab"], "char", 3).model
    write_arpa(tmp_path / "x.arpa", model)
    again = read_arpa(tmp_path / "x.arpa")
    assert set(again.words) == set(model.words)
    old = NgramModel([*SPECIAL, " \u0301"], [Level(*(values[:4] for values in model.level(1)))])
    with pytest.raises(TextError, match="holds white space"):
        write_arpa(tmp_path / "old.arpa", old)
    assert not (tmp_path / "old.arpa").exists()


@pytest.mark.parametrize(
    "other",
    [
        SMALL.encode("utf-8-sig"),
        b"# made by a tool\n\n" + SMALL.encode(),
        b"####\r\nCopyright (c) 1996\r\nThis is a 3-gram model\r\n" + SMALL.replace("\n", "\r\n").encode(),
        SMALL.replace("<s> a b\n", "<s> a b\t0\n").encode(),
        SMALL.replace("<s> a b\n", "<s> a b -0.0\n").encode(),
        gzip.compress(SMALL.encode()),
    ],
    ids=["byte-order mark", "remark", "head of CMU's tools", "backoff 0", "backoff -0.0", "gzip"],
)
@pytest.mark.parametrize("name", ["x.arpa", "x.arpa.gz"])
def test_files_as_other_tools_write_them(tmp_path: Path, other: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(other)
    model, same = read_arpa(path), read_arpa(write(tmp_path / "small.arpa", SMALL))
    assert model.words == same.words
    assert model.log_prob.tolist() == same.log_prob.tolist()
    assert model.backoff.tolist() == same.backoff.tolist()


def test_what_has_no_data_at_all_is_named_by_its_first_line(tmp_path: Path) -> None:
    for number, text in ((2, "\nhello\nworld\n"), (1, "hello\n" * 5000)):
        path = write(tmp_path / "x.arpa", text)
        with pytest.raises(TextError, match=rf"^line {number} of .* found 'hello'; this is no ARPA file"):
            read_arpa(path)


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.arpa"
    path.write_bytes(SMALL.encode().replace(b"-0.9\tb", b"-0.9\t\xff"))
    with pytest.raises(TextError, match=r"line 11 .* is not UTF-8"):
        read_arpa(path)
    whole = gzip.compress(SMALL.encode())
    (tmp_path / "cut.arpa.gz").write_bytes(whole[:-20])
    with pytest.raises(TextError, match="no whole gzip file"):
        read_arpa(tmp_path / "cut.arpa.gz")
    with pytest.raises(TextError, match="cannot be read"):
        read_arpa(tmp_path / "nowhere.arpa")
    path.write_bytes(SMALL.encode("utf-16"))
    with pytest.raises(TextError, match=r"line 1 .* is not UTF-8, but UTF-16"):
        read_arpa(path)
    path.write_bytes(b"")
    with pytest.raises(TextError, match=r"x\.arpa' is empty"):
        read_arpa(path)


def test_unigrams_add_up_to_one_in_logarithms_to_base_ten_alone(tmp_path: Path) -> None:
    """0.25 each of </s>, a, b and <unk>; as natural logarithms 4 * 0.25 ** ln 10 = 0.164."""
    whole = "".join(f"{{0}}\t{word}\n" for word in ("</s>", "a", "b", "<unk>"))
    text = f"\\data\\\nngram 1=5\n\n\\1-grams:\n-99\t<s>\n{whole}\n\\end\\\n"
    for base, mass in ((10, 1.0), (math.e, 4 * 0.25 ** math.log(10))):
        path = write(tmp_path / "x.arpa", text.format(math.log(0.25, base)))
        assert unigram_mass(read_arpa(path)) == pytest.approx(mass, rel=1e-6)


@pytest.mark.parametrize(
    ("header", "word", "says"),
    [
        (NgramHeader(unit="word", order=3), "B", "'B' is not text of normalizer 'default'"),
        (NgramHeader(unit="char", order=3), "bb", "more than one letter"),
        (NgramHeader(unit="char", order=3), "!", "'!' is not text of normalizer"),
    ],
)
def test_another_vocabulary_or_normalization_is_named_with_its_line(
    tmp_path: Path, header: NgramHeader, word: str, says: str
) -> None:
    text = re.sub(r"(?<=[\t ])b(?=[\s])", word, SMALL)
    path = write(tmp_path / "x.arpa", text)
    read_arpa(path)
    with pytest.raises(TextError, match=rf"line 11 .*{re.escape(says)}"):
        read_arpa(path, check_word=word_check(header.unit, header.normalizer))
