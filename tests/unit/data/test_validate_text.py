"""Every rule about text finds the defect that was planted, and leaves legitimate spelling alone."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clean_corpus import found, with_changed
from firstwords.data import rules_corpus, rules_text
from firstwords.data.manifest import Corpus, Utterance
from firstwords.data.rules import Evidence
from firstwords.data.validate import RULE, alphabet, check

TEXTS: dict[str, tuple[str, Callable[[str], str | None]]] = {
    "no text": ("text-missing", lambda t: None),
    "empty": ("text-empty", lambda t: "  "),
    "only marks": ("text-empty", lambda t: "-- ..."),
    "lost character": ("text-garbled", lambda t: t.replace("a", "\ufffd", 1)),
    "mojibake": ("text-garbled", lambda t: t + " habarÃ\u00ad â€™"),
    "mojibake of Yoruba": ("text-garbled", lambda t: t + " " + "ọmọ".encode().decode("latin-1")),
    "bidi override": ("text-controls", lambda t: "\u202e" + t),
    "zero width space": ("text-controls", lambda t: t.replace(" ", "\u200b ", 1)),
    "rare letter": ("text-rare-characters", lambda t: t + " maðji"),
    "Cyrillic a": ("text-mixed-scripts", lambda t: t.replace("a", "а", 1)),
    "Greek nu": ("text-mixed-scripts", lambda t: t + " νyumba"),
    "Cyrillic word": ("text-look-alikes", lambda t: t + " сор"),
    "curly apostrophe": ("text-look-alikes", lambda t: t + " ng’ombe"),
    "modifier apostrophe": ("text-look-alikes", lambda t: t + " ngʼombe"),
    "laughter": ("text-markup", lambda t: f"[laughs] {t}"),
    "cough": ("text-markup", lambda t: f"{t} ((cough))"),
    "unknown word": ("text-markup", lambda t: f"{t} <unk>"),
    "noise": ("text-markup", lambda t: f"{{noise}} {t}"),
    "not understood": ("text-markup", lambda t: f"{t} xxx."),
    "asterisk": ("text-markup", lambda t: f"* {t}"),
    "figures": ("text-digits", lambda t: t + " 13"),
    "too much text": ("text-too-long", lambda t: " ".join([t] * 4)),
    "far too much text": ("frames-fewer-than-tokens", lambda t: " ".join([t] * 4)),
    "too little text": ("text-too-short", lambda t: "ua"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_planted_text_defects_are_found(name: str, clean: Corpus) -> None:
    rule, spoil = TEXTS[name]
    victim = clean.utterances[12]
    planted = replace(victim, text=spoil(victim.text or ""))
    result = check(with_changed(clean, planted), fast=True)
    assert found(result, rule) == {victim.id}
    assert {f.utterance for f in result.findings} == {victim.id}
    if RULE[rule].severity == "quarantine":
        assert rule in result.quarantine[victim.id]


def test_mixed_normal_forms_blame_the_rarer(clean: Corpus) -> None:
    texts = ["ọ̀rọ̀ àti ẹ̀kọ́"] * 30
    group = [replace(u, text=t, language="yo") for u, t in zip(clean.utterances, texts, strict=False)]
    group[4] = replace(group[4], text=unicodedata.normalize("NFD", texts[4]))
    group[5] = replace(group[5], text=texts[4] + unicodedata.normalize("NFD", texts[4]))
    evidence = Evidence(tuple(group), {}, decoded=False)
    hits = dict(rules_text.text_mixed_forms(evidence))
    assert set(hits) == {group[4].id, group[5].id}
    assert "NFD" in hits[group[4].id]
    assert "partly" in hits[group[5].id]


def spoken(texts: Sequence[str], language: str | None = None) -> Evidence:
    utterances = [
        Utterance(id=str(k), audio=Path(f"{k}.wav"), duration=2.0, text=t, language=language)
        for k, t in enumerate(texts)
    ]
    return Evidence(tuple(utterances), {}, decoded=False)


@pytest.mark.parametrize(
    "texts",
    [
        ["café’s FIANCÉ’S ÄÖ “ok”", "à la Ünïted £5 ± ×2"],  # Latin-1 letters are no mojibake
        ["می‌خواهم کتاب را", "ക്‍ഷ ന്‍"],  # joiners are spelling
        ["XX век и XXI век", "глава IV"],  # Roman numerals are no look-alikes
        ["e-книга и IT-отдел"],  # scripts may meet at a hyphen
        ["oʻzbek soʻm", "maʼno taʼlim"] * 5,  # both are letters of Uzbek: neither is a slip
        ["Tシャツを着る", "日本語とカタカナ"],
        [
            "'quoted words' and 'more of them'",
            "she said ‘no’",
            "“never”",
        ],  # quotation marks are no apostrophes
    ],
)
def test_legitimate_spelling_is_left_alone(texts: list[str]) -> None:
    evidence = spoken(texts)
    for rule in rules_text.RULES:
        if rule.id not in {"text-digits", "text-rare-characters"}:
            assert list(rule.find(evidence)) == [], rule.id


def test_look_alikes_are_judged_within_a_language() -> None:
    russian = [
        Utterance(id=f"r{k}", audio=Path(f"r{k}"), duration=2.0, text="мама мыла", language="ru")
        for k in range(9)
    ]
    swahili = [
        Utterance(id=f"s{k}", audio=Path(f"s{k}"), duration=2.0, text="mama alisema", language="sw")
        for k in range(9)
    ]
    evidence = Evidence((*russian, *swahili), {}, decoded=False)
    assert not list(rules_text.text_look_alikes(evidence))
    assert not list(rules_text.text_mixed_scripts(evidence))


def test_yoruba_underdot_and_line_below_are_look_alikes() -> None:
    evidence = spoken(["ọmọ ẹyẹ"] * 20 + ["o\u0329mo\u0329"])
    hits = dict(rules_text.text_look_alikes(evidence))
    assert set(hits) == {"20"}
    assert "U+0329" in hits["20"]


@given(st.lists(st.text(max_size=30), max_size=8))
def test_no_text_breaks_a_rule(texts: list[str]) -> None:
    evidence = spoken(texts)
    for rule in (*rules_text.RULES, *rules_corpus.RULES[:6]):
        for name, detail in rule.find(evidence):
            assert name in {u.id for u in evidence.utterances}
            assert detail
    assert sum(x.count for x in alphabet(t for t in texts)) >= 0
