"""Which tier an import suggests: that of the transcript, whatever else a field linguist keeps beside it."""

from __future__ import annotations

import pytest

from firstwords.data.corpora.imported import Options
from firstwords.data.corpora.tiers import Annotation, Tier, choose_tiers, note_drafts, voices_of
from firstwords.data.corpora.transcript_tiers import look_of
from firstwords.errors import CorpusError

SAID = ("alisema njoo hapa", "mtoto anakula wali", "ndiyo, kesho asubuhi")
GLOSSED = ("3SG-PST-say come here", "child 3SG-PRS-eat rice", "yes tomorrow morning-LOC")
MORPHS = ("a-li-sema njoo", "m-toto a-na-kula wali", "kesho a-ta-kuja")
NUMBERS = ("talk1.001", "talk1.002", "talk1.003")
MEANT = ("he said come here", "the child eats rice", "yes, tomorrow morning")


def tier(name: str, texts: tuple[str, ...], kind: str = "", parent: str = "", language: str = "") -> Tier:
    found = tuple(Annotation(n, n + 1.0, text, f"annotation {n}") for n, text in enumerate(texts))
    return Tier(name, found, kind=kind, parent=parent, language=language)


CORPORA = {
    "Toolbox": (
        [
            tier("ref@A", NUMBERS, "ref"),
            tier("tx@A", SAID, "tx", "ref@A"),
            tier("mb@A", MORPHS + MORPHS, "mb", "tx@A"),
            tier("ge@A", GLOSSED + GLOSSED, "ge", "mb@A"),
            tier("ps@A", ("v adv", "n v n", "adv") * 3, "ps", "mb@A"),
            tier("ft@A", MEANT, "ft", "ref@A"),
        ],
        "tx@A",
    ),
    "gloss larger": ([tier("Gloss", GLOSSED * 3), tier("Amina", SAID)], "Amina"),
    "speaker and translation": (
        [tier("Amina", SAID, "default-lt"), tier("Amina_FreeTranslation", MEANT * 2, "trad", "Amina")],
        "Amina",
    ),
    "glosses under a name that says nothing": ([tier("row 2", GLOSSED * 2), tier("row 1", SAID)], "row 1"),
    "numbers under such a name": ([tier("A", NUMBERS * 2), tier("B", SAID)], "B"),
    "ref that holds sentences": ([tier("ref", SAID), tier("words", SAID * 3, parent="ref")], "words"),
    "capitals are spelling": ([tier("B", tuple(t.upper() for t in SAID) * 2), tier("A", GLOSSED)], "B"),
    "Praat": ([tier("phones", ("a", "l", "i") * 9), tier("words", SAID)], "words"),
    "our own drafts in Praat": (
        [tier("words", ("njoo", "hapa", "ndiyo") * 4), tier("segments", SAID)],
        "segments",
    ),
    "our own drafts in ELAN": ([tier("firstwords:sw", SAID * 9), tier("row 1", SAID)], "row 1"),
    "sizes decide last": ([tier("A", SAID), tier("B", SAID * 2)], "B"),
}


@pytest.mark.parametrize("corpus", CORPORA)
def test_the_transcript_is_suggested_and_leads_the_list(corpus: str) -> None:
    tiers, best = CORPORA[corpus]
    with pytest.raises(CorpusError) as refused:
        choose_tiers([tiers], Options())
    assert f"for example: --tier '{best}'" in refused.value.mend
    first = refused.value.what.splitlines()[1]
    assert first.strip().startswith(f"{best}: ")
    assert all(t.name in refused.value.what and t.filled[0].text in refused.value.what for t in tiers)


def test_others_are_called_what_they_look_like() -> None:
    tiers, _ = CORPORA["Toolbox"]
    with pytest.raises(CorpusError) as refused:
        choose_tiers([tiers], Options())
    lines = {line.strip().split(":")[0]: line for line in refused.value.what.splitlines()[1:]}
    assert "(looks like glosses)" in lines["ge@A"]
    assert "(looks like a translation)" in lines["ft@A"]
    assert "(looks like numbers of utterances)" in lines["ref@A"]
    assert "looks like" not in lines["tx@A"]


def test_the_tiers_of_all_speakers_are_suggested_together_with_their_type() -> None:
    tiers = [tier("tx@A", SAID, "tx"), tier("tx@B", SAID, "tx"), tier("ft@A", MEANT, "ft")]
    with pytest.raises(CorpusError) as refused:
        choose_tiers([tiers], Options())
    assert refused.value.mend.endswith("for example: --tier 'tx@*' or --tier 'type:tx'")


def test_a_language_that_is_asked_for_decides_among_equals() -> None:
    tiers = [tier("A", SAID, language="swh"), tier("B", MEANT * 2, language="eng")]
    with pytest.raises(CorpusError) as refused:
        choose_tiers([tiers], Options(language="sw"))
    assert "--tier 'A'" in refused.value.mend
    assert "another language (eng)" in refused.value.what
    assert look_of("fra", "", SAID, wanted="fra").score > look_of("eng", "", MEANT, wanted="fra").score


def test_the_usual_type_of_elan_says_nothing() -> None:
    assert look_of("Amina", "default-lt", SAID).otherwise == ""


def test_a_tier_is_a_speaker_only_where_its_name_may_be_one() -> None:
    draft, utt, amina, juma = (tier(name, SAID) for name in ("firstwords:sw", "utt", "Amina", "Juma"))
    tx = tier("Transcription", SAID)
    for files, voices in (
        ([[utt], [draft]], set[str]()),  # recordings of whomever, some drafted
        ([[amina], [juma]], {"Amina", "Juma"}),
        ([[amina, draft], [juma]], {"Amina", "Juma"}),
        ([[utt], [tx]], set[str]()),  # two customs of one project
        ([[utt, tx], [utt]], {"utt", "Transcription"}),  # beside each other: two people
        ([[utt, tier("Transcription", ())], [tx]], set[str]()),
        ([[amina]], set[str]()),
    ):
        names = {t.name for file in files for t in file}
        assert voices_of(files, names) == voices


def test_drafts_among_what_was_chosen_are_told() -> None:
    draft, utt = tier("firstwords:sw", SAID), tier("utt", SAID)
    assert note_drafts([[utt], [draft]], {"utt"}) == ""
    assert note_drafts([[utt], [utt]], {"utt", "firstwords:sw"}) == ""
    apart = note_drafts([[utt], [draft]], {"utt", "firstwords:sw"})
    assert apart.startswith("3 annotations in 1 files are of tiers that 'firstwords transcribe' wrote")
    assert "twice" not in apart
    assert "In 1 of these files" in note_drafts([[utt, draft], [draft]], {"utt", "firstwords:sw"})
